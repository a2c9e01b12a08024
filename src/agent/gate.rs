//! The gate: what may be done to a volume next, and what must come before it.
//!
//! Pure: it is told facts and names one step. Whoever carries the step out looks at the facts again afterwards, so a crash
//! between any two steps goes on where it has to. The facts are those that survive: what stands on the volume, in the
//! spool, among the receipts and the proofs. The one that doesn't is the key in hand: its plaintext is in memory only, so a
//! start without it makes the next version.
//!
//! The rules, of which none has an exception:
//! - Nothing is done to a volume before a receipt for the key in hand is on disk: no header, no key slot, no encryption.
//! - Encryption begins only with a key that is proven to open the volume. A volume that is being encrypted takes no other key.
//! - A key is taken off the volume only while a newer one is in hand that has a receipt and was proven just now. A start
//!   without it makes a newer one still.
//! - Sealed bytes that wait are delivered before another key is made: the servers may have them already.

#[cfg(all(test, feature = "server"))]
mod tests;

use super::volume::KeyName;
use crate::domain::KeyVersion;

/// How far the volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// Nothing of it is encrypted, and it has no header that could hold a key.
    Plain,
    /// It has a header with one key in it, and takes no other one until all of it is encrypted.
    Encrypting {
        /// Whether any of it is encrypted yet.
        begun: bool,
    },
    /// All of it is encrypted.
    Encrypted,
    /// It can't be worked with now; why, for a person.
    Unusable(String),
}

/// What is so, for one volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How far the volume is.
    pub media: Media,
    /// Recovery keys of this agent that stand on the volume.
    pub on_volume: Vec<KeyName>,
    /// Whether something else than these opens the volume day to day.
    pub others: bool,
    /// The newest key that a receipt is on disk for.
    pub receipt: Option<KeyName>,
    /// The newest version that the servers are known to have, by receipts and by what they said when they refused one.
    pub known: KeyVersion,
    /// The key that was proven to open the volume, and has not changed since.
    pub proven: Option<KeyName>,
    /// Whether a sealed key of this volume waits in the spool.
    pub waiting: bool,
    /// The key whose plaintext is in memory.
    pub in_hand: Option<KeyName>,
    /// Whether a new key is due although the newest is proven: it was disclosed, is old, or an administrator asks for it.
    pub rotation_due: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a key of this version, seal it, and put it into the spool. A key in hand is forgotten first.
    MakeKey(KeyVersion),
    /// Nothing until a server has answered for the sealed key that waits.
    AwaitReceipt,
    /// Nothing until the volume can be worked with; why, for a person.
    AwaitVolume(String),
    /// Make the volume's header with the key in hand in it. Nothing is encrypted by that.
    Begin,
    /// Take the header back: the key that it was made with is gone, and nothing was encrypted yet.
    Abandon,
    /// Add the key in hand to the volume.
    Add,
    /// Prove that the key in hand opens the volume, and keep the proof.
    Prove,
    /// Let the secret in that opens the volume day to day: by the key in hand, or by one that somebody else has.
    LetIn,
    /// Take this key off the volume: a newer one is proven.
    Remove(KeyName),
    /// Encrypt what isn't: with the key in hand, or with one that somebody else has.
    Encrypt,
    /// Nothing: the volume is protected.
    Nothing,
    /// Nothing can be done any more: the versions are used up.
    Exhausted,
}

impl Facts {
    /// What to do next.
    pub fn next(&self) -> Step {
        // What waits in the spool is delivered all the same; that needs no volume.
        match &self.media {
            Media::Unusable(why) => return Step::AwaitVolume(why.clone()),
            Media::Encrypting { begun } => return self.encrypting(*begun),
            Media::Plain | Media::Encrypted => {}
        }
        match self.in_hand {
            Some(key) if self.receipt == Some(key) => self.with_receipt(key),
            _ if self.waiting => Step::AwaitReceipt,
            // It was refused for good, or never came to the spool.
            Some(_) => self.make_key(),
            None => self.without_key(),
        }
    }

    fn encrypting(&self, begun: bool) -> Step {
        let own = self.in_hand.filter(|key| self.on_volume.contains(key));
        match own {
            Some(key) if self.receipt != Some(key) => Step::AwaitReceipt,
            Some(key) if self.proven != Some(key) => Step::Prove,
            Some(_) => Step::Encrypt,
            None if begun => Step::Encrypt,
            None => Step::Abandon,
        }
    }

    fn with_receipt(&self, key: KeyName) -> Step {
        if self.media == Media::Plain {
            Step::Begin
        } else if !self.on_volume.contains(&key) {
            Step::Add
        } else if self.proven != Some(key) {
            Step::Prove
        } else {
            self.without_key()
        }
    }

    /// The newest key is proven, or there has to be another one.
    fn without_key(&self) -> Step {
        let newest = self.proven.filter(|proven| {
            self.receipt == Some(*proven)
                && proven.version == self.known
                && self.on_volume.contains(proven)
        });
        let Some(newest) = newest else { return self.make_key() };
        if self.rotation_due {
            return self.make_key();
        }
        if !self.others {
            return Step::LetIn;
        }
        let in_hand = self.in_hand == Some(newest);
        match self.on_volume.iter().find(|key| key.version < newest.version) {
            Some(older) if in_hand => Step::Remove(*older),
            Some(_) => self.make_key(),
            None => Step::Nothing,
        }
    }

    fn make_key(&self) -> Step {
        self.known.next().map_or(Step::Exhausted, Step::MakeKey)
    }
}
