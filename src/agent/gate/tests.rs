#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::domain::ProtectorId;

fn key(version: u32, id: u8) -> KeyName {
    KeyName { version: KeyVersion::new(version), id: ProtectorId::from_bytes([id; 16]) }
}

/// A volume that is protected by its first key.
fn protected() -> Facts {
    Facts {
        media: Media::Encrypted,
        on_volume: vec![key(1, 1)],
        others: true,
        receipt: Some(key(1, 1)),
        known: KeyVersion::new(1),
        proven: Some(key(1, 1)),
        waiting: false,
        in_hand: None,
        rotation_due: false,
    }
}

fn untouched() -> Facts {
    Facts {
        media: Media::Plain,
        on_volume: Vec::new(),
        others: false,
        receipt: None,
        known: KeyVersion::NONE,
        proven: None,
        waiting: false,
        in_hand: None,
        rotation_due: false,
    }
}

#[test]
fn nothing_is_done_to_a_volume_before_the_receipt_for_this_very_key() {
    let made = Facts { in_hand: Some(key(1, 1)), waiting: true, ..untouched() };
    assert_eq!(made.next(), Step::AwaitReceipt);
    // A receipt for another key, of the same version even, opens nothing.
    for other in [key(1, 2), key(2, 1)] {
        let facts = Facts { receipt: Some(other), known: other.version, ..made.clone() };
        assert_eq!(facts.next(), Step::AwaitReceipt);
        let facts = Facts { waiting: false, ..facts };
        assert_eq!(facts.next(), Step::MakeKey(other.version.next().unwrap()));
    }
}

#[test]
fn with_the_receipt_a_header_is_made_and_its_key_proven_before_anything_is_encrypted() {
    let mut facts = Facts {
        in_hand: Some(key(1, 1)),
        receipt: Some(key(1, 1)),
        known: KeyVersion::new(1),
        ..untouched()
    };
    assert_eq!(facts.next(), Step::Begin);
    facts.media = Media::Encrypting { begun: false };
    facts.on_volume = vec![key(1, 1)];
    assert_eq!(facts.next(), Step::Prove);
    facts.proven = Some(key(1, 1));
    assert_eq!(facts.next(), Step::Encrypt);
    facts.media = Media::Encrypted;
    assert_eq!(facts.next(), Step::LetIn);
    facts.others = true;
    assert_eq!(facts.next(), Step::Nothing);
}

#[test]
fn a_volume_that_is_encrypted_already_gets_its_key_added_and_proven() {
    let mut facts = Facts {
        in_hand: Some(key(1, 1)),
        receipt: Some(key(1, 1)),
        known: KeyVersion::new(1),
        media: Media::Encrypted,
        others: true,
        ..untouched()
    };
    assert_eq!(facts.next(), Step::Add);
    facts.on_volume = vec![key(1, 1)];
    assert_eq!(facts.next(), Step::Prove);
    facts.proven = Some(key(1, 1));
    assert_eq!(facts.next(), Step::Nothing);
}

#[test]
fn a_start_without_the_plaintext_delivers_what_waits_and_then_makes_the_next_version() {
    let facts = Facts { waiting: true, ..untouched() };
    assert_eq!(facts.next(), Step::AwaitReceipt);
    let facts = Facts { receipt: Some(key(1, 1)), known: KeyVersion::new(1), ..untouched() };
    assert_eq!(facts.next(), Step::MakeKey(KeyVersion::new(2)));
    // Likewise if it stands on the volume already, but nobody has seen it open it.
    let facts = Facts { media: Media::Encrypted, on_volume: vec![key(1, 1)], ..facts };
    assert_eq!(facts.next(), Step::MakeKey(KeyVersion::new(2)));
}

