//! What is shared: a value under a key, with its version and its deadlines.
//! Pure data and arithmetic; knows no store, no PHP and no clock.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use crate::clock::{Moment, WallTime};

/// A fencing version: greater means minted under a later lease. Microseconds of the store's clock
/// at the least, so it stays below 2^53 (exact in Lua) until the year 2255. Zero is "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

impl Version {
    pub const NONE: Self = Self(0);
    /// Of what was read from a file of this host. Below all that a store ever issued, so anything
    /// replaces it, and it is given to no store.
    pub const FILE: Self = Self(1);
    /// Lua counts exactly up to 2^53; what is left above is for the next ones.
    const LAST: Self = Self((1 << 53) - (1 << 32));

    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The last that can have been issued when a clock shows this. Versions are microseconds, so one
    /// that is a year ahead was not issued by us; believed it would end a key for good.
    pub fn latest(wall: WallTime) -> Self {
        const YEAR: u64 = 365 * 86_400 * 1_000_000;
        Self(wall.unix_micros().saturating_add(YEAR)).min(Self::LAST)
    }

    /// Nothing where it lies beyond `latest`.
    pub fn believed(self, latest: Self) -> Self {
        if self <= latest { self } else { Self::NONE }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// First eight bytes of the SHA-256 of a token, never zero: enough to say "this very token",
/// useless to anyone who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    pub fn of(value: &[u8]) -> Self {
        let hash = Sha256::digest(value);
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        Self(u64::from_be_bytes(first).max(1))
    }

    /// `None` for zero, which stands for "no digest" in shared memory and in Redis.
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What kind of value a key names. The two never meet: the kind is part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Token,
    Sheet,
    /// How many calls a source of sheets had in a month.
    Quota,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Token, Self::Sheet, Self::Quota];

    pub fn of(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.letter() == letter)
    }

    const fn letter(self) -> u8 {
        match self {
            Self::Token => b't',
            Self::Sheet => b's',
            Self::Quota => b'q',
        }
    }
}

/// 128 bits of SHA-256 over everything that makes two tokens of one name differ (scope, audience…).
/// All zero when no fingerprint was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fingerprint([u8; 16]);

impl Fingerprint {
    /// `canonical` is one unambiguous byte string: equal bytes, equal entry.
    pub fn of(canonical: &[u8]) -> Self {
        let hash = Sha256::digest(canonical);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash[..16]);
        Self(bytes)
    }
}

/// The longest name, in bytes.
pub const MAX_NAME: usize = 200;

/// Kind, fingerprint and name in one canonical byte string, with its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    bytes: Box<[u8]>,
    hash: u64,
}

impl Key {
    /// What comes before the name in [`Key::bytes`].
    pub const PREFIX: usize = 17;

    /// `Err` says in words what is wrong with the name.
    pub fn new(kind: Kind, name: &[u8], fingerprint: Fingerprint) -> Result<Self, String> {
        if name.is_empty() {
            return Err("must not be empty".into());
        }
        if name.len() > MAX_NAME {
            return Err(format!("must be at most {MAX_NAME} bytes long, {} given", name.len()));
        }
        if let Some(at) = name.iter().position(u8::is_ascii_control) {
            return Err(format!("must not contain control characters, byte {at} is one"));
        }
        let mut bytes = Vec::with_capacity(Self::PREFIX + name.len());
        bytes.push(kind.letter());
        bytes.extend_from_slice(&fingerprint.0);
        bytes.extend_from_slice(name);
        let hash = xxh3_64(&bytes);
        Ok(Self { bytes: bytes.into(), hash })
    }

