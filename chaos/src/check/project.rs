//! What each call says of each volume.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::index::{History, Record, Write};
use super::linear::{Op, Register, What};
use crate::history::{Call, Micros, OpId, Reply};

/// Keys of an answer from which on it may be cut off (docs/errors.md).
const CUT_OFF: usize = 200;

/// The operations on one volume.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) id: Uuid,
    pub(crate) ops: Vec<Op>,
    /// What no order of operations can explain.
    pub(crate) impossible: Vec<(OpId, String)>,
}

struct Builder<'h, 'a> {
    history: &'h History<'a>,
    volumes: BTreeMap<Uuid, Volume>,
    devices: BTreeMap<Uuid, Vec<Uuid>>,
    /// Where each write is among its volume's operations; none if it can't have taken effect.
    places: Vec<Option<usize>>,
    by_protector: BTreeMap<Uuid, Vec<usize>>,
    by_prefix: BTreeMap<String, Vec<Uuid>>,
    by_volume: BTreeMap<Uuid, Vec<usize>>,
}

/// All volumes with their operations in the order in which they were sent.
pub(crate) fn volumes(history: &History<'_>) -> Vec<Volume> {
    let mut builder = Builder {
        history,
        volumes: BTreeMap::new(),
        devices: BTreeMap::new(),
        places: Vec::new(),
        by_protector: BTreeMap::new(),
        by_prefix: BTreeMap::new(),
        by_volume: BTreeMap::new(),
    };
    for (index, write) in history.writes.iter().enumerate() {
        builder.write(index, write);
    }
    for record in &history.calls {
        builder.record(record);
    }
    builder.volumes.into_values().map(in_order).collect()
}

/// Whether the servers have a key id under such a query.
pub(crate) fn prefix(protector: Uuid) -> String {
    protector.simple().to_string().chars().take(8).collect()
}

impl Builder<'_, '_> {
    fn volume(&mut self, id: Uuid) -> &mut Volume {
        let new = || Volume { id, ops: Vec::new(), impossible: Vec::new() };
        self.volumes.entry(id).or_insert_with(new)
    }

    fn write(&mut self, index: usize, write: &Write<'_>) {
        self.by_protector.entry(write.protector).or_default().push(index);
        let protectors = self.by_prefix.entry(prefix(write.protector)).or_default();
        if !protectors.contains(&write.protector) {
            protectors.push(write.protector);
        }
        self.by_volume.entry(write.volume).or_default().push(index);
        let device = self.devices.entry(write.device).or_default();
        if !device.contains(&write.volume) {
            device.push(write.volume);
        }
        let volume = self.volume(write.volume);
        let mut of = None;
        if write.ack.is_some() || write.unknown {
            of = Some(volume.ops.len());
            let what = What::Write { expected: write.expected, protector: write.protector };
            let last = write.calls.last().map_or(0, |call| call.op);
            let (id, end) = write.ack.map_or((last, None), |ack| (ack.op, Some(ack.at)));
            volume.ops.push(Op { id, call: write.first, end, what });
        }
        if let Some(ack) = write.ack.filter(|ack| ack.version != write.version()) {
            let what = format!(
                "a receipt names version {} where version {} was due",
                ack.version,
                write.version()
            );
            volume.impossible.push((ack.op, what));
        }
        for call in &write.calls {
            if let Some((end, "STALE_VERSION")) = call.refused() {
                let what = What::Stale { expected: write.expected, of };
                volume.ops.push(Op { id: call.op, call: call.at, end: Some(end), what });
            }
        }
        self.places.push(of);
    }

    fn record(&mut self, record: &Record<'_>) {
        match (record.call, record.ok(), record.refused()) {
            (Call::ReadDevice { device }, Some((end, Reply::Device { volumes, .. })), _) => {
                self.read(record, end, *device, volumes);
            }
            (Call::Disclose { protector, version, .. }, Some((end, reply)), _) => {
                self.disclosed(record, end, (*protector, *version), reply);
            }
            (Call::Disclose { protector, version, .. }, _, Some((end, "UNKNOWN_KEY"))) => {
                let history = self.history;
                let of_id = self.by_protector.get(protector).cloned().unwrap_or_default();
                let asked = |write: &Write<'_>| *version == 0 || write.version() == *version;
                let none = of_id.into_iter();
                let none = none.filter(|at| history.writes.get(*at).is_some_and(asked)).collect();
                self.effects(record, end, Vec::new(), none);
            }
            (Call::Find { query, .. }, Some((end, Reply::Find { keys, .. })), _) => {
                self.found(record, end, query, keys);
            }
            (Call::Find { query, .. }, _, Some((end, "UNKNOWN_VOLUME" | "UNKNOWN_DEVICE"))) => {
                let none = self.asked(query);
                self.effects(record, end, Vec::new(), none);
            }
            (
                Call::Escrow { .. }
                | Call::Report { .. }
                | Call::ReadDeviceStale { .. }
                | Call::AuditHead
                | Call::AuditList
                | Call::ReadDevice { .. }
                | Call::Disclose { .. }
                | Call::Find { .. },
                ..,
            ) => {}
        }
    }

    fn read(
        &mut self,
        record: &Record<'_>,
        end: Micros,
        device: Uuid,
        answer: &[(Uuid, u32, Uuid)],
    ) {
        let answer: BTreeMap<_, _> =
            answer.iter().map(|(id, version, key)| (*id, (*version, *key))).collect();
        let ids = self.devices.get(&device).cloned().unwrap_or_default();
        for (id, (version, _)) in &answer {
            if *version > 0 && !ids.contains(id) {
                let what = format!("volume {id} has version {version}, and nobody escrowed to it");
                self.volume(*id).impossible.push((record.op, what));
            }
        }
        for id in ids {
            let held = answer.get(&id).filter(|(version, _)| *version > 0);
            let (version, protector) = held.copied().unwrap_or((0, Uuid::nil()));
            let what = What::Read(Register { version, protector });
            let op = Op { id: record.op, call: record.at, end: Some(end), what };
            self.volume(id).ops.push(op);
        }
    }

