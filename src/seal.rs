//! Sealed values: whoever reads the host table, Redis, its dump, its slow log or a core file finds no
//! token.
//!
//! A value and its detail are encrypted with XChaCha20-Poly1305 under a random nonce; the entry's key
//! and version are associated data, so a sealed value is worth nothing under another name or beside
//! another version. What scripts and slots decide by stays readable: names, versions, instants, the
//! reason of a failure, the digest of a token.
//!
//! Layout: key id (4), nonce (24), ciphertext of [length of the value (4, little endian), value, detail],
//! tag (16).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use chacha20poly1305::aead::AeadInOut as _;
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::entry::{Key, Version};

const ID: usize = 4;
const NONCE: usize = 24;
const LENGTH: usize = 4;
const KEY: usize = 32;
/// More would be a history, not a rotation.
const MOST_KEYS: usize = 8;

/// Value and detail of an entry, each overwritten when it is dropped.
pub type Parts = (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>);

/// What was sealed, in one piece: overwriting costs more than opening.
#[derive(PartialEq, Eq)]
pub struct Plain {
    text: Zeroizing<Vec<u8>>,
    /// Where the value ends.
    end: usize,
}

/// Shows nothing of it.
impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Plain")
    }
}

impl Plain {
    pub fn value(&self) -> &[u8] {
        &self.text[LENGTH..self.end]
    }

    pub fn detail(&self) -> &[u8] {
        &self.text[self.end..]
    }

    pub fn parts(&self) -> Parts {
        (self.value().to_vec().into(), self.detail().to_vec().into())
    }
}

/// Tells keys apart without telling anything of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; ID]);

impl KeyId {
    fn of(key: &[u8; KEY]) -> Self {
        let hash = Sha256::new().chain_update(b"sharedstate key id").chain_update(key).finalize();
        let mut id = [0; ID];
        id.copy_from_slice(&hash[..ID]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Sealed with a key that is not in our file.
    Key(KeyId),
    /// Not what anybody with this key has sealed for this entry.
    Damaged,
}

/// The keys of `sharedstate.encryption_key_file`.
pub struct Seal {
    /// The first seals; all open.
    keys: Vec<(KeyId, XChaCha20Poly1305)>,
    unreadable: AtomicU64,
}

/// Shows no key.
impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id.to_string())).finish()
    }
}

impl Seal {
    /// One key per line, 64 hexadecimal digits, the current one first; empty lines and lines that
    /// begin with `#` do not count. The error is the end of a sentence about the file.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        const EXPECTED: &str = "expected 64 hexadecimal digits per line, the current key first \
                                (openssl rand -hex 32 makes one)";
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            // What stands there may be most of a key, so it is not quoted.
            let key = key_of(line).ok_or_else(|| {
                format!("line {number} has {} characters that are no key; {EXPECTED}", line.len())
            })?;
            let id = KeyId::of(&key);
            if keys.iter().any(|(known, _)| *known == id) {
                return Err(format!("line {number} repeats an earlier key"));
            }
            keys.push((id, XChaCha20Poly1305::new((&*key).into())));
        }
        match keys.len() {
            0 => Err(format!("it holds no key; {EXPECTED}")),
            1..=MOST_KEYS => Ok(Self { keys, unreadable: AtomicU64::new(0) }),
            more => Err(format!(
                "it holds {more} keys and at most {MOST_KEYS} are of use: remove those that \
                 nothing is sealed with any more"
            )),
        }
    }

    /// Of the key that seals.
    pub fn id(&self) -> KeyId {
        self.keys[0].0
    }

    /// Empty, which nothing can be made of, where the system has no random numbers.
    pub fn seal(&self, key: &Key, version: Version, value: &[u8], detail: &[u8]) -> Vec<u8> {
        let (id, cipher) = &self.keys[0];
        let mut nonce = [0; NONCE];
        if getrandom::fill(&mut nonce).is_err() {
            return Vec::new();
        }
        // Room for the tag, too: a buffer that had to grow would leave a copy behind.
        let mut body = Vec::with_capacity(LENGTH + value.len() + detail.len() + 16);
        body.extend_from_slice(&(value.len() as u32).to_le_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(detail);
        match cipher.encrypt_in_place(&XNonce::from(nonce), &about(key, version), &mut body) {
            Ok(()) => [&id.0[..], &nonce[..], &body].concat(),
            // A text of 256 GiB.
            Err(_) => Vec::new(),
        }
    }

    pub fn open(&self, key: &Key, version: Version, sealed: &[u8]) -> Result<Plain, Unreadable> {
        let opened = self.try_open(key, version, sealed);
        if opened.is_err() {
            self.count_unreadable();
        }
        opened
    }

    fn try_open(&self, key: &Key, version: Version, sealed: &[u8]) -> Result<Plain, Unreadable> {
        let (id, rest) = sealed.split_first_chunk::<ID>().ok_or(Unreadable::Damaged)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(Unreadable::Damaged)?;
        let (_, cipher) = self
            .keys
            .iter()
            .find(|(known, _)| known.0 == *id)
            .ok_or(Unreadable::Key(KeyId(*id)))?;
        let mut text = Zeroizing::new(body.to_vec());
        cipher
            .decrypt_in_place(&XNonce::from(*nonce), &about(key, version), &mut *text)
            .map_err(|_| Unreadable::Damaged)?;
        let length = text.first_chunk().ok_or(Unreadable::Damaged)?;
        let end = LENGTH + u32::from_le_bytes(*length) as usize;
        if end <= text.len() { Ok(Plain { text, end }) } else { Err(Unreadable::Damaged) }
    }

    /// Something was found where only what we sealed may be.
    pub fn count_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were not readable since this was last asked.
    pub fn take_unreadable(&self) -> u64 {
        self.unreadable.swap(0, Ordering::Relaxed)
    }
}

