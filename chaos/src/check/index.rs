//! The history, read once and put into the order that the checkers ask for.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::history::{
    Audit, Begin, Call, ChangeEvent, Event, FaultEvent, Finding, Invoke, Members, Micros, OpId,
    Outcome, Position, Reply, Return, Sample,
};

/// The phase in which everything is read once more.
pub(crate) const FINAL: &str = "final";

/// A client gives a call up after four seconds. One that took longer than this shows that the harness itself stood still.
const LONGEST_CALL: Micros = 6_000_000;

/// A call with its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(crate) op: OpId,
    pub(crate) node: Option<u64>,
    pub(crate) call: &'a Call,
    pub(crate) at: Micros,
    /// None if it never came to an end: as good as unknown.
    pub(crate) returned: Option<(Micros, &'a Outcome)>,
}

impl<'a> Record<'a> {
    /// Its answer and when it came.
    pub(crate) fn ok(&self) -> Option<(Micros, &'a Reply)> {
        match self.returned {
            Some((at, Outcome::Ok { reply })) => Some((at, reply)),
            Some((_, Outcome::Refused { .. } | Outcome::Unknown { .. })) | None => None,
        }
    }

    /// Why it was refused, and when.
    pub(crate) fn refused(&self) -> Option<(Micros, &'a str)> {
        match self.returned {
            Some((at, Outcome::Refused { reason, .. })) => Some((at, reason)),
            Some((_, Outcome::Ok { .. } | Outcome::Unknown { .. })) | None => None,
        }
    }
}

/// An escrow: all calls with one request id are one write.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    pub(crate) request: Uuid,
    pub(crate) device: Uuid,
    pub(crate) volume: Uuid,
    pub(crate) protector: Uuid,
    pub(crate) expected: u32,
    pub(crate) key: &'a str,
    pub(crate) digest: &'a str,
    /// When it was sent first.
    pub(crate) first: Micros,
    /// The earliest receipt.
    pub(crate) ack: Option<Ack>,
    /// Whether a call of it ended so that nobody knows.
    pub(crate) unknown: bool,
    pub(crate) calls: Vec<Record<'a>>,
}

impl Write<'_> {
    /// The version that it makes if it takes effect.
    pub(crate) const fn version(&self) -> u32 {
        self.expected.saturating_add(1)
    }

    /// Its calls' numbers.
    pub(crate) fn ops(&self) -> Vec<OpId> {
        self.calls.iter().map(|call| call.op).collect()
    }
}

/// A receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) op: OpId,
    pub(crate) at: Micros,
    pub(crate) version: u32,
    pub(crate) position: Position,
    pub(crate) audit: u64,
}

/// A whole history.
#[derive(Debug, Default)]
pub(crate) struct History<'a> {
    pub(crate) begin: Option<&'a Begin>,
    pub(crate) end: Option<Micros>,
    /// When the last event was.
    pub(crate) last: Micros,
    /// In the order in which they were sent.
    pub(crate) calls: Vec<Record<'a>>,
    /// In the order in which they were first sent.
    pub(crate) writes: Vec<Write<'a>>,
    pub(crate) faults: Vec<&'a FaultEvent>,
    pub(crate) samples: Vec<&'a Sample>,
    pub(crate) phases: Vec<(Micros, &'a str)>,
    /// Times within which the harness stood still: what it saw then says nothing about how fast the servers are.
    pub(crate) stalls: Vec<(Micros, Micros)>,
    pub(crate) findings: Vec<&'a Finding>,
    /// Changes of the members, and servers' words on who they are, in order.
    pub(crate) memberships: Vec<&'a Event>,
    /// Parts of the audit chain by their names.
    pub(crate) pages: BTreeMap<&'a str, &'a [Audit]>,
    /// What makes the file worth nothing.
    pub(crate) problems: Vec<String>,
}

impl<'a> History<'a> {
    pub(crate) fn new(events: &'a [Event]) -> Self {
        let mut history = Self::default();
        let mut open = BTreeMap::new();
        for event in events {
            history.take(event, &mut open);
        }
        history.calls.sort_by_key(|call| (call.at, call.op));
        history.stalls = stalls(&history.calls);
        history.writes = writes(&history.calls, &mut history.problems);
        history
    }

    fn take(&mut self, event: &'a Event, open: &mut BTreeMap<OpId, usize>) {
        let at = match event {
            Event::Begin(begin) => {
                if self.begin.replace(begin).is_some() {
                    self.problems.push("the run begins twice".to_owned());
                }
                0
            }
            Event::Invoke(invoke) => self.invoke(invoke, open),
            Event::Return(done) => self.returned(done, open),
            Event::Fault(fault) => {
                self.faults.push(fault);
                fault.until
            }
            Event::Sample(sample) => {
                self.samples.push(sample);
                sample.at
            }
            Event::Phase { at, name } => {
                self.phases.push((*at, name));
                *at
            }
            Event::Change(ChangeEvent { until: at, .. }) | Event::Members(Members { at, .. }) => {
                self.memberships.push(event);
                *at
            }
            Event::AuditPage { page, records } => {
                self.pages.insert(page, records);
                0
            }
            Event::Finding(finding) => {
                self.findings.push(finding);
                finding.at
            }
            Event::End { at } => {
                self.end = Some(*at);
                *at
            }
        };
        self.last = self.last.max(at);
    }