    /// The key whose [`Key::text`] or [`Key::bytes`] these are.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (kind, fingerprint, name) = (parts.next()?, parts.next()?, parts.next()?);
        let [letter] = kind.as_bytes() else { return None };
        let kind = Kind::of(*letter)?;
        let mut bytes = [0; 16];
        if fingerprint != "-" {
            let number = u128::from_str_radix(fingerprint, 16).ok()?;
            bytes = number.to_be_bytes();
        }
        let name: Vec<u8> = percent_decode_str(name).collect();
        Self::new(kind, &name, Fingerprint(bytes)).ok().filter(|key| key.text() == text)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, name) = bytes.split_at_checked(Self::PREFIX)?;
        let kind = Kind::of(head[0])?;
        let fingerprint = Fingerprint(head[1..].try_into().ok()?);
        Self::new(kind, name, fingerprint).ok()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn kind(&self) -> Kind {
        // A key begins with the letter of its kind; there is no other way to make one.
        Kind::of(self.bytes[0]).unwrap_or(Kind::Token)
    }

    pub fn name(&self) -> &[u8] {
        &self.bytes[Self::PREFIX..]
    }

    /// For a sentence: what it is, and its name as far as that is text.
    pub fn shown(&self) -> String {
        let name = String::from_utf8_lossy(self.name());
        match self.kind() {
            Kind::Token => format!("token \"{name}\""),
            Kind::Sheet => format!("rate sheet \"{name}\""),
            Kind::Quota => format!("quota of \"{name}\""),
        }
    }

    /// `None` where there is none.
    pub fn fingerprint(&self) -> Option<&[u8]> {
        let bytes = &self.bytes[1..Self::PREFIX];
        bytes.iter().any(|byte| *byte != 0).then_some(bytes)
    }

    /// The key as printable text, injective: `t:<fingerprint or ->:<name, percent-encoded>`.
    /// Braces are encoded, so a name can never form a Redis hash tag.
    pub fn text(&self) -> String {
        const PLAIN: AsciiSet =
            NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':').remove(b'/');
        let fingerprint = &self.bytes[1..Self::PREFIX];
        let mut text = String::with_capacity(self.bytes.len() + 24);
        text.push(char::from(self.bytes[0]));
        text.push(':');
        if fingerprint.iter().all(|byte| *byte == 0) {
            text.push('-');
        } else {
            for byte in fingerprint {
                text.push_str(&format!("{byte:02x}"));
            }
        }
        text.push(':');
        text.extend(percent_encode(self.name(), &PLAIN));
        text
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Debug shows the name; a key holds no secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// The four instants of an entry's life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Taken **before** the callable runs: a slow issuer shortens the lifetime, never stretches it.
    pub minted_at: Moment,
    /// From here on one process renews while the others are served.
    pub refresh_at: Moment,
    /// A token is served until here, its safety margin before `expires_at`; a rate is stale after.
    pub usable_until: Moment,
    /// Nothing is served after this.
    pub expires_at: Moment,
}

/// How a token's lifetime is cut up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenPolicy {
    pub margin: Duration,
    /// Share of the usable life after which it is renewed; 0 < ratio < 1.
    pub refresh_ratio: f64,
}

/// How long a sheet of rates may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SheetPolicy {
    pub interval: Duration,
    /// More than two intervals.
    pub max_stale: Duration,
}

impl Timing {
    /// `m = min(margin, 20 % of the lifetime)`: with a naive 60 s margin a 60 s token could never
    /// be cached, and a 300 s one would never renew early. The flag says the margin was cut.
    pub fn token(minted_at: Moment, lifetime: Duration, policy: TokenPolicy) -> (Self, bool) {
        let margin = policy.margin.min(lifetime / 5);
        let usable = lifetime.saturating_sub(margin);
        let timing = Self {
            minted_at,
            refresh_at: minted_at.plus(usable.mul_f64(policy.refresh_ratio.clamp(0.0, 1.0))),
            usable_until: minted_at.plus(usable),
            expires_at: minted_at.plus(lifetime),
        };
        (timing, margin < policy.margin)
    }

    /// Of what has ended, whenever that was.
    pub const fn over(now: Moment) -> Self {
        Self { minted_at: now, refresh_at: now, usable_until: now, expires_at: now }
    }

    /// The earlier of each instant.
    pub fn earlier(self, other: Self) -> Self {
        Self {
            minted_at: self.minted_at.min(other.minted_at),
            refresh_at: self.refresh_at.min(other.refresh_at),
            usable_until: self.usable_until.min(other.usable_until),
            expires_at: self.expires_at.min(other.expires_at),
        }
    }

    /// As a host has it that did not mint it: renewed later, by a tenth to a half of what is left
    /// of its usable life then. The minter's host goes first and the others hear of it before they
    /// have asked; should it be gone, they do not all ask at once. `share` lies in 0..=1.
    pub fn spread(self, share: f64) -> Self {
        let left = self.refresh_at.until(self.usable_until);
        let later = left.mul_f64(0.1 + 0.4 * share.clamp(0.0, 1.0));
        Self { refresh_at: self.refresh_at.plus(later), ..self }
    }

