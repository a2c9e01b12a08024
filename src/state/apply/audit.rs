//! Writing the audit chain.

use super::approval::action_of_decision;
use super::{Batch, Context};
use crate::domain::{
    Actor, AuditAction, AuditOutcome, AuditRecord, DeviceId, Fingerprint, KeyVersion, ProtectorId,
    Reason, RequestId, Text, TokenBinding, User, VolumeId,
};
use crate::state::records::keys;
use crate::state::{
    CommandBody, Disclose, Escrow, FindQuery, NewAgentCa, Position, ProposeMassRecovery,
    RefusalCount, RequestApproval, Store, Table, UnsealedBy, codec,
};

/// What an audit record says beside who, when and how it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) device: Option<DeviceId>,
    pub(super) volume: Option<VolumeId>,
    pub(super) protector: Option<ProtectorId>,
    pub(super) version: KeyVersion,
    pub(super) reason: Option<Reason>,
    pub(super) user: Option<User>,
    pub(super) ticket: Text,
    pub(super) detail: Text,
}

/// What a command about the keyring says; nothing for any other.
#[expect(clippy::wildcard_enum_match_arm, reason = "whoever asks has looked which command it is")]
fn of_keyring(body: &CommandBody) -> Text {
    match body {
        CommandBody::Seal { reason } => reason.clone(),
        CommandBody::Unseal(unseal) => words(unsealed_by(&unseal.by)),
        CommandBody::Rotate(rotate) => words(format!("epoch {}", rotate.epoch.epoch)),
        CommandBody::Reseal(reseal) => {
            words(format!("{} keys to epoch {}", reseal.keys.len(), reseal.epoch))
        }
        CommandBody::Rekey(rekey) => {
            let split = rekey.shares.map_or_else(
                || "in a file".to_owned(),
                |set| format!("{} of {}, set {}", set.threshold(), set.shares(), set.id()),
            );
            words(format!("root key {split}"))
        }
        _ => Text::default(),
    }
}

/// What a command about the bounds of disclosures says; nothing for any other.
#[expect(clippy::wildcard_enum_match_arm, reason = "whoever asks has looked which command it is")]
fn of_controls(body: &CommandBody) -> Text {
    match body {
        CommandBody::SetDisclosurePolicy(set) => words(set.policy.to_string()),
        CommandBody::DecideApproval(decide) => words(format!("approval {}", decide.approval)),
        CommandBody::ProposeMassRecovery(propose) => words(for_minutes(propose)),
        CommandBody::ConfirmMassRecovery(number) | CommandBody::EndMassRecovery(number) => {
            words(format!("mass recovery {number}"))
        }
        _ => Text::default(),
    }
}

/// What a command about who may do what says; nothing for any other.
#[expect(clippy::wildcard_enum_match_arm, reason = "whoever asks has looked which command it is")]
fn of_access(body: &CommandBody) -> Text {
    match body {
        CommandBody::Grant { operator, role, reach } if reach.is_limited() => {
            words(format!("{role} to {operator} for {reach}"))
        }
        CommandBody::Grant { operator, role, .. } => words(format!("{role} to {operator}")),
        CommandBody::Revoke { operator, role } => words(format!("{role} from {operator}")),
        CommandBody::Deny { subject, reason } => words(format!("{subject}: {reason}")),
        CommandBody::Allow { subject } => words(subject.to_string()),
        _ => Text::default(),
    }
}

fn for_minutes(propose: &ProposeMassRecovery) -> String {
    format!("for {} min: {}", propose.duration_ms / 60_000, propose.reason)
}

impl Facts {
    /// What the record of a proposal says that was accepted.
    pub(super) fn of_proposal(number: u64, propose: &ProposeMassRecovery) -> Self {
        let detail = words(format!("mass recovery {number} {}", for_minutes(propose)));
        Self { detail, ..Self::default() }
    }