#[test]
fn a_header_whose_key_is_gone_is_taken_back_as_long_as_nothing_is_encrypted() {
    let facts = Facts {
        media: Media::Encrypting { begun: false },
        on_volume: vec![key(1, 1)],
        receipt: Some(key(1, 1)),
        known: KeyVersion::new(1),
        proven: Some(key(1, 1)),
        ..untouched()
    };
    assert_eq!(facts.next(), Step::Abandon);
    // Then only going on is left, with the key from whoever has it; no other key can be added.
    for in_hand in [None, Some(key(2, 2))] {
        let facts = Facts { media: Media::Encrypting { begun: true }, in_hand, ..facts.clone() };
        assert_eq!(facts.next(), Step::Encrypt);
    }
}

#[test]
fn a_key_goes_only_when_a_newer_one_is_proven() {
    let mut facts = Facts {
        on_volume: vec![key(1, 1), key(2, 2)],
        receipt: Some(key(2, 2)),
        known: KeyVersion::new(2),
        in_hand: Some(key(2, 2)),
        ..protected()
    };
    assert_eq!(facts.next(), Step::Prove);
    facts.proven = Some(key(2, 2));
    assert_eq!(facts.next(), Step::Remove(key(1, 1)));
    facts.on_volume = vec![key(2, 2)];
    assert_eq!(facts.next(), Step::Nothing);
}

#[test]
fn a_later_key_that_the_servers_have_is_never_taken_off_by_an_earlier_one() {
    // The proof is of version 1, and somebody has escrowed version 3 meanwhile.
    let facts =
        Facts { known: KeyVersion::new(3), on_volume: vec![key(1, 1), key(3, 3)], ..protected() };
    assert_eq!(facts.next(), Step::MakeKey(KeyVersion::new(4)));
}

#[test]
fn a_key_that_is_gone_from_the_volume_or_has_changed_is_replaced() {
    let gone = Facts { on_volume: Vec::new(), ..protected() };
    assert_eq!(gone.next(), Step::MakeKey(KeyVersion::new(2)));
    let changed = Facts { proven: None, ..protected() };
    assert_eq!(changed.next(), Step::MakeKey(KeyVersion::new(2)));
    let due = Facts { rotation_due: true, ..protected() };
    assert_eq!(due.next(), Step::MakeKey(KeyVersion::new(2)));
    assert_eq!(protected().next(), Step::Nothing);
}

#[test]
fn a_volume_that_cannot_be_worked_with_is_left_alone() {
    let facts = Facts { media: Media::Unusable("it is locked".to_owned()), ..protected() };
    assert_eq!(facts.next(), Step::AwaitVolume("it is locked".to_owned()));
}

#[test]
fn the_last_version_is_followed_by_none() {
    let facts = Facts { known: KeyVersion::new(u32::MAX), ..untouched() };
    assert_eq!(facts.next(), Step::Exhausted);
}

/// What the world does while the gate works: in the way of each step something may happen.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    None,
    /// The agent dies before the step is done.
    CrashBefore,
    /// The agent dies just after it is done.
    CrashAfter,
    /// The servers refuse what waits, and have this many versions more than the agent knows of.
    Refused(u32),
    /// Somebody takes the newest key off the volume.
    SlotGone,
    /// A rotation is ordered.
    Rotate,
}

fn mishaps() -> impl Strategy<Value = Vec<Mishap>> {
    let one = prop_oneof![
        6 => Just(Mishap::None),
        2 => Just(Mishap::CrashBefore),
        2 => Just(Mishap::CrashAfter),
        1 => (0_u32..3).prop_map(Mishap::Refused),
        1 => Just(Mishap::SlotGone),
        1 => Just(Mishap::Rotate),
    ];
    proptest::collection::vec(one, 0..60)
}

/// A volume, its servers, and what the agent keeps about both.
struct World {
    facts: Facts,
    /// The sealed key that waits.
    spooled: Option<KeyName>,
    /// Keys that the servers have.
    escrowed: BTreeSet<KeyName>,
    ids: u8,
}

impl World {
    fn new() -> Self {
        Self { facts: untouched(), spooled: None, escrowed: BTreeSet::new(), ids: 0 }
    }

    fn crash(&mut self) {
        self.facts.in_hand = None;
    }

