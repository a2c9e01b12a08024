//! Small histories made by hand.

use uuid::Uuid;

use super::verdict::{CheckResult, Status};
use crate::history::{
    Audit, Begin, Call, Effect, Event, FaultEvent, FaultStep, Invoke, Micros, NodeStatus, OpId,
    Outcome, Position, Reply, Return, Sample,
};

pub(crate) const DEVICE: Uuid = Uuid::from_u128(0xd);
pub(crate) const VOLUME: Uuid = Uuid::from_u128(0xe);

/// A history under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Made {
    pub(crate) events: Vec<Event>,
    next: OpId,
}

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) const fn at_index(index: u64) -> Position {
    Position { term: 1, index }
}

/// An escrow of [`VOLUME`]: request, key id and recovery key follow from `number`.
pub(crate) fn escrow(number: u128, expected: u32) -> Call {
    Call::Escrow {
        request: id(0x1000 + number),
        device: DEVICE,
        volume: VOLUME,
        protector: id(0x2000 + number),
        expected,
        key: format!("key-{number}"),
        sealed_digest: format!("digest-{number}"),
    }
}

/// Its receipt.
pub(crate) fn receipt(number: u128, version: u32, index: u64) -> Outcome {
    let sealed_digest = format!("digest-{number}");
    ok(Reply::Escrow { version, position: at_index(index), audit: index * 10, sealed_digest })
}

pub(crate) const fn ok(reply: Reply) -> Outcome {
    Outcome::Ok { reply }
}

pub(crate) fn refused(reason: &str) -> Outcome {
    Outcome::Refused { reason: reason.to_owned(), message: String::new() }
}

pub(crate) fn unknown() -> Outcome {
    Outcome::Unknown { message: "no answer".to_owned() }
}

/// What a read of [`DEVICE`] finds: the version and the number of its key; nothing for 0.
pub(crate) fn device(version: u32, number: u128, index: u64) -> Outcome {
    let volumes = if version == 0 { vec![] } else { vec![(VOLUME, version, id(0x2000 + number))] };
    ok(Reply::Device { volumes, index, age_ms: 0 })
}

pub(crate) fn disclose(number: u128, version: u32) -> Call {
    Call::Disclose { request: id(0x3000 + number), protector: id(0x2000 + number), version }
}

pub(crate) fn disclosed(number: u128, version: u32, index: u64) -> Outcome {
    let key = format!("key-{number}");
    let position = at_index(index);
    ok(Reply::Disclose { key, version, audit: index * 10, position, repeated: false })
}

pub(crate) fn record(
    sequence: u64,
    action: &str,
    request: Uuid,
    number: u128,
    version: u32,
) -> Audit {
    Audit {
        sequence,
        action: action.to_owned(),
        outcome: "ok".to_owned(),
        request: request.to_string(),
        protector: id(0x2000 + number).to_string(),
        version,
        count: 1,
        hash: format!("hash-{sequence}"),
    }
}

/// A chain of so many records about nothing.
pub(crate) fn filler(length: u64) -> Vec<Audit> {
    (1..=length).map(|sequence| record(sequence, "audit-read", Uuid::nil(), 0, 0)).collect()
}

pub(crate) fn listing(records: Vec<Audit>) -> Outcome {
    let head = records.last().map_or_else(String::new, |last| last.hash.clone());
    ok(Reply::AuditList { pages: vec![], records, head })
}

impl Made {
    pub(crate) fn new() -> Self {
        let mut made = Self { events: Vec::new(), next: 1 };
        made.events.push(Event::Begin(Begin {
            unix_ms: 0,
            version: "0.0.0".to_owned(),
            seed: 1,
            nodes: vec![1, 2, 3],
            seconds: 1,
            faults: vec![],
            left_out: vec![],
            command: String::new(),
        }));
        made
    }

    /// A call from one time to another, of all nodes.
    pub(crate) fn call(&mut self, from: Micros, to: Micros, call: Call, outcome: Outcome) -> OpId {
        self.call_of(None, (from, to), call, outcome)
    }

    pub(crate) fn call_of(
        &mut self,
        node: Option<u64>,
        (at, until): (Micros, Micros),
        call: Call,
        outcome: Outcome,
    ) -> OpId {
        let op = self.next;
        self.next += 1;
        self.events.push(Event::Invoke(Invoke { at, op, client: op, node, call }));
        self.events.push(Event::Return(Return { at: until, op, outcome }));
        op
    }

    pub(crate) fn phase(&mut self, at: Micros, name: &str) {
        self.events.push(Event::Phase { at, name: name.to_owned() });
    }

    pub(crate) fn fault(
        &mut self,
        number: u64,
        kind: &str,
        nodes: &[u64],
        (from, to): (Micros, Micros),
    ) {
        let effect = Effect::Installed { seen: "seen".to_owned() };
        for (step, at) in [(FaultStep::Install, from), (FaultStep::Heal, to)] {
            let (kind, nodes, effect) = (kind.to_owned(), nodes.to_vec(), effect.clone());
            let target = format!("{nodes:?}");
            self.events.push(Event::Fault(FaultEvent {
                at,
                until: at,
                number,
                kind,
                target,
                nodes,
                step,
                effect,
            }));
        }
    }

    /// A sample: node, term, whether it leads, index, digest.
    pub(crate) fn sample(
        &mut self,
        at: Micros,
        node: u64,
        (term, leads): (u64, bool),
        (applied, digest): (u64, &str),
    ) {
        let status = NodeStatus {
            term,
            leads,
            leader: 0,
            last_log: applied,
            applied,
            digest: digest.to_owned(),
            divergence: String::new(),
        };
        self.events.push(Event::Sample(Sample {
            at,
            node,
            status: Some(status),
            rss: None,
            descriptors: None,
        }));
    }
}

/// Asserts that a checker found a violation, the first of which says this.
#[track_caller]
pub(crate) fn violated_first(result: &CheckResult, words: &str) {
    assert_eq!(result.status, Status::Violated);
    assert!(result.violations[0].what.contains(words), "{result:?}");
}
