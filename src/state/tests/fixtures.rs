//! Small values by number, and a machine that is ready for work.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::*;
use crate::state::*;

pub(super) const CLUSTER: ClusterId = ClusterId::from_bytes([0xcc; 16]);
/// The first administrator.
pub(super) const ROOT: &str = "root";
/// Help desk.
pub(super) const HUGO: &str = "hugo";
/// Advanced help desk.
pub(super) const ADA: &str = "ada";
/// Auditor.
pub(super) const ODO: &str = "odo";

pub(super) fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 16])
}

pub(super) fn volume(n: u8) -> VolumeId {
    VolumeId::from_bytes([n; 16])
}

/// Two neighbours, an even one and the next, have the first eight digits in common.
pub(super) fn protector(n: u8) -> ProtectorId {
    let mut bytes = [n; 16];
    bytes[..4].fill(n / 2);
    ProtectorId::from_bytes(bytes)
}

pub(super) fn request(n: u64) -> RequestId {
    RequestId::new(uuid::Uuid::from_u128(u128::from(n)))
}

pub(super) fn agent(n: u8) -> Actor {
    Actor::Agent(device(n))
}

pub(super) fn operator(name: &str) -> Actor {
    Actor::Operator(name.parse().unwrap())
}

pub(super) fn node(n: u64) -> Actor {
    Actor::Node(NodeId::new(n))
}

/// A membership of these nodes.
pub(super) fn membership(bytes: &'static [u8], nodes: &[u64]) -> Entry {
    let members = nodes.iter().copied().map(NodeId::new).collect();
    Entry::Membership { bytes: Bytes::from_static(bytes), members }
}

pub(super) fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub(super) fn version(n: u32) -> KeyVersion {
    KeyVersion::new(n)
}

pub(super) fn name(text: &str) -> Text {
    Text::name("name", text).unwrap()
}

pub(super) fn user(name: &str) -> User {
    User::new("CORP", name).unwrap()
}

pub(super) fn users(count: usize) -> Vec<User> {
    (0..count).map(|n| user(&format!("user{n}"))).collect()
}

pub(super) fn sealed(epoch: u32, fill: u8) -> Sealed {
    Sealed {
        epoch: Epoch::new(epoch),
        encapsulated_key: [fill; 32],
        ciphertext: Bytes::from(vec![fill; 64]),
    }
}

pub(super) fn bootstrap() -> CommandBody {
    CommandBody::Bootstrap(Bootstrap {
        cluster: CLUSTER,
        administrator: ROOT.parse().unwrap(),
        root_check: [1; 32],
        signer: Signer {
            chain: vec![Bytes::from_static(b"leaf"), Bytes::from_static(b"ca")],
            private_key: Wrapped(Bytes::from_static(b"wrapped signer")),
        },
        epoch: EpochRecord {
            epoch: Epoch::new(1),
            public_key: [2; 32],
            private_key: Wrapped(Bytes::from_static(b"wrapped epoch")),
            signature: Bytes::from_static(b"signature"),
        },
    })
}

/// An escrow of a volume of `device` with contents that follow from `fill`.
pub(super) fn escrow_of(d: u8, v: u8, p: u8, expected: u32, fill: u8) -> Escrow {
    Escrow {
        device: device(d),
        volume: volume(v),
        protector: protector(p),
        protector_kind: ProtectorKind::BitLockerRecoveryPassword,
        volume_kind: VolumeKind::OperatingSystem,
        expected_version: version(expected),
        key: sealed(1, fill),
        package: None,
        host_name: name(&format!("pc-{d}")),
        users: vec![user("eve")],
    }
}

pub(super) fn compliance(v: u8, status: ComplianceStatus) -> VolumeCompliance {
    VolumeCompliance {
        volume: volume(v),
        kind: VolumeKind::FixedData,
        mount_point: name("D:"),
        status,
        codes: vec![1, 13],
        encryption: EncryptionState::Encrypted,
        protection_on: true,
        cipher: name("XTS-AES-256"),
        protector_types: name("TPM"),
    }
}

pub(super) fn report_of(d: u8, volumes: Vec<VolumeCompliance>) -> ReportCompliance {
    ReportCompliance {
        device: device(d),
        host_name: name(&format!("pc-{d}")),
        operating_system: name("Windows 11"),
        manufacturer: name("ACME"),
        model: name("Anvil 3"),
        users: vec![user("eve")],
        volumes,
    }
}

pub(super) fn disclose_of(p: u8, v: u32, for_user: Option<&str>) -> CommandBody {
    CommandBody::Disclose(Disclose {
        protector: protector(p),
        version: version(v),
        reason: Reason::new("LOST_PIN", "").unwrap(),
        user: for_user.map(user),
        ticket: name("INC-7"),
    })
}