    /// Does the step, and holds the rules up against it.
    fn take(&mut self, step: Step, mishap: Mishap) {
        let facts = &mut self.facts;
        match step {
            Step::MakeKey(version) => {
                assert!(!facts.waiting, "another key is made while one waits");
                self.ids = self.ids.wrapping_add(1);
                let made = KeyName { version, id: ProtectorId::from_bytes([self.ids; 16]) };
                facts.in_hand = Some(made);
                self.spooled = Some(made);
                facts.waiting = true;
            }
            Step::AwaitReceipt => self.answer(mishap),
            Step::Begin => {
                let key = facts.in_hand.unwrap();
                assert!(self.escrowed.contains(&key), "{key:?} makes a header and has no receipt");
                facts.media = Media::Encrypting { begun: false };
                facts.on_volume = vec![key];
            }
            Step::Abandon => {
                assert_eq!(facts.media, Media::Encrypting { begun: false });
                assert_ne!(facts.in_hand, Some(facts.on_volume[0]), "its key is there");
                (facts.media, facts.proven) = (Media::Plain, None);
                facts.on_volume.clear();
            }
            Step::LetIn => {
                assert_eq!(facts.media, Media::Encrypted);
                facts.others = true;
            }
            Step::Add => {
                let key = facts.in_hand.unwrap();
                assert!(self.escrowed.contains(&key), "{key:?} is added and has no receipt");
                assert_eq!(facts.media, Media::Encrypted);
                facts.on_volume.push(key);
            }
            Step::Prove => {
                let key = facts.in_hand.unwrap();
                assert!(facts.on_volume.contains(&key));
                facts.proven = Some(key);
                facts.rotation_due = false;
            }
            Step::Remove(key) => {
                let newer = facts.proven.unwrap();
                assert_eq!(facts.in_hand, Some(newer), "nobody can see any more that it opens");
                assert!(newer.version > key.version && facts.on_volume.contains(&newer));
                assert!(self.escrowed.contains(&newer));
                facts.on_volume.retain(|other| *other != key);
            }
            Step::Encrypt => {
                assert!(self.escrowed.contains(&facts.on_volume[0]));
                facts.media = match facts.media {
                    Media::Encrypting { begun: false } => {
                        assert_eq!(facts.proven, facts.in_hand);
                        Media::Encrypting { begun: true }
                    }
                    _ => Media::Encrypted,
                };
            }
            Step::AwaitVolume(_) | Step::Nothing | Step::Exhausted => {}
        }
    }

    fn answer(&mut self, mishap: Mishap) {
        let key = self.spooled.take().unwrap();
        self.facts.waiting = false;
        match mishap {
            Mishap::Refused(more) => {
                let known = self.facts.known.get() + more;
                self.facts.known = KeyVersion::new(known);
            }
            _ => {
                self.escrowed.insert(key);
                self.facts.receipt = Some(key);
                self.facts.known = key.version;
            }
        }
    }

    fn step(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::CrashBefore => return self.crash(),
            Mishap::SlotGone if self.facts.media == Media::Encrypted && self.facts.others => {
                self.facts.on_volume.pop();
                self.facts.proven = None;
            }
            Mishap::Rotate => self.facts.rotation_due = true,
            Mishap::None | Mishap::SlotGone | Mishap::CrashAfter | Mishap::Refused(_) => {}
        }
        let step = self.facts.next();
        self.take(step, mishap);
        if matches!(mishap, Mishap::CrashAfter) {
            self.crash();
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_no_rule_is_broken_and_the_volume_is_protected_in_the_end(mishaps in mishaps()) {
        let mut world = World::new();
        for mishap in mishaps {
            world.step(mishap);
        }
        for _ in 0..200 {
            if world.facts.next() == Step::Nothing {
                break;
            }
            world.step(Mishap::None);
        }
        prop_assert_eq!(world.facts.next(), Step::Nothing);
        prop_assert_eq!(&world.facts.media, &Media::Encrypted);
        let [newest] = world.facts.on_volume[..] else {
            panic!("one key is left: {:?}", world.facts);
        };
        prop_assert!(world.escrowed.contains(&newest));
        prop_assert_eq!(Some(newest), world.facts.proven);
    }
}
