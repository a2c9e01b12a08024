//! The bounds of disclosures once more, naively: everything that happened is kept in plain lists that are searched from end to
//! end. It shares types with the state machine and no code.

use super::*;

/// Who takes part. All but the last are operators with these roles; `both` could approve what they ask for, if that were
/// allowed.
pub(super) const PEOPLE: [(&str, &[Role]); 5] = [
    (HUGO, &[Role::HelpDesk]),
    (ADA, &[Role::AdvancedHelpDesk]),
    (ROOT, &[Role::Administrator]),
    (RUTH, &[Role::Administrator]),
    ("both", &[Role::HelpDesk, Role::AdvancedHelpDesk, Role::Administrator]),
];

/// A key by its number: the device of the second one is marked by the policy, if the policy marks any.
pub(super) const KEYS: [u8; 2] = [1, 4];

/// What happens.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// A disclosure of a key, by an approval or by none.
    Disclose(u8, Option<u64>),
    Request(u8),
    Decide(u64, bool),
    /// Quotas of requester and cluster, and whether devices are marked.
    Policy(u32, u32, bool),
    Propose(u64),
    Confirm(u64),
    End(u64),
}

/// By what a disclosure was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Quota,
    Approval(u64),
    MassRecovery,
}

#[derive(Debug, Clone)]
pub(super) struct Disclosed {
    pub(super) who: usize,
    pub(super) key: u8,
    pub(super) at: u64,
    pub(super) by: By,
    /// Quotas that were in force.
    pub(super) quotas: (u32, u32),
    pub(super) marked: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) who: usize,
    pub(super) key: u8,
    pub(super) end: u64,
    pub(super) approved_by: Option<usize>,
    pub(super) over: bool,
    pub(super) used: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) by: usize,
    pub(super) at: u64,
    pub(super) duration: u64,
    /// By whom, and from when to when quotas are lifted.
    pub(super) on: Option<(usize, u64, u64)>,
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) disclosed: Vec<Disclosed>,
    pub(super) asked: Vec<Asked>,
    pub(super) proposals: Vec<Proposal>,
    pub(super) quotas: (u32, u32),
    pub(super) marked: bool,
    pub(super) revision: u64,
}

impl Model {
    pub(super) fn new(now: u64) -> Self {
        Self {
            now,
            disclosed: Vec::new(),
            asked: Vec::new(),
            proposals: Vec::new(),
            quotas: (3, 5),
            marked: true,
            revision: 1,
        }
    }

    fn may(who: usize, roles: &[Role]) -> bool {
        PEOPLE[who].1.iter().any(|role| roles.contains(role))
    }