    fn disclosed(
        &mut self,
        record: &Record<'_>,
        end: Micros,
        (protector, wanted): (Uuid, u32),
        reply: &Reply,
    ) {
        let Reply::Disclose { key, version, repeated, .. } = reply else { return };
        let of_id = self.by_protector.get(&protector).cloned().unwrap_or_default();
        let history = self.history;
        let of_id: Vec<_> =
            of_id.iter().filter_map(|at| Some((*at, history.writes.get(*at)?))).collect();
        let same = of_id.iter().filter(|(_, write)| write.version() == *version);
        let some: Vec<_> = same.filter(|(_, write)| write.key == key).map(|(at, _)| *at).collect();
        let other = wanted != 0 && wanted != *version;
        if some.is_empty() || other {
            let what = format!(
                "key id {protector}: disclosed version {version} is not one that was escrowed with this recovery key"
            );
            // Nobody's volume if nobody escrowed to it.
            let volume = of_id.first().map_or(Uuid::nil(), |(_, write)| write.volume);
            self.volume(volume).impossible.push((record.op, what));
        } else {
            let newer = of_id.iter().filter(|(_, write)| write.version() > *version);
            // A retry is answered with what was the newest at first.
            let newest = wanted == 0 && !repeated;
            let none = newer.map(|(at, _)| *at).filter(|_| newest).collect();
            self.effects(record, end, vec![some], none);
        }
    }

    /// Writes that a query is about.
    fn asked(&self, query: &str) -> Vec<usize> {
        let parsed = query.strip_prefix("volume ").and_then(|ids| ids.split(' ').nth(1));
        if let Some(volume) = parsed.and_then(|id| id.parse::<Uuid>().ok()) {
            return self.by_volume.get(&volume).cloned().unwrap_or_default();
        }
        let protectors = match query.parse::<Uuid>() {
            Ok(protector) => vec![protector],
            Err(_) => self.by_prefix.get(query).cloned().unwrap_or_default(),
        };
        let writes = protectors.iter().filter_map(|protector| self.by_protector.get(protector));
        writes.flatten().copied().collect()
    }

    fn found(&mut self, record: &Record<'_>, end: Micros, query: &str, keys: &[(Uuid, u32)]) {
        let history = self.history;
        let asked = self.asked(query);
        let asked: Vec<_> =
            asked.iter().filter_map(|at| Some((*at, history.writes.get(*at)?))).collect();
        let mut some = Vec::new();
        for key in keys {
            let made = asked.iter().filter(|(_, write)| (write.protector, write.version()) == *key);
            let made: Vec<_> = made.map(|(at, _)| *at).collect();
            if made.is_empty() {
                let what = format!("lists version {} of {}, which nobody escrowed", key.1, key.0);
                let volume = asked.first().map_or(Uuid::nil(), |(_, write)| write.volume);
                self.volume(volume).impossible.push((record.op, what));
            } else {
                some.push(made);
            }
        }
        let whole = keys.len() < CUT_OFF;
        let lacking = asked
            .iter()
            .filter(|(_, write)| whole && !keys.contains(&(write.protector, write.version())));
        let none = lacking.map(|(at, _)| *at).collect();
        self.effects(record, end, some, none);
    }

    /// Adds an operation to each volume that an answer says something of. What follows from real time alone is left out.
    fn effects(
        &mut self,
        record: &Record<'_>,
        end: Micros,
        some: Vec<Vec<usize>>,
        none: Vec<usize>,
    ) {
        let history = self.history;
        let mut by_volume: BTreeMap<Uuid, (Vec<Vec<usize>>, Vec<usize>)> = BTreeMap::new();
        for group in some {
            let known = group.iter().filter_map(|at| history.writes.get(*at));
            let Some(first) = known.clone().next() else { continue };
            let mut acks = known.filter_map(|write| write.ack);
            if acks.any(|ack| ack.at < record.at) {
                continue;
            }
            let places = group.iter().filter_map(|at| *self.places.get(*at)?).collect();
            by_volume.entry(first.volume).or_default().0.push(places);
        }
        for at in none {
            let Some(write) = history.writes.get(at).filter(|write| write.first <= end) else {
                continue;
            };
            if let Some(Some(place)) = self.places.get(at) {
                by_volume.entry(write.volume).or_default().1.push(*place);
            }
        }
        for (id, (some, none)) in by_volume {
            let what = What::Effects { some, none };
            let op = Op { id: record.op, call: record.at, end: Some(end), what };
            self.volume(id).ops.push(op);
        }
    }
}

/// Puts operations into the order in which they were sent, which keeps the sets of the search short.
fn in_order(mut volume: Volume) -> Volume {
    let mut order: Vec<usize> = (0..volume.ops.len()).collect();
    order.sort_by_key(|at| volume.ops.get(*at).map(|op| op.call));
    let mut moved = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        if let Some(place) = moved.get_mut(*old) {
            *place = new;
        }
    }
    let renamed = |at: &mut usize| *at = moved.get(*at).copied().unwrap_or(*at);
    for op in &mut volume.ops {
        match &mut op.what {
            What::Stale { of, .. } => of.iter_mut().for_each(renamed),
            What::Effects { some, none } => {
                some.iter_mut().flatten().for_each(renamed);
                none.iter_mut().for_each(renamed);
            }
            What::Write { .. } | What::Read(_) => {}
        }
    }
    volume.ops.sort_by_key(|op| op.call);
    volume
}
