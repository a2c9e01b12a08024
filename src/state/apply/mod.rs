//! The rules: what each command does to the state.
//!
//! One file per area. Every rule is checked here again, whatever the node that proposed the command has checked before:
//! a permit given on a node is none. A refused command changes nothing but the log position, the clock and the audit
//! chain. Nothing here depends on how the log was cut into batches.

mod access;
mod approval;
mod audit;
mod denial;
mod disclosure;
mod enrolment;
mod escrow;
mod find;
mod groups;
mod keyring;
mod mass_recovery;
mod quota;
mod report;
mod requests;
mod reseal;
mod seal;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::codec;
use super::machine::{Entry, RequestIndex};
use super::query::corrupt;
use super::records::{Device, keys};
use super::txn::Txn;
use super::{
    Accepted, Applied, Command, CommandBody, Heads, Outcome, Position, Rejection, Store,
    StoreError, Table,
};
use crate::domain::{Actor, AuditOutcome, DeviceId, Right, User, limits};

use audit::{Facts, action_of};

/// A batch at work.
pub(super) struct Batch<'a, S> {
    txn: Txn<'a, S>,
    /// Devices that the batch has read, as it has left them. Many entries of a batch may be about one device: it is
    /// decoded once, and encoded once at the end or before a rule reads devices from the transaction.
    devices: BTreeMap<DeviceId, CachedDevice>,
    heads: Heads,
    requests: &'a mut RequestIndex,
    remembered: u64,
}

/// A device in its decoded form.
struct CachedDevice {
    device: Arc<Device>,
    /// Whether the transaction holds an older form of it.
    changed: bool,
}

/// What is known of a request beside its body.
#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    position: Position,
    command: &'a Command,
    body_digest: [u8; 32],
}

/// An error within a rule: a refusal, which is an answer, or a local fault, which stops the node.
enum Stop {
    Refused(Rejection),
    /// Something of this device is outside the groups that the actor's grants are limited to. The record names the device, the
    /// answer does not.
    Outside(DeviceId),
    Fault(StoreError),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Fault(error)
    }
}

type Ruled<T> = Result<T, Stop>;

impl<'a, S: Store> Batch<'a, S> {
    pub(super) const fn new(
        store: &'a S,
        heads: Heads,
        requests: &'a mut RequestIndex,
        remembered: u64,
    ) -> Self {
        Self { txn: Txn::new(store), devices: BTreeMap::new(), heads, requests, remembered }
    }

    /// Commits all entries; gives the heads after them.
    pub(super) fn commit(mut self) -> Result<Heads, StoreError> {
        self.write_devices()?;
        self.txn.commit(&mut self.heads)?;
        Ok(self.heads)
    }

    /// Applies one entry.
    pub(super) fn entry(
        &mut self,
        position: Position,
        entry: Entry,
    ) -> Result<Applied, StoreError> {
        if let Some(last) = self.heads.position
            && (last.index.checked_add(1) != Some(position.index) || position.term < last.term)
        {
            return Err(StoreError::OutOfOrder { last: last.index, next: position.index });
        }
        self.heads.position = Some(position);
        let outcome = match entry {
            Entry::Blank => Ok(Accepted::Nothing),
            Entry::Membership { bytes, members } => {
                // A copy, because a slice would keep the whole read of the log in memory.
                self.heads.note_membership(Bytes::copy_from_slice(&bytes), members);
                Ok(Accepted::Nothing)
            }
            Entry::Command(bytes) => match codec::decode_entry(&bytes) {
                Ok((command, body_digest)) => self.command(position, &command, body_digest)?,
                Err(error) => {
                    tracing::debug!(index = position.index, %error, "unreadable command");
                    self.record_unreadable(position);
                    Err(Rejection::Unreadable)
                }
            },
        };
        Ok(Applied { position, audit: self.heads.audit, outcome })
    }

    /// Applies a command: an answer, or a refusal and its audit record.
    fn command(
        &mut self,
        position: Position,
        command: &Command,
        body_digest: [u8; 32],
    ) -> Result<Outcome, StoreError> {
        self.heads.time = self.heads.time.max(command.time);
        let context = Context { position, command, body_digest };
        match self.rule(&context) {
            Ok(accepted) => Ok(Ok(accepted)),
            Err(Stop::Refused(rejection)) => {
                Ok(Err(self.refused(&context, rejection, Facts::of_body(&command.body))))
            }
            Err(Stop::Outside(device)) => {
                let facts = Facts { device: Some(device), ..Facts::of_body(&command.body) };
                Ok(Err(self.refused(&context, Rejection::OutsideGroups, facts)))
            }
            Err(Stop::Fault(error)) => Err(error),
        }
    }

    /// Writes the record of a refusal.
    fn refused(&mut self, context: &Context<'_>, rejection: Rejection, facts: Facts) -> Rejection {
        let outcome = AuditOutcome::Refused(Cow::Borrowed(rejection.reason()));
        self.record(context, action_of(&context.command.body), outcome, facts);
        rejection
    }