    /// What a command's body says, for a command that was refused or that needs no more than that.
    pub(super) fn of_body(body: &CommandBody) -> Self {
        match body {
            CommandBody::Bootstrap(bootstrap) => Self {
                detail: words(format!("first administrator {}", bootstrap.administrator)),
                ..Self::default()
            },
            CommandBody::Escrow(escrow) => Self::of_escrow(escrow),
            CommandBody::ReportCompliance(report) => {
                Self { device: Some(report.device), ..Self::default() }
            }
            CommandBody::FindKeys(query) => Self::of_query(query),
            CommandBody::Disclose(disclose) => Self::of_disclosure(disclose),
            CommandBody::Grant { .. }
            | CommandBody::Revoke { .. }
            | CommandBody::Deny { .. }
            | CommandBody::Allow { .. } => Self { detail: of_access(body), ..Self::default() },
            CommandBody::AuditRead { detail } | CommandBody::ClusterChange { detail } => {
                Self { detail: detail.clone(), ..Self::default() }
            }
            CommandBody::Seal { .. }
            | CommandBody::Unseal(_)
            | CommandBody::Rotate(_)
            | CommandBody::Reseal(_)
            | CommandBody::Rekey(_) => Self { detail: of_keyring(body), ..Self::default() },
            CommandBody::CreateAgentCa(NewAgentCa { ca, .. }) => Self {
                detail: words(format!("{} {}", ca.number, Fingerprint::of(&ca.certificate))),
                ..Self::default()
            },
            CommandBody::IssueToken(issue) => Self {
                device: match issue.binding {
                    TokenBinding::Device(device) => Some(device),
                    TokenBinding::Group { .. } => None,
                },
                detail: words(format!("{} for {}", issue.id, issue.binding)),
                ..Self::default()
            },
            CommandBody::RevokeToken(token) => {
                Self { detail: words(token.to_string()), ..Self::default() }
            }
            CommandBody::Enrol(enrol) => Self {
                device: Some(enrol.device),
                detail: words(format!("with token {}", enrol.token)),
                ..Self::default()
            },
            CommandBody::Renew(renew) => Self { device: Some(renew.device), ..Self::default() },
            CommandBody::AddToGroup { device, group }
            | CommandBody::RemoveFromGroup { device, group } => Self {
                device: Some(*device),
                detail: words(format!("group {group}")),
                ..Self::default()
            },
            CommandBody::RequestApproval(wanted) => Self::of_request(wanted),
            CommandBody::SetDisclosurePolicy(_)
            | CommandBody::DecideApproval(_)
            | CommandBody::ProposeMassRecovery(_)
            | CommandBody::ConfirmMassRecovery(_)
            | CommandBody::EndMassRecovery(_) => {
                Self { detail: of_controls(body), ..Self::default() }
            }
            CommandBody::Refusals(counts) => {
                Self { detail: words(format!("{} refusals", counts.len())), ..Self::default() }
            }
        }
    }

    fn of_escrow(escrow: &Escrow) -> Self {
        Self {
            device: Some(escrow.device),
            volume: Some(escrow.volume),
            protector: Some(escrow.protector),
            detail: words(format!("expected version {}", escrow.expected_version)),
            ..Self::default()
        }
    }

    fn of_disclosure(disclose: &Disclose) -> Self {
        let approval = disclose.approval.map(|id| words(format!("approval {id}")));
        Self {
            protector: Some(disclose.protector),
            version: disclose.version,
            reason: Some(disclose.reason.clone()),
            user: disclose.user.clone(),
            ticket: disclose.ticket.clone(),
            detail: approval.unwrap_or_default(),
            ..Self::default()
        }
    }

    fn of_request(wanted: &RequestApproval) -> Self {
        Self {
            protector: Some(wanted.protector),
            version: wanted.version,
            reason: Some(wanted.reason.clone()),
            user: wanted.user.clone(),
            ticket: wanted.ticket.clone(),
            ..Self::default()
        }
    }

    fn of_query(query: &FindQuery) -> Self {
        match query {
            FindQuery::Prefix(prefix) => {
                Self { detail: words(format!("key id prefix {prefix}")), ..Self::default() }
            }
            FindQuery::Protector(protector) => {
                Self { protector: Some(*protector), ..Self::default() }
            }
            FindQuery::Device(device) => Self { device: Some(*device), ..Self::default() },
            FindQuery::Volume(device, volume) => {
                Self { device: Some(*device), volume: Some(*volume), ..Self::default() }
            }
        }
    }
}

fn unsealed_by(by: &UnsealedBy) -> String {
    match by {
        UnsealedBy::Order => "nodes may read the root key again".to_owned(),
        UnsealedBy::Shares { node, numbers } => {
            let numbers: Vec<_> = numbers.iter().map(u8::to_string).collect();
            format!("node {node} by shares {}", numbers.join(", "))
        }
    }
}

