//! The rules of keys and devices: escrow, report, search and disclosure.

use std::collections::BTreeSet;

use super::{Model, ModelDevice, ModelKey, Seen};
use crate::domain::*;
use crate::state::*;

/// Roles that find and disclose.
const DESK: [Role; 2] = [Role::HelpDesk, Role::AdvancedHelpDesk];

impl ModelDevice {
    /// What an escrow says of the device besides.
    fn told(&mut self, e: &Escrow, now: u64) {
        if !e.host_name.as_str().is_empty() {
            self.host_name = e.host_name.to_string();
        }
        if !e.users.is_empty() {
            self.users = e.users.clone();
        }
        self.last_contact = now;
    }

    /// What an import says.
    fn told_by_others(&mut self, e: &Escrow) {
        if self.host_name.is_empty() {
            self.host_name = e.host_name.to_string();
        }
        if self.users.is_empty() {
            self.users = e.users.clone();
        }
    }
}

impl Model {
    fn own(command: &Command, device: DeviceId, action: AuditAction) -> Result<(), Rejection> {
        match command.actor {
            Actor::Agent(id) if id == device => Ok(()),
            Actor::Agent(_) => Err(Rejection::ForeignDevice),
            _ => Err(Rejection::NotGranted { actor: command.actor.clone(), action }),
        }
    }

    /// Who escrows for a device, if it is not itself.
    fn importer(
        &self,
        command: &Command,
        device: DeviceId,
    ) -> Result<Option<OperatorName>, Rejection> {
        let Actor::Operator(name) = &command.actor else {
            return Self::own(command, device, AuditAction::Escrow).map(|()| None);
        };
        let role = [Role::DataMigration];
        self.need(command, &role, AuditAction::Escrow)?;
        if self.reaches(command, &role, device) {
            Ok(Some(name.clone()))
        } else {
            Err(Rejection::OutsideGroups)
        }
    }

    /// The receipt of a key. Its audit hash is left at zeros.
    fn receipt(key: &ModelKey) -> ReceiptBody {
        ReceiptBody {
            device: key.escrow.device,
            volume: key.escrow.volume,
            protector: key.escrow.protector,
            version: KeyVersion::new(key.version),
            sealed_digest: sealed_digest(&key.escrow.key, key.escrow.package.as_ref()),
            position: key.position,
            audit: AuditPosition { sequence: key.audit_sequence, hash: [0; 32] },
            escrowed_at: Timestamp::from_millis(key.escrowed_at),
        }
    }

    /// What is refused of an escrow that is new; the volume's version if it is not.
    fn check_escrow(&self, e: &Escrow, imported: bool) -> Result<u32, Rejection> {
        for sealed in [Some(&e.key), e.package.as_ref()].into_iter().flatten() {
            if sealed.epoch.get() > self.rotations + 1 {
                return Err(Rejection::UnknownEpoch(sealed.epoch));
            }
        }
        let foreign = |k: &&ModelKey| {
            k.escrow.protector == e.protector
                && (k.escrow.device != e.device || k.escrow.volume != e.volume)
        };
        if self.keys.iter().any(|k| foreign(&k)) {
            return Err(Rejection::ForeignVolume);
        }
        if e.users.len() > 32 {
            return Err(Rejection::TooManyUsers(e.users.len()));
        }
        let current = self.current(e.device, e.volume);
        let of_volume = |k: &&ModelKey| k.escrow.device == e.device && k.escrow.volume == e.volume;
        let newest = self.keys.iter().filter(of_volume).max_by_key(|k| k.version);
        if imported && newest.is_some_and(|k| k.importer.is_none()) {
            return Err(Rejection::EscrowedByDevice);
        }
        if e.expected_version.get() != current {
            let current = KeyVersion::new(current);
            return Err(Rejection::StaleVersion { expected: e.expected_version, current });
        }
        Ok(current)
    }

