//! Keeps replicated time near the time of the machines: it never runs backwards, so one clock that is far ahead would move
//! it for good.
//!
//! The state machine stays pure: a command whose time is far ahead is refused before it is proposed, by the leader, against
//! the leader's own clock. A node whose clock is far ahead of a majority's proposes nothing at all, so that such a node
//! does no harm as the leader either.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::api::Refusal;
use crate::clock::SharedClock;
use crate::domain::Timestamp;
use crate::state::codec;

/// How far a clock may be ahead.
const MOST_AHEAD: Duration = Duration::from_secs(600);

/// Judges the time of commands.
pub(crate) struct TimeGuard {
    clock: SharedClock,
    /// Whether this node's clock was found to be far ahead of a majority's.
    own_ahead: AtomicBool,
}

impl TimeGuard {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self { clock, own_ahead: AtomicBool::new(false) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether this node's clock was found to be far ahead.
    pub(crate) fn own_ahead(&self) -> bool {
        self.own_ahead.load(Ordering::Relaxed)
    }

    /// Refuses a command whose time is far ahead, as the leader. What has no time can't be applied, and moves nothing.
    pub(crate) fn check(&self, command: &Bytes) -> Result<(), Refusal> {
        if self.own_ahead() {
            return Err(Refusal::ClockAhead);
        }
        match codec::command_time(command) {
            Some(time) if ahead(time, self.now()) => Err(Refusal::ClockAhead),
            _ => Ok(()),
        }
    }