/// What a command is called in the audit chain.
pub(super) const fn action_of(body: &CommandBody) -> AuditAction {
    match body {
        CommandBody::Bootstrap(_) => AuditAction::Bootstrap,
        CommandBody::Escrow(_) => AuditAction::Escrow,
        CommandBody::ReportCompliance(_) => AuditAction::Report,
        CommandBody::FindKeys(_) => AuditAction::Find,
        CommandBody::Disclose(_) => AuditAction::Disclose,
        CommandBody::Grant { .. } => AuditAction::Grant,
        CommandBody::Revoke { .. } => AuditAction::Revoke,
        CommandBody::AuditRead { .. } => AuditAction::AuditRead,
        CommandBody::Refusals(_) => AuditAction::Refuse,
        CommandBody::ClusterChange { .. } => AuditAction::ClusterChange,
        CommandBody::Deny { .. } => AuditAction::Deny,
        CommandBody::Allow { .. } => AuditAction::Allow,
        CommandBody::Seal { .. } => AuditAction::Seal,
        CommandBody::Unseal(_) => AuditAction::Unseal,
        CommandBody::Rotate(_) => AuditAction::Rotate,
        CommandBody::Reseal(_) => AuditAction::Reseal,
        CommandBody::Rekey(_) => AuditAction::Rekey,
        CommandBody::CreateAgentCa(_) => AuditAction::AgentCa,
        CommandBody::IssueToken(_) => AuditAction::TokenIssue,
        CommandBody::RevokeToken(_) => AuditAction::TokenRevoke,
        CommandBody::Enrol(_) => AuditAction::Enrol,
        CommandBody::Renew(_) => AuditAction::Renew,
        CommandBody::AddToGroup { .. } => AuditAction::GroupAdd,
        CommandBody::RemoveFromGroup { .. } => AuditAction::GroupRemove,
        CommandBody::SetDisclosurePolicy(_) => AuditAction::DisclosurePolicy,
        CommandBody::RequestApproval(_) => AuditAction::ApprovalRequest,
        CommandBody::DecideApproval(decide) => action_of_decision(decide),
        CommandBody::ProposeMassRecovery(_) => AuditAction::MassRecoveryPropose,
        CommandBody::ConfirmMassRecovery(_) => AuditAction::MassRecoveryConfirm,
        CommandBody::EndMassRecovery(_) => AuditAction::MassRecoveryEnd,
    }
}

/// Words made of parts that are bounded far below the limit of free text and hold no control characters.
pub(super) fn words(text: String) -> Text {
    Text::free("detail", text).unwrap_or_default()
}

/// Who asked for what, and how it ended.
struct Event {
    actor: Option<Actor>,
    request_id: Option<RequestId>,
    action: AuditAction,
    outcome: AuditOutcome,
    count: u64,
    facts: Facts,
}

impl<S: Store> Batch<'_, S> {
    /// Writes the record of a command.
    pub(super) fn record(
        &mut self,
        context: &Context<'_>,
        action: AuditAction,
        outcome: AuditOutcome,
        facts: Facts,
    ) {
        let actor = Some(context.command.actor.clone());
        let request_id = Some(context.command.request_id);
        self.append(
            context.position,
            Event { actor, request_id, action, outcome, count: 1, facts },
        );
    }

    /// Writes the record of a command that can't be read. It says nothing of the command, because different versions could
    /// read different parts of it.
    pub(super) fn record_unreadable(&mut self, position: Position) {
        let action = AuditAction::Unreadable;
        let outcome = AuditOutcome::Refused("UNREADABLE".into());
        let facts = Facts::default();
        let event = Event { actor: None, request_id: None, action, outcome, count: 1, facts };
        self.append(position, event);
    }

    /// Writes the record of refusals that a node decided on.
    pub(super) fn record_refusal(&mut self, context: &Context<'_>, refusal: &RefusalCount) {
        let node = &context.command.actor;
        let event = Event {
            actor: Some(refusal.actor.clone()),
            request_id: Some(context.command.request_id),
            action: AuditAction::Refuse,
            outcome: AuditOutcome::Refused(refusal.reason.as_str().to_owned().into()),
            count: refusal.count,
            facts: Facts {
                detail: words(format!("{} at {node}", refusal.action)),
                ..Facts::default()
            },
        };
        self.append(context.position, event);
    }

    fn append(&mut self, position: Position, event: Event) {
        let Event { actor, request_id, action, outcome, count, facts } = event;
        let record = AuditRecord {
            sequence: self.heads.audit.sequence + 1,
            time: self.heads.time,
            log_term: position.term,
            log_index: position.index,
            count,
            actor,
            action,
            outcome,
            request_id,
            device: facts.device,
            volume: facts.volume,
            protector: facts.protector,
            version: facts.version,
            reason: facts.reason,
            user: facts.user,
            ticket: facts.ticket,
            detail: facts.detail,
            previous_hash: self.heads.audit.hash,
        };
        let value = codec::encode_audit(&record);
        self.txn.insert(Table::Audit, keys::sequence(record.sequence), value);
        self.heads.audit = record.head();
    }
}