/// The key id of something sealed, whoever sealed it.
pub fn sealed_with(sealed: &[u8]) -> Option<KeyId> {
    sealed.first_chunk().map(|id| KeyId(*id))
}

fn key_of(line: &[u8]) -> Option<Zeroizing<[u8; KEY]>> {
    if line.len() != 2 * KEY {
        return None;
    }
    let mut key = Zeroizing::new([0; KEY]);
    for (byte, pair) in key.iter_mut().zip(line.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high? << 4 | low?) as u8;
    }
    Some(key)
}

fn about(key: &Key, version: Version) -> Vec<u8> {
    [&version.0.to_le_bytes(), key.bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Fingerprint, Kind};

    const NOW: Version = Version(1_795_315_181_013_843);

    fn key(name: &[u8]) -> Key {
        Key::new(Kind::Token, name, Fingerprint::default()).unwrap()
    }

    fn line(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn seal(digits: &[char]) -> Seal {
        let lines: Vec<String> = digits.iter().copied().map(line).collect();
        Seal::parse(lines.join("\n").as_bytes()).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_and_never_looks_the_same_twice() {
        let seal = seal(&['a']);
        for (value, detail) in [(&b"token"[..], &b"{}"[..]), (b"", b""), (&[0xff; 20_000], b"")] {
            let [one, two] = [0; 2].map(|_| seal.seal(&key(b"crm"), NOW, value, detail));
            assert_ne!(one, two);
            assert!(!one.windows(5).any(|bytes| bytes == b"token"));
            let opened = seal.open(&key(b"crm"), NOW, &one).unwrap();
            assert_eq!((opened.value(), opened.detail()), (value, detail));
        }
        assert_eq!(seal.take_unreadable(), 0);
    }

    #[test]
    fn every_changed_byte_another_name_and_another_version_are_refused_and_counted() {
        let seal = seal(&['a']);
        let sealed = seal.seal(&key(b"crm"), NOW, b"token", b"{}");
        for at in 0..sealed.len() {
            let mut tampered = sealed.clone();
            tampered[at] ^= 1;
            assert!(seal.open(&key(b"crm"), NOW, &tampered).is_err(), "byte {at}");
            assert!(seal.open(&key(b"crm"), NOW, &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(seal.open(&key(b"crn"), NOW, &sealed), Err(Unreadable::Damaged));
        assert_eq!(seal.open(&key(b"crm"), NOW.next(), &sealed), Err(Unreadable::Damaged));
        assert_eq!(seal.take_unreadable(), 2 * sealed.len() as u64 + 2);
        assert_eq!(seal.take_unreadable(), 0);
    }

    #[test]
    fn during_a_rotation_all_keys_open_and_the_first_seals() {
        let (before, between, after) = (seal(&['a']), seal(&['a', 'b']), seal(&['b', 'a']));
        for (from, to) in [(&before, &between), (&between, &before), (&after, &between)] {
            let sealed = from.seal(&key(b"crm"), NOW, b"token", b"");
            assert!(to.open(&key(b"crm"), NOW, &sealed).is_ok());
        }
        let sealed = after.seal(&key(b"crm"), NOW, b"token", b"");
        assert_eq!(before.open(&key(b"crm"), NOW, &sealed), Err(Unreadable::Key(after.id())));
        assert_eq!(sealed_with(&sealed), Some(after.id()));
        assert_ne!(before.id(), after.id());
    }

    #[test]
    fn a_file_that_holds_no_keys_is_refused_in_words_without_its_contents() {
        let good = format!("# made in November\n\n  {}\r\n", line('a').to_uppercase());
        assert!(Seal::parse(good.as_bytes()).is_ok());
        assert!(
            Seal::parse(format!("\u{feff}{good}\r\n").as_bytes()).is_ok(),
            "as an editor saves it"
        );
        let refused = |text: String| Seal::parse(text.as_bytes()).unwrap_err();
        assert!(refused(String::new()).contains("no key"));
        assert!(refused("# only a comment".into()).contains("openssl rand -hex 32"));
        let short = refused(format!("{}\nc0ffee", line('a')));
        assert!(short.starts_with("line 2 has 6 characters"), "{short}");
        assert!(!short.contains("c0ffee"));
        assert!(refused(line('g')).starts_with("line 1 has 64 characters"));
        assert!(refused([line('a'), line('a')].join("\n")).starts_with("line 2 repeats"));
        let many: Vec<String> = "012345678".chars().map(line).collect();
        assert!(refused(many.join("\n")).contains("9 keys and at most 8"));
    }

    #[test]
    fn debug_shows_ids_and_no_key() {
        let shown = format!("{:?}", seal(&['a']));
        assert!(!shown.contains("aaaa") && shown.contains(&seal(&['a']).id().to_string()));
    }
}
