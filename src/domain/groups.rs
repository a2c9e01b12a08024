//! Groups of devices, and which devices a grant reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::{FieldError, Right, Role, limits};

/// Name of a group of devices: letters, digits and any of `. - _`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupName(String);

impl GroupName {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for GroupName {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
        if (1..=limits::GROUP_BYTES).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FieldError::new("group", "must be 1 to 64 letters, digits and any of . - _"))
        }
    }
}

/// Which devices a grant reaches: all, or those that are in at least one of some groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach(Option<BTreeSet<GroupName>>);

impl Reach {
    /// All devices.
    pub const ALL: Self = Self(None);

    /// From a list, as requests and the log carry it: an empty one stands for all devices.
    ///
    /// # Errors
    /// If there are too many groups.
    pub fn of(groups: impl IntoIterator<Item = GroupName>) -> Result<Self, FieldError> {
        let groups: BTreeSet<_> = groups.into_iter().collect();
        let most = limits::GRANT_GROUPS;
        if groups.len() > most {
            let what = format!("are {}, at most {most} are allowed", groups.len());
            return Err(FieldError::new("groups", what));
        }
        Ok(Self((!groups.is_empty()).then_some(groups)))
    }

    /// The groups that it is limited to, ascending; none if it reaches all devices.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.0.iter().flatten()
    }

    /// Whether there are devices that it may not reach.
    pub const fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Whether it reaches a device that is in these groups.
    pub fn covers(&self, groups: &BTreeSet<GroupName>) -> bool {
        self.0.as_ref().is_none_or(|own| !own.is_disjoint(groups))
    }

    /// Whether it reaches all devices of a group.
    pub fn includes(&self, group: &GroupName) -> bool {
        self.0.as_ref().is_none_or(|own| own.contains(group))
    }

    /// What both reach together.
    pub fn and(self, other: &Self) -> Self {
        let (Some(mut own), Some(others)) = (self.0, &other.0) else { return Self::ALL };
        own.extend(others.iter().cloned());
        Self(Some(own))
    }

    /// Whether a grant of this role may reach so far: some roles are about the cluster, and no devices.
    ///
    /// # Errors
    /// If it is limited and the role can't be.
    pub fn check(&self, role: Role) -> Result<(), FieldError> {
        if self.is_limited() && !role.may_be_limited() {
            let what = format!("the role {role} is not about devices, so that it has no groups");
            return Err(FieldError::new("groups", what));
        }
        Ok(())
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.is_limited() {
            return f.write_str("all devices");
        }
        let names: Vec<_> = self.groups().map(GroupName::as_str).collect();
        write!(f, "devices of {}", names.join(", "))
    }
}

/// What an operator is granted: roles, and which devices each of them reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grants(BTreeMap<Role, Reach>);

impl Grants {
    /// The roles.
    pub fn roles(&self) -> BTreeSet<Role> {
        self.0.keys().copied().collect()
    }

    /// Which devices a role reaches; `None` without the role.
    pub fn reach_of(&self, role: Role) -> Option<&Reach> {
        self.0.get(&role)
    }

    /// For which devices there is a right, by whichever role; `None` if no role has it.
    pub fn reach(&self, right: Right) -> Option<Reach> {
        let reaches = right.roles().iter().filter_map(|role| self.reach_of(*role));
        reaches.fold(None, |all, reach| {
            Some(all.map_or_else(|| reach.clone(), |all: Reach| all.and(reach)))
        })
    }
}

impl FromIterator<(Role, Reach)> for Grants {
    fn from_iter<I: IntoIterator<Item = (Role, Reach)>>(grants: I) -> Self {
        Self(grants.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> GroupName {
        text.parse().unwrap()
    }

    fn reach(groups: &[&str]) -> Reach {
        Reach::of(groups.iter().map(|group| name(group))).unwrap()
    }

    fn set(groups: &[&str]) -> BTreeSet<GroupName> {
        groups.iter().map(|group| name(group)).collect()
    }

    #[test]
    fn a_group_has_a_name_of_at_most_64_bytes_that_needs_no_quoting() {
        assert_eq!(name("Berlin.2-floor_3").to_string(), "Berlin.2-floor_3");
        assert_eq!(name(&"x".repeat(64)).as_str().len(), 64);
        for bad in ["", "two words", "a/b", "ä", "line\n", &"x".repeat(65)] {
            assert_eq!(bad.parse::<GroupName>().unwrap_err().field, "group", "{bad:?}");
        }
    }

    #[test]
    fn a_grant_without_groups_reaches_every_device_and_one_with_groups_their_devices() {
        let berlin = reach(&["berlin"]);
        assert!(Reach::ALL.covers(&set(&[])) && Reach::ALL.covers(&set(&["berlin"])));
        assert_eq!(Reach::of([]).unwrap(), Reach::ALL);
        assert!(berlin.covers(&set(&["berlin", "vip"])));
        for others in [set(&[]), set(&["munich"]), set(&["Berlin"])] {
            assert!(!berlin.covers(&others), "{others:?}");
        }
        assert!(berlin.includes(&name("berlin")) && !berlin.includes(&name("munich")));
    }

    #[test]
    fn a_grant_has_at_most_10_groups() {
        let groups = |n: usize| (0..n).map(|n| name(&format!("site-{n}"))).collect::<Vec<_>>();
        assert_eq!(Reach::of(groups(10)).unwrap().groups().count(), 10);
        assert_eq!(Reach::of(groups(11)).unwrap_err().field, "groups");
    }

    #[test]
    fn two_grants_reach_what_either_does() {
        let both = reach(&["berlin"]).and(&reach(&["munich"]));
        assert!(both.covers(&set(&["berlin"])) && both.covers(&set(&["munich"])));
        assert!(!both.covers(&set(&["paris"])));
        assert_eq!(reach(&["berlin"]).and(&Reach::ALL), Reach::ALL);
        assert_eq!(Reach::ALL.and(&reach(&["berlin"])), Reach::ALL);
    }

    #[test]
    fn a_right_reaches_as_far_as_the_roles_that_have_it() {
        let grants: Grants = [
            (Role::HelpDesk, reach(&["berlin"])),
            (Role::AdvancedHelpDesk, reach(&["munich"])),
            (Role::Administrator, Reach::ALL),
        ]
        .into_iter()
        .collect();
        assert_eq!(grants.reach(Right::DiscloseKeys), Some(reach(&["berlin", "munich"])));
        assert_eq!(grants.reach(Right::ReadDevices), Some(Reach::ALL));
        assert_eq!(grants.reach(Right::ReadAudit), None);
    }

    #[test]
    fn roles_that_are_not_about_devices_have_no_groups() {
        let limited = Role::ALL.into_iter().filter(|role| reach(&["berlin"]).check(*role).is_ok());
        use Role::{AdvancedHelpDesk, DataMigration, HelpDesk, ReportReader};
        let roles = [HelpDesk, AdvancedHelpDesk, ReportReader, DataMigration];
        assert_eq!(limited.collect::<Vec<_>>(), roles);
        for role in Role::ALL {
            assert_eq!(Reach::ALL.check(role), Ok(()));
        }
    }
}