    fn invoke(&mut self, invoke: &'a Invoke, open: &mut BTreeMap<OpId, usize>) -> Micros {
        let Invoke { at, op, node, call, .. } = invoke;
        if open.insert(*op, self.calls.len()).is_some() {
            self.problems.push(format!("call {op} is sent twice"));
        }
        self.calls.push(Record { op: *op, node: *node, call, at: *at, returned: None });
        *at
    }

    fn returned(&mut self, done: &'a Return, open: &BTreeMap<OpId, usize>) -> Micros {
        let call = open.get(&done.op).and_then(|index| self.calls.get_mut(*index));
        match call {
            Some(call) if call.returned.is_none() && call.at <= done.at => {
                call.returned = Some((done.at, &done.outcome));
            }
            Some(_) => self.problems.push(format!("call {} ends twice or too early", done.op)),
            None => self.problems.push(format!("call {} ends and was never sent", done.op)),
        }
        done.at
    }

    /// When the last phase, in which everything is read once more, began.
    pub(crate) fn final_from(&self) -> Option<Micros> {
        self.phases.iter().rev().find(|(_, name)| *name == FINAL).map(|(at, _)| *at)
    }

    /// Calls of the last phase that are bound to a node, with it.
    pub(crate) fn final_calls(&self) -> impl Iterator<Item = (u64, &Record<'a>)> {
        let from = self.final_from().unwrap_or(Micros::MAX);
        let calls = self.calls.iter().filter(move |call| call.at >= from);
        calls.filter_map(|call| call.node.map(|node| (node, call)))
    }

    /// The servers that were read in the last phase.
    pub(crate) fn final_nodes(&self) -> Vec<u64> {
        let mut nodes: Vec<_> = self.final_calls().map(|(node, _)| node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// Why a check that needs the last phase can't be made; none if it can.
    pub(crate) fn no_final(&self) -> Option<String> {
        let nodes = self.final_nodes().len();
        let wanted = self.begin.map_or(1, |begin| begin.nodes.len());
        if self.final_from().is_none() {
            return Some("the run has no final phase".to_owned());
        }
        let short = nodes < wanted;
        short.then(|| format!("the final phase read {nodes} of {wanted} servers"))
    }
}

fn stalls(calls: &[Record<'_>]) -> Vec<(Micros, Micros)> {
    // A listing goes on for as long as something comes.
    let limited = calls.iter().filter(|call| !matches!(call.call, Call::AuditList));
    let times = limited.filter_map(|call| Some((call.at, call.returned?.0)));
    let long = times.filter(|(from, to)| to.saturating_sub(*from) > LONGEST_CALL);
    let mut stalls: Vec<(Micros, Micros)> = Vec::new();
    for (from, to) in long {
        match stalls.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            Some(_) | None => stalls.push((from, to)),
        }
    }
    stalls
}

fn writes<'a>(calls: &[Record<'a>], problems: &mut Vec<String>) -> Vec<Write<'a>> {
    let mut by_request: BTreeMap<Uuid, usize> = BTreeMap::new();
    let mut writes: Vec<Write<'a>> = Vec::new();
    for record in calls {
        let Call::Escrow { request, device, volume, protector, expected, key, sealed_digest } =
            record.call
        else {
            continue;
        };
        let index = *by_request.entry(*request).or_insert_with(|| {
            writes.push(Write {
                request: *request,
                device: *device,
                volume: *volume,
                protector: *protector,
                expected: *expected,
                key,
                digest: sealed_digest,
                first: record.at,
                ack: None,
                unknown: false,
                calls: Vec::new(),
            });
            writes.len().saturating_sub(1)
        });
        let Some(write) = writes.get_mut(index) else { continue };
        if write.digest != sealed_digest || write.expected != *expected || write.key != key {
            problems.push(format!("call {} repeats {request} with other bytes", record.op));
        }
        write.calls.push(*record);
        match record.ok() {
            Some((at, Reply::Escrow { version, position, audit, .. })) => {
                let (version, position, audit) = (*version, *position, *audit);
                let ack = Ack { op: record.op, at, version, position, audit };
                if write.ack.is_none_or(|known| at < known.at) {
                    write.ack = Some(ack);
                }
            }
            Some(_) => problems.push(format!("call {} has the answer to another", record.op)),
            None => write.unknown |= record.refused().is_none(),
        }
    }
    writes
}