    /// A sheet is due one interval after a source was asked and stale two after one confirmed it.
    /// It is gone `max_stale` after a source answered: one whose newest sheet is held back as
    /// suspicious is alive, and a false alarm must not end the rates. The two instants differ only
    /// then; `refresh_at` may lie after `usable_until`.
    pub fn sheet(confirmed_at: Moment, asked_at: Moment, policy: SheetPolicy) -> Self {
        Self {
            minted_at: confirmed_at,
            refresh_at: asked_at.plus(policy.interval),
            usable_until: confirmed_at.plus(policy.interval * 2),
            expires_at: asked_at.plus(policy.max_stale),
        }
    }

    /// Of a sheet, which is stale after two.
    pub fn interval(&self) -> Duration {
        self.minted_at.until(self.usable_until) / 2
    }

    /// Whether a sheet is older than it should be.
    pub fn is_stale(&self, now: Moment) -> bool {
        now >= self.usable_until
    }
}

/// What may be done with an entry now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// Serve it; one process renews.
    RefreshDue,
    /// A rate may still be served and says so. A token never gets here: it is `Gone`.
    Stale,
    Gone,
}

impl Freshness {
    /// As it is told.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::RefreshDue => "refresh_due",
            Self::Stale => "stale",
            Self::Gone => "gone",
        }
    }
}

/// Who made an entry and what else came with it. Stored as JSON; fields of a newer release are
/// kept and handed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Detail {
    #[serde(default)]
    pub source: String,
    #[serde(default)]
    pub minted_by: MintedBy,
    /// Fields of the token response that the application asked to keep.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub kept: serde_json::Map<String, serde_json::Value>,
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MintedBy {
    #[serde(default)]
    pub host: String,
    #[serde(default)]
    pub sapi: String,
    #[serde(default)]
    pub script: String,
}

/// A value with its version and deadlines.
#[derive(Clone, PartialEq)]
pub struct Entry {
    pub version: Version,
    pub timing: Timing,
    /// Minted while Redis could not be asked; written back when it can.
    pub unsynced: bool,
    pub value: Zeroizing<Vec<u8>>,
    /// [`Detail`] as JSON; parsed only when somebody asks.
    pub detail: Zeroizing<Vec<u8>>,
}

/// Never shows the value: a `{:?}` in a log line must not leak a token.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("version", &self.version)
            .field("timing", &self.timing)
            .field("unsynced", &self.unsynced)
            .field("bytes", &self.value.len())
            .finish()
    }
}

impl Entry {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.value)
    }

    /// In bytes, with what is kept beside the value.
    pub fn size(&self) -> usize {
        self.value.len() + self.detail.len()
    }

    pub fn freshness(&self, kind: Kind, now: Moment) -> Freshness {
        freshness(&self.timing, kind, now)
    }

    pub fn servable(&self, kind: Kind, now: Moment) -> bool {
        now < servable_until(&self.timing, kind)
    }

    pub fn parsed_detail(&self) -> Detail {
        serde_json::from_slice(&self.detail).unwrap_or_default()
    }
}

pub fn freshness(timing: &Timing, kind: Kind, now: Moment) -> Freshness {
    if now >= servable_until(timing, kind) {
        Freshness::Gone
    } else if now < timing.refresh_at {
        Freshness::Fresh
    } else if now < timing.usable_until {
        Freshness::RefreshDue
    } else {
        Freshness::Stale
    }
}

