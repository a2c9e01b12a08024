//! Groups of devices, naively: one set for each, however a device came in.

use super::*;

impl Model {
    /// What is not in any is in the empty set.
    pub(in crate::state::tests) fn groups_of(&self, device: DeviceId) -> BTreeSet<GroupName> {
        self.groups.get(&device).cloned().unwrap_or_default()
    }

    pub(super) fn room_for(&self, device: DeviceId, group: &GroupName) -> Result<(), Rejection> {
        let groups = self.groups_of(device);
        if groups.contains(group) || groups.len() < 16 {
            Ok(())
        } else {
            Err(Rejection::TooManyGroups(16))
        }
    }

    /// Puts a device into a group, or takes it out.
    pub(super) fn regroup(
        &mut self,
        position: Position,
        command: &Command,
        (device, group): (DeviceId, &GroupName),
        into: bool,
    ) -> Outcome {
        let (action, what) = if into {
            (AuditAction::GroupAdd, "group-add")
        } else {
            (AuditAction::GroupRemove, "group-remove")
        };
        if let Some(answer) = self.answered_to(command, &[Role::Administrator], action)? {
            return Ok(answer);
        }
        if into {
            self.room_for(device, group)?;
        }
        let groups = self.groups.entry(device).or_default();
        let changed = if into { groups.insert(group.clone()) } else { groups.remove(group) };
        self.log(position, command, what, "ok", None, None);
        self.remember(command, None, changed);
        Ok(Accepted::Granted { changed })
    }

    /// Whether one of these roles of an actor is for a device.
    pub(super) fn reaches(&self, command: &Command, roles: &[Role], device: DeviceId) -> bool {
        let name = match &command.actor {
            Actor::Operator(name) => name,
            Actor::Oidc(_) => return roles.iter().any(|role| command.roles.contains(role)),
            Actor::Agent(_) | Actor::Node(_) => return false,
        };
        let groups = self.groups_of(device);
        roles.iter().any(|role| {
            let grant = self.grants.get(&(name.as_str().to_owned(), *role));
            grant.is_some_and(|reach| {
                !reach.is_limited() || reach.groups().any(|group| groups.contains(group))
            })
        })
    }

    /// Whether these roles of an actor are for some devices only.
    pub(super) fn limited(&self, command: &Command, roles: &[Role]) -> bool {
        let Actor::Operator(name) = &command.actor else { return false };
        let mut reaches =
            roles.iter().filter_map(|role| self.grants.get(&(name.as_str().to_owned(), *role)));
        reaches.all(Reach::is_limited)
    }
}
