//! Bytes that nobody meant to send, for the tests of every decoder that the network reaches.

use proptest::prelude::*;

/// Cases that each decoder is tried with, for each of its messages.
pub(crate) const CASES: u32 = 2000;

/// What is done to a message that was well-formed.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    /// A part of it once more, somewhere else: fields appear twice, or in the wrong place.
    Copy(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // One past the end is a place too.
        let room = bytes.len() + 1;
        match self {
            Self::Flip(at, with) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= *with);
            }
            Self::Flip(..) => {}
            Self::Cut(at) => bytes.truncate(at.index(room)),
            Self::Insert(at, more) => {
                let at = at.index(room);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Copy(from, to, at) => {
                let (from, to) = (from.index(room), to.index(room));
                let part = bytes.get(from.min(to)..from.max(to)).unwrap_or_default().to_vec();
                let at = at.index(room);
                bytes.splice(at..at, part);
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => (index(), 1_u8..).prop_map(|(at, with)| Damage::Flip(at, with)),
        1 => index().prop_map(Damage::Cut),
        2 => (index(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, more)| Damage::Insert(at, more)),
        2 => (index(), index(), index()).prop_map(|(from, to, at)| Damage::Copy(from, to, at)),
    ]
}

/// Arbitrary bytes, or one of these messages with a little damage.
pub(crate) fn hostile(valid: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let damaged = (prop::sample::select(valid), prop::collection::vec(damage(), 0..4)).prop_map(
        |(mut bytes, damage)| {
            damage.iter().for_each(|damage| damage.apply(&mut bytes));
            bytes
        },
    );
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 4 => damaged]
}

/// Hands each case to `decode`, which must not panic. Fails if no case at all came through, for then nothing was tried.
pub(crate) fn survives(valid: Vec<Vec<u8>>, decode: impl Fn(&[u8]) -> bool) {
    let taken = std::cell::Cell::new(0_u32);
    let config =
        ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(bytes in hostile(valid))| {
        if decode(&bytes) {
            taken.set(taken.get() + 1);
        }
    });
    assert!(taken.get() > CASES / 100, "only {} cases were taken", taken.get());
}