    /// Whether it is done, and if not, why.
    pub(super) fn apply(&mut self, who: usize, time: u64, deed: &Deed) -> Result<(), &'static str> {
        self.now = self.now.max(time);
        let roles: &[Role] = match deed {
            Deed::Disclose(..) | Deed::Request(_) => &[Role::HelpDesk, Role::AdvancedHelpDesk],
            Deed::Decide(..) => &[Role::AdvancedHelpDesk, Role::Administrator],
            Deed::Policy(..) | Deed::Propose(_) | Deed::Confirm(_) | Deed::End(_) => {
                &[Role::Administrator]
            }
        };
        if !Self::may(who, roles) {
            return Err("NOT_GRANTED");
        }
        match deed {
            Deed::Disclose(key, approval) => self.disclose(who, *key, *approval),
            Deed::Request(key) => self.request(who, *key),
            Deed::Decide(number, approve) => self.decide(who, *number, *approve),
            Deed::Policy(own, all, marked) => {
                let (quotas, marked) = ((*own, *all), *marked);
                if (quotas, marked) != (self.quotas, self.marked) {
                    self.revision += 1;
                }
                (self.quotas, self.marked) = (quotas, marked);
                Ok(())
            }
            Deed::Propose(minutes) => {
                if self.lifted() {
                    return Err("MASS_RECOVERY_ON");
                }
                let (at, duration) = (self.now, minutes * MINUTE);
                self.proposals.push(Proposal { by: who, at, duration, on: None, ended: false });
                Ok(())
            }
            Deed::Confirm(number) => self.confirm(who, *number),
            Deed::End(number) => {
                let now = self.now;
                let last = self.last(*number)?;
                if last.on.is_some_and(|(_, _, to)| to <= now) {
                    return Err("NO_MASS_RECOVERY");
                }
                last.ended = true;
                if let Some((_, _, to)) = &mut last.on {
                    *to = now;
                }
                Ok(())
            }
        }
    }

    pub(super) fn lifted(&self) -> bool {
        self.proposals
            .iter()
            .any(|of| of.on.is_some_and(|(_, from, to)| (from..to).contains(&self.now)))
    }

    fn last(&mut self, number: u64) -> Result<&mut Proposal, &'static str> {
        let newest = self.proposals.len() as u64 == number;
        let last = self.proposals.last_mut().filter(|last| newest && !last.ended);
        last.ok_or("NO_MASS_RECOVERY")
    }

    fn confirm(&mut self, who: usize, number: u64) -> Result<(), &'static str> {
        let now = self.now;
        let last = self.last(number)?;
        if last.by == who {
            return Err("SECOND_PERSON_REQUIRED");
        }
        if last.on.is_some() || now - last.at >= HOUR {
            return Err("NO_MASS_RECOVERY");
        }
        last.on = Some((who, now, now + last.duration));
        Ok(())
    }

    fn request(&mut self, who: usize, key: u8) -> Result<(), &'static str> {
        let now = self.now;
        let open = |of: &&Asked| of.who == who && !of.over && of.used == 0 && now < of.end;
        if self.asked.iter().filter(open).count() >= 20 {
            return Err("TOO_MANY_APPROVALS");
        }
        let end = now + 24 * HOUR;
        self.asked.push(Asked { who, key, end, approved_by: None, over: false, used: 0 });
        Ok(())
    }

    fn asked(&mut self, number: u64) -> Option<&mut Asked> {
        self.asked.get_mut(usize::try_from(number).unwrap().checked_sub(1)?)
    }

    fn decide(&mut self, who: usize, number: u64, approve: bool) -> Result<(), &'static str> {
        let now = self.now;
        let asked = self.asked(number).ok_or("UNKNOWN_APPROVAL")?;
        if approve && asked.who == who {
            return Err("SECOND_PERSON_REQUIRED");
        }
        if asked.over || asked.used > 0 || (approve && asked.approved_by.is_some()) {
            return Err("APPROVAL_DECIDED");
        }
        if now >= asked.end {
            return Err("APPROVAL_EXPIRED");
        }
        if approve {
            (asked.approved_by, asked.end) = (Some(who), now + HOUR);
        } else {
            asked.over = true;
        }
        Ok(())
    }

    fn disclose(&mut self, who: usize, key: u8, approval: Option<u64>) -> Result<(), &'static str> {
        let (now, marked) = (self.now, self.marked);
        let by = if let Some(number) = approval {
            let asked = self.asked(number).ok_or("UNKNOWN_APPROVAL")?;
            if asked.who != who || asked.key != key {
                return Err("APPROVAL_MISMATCH");
            }
            if asked.over {
                return Err("APPROVAL_DENIED");
            }
            if asked.used > 0 {
                return Err("APPROVAL_USED");
            }
            if asked.approved_by.is_none() {
                return Err("APPROVAL_PENDING");
            }
            if now >= asked.end {
                return Err("APPROVAL_EXPIRED");
            }
            asked.used += 1;
            By::Approval(number)
        } else if marked && key == KEYS[1] {
            return Err("APPROVAL_REQUIRED");
        } else if self.lifted() {
            By::MassRecovery
        } else if self.counted(Some(who)) >= self.quotas.0 || self.counted(None) >= self.quotas.1 {
            return Err("QUOTA_EXCEEDED");
        } else {
            By::Quota
        };
        let quotas = self.quotas;
        self.disclosed.push(Disclosed { who, key, at: now, by, quotas, marked });
        Ok(())
    }

    /// What counts now: the minute that has begun, and sixty before it.
    fn counted(&self, who: Option<usize>) -> u32 {
        let since = (self.now / MINUTE).saturating_sub(60);
        let counts = |of: &&Disclosed| {
            of.by == By::Quota && who.is_none_or(|who| of.who == who) && of.at / MINUTE >= since
        };
        self.disclosed.iter().filter(counts).count() as u32
    }
}