    /// The rule of each command. A rule makes all its checks before its first change.
    fn rule(&mut self, context: &Context<'_>) -> Ruled<Accepted> {
        let command = context.command;
        let early = matches!(command.body, CommandBody::Bootstrap(_) | CommandBody::Refusals(_));
        if self.heads.cluster.is_none() && !early {
            return Err(Rejection::NotBootstrapped.into());
        }
        self.refuse_denied(context)?;
        // These know devices through the batch only; all others may read them from the transaction.
        if !matches!(command.body, CommandBody::Escrow(_) | CommandBody::ReportCompliance(_)) {
            self.write_devices()?;
        }
        match &command.body {
            CommandBody::Bootstrap(bootstrap) => self.bootstrap(context, bootstrap),
            CommandBody::Escrow(escrow) => self.escrow(context, escrow),
            CommandBody::ReportCompliance(report) => self.report(context, report),
            CommandBody::FindKeys(query) => self.find(context, query),
            CommandBody::Disclose(disclose) => self.disclose(context, disclose),
            CommandBody::Grant { operator, role, reach } => {
                self.grant(context, operator, *role, reach)
            }
            CommandBody::Revoke { operator, role } => self.revoke(context, operator, *role),
            CommandBody::AuditRead { .. } => self.note(context, Right::ReadAudit),
            CommandBody::ClusterChange { .. } => self.note(context, Right::ChangeCluster),
            CommandBody::Deny { subject, reason } => self.deny(context, subject, reason),
            CommandBody::Allow { subject } => self.allow(context, subject),
            CommandBody::Seal { reason } => self.seal(context, reason),
            CommandBody::Unseal(unseal) => self.unseal(context, unseal),
            CommandBody::Rotate(rotate) => self.rotate(context, rotate),
            CommandBody::Reseal(reseal) => self.reseal(context, reseal),
            CommandBody::Rekey(rekey) => self.rekey(context, rekey),
            CommandBody::CreateAgentCa(ca) => self.create_agent_ca(context, ca),
            CommandBody::IssueToken(issue) => self.issue_token(context, issue),
            CommandBody::RevokeToken(token) => self.revoke_token(context, *token),
            CommandBody::Enrol(enrol) => self.enrol(context, enrol),
            CommandBody::Renew(renew) => self.renew(context, renew),
            CommandBody::AddToGroup { device, group } => self.add_to_group(context, *device, group),
            CommandBody::RemoveFromGroup { device, group } => {
                self.remove_from_group(context, *device, group)
            }
            CommandBody::SetDisclosurePolicy(set) => self.set_policy(context, set),
            CommandBody::RequestApproval(wanted) => self.request_approval(context, wanted),
            CommandBody::DecideApproval(decide) => self.decide_approval(context, decide),
            CommandBody::ProposeMassRecovery(propose) => {
                self.propose_mass_recovery(context, propose)
            }
            CommandBody::ConfirmMassRecovery(number) => {
                self.confirm_mass_recovery(context, *number)
            }
            CommandBody::EndMassRecovery(number) => self.end_mass_recovery(context, *number),
            CommandBody::Refusals(counts) => self.refusals(context, counts),
        }
    }

    /// A device, kept in the batch because it will be written.
    fn device(&mut self, id: DeviceId) -> Result<Option<Arc<Device>>, StoreError> {
        if let Some(cached) = self.devices.get(&id) {
            return Ok(Some(Arc::clone(&cached.device)));
        }
        let key = keys::device(id);
        let Some(value) = self.txn.get(Table::Devices, &key)? else { return Ok(None) };
        let device = codec::decode_device(&key, &value).map_err(corrupt(Table::Devices))?;
        let device = Arc::new(device);
        let cached = CachedDevice { device: Arc::clone(&device), changed: false };
        self.devices.insert(id, cached);
        Ok(Some(device))
    }

    /// Makes a device one's own to change it, without a copy if nobody else holds it. It has to be put back.
    fn take_device(&mut self, device: Arc<Device>) -> Device {
        self.devices.remove(&device.id);
        Arc::unwrap_or_clone(device)
    }

    fn put_device(&mut self, device: Device) -> Arc<Device> {
        let device = Arc::new(device);
        let cached = CachedDevice { device: Arc::clone(&device), changed: true };
        self.devices.insert(device.id, cached);
        device
    }

    /// Brings the transaction up to date with the changed devices.
    fn write_devices(&mut self) -> Result<(), StoreError> {
        for (id, cached) in &mut self.devices {
            if std::mem::take(&mut cached.changed) {
                let value = codec::encode_device(&cached.device);
                self.txn.put(Table::Devices, &keys::device(*id), value)?;
            }
        }
        Ok(())
    }

    /// A device as it is before its first write.
    fn new_device(&self, id: DeviceId) -> Device {
        Device {
            id,
            host_name: Default::default(),
            operating_system: Default::default(),
            manufacturer: Default::default(),
            model: Default::default(),
            users: Vec::new(),
            volumes: Vec::new(),
            first_seen: self.heads.time,
            last_contact: self.heads.time,
        }
    }
}

/// Agents write their own device only.
fn own_device(context: &Context<'_>, device: DeviceId) -> Ruled<()> {
    match &context.command.actor {
        Actor::Agent(id) if *id == device => Ok(()),
        Actor::Agent(_) => Err(Rejection::ForeignDevice.into()),
        actor @ (Actor::Node(_) | Actor::Operator(_) | Actor::Oidc(_)) => {
            let action = action_of(&context.command.body);
            Err(Rejection::NotGranted { actor: actor.clone(), action }.into())
        }
    }
}

fn check_users(users: &[User]) -> Ruled<()> {
    if users.len() > limits::DEVICE_USERS {
        return Err(Rejection::TooManyUsers(users.len()).into());
    }
    Ok(())
}