    /// Takes note of what the clocks of other members say. `members` counts all, this node too.
    pub(crate) fn compare(&self, others: &[Timestamp], members: usize) {
        let now = self.now();
        let behind = others.iter().filter(|other| ahead(now, **other)).count();
        let is_ahead = behind > members / 2;
        if self.own_ahead.swap(is_ahead, Ordering::Relaxed) != is_ahead {
            if is_ahead {
                tracing::error!("the clock is far ahead of a majority's; nothing is proposed here");
            } else {
                tracing::info!("the clock agrees with a majority's again");
            }
        }
    }
}

/// Whether `time` is far ahead of `now`.
fn ahead(time: Timestamp, now: Timestamp) -> bool {
    let most = u64::try_from(MOST_AHEAD.as_millis()).unwrap_or(u64::MAX);
    time.as_millis() > now.as_millis().saturating_add(most)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Clock;
    use crate::domain::{
        Actor, ClusterId, DeviceId, DisclosurePolicy, Epoch, KeyVersion, NodeId, ProtectorId,
        ProtectorKind, Reach, Reason, RequestId, Role, Sealed, Text, User, VolumeId, VolumeKind,
    };
    use crate::state::{
        Bootstrap, Command, CommandBody, Disclose, Entry, EpochRecord, Escrow, Machine,
        MemoryStore, Outcome, Position, Rejection, Signer, Wrapped,
    };

    const NOW: u64 = 1_700_000_000_000;
    const MINUTE: u64 = 60_000;

    struct Fixed;

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(NOW)
        }
    }

    fn guard() -> TimeGuard {
        TimeGuard::new(Arc::new(Fixed))
    }

    fn command(time: u64) -> Bytes {
        codec::encode_command(&Command {
            actor: Actor::Node(NodeId::new(2)),
            certificate: None,
            roles: Default::default(),
            request_id: RequestId::from_bytes([1; 16]),
            time: Timestamp::from_millis(time),
            body: CommandBody::Refusals(Vec::new()),
        })
    }

    #[test]
    fn a_command_from_a_clock_far_ahead_of_the_leaders_is_refused() {
        assert_eq!(guard().check(&command(NOW + 10 * MINUTE)), Ok(()));
        assert_eq!(guard().check(&command(NOW + 10 * MINUTE + 1)), Err(Refusal::ClockAhead));
        assert_eq!(guard().check(&command(u64::MAX)), Err(Refusal::ClockAhead));
        // A clock that is behind moves nothing: apply takes the later of the two.
        assert_eq!(guard().check(&command(0)), Ok(()));
        assert_eq!(guard().check(&Bytes::from_static(b"garbage")), Ok(()));
    }

    const HUGO: &str = "hugo";

    fn operator(name: &str) -> Actor {
        Actor::Operator(name.parse().unwrap())
    }

    fn disclose() -> CommandBody {
        CommandBody::Disclose(Disclose {
            protector: ProtectorId::from_bytes([3; 16]),
            version: KeyVersion::NONE,
            reason: Reason::new("LOST_PIN", "").unwrap(),
            user: Some(User::new("", "eve").unwrap()),
            ticket: Text::default(),
            approval: None,
        })
    }

    /// What makes a cluster that allows one disclosure in an hour, of one key that it has.
    fn set_up() -> Vec<(Actor, CommandBody)> {
        let mut parts = DisclosurePolicy::default().parts();
        parts.requester_hour = 1;
        let wrapped = || Wrapped(Bytes::from_static(b"wrapped"));
        let device = DeviceId::from_bytes([1; 16]);
        let bootstrap = Bootstrap {
            cluster: ClusterId::from_bytes([9; 16]),
            administrator: "root".parse().unwrap(),
            root_check: [1; 32],
            signer: Signer { chain: Vec::new(), private_key: wrapped() },
            epoch: EpochRecord {
                epoch: Epoch::new(1),
                public_key: [2; 32],
                private_key: wrapped(),
                signature: Bytes::new(),
            },
            shares: None,
            disclosure_policy: Some(DisclosurePolicy::new(parts).unwrap()),
        };
        let key = Sealed {
            epoch: Epoch::new(1),
            encapsulated_key: [4; 32],
            ciphertext: Bytes::from_static(&[5; 64]),
        };
        let escrow = Escrow {
            device,
            volume: VolumeId::from_bytes([2; 16]),
            protector: ProtectorId::from_bytes([3; 16]),
            protector_kind: ProtectorKind::BitLockerRecoveryPassword,
            volume_kind: VolumeKind::OperatingSystem,
            expected_version: KeyVersion::NONE,
            key,
            package: None,
            host_name: Text::default(),
            users: Vec::new(),
        };
        let (role, reach) = (Role::HelpDesk, Reach::ALL);
        let grant = CommandBody::Grant { operator: HUGO.parse().unwrap(), role, reach };
        vec![
            (operator("root"), CommandBody::Bootstrap(bootstrap)),
            (operator("root"), grant),
            (Actor::Agent(device), CommandBody::Escrow(escrow)),
        ]
    }

    /// A leader whose clock is right, with its state.
    struct Leader {
        guard: TimeGuard,
        machine: Machine<MemoryStore>,
        entries: u8,
    }

    impl Leader {
        fn propose(
            &mut self,
            actor: Actor,
            body: CommandBody,
            time: u64,
        ) -> Result<Outcome, Refusal> {
            self.entries += 1;
            let time = Timestamp::from_millis(time);
            let request_id = RequestId::from_bytes([self.entries; 16]);
            let command = Command {
                actor,
                certificate: None,
                roles: Default::default(),
                request_id,
                time,
                body,
            };
            let bytes = codec::encode_command(&command);
            self.guard.check(&bytes)?;
            let index = self.machine.heads().position.map_or(1, |last| last.index + 1);
            let applied =
                self.machine.apply([(Position { term: 1, index }, Entry::Command(bytes))]);
            Ok(applied.unwrap().pop().unwrap().outcome)
        }
    }

    #[test]
    fn neither_a_clock_an_hour_ahead_nor_one_an_hour_back_opens_a_quota() {
        let machine = Machine::open(Arc::<MemoryStore>::default()).unwrap();
        let mut leader = Leader { guard: guard(), machine, entries: 0 };
        for (actor, body) in set_up() {
            leader.propose(actor, body, NOW).unwrap().unwrap();
        }
        leader.propose(operator(HUGO), disclose(), NOW).unwrap().unwrap();
        let ahead = leader.propose(operator(HUGO), disclose(), NOW + 60 * MINUTE);
        assert_eq!(ahead, Err(Refusal::ClockAhead));
        for time in [NOW - 60 * MINUTE, NOW, NOW + 10 * MINUTE, NOW - 60 * MINUTE, NOW] {
            let refused = leader.propose(operator(HUGO), disclose(), time).unwrap();
            assert!(matches!(refused, Err(Rejection::QuotaExceeded { .. })), "{refused:?}");
        }
        let time = leader.machine.heads().time.as_millis();
        assert_eq!(time, NOW + 10 * MINUTE, "one clock moves it this far at most");
    }

    #[test]
    fn a_node_far_ahead_of_a_majority_proposes_nothing_until_its_clock_is_set() {
        let (guard, now) = (guard(), Timestamp::from_millis(NOW));
        let past = Timestamp::from_millis(NOW - 11 * MINUTE);
        guard.compare(&[past, now], 3);
        assert_eq!(guard.check(&command(NOW)), Ok(()), "two of three agree with this node");
        guard.compare(&[past], 3);
        assert_eq!(guard.check(&command(NOW)), Ok(()), "one against one says nothing");
        guard.compare(&[past, past], 3);
        assert_eq!(guard.check(&command(NOW)), Err(Refusal::ClockAhead));
        guard.compare(&[now, now], 3);
        assert_eq!(guard.check(&command(NOW)), Ok(()));
    }
}
