//! The rules once more, as naively as possible: plain lists, searched from end to end. It shares types with the state
//! machine and no code, and it never looks at bytes, hashes or tables.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::domain::*;
use crate::state::*;

mod denials;
mod enrolment;
mod groups;
mod keys;
mod reseal;
mod seal;

pub(super) use enrolment::{ModelEnrolment, ModelToken};

#[derive(Debug, Clone)]
pub(super) struct ModelKey {
    pub(super) escrow: Escrow,
    pub(super) version: u32,
    pub(super) state: KeyState,
    pub(super) escrowed_at: u64,
    pub(super) disclosed_at: Option<u64>,
    /// What it is sealed in by now; at first that of the escrow.
    pub(super) stored: (Sealed, Option<Sealed>),
    pub(super) position: Position,
    pub(super) audit_sequence: u64,
    pub(super) importer: Option<OperatorName>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ModelDevice {
    pub(super) host_name: String,
    pub(super) operating_system: String,
    pub(super) users: Vec<User>,
    pub(super) volumes: BTreeMap<VolumeId, (VolumeKind, Option<(VolumeCompliance, u64)>)>,
    pub(super) first_seen: u64,
    pub(super) last_contact: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelRecord {
    pub(super) time: u64,
    pub(super) index: u64,
    pub(super) actor: String,
    pub(super) action: &'static str,
    pub(super) outcome: String,
    pub(super) count: u64,
    pub(super) key: Option<(ProtectorId, u32)>,
    pub(super) user: Option<User>,
}

#[derive(Debug)]
struct Request {
    actor: Actor,
    id: RequestId,
    body: CommandBody,
    time: u64,
    key: Option<(ProtectorId, u32)>,
    changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    bootstrapped: bool,
    time: u64,
    pub(super) grants: BTreeMap<(String, Role), Reach>,
    pub(super) keys: Vec<ModelKey>,
    pub(super) devices: BTreeMap<DeviceId, ModelDevice>,
    pub(super) audit: Vec<ModelRecord>,
    requests: VecDeque<Request>,
    memory: usize,
    quotas: BTreeMap<Actor, (u64, u32)>,
    pub(super) members: BTreeSet<NodeId>,
    pub(super) denied: BTreeMap<DenialSubject, Text>,
    /// How often the cluster was sealed, and by whom if it is.
    pub(super) seals: u64,
    pub(super) sealed: Option<(Actor, Text)>,
    /// Epochs that were made after the first.
    pub(super) rotations: u32,
    pub(super) agent_cas: Vec<AgentCa>,
    pub(super) tokens: Vec<ModelToken>,
    pub(super) enrolments: BTreeMap<DeviceId, ModelEnrolment>,
    pub(super) enrolled_again: u64,
    pub(super) groups: BTreeMap<DeviceId, BTreeSet<GroupName>>,
}

enum Seen {
    New,
    Same(usize),
    Other,
}

impl Model {
    pub(super) fn new(memory: usize) -> Self {
        Self { memory, ..Self::default() }
    }

    pub(super) fn now(&self) -> u64 {
        self.time
    }

    /// The volume's current version.
    pub(super) fn current(&self, device: DeviceId, volume: VolumeId) -> u32 {
        let of_volume =
            self.keys.iter().filter(|k| k.escrow.device == device && k.escrow.volume == volume);
        of_volume.map(|k| k.version).max().unwrap_or(0)
    }

    pub(super) fn unreadable(&mut self, position: Position) -> Outcome {
        self.audit.push(ModelRecord {
            time: self.time,
            index: position.index,
            actor: String::new(),
            action: "unreadable",
            outcome: "UNREADABLE".into(),
            count: 1,
            key: None,
            user: None,
        });
        Err(Rejection::Unreadable)
    }

    pub(super) fn apply(&mut self, position: Position, command: &Command) -> Outcome {
        self.time = self.time.max(command.time.as_millis());
        let outcome = self.decide(position, command);
        if let Err(why) = &outcome {
            let (action, key, user) = match &command.body {
                CommandBody::Bootstrap(_) => ("bootstrap", None, None),
                CommandBody::Escrow(e) => ("escrow", Some((e.protector, 0)), None),
                CommandBody::ReportCompliance(_) => ("report", None, None),
                CommandBody::FindKeys(FindQuery::Protector(p)) => ("find", Some((*p, 0)), None),
                CommandBody::FindKeys(_) => ("find", None, None),
                CommandBody::Disclose(d) => {
                    ("disclose", Some((d.protector, d.version.get())), d.user.clone())
                }
                CommandBody::Grant { .. } => ("grant", None, None),
                CommandBody::Revoke { .. } => ("revoke", None, None),
                CommandBody::AuditRead { .. } => ("audit-read", None, None),
                CommandBody::Refusals(_) => ("refuse", None, None),
                CommandBody::ClusterChange { .. } => ("cluster-change", None, None),
                CommandBody::Deny { .. } => ("deny", None, None),
                CommandBody::Allow { .. } => ("allow", None, None),
                CommandBody::Seal { .. } => ("seal", None, None),
                CommandBody::Unseal(_) => ("unseal", None, None),
                CommandBody::Rotate(_) => ("rotate", None, None),
                CommandBody::Reseal(_) => ("reseal", None, None),
                CommandBody::Rekey(_) => ("rekey", None, None),
                CommandBody::CreateAgentCa(_) => ("agent-ca", None, None),
                CommandBody::IssueToken(_) => ("token-issue", None, None),
                CommandBody::RevokeToken(_) => ("token-revoke", None, None),
                CommandBody::Enrol(_) => ("enrol", None, None),
                CommandBody::Renew(_) => ("renew", None, None),
                CommandBody::AddToGroup { .. } => ("group-add", None, None),
                CommandBody::RemoveFromGroup { .. } => ("group-remove", None, None),
                CommandBody::SetDisclosurePolicy(_)
                | CommandBody::RequestApproval(_)
                | CommandBody::DecideApproval(_)
                | CommandBody::ProposeMassRecovery(_)
                | CommandBody::ConfirmMassRecovery(_)
                | CommandBody::EndMassRecovery(_) => unreachable!("see tests/controls"),
            };
            self.log(position, command, action, why.reason(), key, user);
        }
        outcome
    }

    fn log(
        &mut self,
        position: Position,
        command: &Command,
        action: &'static str,
        outcome: &str,
        key: Option<(ProtectorId, u32)>,
        user: Option<User>,
    ) {
        self.audit.push(ModelRecord {
            time: self.time,
            index: position.index,
            actor: command.actor.to_string(),
            action,
            outcome: outcome.into(),
            count: 1,
            key,
            user,
        });
    }

    fn seen(&self, command: &Command) -> Seen {
        let same = |r: &Request| r.actor == command.actor && r.id == command.request_id;
        match self.requests.iter().position(same) {
            None => Seen::New,
            Some(n) if self.requests[n].body == command.body => Seen::Same(n),
            Some(_) => Seen::Other,
        }
    }

    fn remember(&mut self, command: &Command, key: Option<(ProtectorId, u32)>, changed: bool) {
        self.requests.push_back(Request {
            actor: command.actor.clone(),
            id: command.request_id,
            body: command.body.clone(),
            time: self.time,
            key,
            changed,
        });
        if self.requests.len() > self.memory {
            self.requests.pop_front();
        }
    }

    fn has(&self, command: &Command, role: Role) -> bool {
        match &command.actor {
            Actor::Operator(name) => self.grants.contains_key(&(name.as_str().to_owned(), role)),
            Actor::Oidc(_) => command.roles.contains(&role),
            Actor::Agent(_) | Actor::Node(_) => false,
        }
    }

    fn need(
        &self,
        command: &Command,
        roles: &[Role],
        action: AuditAction,
    ) -> Result<(), Rejection> {
        if roles.iter().any(|role| self.has(command, *role)) {
            Ok(())
        } else {
            Err(Rejection::NotGranted { actor: command.actor.clone(), action })
        }
    }

    fn decide(&mut self, position: Position, command: &Command) -> Outcome {
        self.refuse_denied(command)?;
        match &command.body {
            CommandBody::Bootstrap(b) => return self.bootstrap(position, command, b),
            CommandBody::Refusals(counts) => return self.refusals(position, command, counts),
            _ if !self.bootstrapped => return Err(Rejection::NotBootstrapped),
            _ => {}
        }
        let desk = [Role::HelpDesk, Role::AdvancedHelpDesk];
        match &command.body {
            CommandBody::Escrow(escrow) => self.escrow(position, command, escrow),
            CommandBody::ReportCompliance(report) => self.report(command, report),
            CommandBody::FindKeys(query) => {
                self.need(command, &desk, AuditAction::Find)?;
                self.find(position, command, query)
            }
            CommandBody::Disclose(disclose) => {
                self.need(command, &desk, AuditAction::Disclose)?;
                self.disclose(position, command, disclose)
            }
            CommandBody::Grant { operator, role, reach } => {
                if !matches!(self.seen(command), Seen::Same(_)) {
                    self.need(command, &[Role::Administrator], AuditAction::Grant)?;
                }
                self.change(position, command, (operator.as_str().to_owned(), *role), Some(reach))
            }
            CommandBody::Revoke { operator, role } => {
                if !matches!(self.seen(command), Seen::Same(_)) {
                    self.need(command, &[Role::Administrator], AuditAction::Revoke)?;
                }
                self.change(position, command, (operator.as_str().to_owned(), *role), None)
            }
            CommandBody::AuditRead { .. } => {
                self.need(command, &[Role::Auditor], AuditAction::AuditRead)?;
                self.note(position, command, "audit-read")
            }
            CommandBody::ClusterChange { .. } => {
                self.need(command, &[Role::Administrator], AuditAction::ClusterChange)?;
                self.note(position, command, "cluster-change")
            }
            CommandBody::Deny { subject, reason } => {
                self.deny(position, command, subject, Some(reason))
            }
            CommandBody::Allow { subject } => self.deny(position, command, subject, None),
            CommandBody::Seal { reason } => self.seal(position, command, reason),
            CommandBody::Unseal(unseal) => self.unseal(position, command, unseal),
            CommandBody::Rotate(rotate) => self.rotate(position, command, rotate),
            CommandBody::Reseal(reseal) => self.reseal(position, command, reseal),
            CommandBody::Rekey(_) => unreachable!("the sequences don't rekey"),
            CommandBody::SetDisclosurePolicy(_)
            | CommandBody::RequestApproval(_)
            | CommandBody::DecideApproval(_)
            | CommandBody::ProposeMassRecovery(_)
            | CommandBody::ConfirmMassRecovery(_)
            | CommandBody::EndMassRecovery(_) => unreachable!("see tests/controls"),
            CommandBody::CreateAgentCa(ca) => self.create_agent_ca(position, command, ca),
            CommandBody::IssueToken(issue) => self.issue_token(position, command, issue),
            CommandBody::RevokeToken(token) => self.revoke_token(position, command, *token),
            CommandBody::Enrol(enrol) => self.enrol(position, command, enrol),
            CommandBody::Renew(renew) => self.renew(position, command, renew),
            CommandBody::AddToGroup { device, group } => {
                self.regroup(position, command, (*device, group), true)
            }
            CommandBody::RemoveFromGroup { device, group } => {
                self.regroup(position, command, (*device, group), false)
            }
            CommandBody::Bootstrap(_) | CommandBody::Refusals(_) => unreachable!(),
        }
    }

    fn bootstrap(&mut self, position: Position, command: &Command, b: &Bootstrap) -> Outcome {
        if !matches!(command.actor, Actor::Operator(_) | Actor::Oidc(_)) {
            let actor = command.actor.clone();
            return Err(Rejection::NotGranted { actor, action: AuditAction::Bootstrap });
        }
        if self.bootstrapped {
            return match self.seen(command) {
                Seen::Same(_) => Ok(Accepted::Bootstrapped),
                _ => Err(Rejection::AlreadyBootstrapped),
            };
        }
        self.bootstrapped = true;
        let first = (b.administrator.as_str().to_owned(), Role::Administrator);
        self.grants.insert(first, Reach::ALL);
        self.log(position, command, "bootstrap", "ok", None, None);
        self.remember(command, None, false);
        Ok(Accepted::Bootstrapped)
    }

    fn refusals(&mut self, position: Position, c: &Command, counts: &[RefusalCount]) -> Outcome {
        if !matches!(c.actor, Actor::Node(_)) {
            let actor = c.actor.clone();
            return Err(Rejection::NotGranted { actor, action: AuditAction::Refuse });
        }
        match self.seen(c) {
            Seen::Same(_) => return Ok(Accepted::Recorded),
            Seen::Other => return Err(Rejection::RequestIdReused),
            Seen::New => {}
        }
        for count in counts {
            self.audit.push(ModelRecord {
                time: self.time,
                index: position.index,
                actor: count.actor.to_string(),
                action: "refuse",
                outcome: count.reason.to_string(),
                count: count.count,
                key: None,
                user: None,
            });
        }
        self.remember(c, None, false);
        Ok(Accepted::Recorded)
    }

    fn note(&mut self, position: Position, command: &Command, action: &'static str) -> Outcome {
        match self.seen(command) {
            Seen::Other => return Err(Rejection::RequestIdReused),
            Seen::Same(_) => self.log(position, command, action, "repeated", None, None),
            Seen::New => {
                self.log(position, command, action, "ok", None, None);
                self.remember(command, None, false);
            }
        }
        Ok(Accepted::Recorded)
    }

    fn change(
        &mut self,
        position: Position,
        command: &Command,
        grant: (String, Role),
        reach: Option<&Reach>,
    ) -> Outcome {
        match self.seen(command) {
            Seen::Other => return Err(Rejection::RequestIdReused),
            Seen::Same(n) => return Ok(Accepted::Granted { changed: self.requests[n].changed }),
            Seen::New => {}
        }
        let mut after = self.grants.clone();
        let before = match reach {
            Some(reach) => after.insert(grant, reach.clone()),
            None => after.remove(&grant),
        };
        let changed = before.as_ref() != reach;
        if !self.administers(&after, None) {
            return Err(Rejection::LastAdministrator);
        }
        self.grants = after;
        let what = if reach.is_some() { "grant" } else { "revoke" };
        self.log(position, command, what, "ok", None, None);
        self.remember(command, None, changed);
        Ok(Accepted::Granted { changed })
    }
}