pub fn servable_until(timing: &Timing, kind: Kind) -> Moment {
    match kind {
        Kind::Token => timing.usable_until,
        Kind::Sheet | Kind::Quota => timing.expires_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: TokenPolicy =
        TokenPolicy { margin: Duration::from_secs(60), refresh_ratio: 0.8 };

    #[test]
    fn every_lifetime_is_cached_and_renews_early_with_default_settings() {
        for seconds in [5, 30, 60, 120, 300, 3600] {
            let lifetime = Duration::from_secs(seconds);
            let (t, _) = Timing::token(Moment::from_millis(0), lifetime, DEFAULTS);
            assert!(t.minted_at < t.refresh_at, "{seconds} s is cached");
            assert!(t.refresh_at < t.usable_until, "{seconds} s renews early");
            assert!(t.usable_until < t.expires_at, "{seconds} s keeps a margin");
        }
    }

    #[test]
    fn who_did_not_mint_renews_later_and_in_time() {
        let minute = Duration::from_secs(60);
        for lifetime in [2, 5, 60, 3600, 86_400] {
            let (own, _) = Timing::token(Moment::default(), minute * lifetime, DEFAULTS);
            let [first, last] = [0.0, 1.0].map(|share| own.spread(share).refresh_at);
            assert!(own.refresh_at < first && first < last && last < own.usable_until);
        }
    }

    #[test]
    fn a_margin_is_cut_to_a_fifth_of_a_short_lifetime_and_says_so() {
        let (t, cut) = Timing::token(Moment::from_millis(0), Duration::from_secs(60), DEFAULTS);
        assert!(cut);
        assert_eq!(t.usable_until, Moment::from_millis(48_000));
        let (t, cut) = Timing::token(Moment::from_millis(0), Duration::from_secs(3600), DEFAULTS);
        assert!(!cut);
        assert_eq!(t.usable_until, Moment::from_millis(3_540_000));
    }

    #[test]
    fn a_token_is_never_stale_and_a_sheet_may_be() {
        let timing = Timing {
            minted_at: Moment::from_millis(0),
            refresh_at: Moment::from_millis(10),
            usable_until: Moment::from_millis(20),
            expires_at: Moment::from_millis(30),
        };
        let at = |kind, ms| freshness(&timing, kind, Moment::from_millis(ms));
        assert_eq!(at(Kind::Token, 9), Freshness::Fresh);
        assert_eq!(at(Kind::Token, 10), Freshness::RefreshDue);
        assert_eq!(at(Kind::Token, 20), Freshness::Gone);
        assert_eq!(at(Kind::Sheet, 20), Freshness::Stale);
        assert_eq!(at(Kind::Sheet, 30), Freshness::Gone);
    }

    #[test]
    fn same_name_with_another_fingerprint_or_kind_is_another_key() {
        let plain = Key::new(Kind::Token, b"crm", Fingerprint::default()).unwrap();
        let scoped = Key::new(Kind::Token, b"crm", Fingerprint::of(b"scope=read")).unwrap();
        let sheet = Key::new(Kind::Sheet, b"crm", Fingerprint::default()).unwrap();
        assert_ne!(plain, scoped);
        assert_ne!(plain, sheet);
        assert_ne!(plain.text(), scoped.text());
        assert_ne!(plain.text(), sheet.text());
    }

    #[test]
    fn text_is_injective_and_carries_no_braces() {
        let key = |name: &[u8]| Key::new(Kind::Token, name, Fingerprint::default()).unwrap().text();
        assert_eq!(key(b"crm:eu"), "t:-:crm:eu");
        assert_eq!(key(b"{a}"), "t:-:%7Ba%7D");
        assert_ne!(key(b"%7B"), key(b"{"));
        assert_ne!(key("é".as_bytes()), key(b"\xe9"));
    }

    #[test]
    fn a_key_comes_back_from_its_text_and_from_its_bytes() {
        for (kind, name, fingerprint) in [
            (Kind::Token, &b"crm:eu"[..], Fingerprint::default()),
            (Kind::Sheet, &b"{\xc3\xa9}\xff"[..], Fingerprint::of(b"scope")),
            (Kind::Quota, &b"openexchangerates"[..], Fingerprint::default()),
        ] {
            let key = Key::new(kind, name, fingerprint).unwrap();
            assert_eq!(Key::from_text(&key.text()), Some(key.clone()));
            assert_eq!(Key::from_bytes(key.bytes()), Some(key));
        }
        for foreign in ["", "t", "t:-", "x:-:a", "t:zz:a", "t:-:", "t:0:a", "t:-:a%2"] {
            assert_eq!(Key::from_text(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_bad_name_is_refused_in_words() {
        let refuse = |name: &[u8]| Key::new(Kind::Token, name, Fingerprint::default()).unwrap_err();
        assert!(refuse(b"").contains("empty"));
        assert!(refuse(&[b'a'; 201]).contains("201 given"));
        assert!(refuse(b"a\nb").contains("byte 1"));
    }

    #[test]
    fn debug_of_an_entry_never_shows_its_value() {
        let (timing, _) = Timing::token(Moment::default(), Duration::from_secs(60), DEFAULTS);
        let entry = Entry {
            version: Version(7),
            timing,
            unsynced: false,
            value: b"s3cret".to_vec().into(),
            detail: vec![].into(),
        };
        assert!(!format!("{entry:?}").contains("s3cret"));
    }
}