    pub(super) fn escrow(&mut self, position: Position, command: &Command, e: &Escrow) -> Outcome {
        let importer = self.importer(command, e.device)?;
        let identical = self.keys.iter().find(|k| {
            let k = &k.escrow;
            k.device == e.device
                && k.volume == e.volume
                && k.protector == e.protector
                && k.expected_version == e.expected_version
                && k.key == e.key
                && k.package == e.package
        });
        if let Some(key) = identical.cloned() {
            if matches!(self.seen(command), Seen::New) {
                self.remember(command, Some((e.protector, key.version)), false);
            }
            return Ok(Accepted::Escrowed(Self::receipt(&key)));
        }
        if !matches!(self.seen(command), Seen::New) {
            return Err(Rejection::RequestIdReused);
        }
        let current = self.check_escrow(e, importer.is_some())?;
        let now = self.time;
        let fresh = ModelDevice { first_seen: now, ..ModelDevice::default() };
        let mut device = self.devices.get(&e.device).cloned().unwrap_or(fresh);
        if !device.volumes.contains_key(&e.volume) && device.volumes.len() == 64 {
            return Err(Rejection::TooManyVolumes(64));
        }
        for key in &mut self.keys {
            let same = key.escrow.device == e.device && key.escrow.volume == e.volume;
            if same && matches!(key.state, KeyState::Active | KeyState::RotationDue) {
                key.state = KeyState::Superseded;
            }
        }
        device.volumes.entry(e.volume).or_insert((e.volume_kind, None)).0 = e.volume_kind;
        if importer.is_none() {
            device.told(e, now);
        } else {
            device.told_by_others(e);
        }
        self.devices.insert(e.device, device);
        self.log(position, command, "escrow", "ok", Some((e.protector, current + 1)), None);
        let key = ModelKey {
            escrow: e.clone(),
            version: current + 1,
            state: KeyState::Active,
            escrowed_at: now,
            disclosed_at: None,
            stored: (e.key.clone(), e.package.clone()),
            position,
            audit_sequence: self.audit.len() as u64,
            importer,
        };
        self.remember(command, Some((e.protector, key.version)), false);
        self.keys.push(key.clone());
        Ok(Accepted::Escrowed(Self::receipt(&key)))
    }