pub(super) fn grant(to: &str, role: Role) -> CommandBody {
    CommandBody::Grant { operator: to.parse().unwrap(), role }
}

pub(super) fn revoke(from: &str, role: Role) -> CommandBody {
    CommandBody::Revoke { operator: from.parse().unwrap(), role }
}

pub(super) fn deny(subject: &str) -> CommandBody {
    CommandBody::Deny { subject: subject.parse().unwrap(), reason: name("laptop stolen") }
}

pub(super) fn allow(subject: &str) -> CommandBody {
    CommandBody::Allow { subject: subject.parse().unwrap() }
}

pub(super) fn token_id(n: u8) -> TokenId {
    TokenId::from_bytes([n; 16])
}

/// How long a token of a test is valid: an hour.
pub(super) const TTL_MS: u64 = 3_600_000;

pub(super) fn agent_ca(number: u32, fill: u8) -> CommandBody {
    CommandBody::CreateAgentCa(AgentCa {
        number,
        certificate: Bytes::from(vec![fill; 8]),
        private_key: Wrapped(Bytes::from(vec![fill; 9])),
    })
}

pub(super) fn issue_for(n: u8, binding: TokenBinding) -> CommandBody {
    CommandBody::IssueToken(IssueToken {
        id: token_id(n),
        digest: [n; 32],
        binding,
        ttl_ms: TTL_MS,
    })
}

pub(super) fn group(name: &str, count: u32) -> TokenBinding {
    TokenBinding::group(name.parse().unwrap(), count).unwrap()
}

/// A certificate that is valid for 90 days from a time, of the key of this number.
pub(super) fn device_certificate(key: u8, fill: u8, from: u64) -> DeviceCertificate {
    DeviceCertificate {
        der: Bytes::from(vec![fill; 10]),
        not_before: at(from),
        not_after: at(from + 90 * 86_400_000),
        public_key: [key; 32],
        agent_ca: 1,
    }
}

/// An enrolment with token `t` of device `d` with key `key`; the certificate differs by `fill`.
pub(super) fn enrol_of(t: u8, d: u8, key: u8, fill: u8) -> CommandBody {
    CommandBody::Enrol(Enrol {
        token: token_id(t),
        token_digest: [t; 32],
        device: device(d),
        certificate: device_certificate(key, fill, 1_700_000_000_000),
    })
}

/// A renewal by a certificate that is valid for 90 days from a time.
pub(super) fn renew_of(d: u8, key: u8, fill: u8, old_from: u64) -> CommandBody {
    let old = device_certificate(0, 0, old_from);
    CommandBody::Renew(Renew {
        device: device(d),
        certificate: device_certificate(key, fill, old_from + 1),
        old_not_before: old.not_before,
        old_not_after: old.not_after,
    })
}

/// A certificate by number; none for 0.
pub(super) fn certificate(n: u8) -> Option<Fingerprint> {
    (n > 0).then(|| Fingerprint::from_bytes([n; 32]))
}

/// A machine in memory with a log that it makes up.
pub(super) struct Rig {
    pub(super) machine: Machine<MemoryStore>,
    next_index: u64,
    next_request: u64,
    pub(super) now: u64,
}

impl Rig {
    /// An empty machine.
    pub(super) fn empty() -> Self {
        let machine = Machine::open(Arc::new(MemoryStore::default())).unwrap();
        Self { machine, next_index: 1, next_request: 1_000_000, now: 1_700_000_000_000 }
    }

    /// A machine with a keyring and one operator of each kind but report readers.
    pub(super) fn ready() -> Self {
        let mut rig = Self::empty();
        rig.accept(operator(ROOT), bootstrap());
        rig.accept(operator(ROOT), grant(HUGO, Role::HelpDesk));
        rig.accept(operator(ROOT), grant(ADA, Role::AdvancedHelpDesk));
        rig.accept(operator(ROOT), grant(ODO, Role::Auditor));
        rig
    }

    pub(super) fn remembering(mut self, requests: u64) -> Self {
        self.machine = self.machine.remembering(requests);
        self
    }

    pub(super) fn store(&self) -> &MemoryStore {
        self.machine.store()
    }

    /// Applies one entry.
    pub(super) fn entry(&mut self, entry: Entry) -> Applied {
        let position = Position { term: 1, index: self.next_index };
        self.next_index += 1;
        self.machine.apply([(position, entry)]).unwrap().pop().unwrap()
    }

