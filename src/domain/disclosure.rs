//! What bounds disclosures: quotas, approvals by a second person, and the days on which quotas are lifted.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use super::{FieldError, GroupName, limits};

/// Number of a request for approval, counted from 1 over the life of the cluster. Short, so that it can be said on the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(u64);

impl ApprovalId {
    /// From its number.
    ///
    /// # Errors
    /// If it is 0.
    pub fn new(number: u64) -> Result<Self, FieldError> {
        if number == 0 {
            return Err(FieldError::new("approval_id", "must be 1 or more"));
        }
        Ok(Self(number))
    }

    /// The one after the last, by its number; 0 if there was none.
    pub const fn after(last: u64) -> Self {
        Self(last.saturating_add(1))
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ApprovalId {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let number =
            text.parse().map_err(|_| FieldError::new("approval_id", "must be a number"))?;
        Self::new(number)
    }
}

/// What a quota is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaScope {
    /// One requester in an hour.
    RequesterHour,
    /// One requester in a day.
    RequesterDay,
    /// All requesters in an hour.
    ClusterHour,
}

impl QuotaScope {
    /// Its name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequesterHour => "requester-hour",
            Self::RequesterDay => "requester-day",
            Self::ClusterHour => "cluster-hour",
        }
    }
}

impl fmt::Display for QuotaScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequesterHour => "disclosures of one requester in an hour",
            Self::RequesterDay => "disclosures of one requester in a day",
            Self::ClusterHour => "disclosures of all requesters in an hour",
        })
    }
}

/// How many disclosures there may be, and which take a second person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisclosurePolicy {
    requester_hour: u32,
    requester_day: u32,
    cluster_hour: u32,
    approval_ms: u64,
    dual_control: BTreeSet<GroupName>,
}

/// Parts of a [`DisclosurePolicy`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyParts {
    /// Disclosures of one requester in an hour.
    pub requester_hour: u32,
    /// Disclosures of one requester in a day.
    pub requester_day: u32,
    /// Disclosures of all requesters in an hour.
    pub cluster_hour: u32,
    /// How long an approval may be used, in milliseconds.
    pub approval_ms: u64,
    /// Groups of devices whose keys take a second person.
    pub dual_control: BTreeSet<GroupName>,
}

impl DisclosurePolicy {
    /// A policy.
    ///
    /// # Errors
    /// If a part is out of its limits; it is named.
    pub fn new(parts: PolicyParts) -> Result<Self, FieldError> {
        let PolicyParts { requester_hour, requester_day, cluster_hour, approval_ms, dual_control } =
            parts;
        for (field, number, most) in [
            ("requester_per_hour", requester_hour, limits::REQUESTER_HOUR),
            ("requester_per_day", requester_day, limits::REQUESTER_DAY),
            ("cluster_per_hour", cluster_hour, limits::CLUSTER_HOUR),
        ] {
            if !(1..=most).contains(&number) {
                return Err(FieldError::new(field, format!("must be 1 to {most}")));
            }
        }
        if !limits::APPROVAL_MS.contains(&approval_ms) {
            return Err(FieldError::new("approval_ms", "must be from a minute to 24 hours"));
        }
        if dual_control.len() > limits::DUAL_CONTROL_GROUPS {
            let what = format!("are more than {}", limits::DUAL_CONTROL_GROUPS);
            return Err(FieldError::new("dual_control_groups", what));
        }
        Ok(Self { requester_hour, requester_day, cluster_hour, approval_ms, dual_control })
    }

    /// Its parts.
    pub fn parts(&self) -> PolicyParts {
        PolicyParts {
            requester_hour: self.requester_hour,
            requester_day: self.requester_day,
            cluster_hour: self.cluster_hour,
            approval_ms: self.approval_ms,
            dual_control: self.dual_control.clone(),
        }
    }

    /// How many disclosures a quota allows.
    pub const fn quota(&self, scope: QuotaScope) -> u32 {
        match scope {
            QuotaScope::RequesterHour => self.requester_hour,
            QuotaScope::RequesterDay => self.requester_day,
            QuotaScope::ClusterHour => self.cluster_hour,
        }
    }

    /// How long an approval may be used, in milliseconds.
    pub const fn approval_ms(&self) -> u64 {
        self.approval_ms
    }

    /// Whether a key of a device of this group takes a second person.
    pub fn marks(&self, group: &GroupName) -> bool {
        self.dual_control.contains(group)
    }

    /// Whether it marks any device at all.
    pub fn marks_any(&self) -> bool {
        !self.dual_control.is_empty()
    }
}

impl Default for DisclosurePolicy {
    fn default() -> Self {
        Self {
            requester_hour: limits::QUOTA_DISCLOSURES,
            requester_day: 1000,
            cluster_hour: 2000,
            approval_ms: 3_600_000,
            dual_control: BTreeSet::new(),
        }
    }
}

impl fmt::Display for DisclosurePolicy {
    /// As audit records say it. It fits a free text with as many groups as there may be.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one requester {} an hour and {} a day, all {} an hour; approvals good for {} min",
            self.requester_hour,
            self.requester_day,
            self.cluster_hour,
            self.approval_ms / 60_000
        )?;
        let groups: Vec<_> = self.dual_control.iter().map(GroupName::as_str).collect();
        if groups.is_empty() {
            f.write_str("; dual control for no group")
        } else {
            write!(f, "; dual control for {}", groups.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Text;

    type Change = fn(&mut PolicyParts);

    fn with(change: impl FnOnce(&mut PolicyParts)) -> Result<DisclosurePolicy, FieldError> {
        let mut parts = DisclosurePolicy::default().parts();
        change(&mut parts);
        DisclosurePolicy::new(parts)
    }

    fn groups(count: usize) -> BTreeSet<GroupName> {
        (0..count).map(|n| format!("{n:064}").parse().unwrap()).collect()
    }

    #[test]
    fn a_policy_within_its_limits_is_taken_and_one_beyond_names_the_part() {
        assert!(with(|_| {}).is_ok());
        let faults: [(Change, &str); 7] = [
            (|p| p.requester_hour = 0, "requester_per_hour"),
            (|p| p.requester_hour = limits::REQUESTER_HOUR + 1, "requester_per_hour"),
            (|p| p.requester_day = limits::REQUESTER_DAY + 1, "requester_per_day"),
            (|p| p.cluster_hour = limits::CLUSTER_HOUR + 1, "cluster_per_hour"),
            (|p| p.approval_ms = 59_999, "approval_ms"),
            (|p| p.approval_ms = 24 * 3_600_000 + 1, "approval_ms"),
            (|p| p.dual_control = groups(limits::DUAL_CONTROL_GROUPS + 1), "dual_control_groups"),
        ];
        for (change, field) in faults {
            assert_eq!(with(change).unwrap_err().field, field);
        }
    }

    #[test]
    fn the_longest_policy_fits_an_audit_record() {
        let policy = with(|p| {
            p.requester_hour = limits::REQUESTER_HOUR;
            p.requester_day = limits::REQUESTER_DAY;
            p.cluster_hour = limits::CLUSTER_HOUR;
            p.dual_control = groups(limits::DUAL_CONTROL_GROUPS);
        });
        assert!(Text::free("detail", policy.unwrap().to_string()).is_ok());
    }

    #[test]
    fn the_number_of_an_approval_begins_at_one() {
        assert_eq!("17".parse::<ApprovalId>().unwrap().to_string(), "17");
        for bad in ["0", "", "-1", "x"] {
            assert_eq!(bad.parse::<ApprovalId>().unwrap_err().field, "approval_id", "{bad}");
        }
    }
}
