//! Who mints: how long it takes, what it gives, how it fails, and until when each token is good in truth.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Micros;
use super::dice::Dice;
use crate::entry::Key;

/// What it says when it fails.
pub const FAILS: &str = "HTTP 503";

pub struct Issued {
    pub key: Key,
    pub at: Micros,
    pub expires: Micros,
    /// Whoever uses it hears 401.
    pub revoked: bool,
}

/// What the token endpoint answers.
pub enum Answer {
    Token {
        value: Vec<u8>,
        lifetime: Duration,
    },
    /// Not before so long.
    Failure(Duration),
    /// The request that asked ends here.
    Exit,
}

pub struct Issuer {
    dice: Dice,
    lifetime: Micros,
    /// How long a mint takes, at least and at most.
    pub takes: (Micros, Micros),
    /// It fails until then, and says how long to stay away.
    pub fails_until: Micros,
    pub retry_after: Duration,
    /// A mint takes so much longer until then.
    pub slow_until: Micros,
    pub slow_by: Micros,
    /// What is issued until then is refused wherever it is used.
    pub refused_until: Micros,
    /// Of a thousand callers so many end in the middle.
    pub exits: u64,
    issued: BTreeMap<Vec<u8>, Issued>,
}

impl Issuer {
    pub fn new(dice: Dice, lifetime: Micros, takes: (Micros, Micros)) -> Self {
        Self {
            dice,
            lifetime,
            takes,
            fails_until: 0,
            retry_after: Duration::ZERO,
            slow_until: 0,
            slow_by: 0,
            refused_until: 0,
            exits: 0,
            issued: BTreeMap::new(),
        }
    }

    /// How long the next mint takes, and which share of it is over when the token is issued.
    pub fn begins(&mut self, now: Micros) -> (Micros, Micros) {
        let mut takes = self.dice.between(self.takes.0, self.takes.1);
        if now < self.slow_until {
            takes += self.slow_by;
        }
        (takes, self.dice.roll(takes as u64 + 1) as i64)
    }

    pub fn answers(&mut self, key: &Key, issued_at: Micros) -> Answer {
        if self.dice.roll(1000) < self.exits {
            return Answer::Exit;
        }
        if issued_at < self.fails_until {
            return Answer::Failure(self.retry_after);
        }
        let value = format!("token {} of {}", self.issued.len(), key.text()).into_bytes();
        let issued = Issued {
            key: key.clone(),
            at: issued_at,
            expires: issued_at + self.lifetime,
            revoked: issued_at < self.refused_until,
        };
        self.issued.insert(value.clone(), issued);
        let lifetime = Duration::from_micros(self.lifetime as u64);
        Answer::Token { value, lifetime: Duration::from_millis(lifetime.as_millis() as u64) }
    }

    pub fn token(&self, value: &[u8]) -> Option<&Issued> {
        self.issued.get(value)
    }

    /// Everything that is out for a key is refused from now on.
    pub fn revoke(&mut self, key: &Key) {
        for issued in self.issued.values_mut().filter(|issued| issued.key == *key) {
            issued.revoked = true;
        }
    }
}