    /// Applies a command with a request id of the test's choice.
    pub(super) fn send(&mut self, actor: Actor, id: u64, body: CommandBody) -> Applied {
        self.send_with(actor, None, id, body)
    }

    /// The same, of an actor that came with a certificate.
    pub(super) fn send_with(
        &mut self,
        actor: Actor,
        certificate: Option<Fingerprint>,
        id: u64,
        body: CommandBody,
    ) -> Applied {
        let request_id = request(id);
        let command = Command { actor, certificate, request_id, time: at(self.now), body };
        self.entry(Entry::Command(codec::encode_command(&command)))
    }

    /// Applies commands in one batch, each with a new request id.
    pub(super) fn batch(
        &mut self,
        commands: impl IntoIterator<Item = (Actor, CommandBody)>,
    ) -> Vec<Outcome> {
        let mut batch = Vec::new();
        for (actor, body) in commands {
            let position = Position { term: 1, index: self.next_index };
            self.next_index += 1;
            self.next_request += 1;
            let request_id = request(self.next_request);
            let command =
                Command { actor, certificate: None, request_id, time: at(self.now), body };
            batch.push((position, Entry::Command(codec::encode_command(&command))));
        }
        let applied = self.machine.apply(batch).unwrap();
        applied.into_iter().map(|applied| applied.outcome).collect()
    }

    /// Applies a command with a new request id.
    pub(super) fn run(&mut self, actor: Actor, body: CommandBody) -> Applied {
        self.next_request += 1;
        self.send(actor, self.next_request, body)
    }

    pub(super) fn accept(&mut self, actor: Actor, body: CommandBody) -> Accepted {
        self.run(actor, body).outcome.unwrap()
    }

    /// Applies a command that must be refused, change nothing but its audit record, and be named in it.
    pub(super) fn refuse(&mut self, actor: Actor, body: CommandBody) -> Rejection {
        self.next_request += 1;
        self.refuse_as(actor, self.next_request, body)
    }

    pub(super) fn refuse_as(&mut self, actor: Actor, id: u64, body: CommandBody) -> Rejection {
        let before = self.records_without_audit();
        let head = self.machine.heads().audit.sequence;
        let applied = self.send(actor.clone(), id, body);
        let rejection = applied.outcome.unwrap_err();
        assert_eq!(self.records_without_audit(), before, "{rejection} changed something");
        let last = self.last_audit();
        assert_eq!(last.sequence, head + 1);
        assert_eq!(last.outcome.as_str(), rejection.reason());
        assert_eq!(last.actor, Some(actor));
        assert_eq!(applied.audit, last.head());
        rejection
    }

    pub(super) fn escrow(&mut self, escrow: Escrow) -> ReceiptBody {
        let actor = Actor::Agent(escrow.device);
        match self.accept(actor, CommandBody::Escrow(escrow)) {
            Accepted::Escrowed(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refuse_escrow(&mut self, escrow: Escrow) -> Rejection {
        self.refuse(Actor::Agent(escrow.device), CommandBody::Escrow(escrow))
    }

    pub(super) fn disclose(&mut self, p: u8, v: u32) -> KeySummary {
        match self.accept(operator(ADA), disclose_of(p, v, None)) {
            Accepted::Disclosed { key, repeated: false } => key,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn find(&mut self, query: FindQuery) -> (Vec<KeySummary>, bool) {
        match self.accept(operator(HUGO), CommandBody::FindKeys(query)) {
            Accepted::Found { keys, truncated } => (keys, truncated),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn last_audit(&self) -> AuditRecord {
        let last = self.machine.heads().audit.sequence;
        query::audit_records(self.store(), last, last, 1).unwrap().pop().unwrap()
    }

    fn records_without_audit(&self) -> Vec<(Table, Record)> {
        let mut records = self.store().records();
        records.retain(|(table, _)| !matches!(table, Table::Audit | Table::Meta));
        records
    }

    /// How many records of each table an action changes.
    pub(super) fn changes(&mut self, act: impl FnOnce(&mut Self)) -> Vec<(Table, usize)> {
        let before = self.store().records();
        act(self);
        let after = self.store().records();
        let changed = |table: Table| {
            let old: Vec<_> = before.iter().filter(|(t, _)| *t == table).collect();
            let new: Vec<_> = after.iter().filter(|(t, _)| *t == table).collect();
            let removed = old
                .iter()
                .filter(|(_, (key, _))| !new.iter().any(|(_, (other, _))| other == key))
                .count();
            removed + new.iter().filter(|record| !old.contains(record)).count()
        };
        let counts = Table::ALL.into_iter().map(|table| (table, changed(table)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