    /// Volumes whose newest key was disclosed.
    fn rotation_due(&self, device: DeviceId) -> Vec<VolumeId> {
        let due = self.keys.iter().filter(|k| k.state == KeyState::RotationDue);
        let mine = due.filter(|k| k.escrow.device == device).map(|k| k.escrow.volume);
        mine.collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn report(&mut self, command: &Command, report: &ReportCompliance) -> Outcome {
        Self::own(command, report.device, AuditAction::Report)?;
        match self.seen(command) {
            Seen::Other => return Err(Rejection::RequestIdReused),
            Seen::Same(_) => {
                let rotation_due = self.rotation_due(report.device);
                return Ok(Accepted::Reported { rotation_due });
            }
            Seen::New => {}
        }
        if report.users.len() > 32 {
            return Err(Rejection::TooManyUsers(report.users.len()));
        }
        let now = self.time;
        let fresh = ModelDevice { first_seen: now, ..ModelDevice::default() };
        let mut device = self.devices.get(&report.device).cloned().unwrap_or(fresh);
        let before = device.volumes.len();
        for volume in &report.volumes {
            device.volumes.insert(volume.volume, (volume.kind, Some((volume.clone(), now))));
        }
        if device.volumes.len() > 64 {
            return Err(Rejection::TooManyVolumes(before));
        }
        device.host_name = report.host_name.to_string();
        device.operating_system = report.operating_system.to_string();
        device.users = report.users.clone();
        device.last_contact = now;
        self.devices.insert(report.device, device);
        self.remember(command, None, false);
        Ok(Accepted::Reported { rotation_due: self.rotation_due(report.device) })
    }

    pub(in super::super) fn summary(&self, key: &ModelKey) -> KeySummary {
        let device = &self.devices[&key.escrow.device];
        KeySummary {
            protector: key.escrow.protector,
            version: KeyVersion::new(key.version),
            device: key.escrow.device,
            volume: key.escrow.volume,
            protector_kind: key.escrow.protector_kind,
            volume_kind: key.escrow.volume_kind,
            state: key.state,
            escrowed_at: Timestamp::from_millis(key.escrowed_at),
            disclosed_at: key.disclosed_at.map(Timestamp::from_millis),
            has_package: key.escrow.package.is_some(),
            host_name: Text::name("host_name", device.host_name.clone()).unwrap(),
            users: device.users.clone(),
            imported_by: key.importer.clone(),
        }
    }

    pub(super) fn find(
        &mut self,
        position: Position,
        command: &Command,
        query: &FindQuery,
    ) -> Outcome {
        let seen = self.seen(command);
        if matches!(seen, Seen::Other) {
            return Err(Rejection::RequestIdReused);
        }
        let within = |device| self.reaches(command, &DESK, device);
        if let FindQuery::Device(device) | FindQuery::Volume(device, _) = query {
            if !within(*device) {
                return Err(Rejection::OutsideGroups);
            }
            let device = self.devices.get(device).ok_or(Rejection::UnknownDevice)?;
            if let FindQuery::Volume(_, volume) = query
                && !device.volumes.contains_key(volume)
            {
                return Err(Rejection::UnknownVolume);
            }
        }
        let matching = self.keys.iter().filter(|k| match query {
            FindQuery::Prefix(prefix) => k.escrow.protector.prefix() == *prefix,
            FindQuery::Protector(protector) => k.escrow.protector == *protector,
            FindQuery::Device(device) => k.escrow.device == *device,
            FindQuery::Volume(d, v) => k.escrow.device == *d && k.escrow.volume == *v,
        });
        let matching = matching.filter(|k| within(k.escrow.device));
        let mut keys: Vec<_> = matching.map(|k| self.summary(k)).collect();
        keys.sort_by(|a, b| a.protector.cmp(&b.protector).then(b.version.cmp(&a.version)));
        assert!(keys.len() <= 200, "the model is for small states");
        let key = match query {
            FindQuery::Protector(protector) => Some((*protector, 0)),
            _ => None,
        };
        if matches!(seen, Seen::New) {
            self.log(position, command, "find", "ok", key, None);
            self.remember(command, None, false);
        } else {
            self.log(position, command, "find", "repeated", key, None);
        }
        Ok(Accepted::Found { keys, truncated: false })
    }

    pub(super) fn disclose(
        &mut self,
        position: Position,
        command: &Command,
        d: &Disclose,
    ) -> Outcome {
        if d.user.is_none() && !self.has(command, Role::AdvancedHelpDesk) {
            return Err(Rejection::UserRequired);
        }
        if self.sealed.is_some() {
            return Err(Rejection::Sealed);
        }
        let (wanted, repeated) = match self.seen(command) {
            Seen::Other => return Err(Rejection::RequestIdReused),
            Seen::Same(n) if self.time - self.requests[n].time > 120_000 => {
                return Err(Rejection::RepeatTooLate);
            }
            Seen::Same(n) => (self.requests[n].key.unwrap().1, true),
            Seen::New => (d.version.get(), false),
        };
        let of_id = self.keys.iter().filter(|k| k.escrow.protector == d.protector);
        let newest = of_id.map(|k| k.version).max().unwrap_or(0);
        let wanted = if wanted == 0 { newest } else { wanted };
        let found = |k: &ModelKey| k.escrow.protector == d.protector && k.version == wanted;
        let Some(n) = self.keys.iter().position(found) else {
            let limited = self.limited(command, &DESK);
            return Err(if limited { Rejection::OutsideGroups } else { Rejection::UnknownKey });
        };
        let device = self.keys[n].escrow.device;
        if !self.reaches(command, &DESK, device) {
            return Err(Rejection::OutsideGroups);
        }
        let advanced = self.reaches(command, &[Role::AdvancedHelpDesk], device);
        if d.user.is_none() && !advanced {
            return Err(Rejection::UserRequired);
        }
        let named = Some((d.protector, wanted));
        if repeated {
            self.log(position, command, "disclose", "repeated", named, d.user.clone());
            let key = self.summary(&self.keys[n]);
            return Ok(Accepted::Disclosed { key, repeated });
        }
        let (start, used) = self.quotas.get(&command.actor).copied().unwrap_or((self.time, 0));
        let (start, used) =
            if self.time >= start + 3_600_000 { (self.time, 0) } else { (start, used) };
        if used == 200 {
            let until = Timestamp::from_millis(start + 3_600_000);
            let scope = QuotaScope::RequesterHour;
            return Err(Rejection::QuotaExceeded { scope, limit: 200, until });
        }
        self.quotas.insert(command.actor.clone(), (start, used + 1));
        let key = &mut self.keys[n];
        key.disclosed_at = Some(self.time);
        key.state = match key.state {
            KeyState::Active | KeyState::RotationDue => KeyState::RotationDue,
            KeyState::Superseded | KeyState::Disclosed => KeyState::Disclosed,
        };
        self.log(position, command, "disclose", "ok", named, d.user.clone());
        self.remember(command, named, false);
        Ok(Accepted::Disclosed { key: self.summary(&self.keys[n]), repeated: false })
    }
}
