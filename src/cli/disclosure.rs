//! `holdfast disclosure`: how much may be disclosed, what takes a second person, and the day on which quotas are lifted.

use std::time::Duration;

use holdfast_proto::v1;
use serde::Serialize;

use super::exit::Exit;
use super::output::{Sheet, Show, dash, time};
use super::token::ttl;
use super::views::ChangedView;
use super::{CliError, Context, Done};
use crate::client::wire;
use crate::domain::{DisclosurePolicy, GroupName, limits};

/// What to do with the bounds of disclosures.
#[derive(Debug, clap::Subcommand)]
pub(super) enum DisclosureCommand {
    /// Show the quotas, which devices are under dual control, and whether a mass recovery is on
    Status,
    /// Set quotas and dual control; what is not named stays as it is
    Policy(PolicyArgs),
    /// Lift the quotas for a while, on a day when half of the machines need their keys; it takes two administrators
    #[command(subcommand)]
    MassRecovery(MassRecoveryCommand),
}

/// What to change.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct PolicyArgs {
    /// Disclosures of one requester in an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::REQUESTER_HOUR)))]
    per_hour: Option<u32>,
    /// Disclosures of one requester in a day
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::REQUESTER_DAY)))]
    per_day: Option<u32>,
    /// Disclosures of all requesters in an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::CLUSTER_HOUR)))]
    cluster_per_hour: Option<u32>,
    /// How long an approval may be used: 5m, 1h; a minute to 24 hours
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    approval_ttl: Option<Duration>,
    /// Groups of devices whose keys take the approval of another person, in the place of those before
    #[arg(long, value_name = "GROUP,...", value_delimiter = ',')]
    dual_control: Option<Vec<GroupName>>,
    /// No device takes the approval of another person
    #[arg(long, conflicts_with = "dual_control")]
    no_dual_control: bool,
}

impl PolicyArgs {
    fn over(self, policy: &DisclosurePolicy) -> Result<DisclosurePolicy, CliError> {
        let mut parts = policy.parts();
        parts.requester_hour = self.per_hour.unwrap_or(parts.requester_hour);
        parts.requester_day = self.per_day.unwrap_or(parts.requester_day);
        parts.cluster_hour = self.cluster_per_hour.unwrap_or(parts.cluster_hour);
        if let Some(life) = self.approval_ttl {
            parts.approval_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
        }
        if let Some(groups) = self.dual_control {
            parts.dual_control = groups.into_iter().collect();
        }
        if self.no_dual_control {
            parts.dual_control.clear();
        }
        Ok(DisclosurePolicy::new(parts)?)
    }
}

/// What to do with a mass recovery.
#[derive(Debug, clap::Subcommand)]
pub(super) enum MassRecoveryCommand {
    /// Propose to lift the quotas; another administrator confirms it within the hour
    Propose {
        /// For how long, from the confirmation on: 30m, 4h; five minutes to 24 hours
        #[arg(long = "for", value_name = "TIME", default_value = "4h", value_parser = ttl)]
        duration: Duration,
        /// Why; it is shown and audited
        #[arg(long)]
        reason: String,
    },
    /// Confirm what another administrator has proposed: quotas are lifted from now on
    Confirm {
        /// Number of the proposal; `holdfast disclosure status` shows it
        number: u64,
    },
    /// End the mass recovery before its time, or take the proposal back
    End,
}

pub(super) async fn run(context: &Context, command: DisclosureCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        DisclosureCommand::Status => {
            context.printer.print(&StatusView::from(client.disclosure_status().await?))?;
        }
        DisclosureCommand::Policy(args) => {
            let status = client.disclosure_status().await?;
            let old = status.policy.as_ref().map(wire::parse_policy).transpose()?;
            let policy = args.over(&old.unwrap_or_default())?;
            let changed = client.set_disclosure_policy(status.revision, &policy).await?;
            context.printer.print(&ChangedView { what: policy.to_string(), changed })?;
        }
        DisclosureCommand::MassRecovery(command) => mass_recovery(context, command).await?,
    }
    Ok(Exit::Ok)
}

async fn mass_recovery(context: &Context, command: MassRecoveryCommand) -> Result<(), CliError> {
    let client = context.connection.client()?;
    match command {
        MassRecoveryCommand::Propose { duration, reason } => {
            let number = client.propose_mass_recovery(duration, &reason).await?;
            context.printer.print(&ProposedView { number })
        }
        MassRecoveryCommand::Confirm { number } => {
            let until_ms = client.confirm_mass_recovery(number).await?;
            context.printer.print(&LiftedView { number, until_ms })
        }
        MassRecoveryCommand::End => {
            let last = client.disclosure_status().await?.mass_recovery;
            let number = last.map_or(0, |last| last.number);
            if number == 0 {
                return Err(CliError::new(Exit::Conflict, "there was never a mass recovery"));
            }
            client.end_mass_recovery(number).await?;
            let what = format!("mass recovery {number} is ended: quotas are in force");
            context.printer.print(&ChangedView { what, changed: true })
        }
    }
}

#[derive(Debug, Serialize)]
struct ProposedView {
    number: u64,
}

impl Show for ProposedView {
    fn sheet(&self) -> Sheet {
        let number = self.number;
        Sheet::new()
            .line(format!("mass recovery {number} is proposed; nothing is lifted yet"))
            .line(format!(
                "Another administrator confirms it within the hour: holdfast disclosure mass-recovery confirm {number}"
            ))
    }
}

#[derive(Debug, Serialize)]
struct LiftedView {
    number: u64,
    until_ms: u64,
}

impl Show for LiftedView {
    fn sheet(&self) -> Sheet {
        let (number, until) = (self.number, time(self.until_ms));
        Sheet::new().line(format!("mass recovery {number} is on: no quota counts until {until}"))
    }
}

/// The bounds of disclosures.
#[derive(Debug, Serialize)]
struct StatusView {
    /// Null in a cluster of an earlier version until somebody sets a policy.
    policy: Option<PolicyView>,
    revision: u64,
    set_by: String,
    set_at_ms: u64,
    /// Null if there never was one.
    mass_recovery: Option<MassRecoveryView>,
}

#[derive(Debug, Serialize)]
struct PolicyView {
    requester_per_hour: u32,
    requester_per_day: u32,
    cluster_per_hour: u32,
    approval_ms: u64,
    dual_control_groups: Vec<String>,
}

#[derive(Debug, Serialize)]
struct MassRecoveryView {
    number: u64,
    /// proposed, lapsed, on, over or ended
    state: &'static str,
    reason: String,
    duration_ms: u64,
    proposed_by: String,
    proposed_at_ms: u64,
    proposal_expires_at_ms: u64,
    confirmed_by: String,
    confirmed_at_ms: u64,
    until_ms: u64,
    ended_by: String,
    ended_at_ms: u64,
}

impl From<v1::GetDisclosureStatusResponse> for StatusView {
    fn from(status: v1::GetDisclosureStatusResponse) -> Self {
        let now = status.time_ms;
        Self {
            policy: status.policy.map(|policy| PolicyView {
                requester_per_hour: policy.requester_per_hour,
                requester_per_day: policy.requester_per_day,
                cluster_per_hour: policy.cluster_per_hour,
                approval_ms: policy.approval_ms,
                dual_control_groups: policy.dual_control_groups,
            }),
            revision: status.revision,
            set_by: status.set_by,
            set_at_ms: status.set_at_ms,
            mass_recovery: status.mass_recovery.map(|last| MassRecoveryView::new(last, now)),
        }
    }
}

impl MassRecoveryView {
    fn new(last: v1::MassRecovery, now_ms: u64) -> Self {
        let state = if last.ended_at_ms > 0 {
            "ended"
        } else if last.confirmed_at_ms == 0 {
            if now_ms < last.proposal_expires_at_ms { "proposed" } else { "lapsed" }
        } else if now_ms < last.until_ms {
            "on"
        } else {
            "over"
        };
        Self {
            number: last.number,
            state,
            reason: last.reason,
            duration_ms: last.duration_ms,
            proposed_by: last.proposed_by,
            proposed_at_ms: last.proposed_at_ms,
            proposal_expires_at_ms: last.proposal_expires_at_ms,
            confirmed_by: last.confirmed_by,
            confirmed_at_ms: last.confirmed_at_ms,
            until_ms: last.until_ms,
            ended_by: last.ended_by,
            ended_at_ms: last.ended_at_ms,
        }
    }

    fn said(&self) -> String {
        let Self { number, reason, proposed_by, confirmed_by, ended_by, .. } = self;
        let minutes = self.duration_ms / 60_000;
        match self.state {
            "on" => format!(
                "ON UNTIL {}: number {number}, proposed by {proposed_by}, confirmed by {confirmed_by}: {reason}",
                time(self.until_ms)
            ),
            "proposed" => format!(
                "number {number} proposed by {proposed_by} for {minutes} min, waits for another administrator until {}: {reason}",
                time(self.proposal_expires_at_ms)
            ),
            "ended" => format!(
                "off; number {number} was ended by {ended_by} at {}",
                time(self.ended_at_ms)
            ),
            "over" => format!("off; number {number} was over at {}", time(self.until_ms)),
            _ => format!("off; number {number} was proposed and not confirmed"),
        }
    }
}

impl Show for StatusView {
    fn sheet(&self) -> Sheet {
        let off = || "off; there never was one".to_owned();
        let mass_recovery = self.mass_recovery.as_ref().map_or_else(off, MassRecoveryView::said);
        let Some(policy) = &self.policy else {
            return Sheet::new()
                .facts([("mass recovery", mass_recovery)])
                .line("Nobody has set a policy: one requester may disclose 200 keys in an hour.");
        };
        Sheet::new().facts([
            ("one requester in an hour", policy.requester_per_hour.to_string()),
            ("one requester in a day", policy.requester_per_day.to_string()),
            ("all requesters in an hour", policy.cluster_per_hour.to_string()),
            ("approvals may be used for", format!("{} min", policy.approval_ms / 60_000)),
            ("groups under dual control", dash(&policy.dual_control_groups.join(", "))),
            ("set by", format!("{} at {}", self.set_by, time(self.set_at_ms))),
            ("mass recovery", mass_recovery),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> PolicyArgs {
        PolicyArgs {
            per_hour: None,
            per_day: None,
            cluster_per_hour: None,
            approval_ttl: None,
            dual_control: None,
            no_dual_control: false,
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_is() {
        let old = DisclosurePolicy::default();
        assert_eq!(nothing().over(&old).unwrap(), old);
        let groups = vec!["vip".parse().unwrap()];
        let args = PolicyArgs { per_hour: Some(7), dual_control: Some(groups), ..nothing() };
        let new = args.over(&old).unwrap().parts();
        assert_eq!((new.requester_hour, new.requester_day), (7, old.parts().requester_day));
        let new = DisclosurePolicy::new(new).unwrap();
        assert!(new.marks_any());
        let args = PolicyArgs { no_dual_control: true, ..nothing() };
        assert!(!args.over(&new).unwrap().marks_any());
        let args = PolicyArgs { approval_ttl: Some(Duration::from_secs(1)), ..nothing() };
        assert!(args.over(&old).is_err());
    }

    #[test]
    fn a_mass_recovery_is_told_in_each_of_its_states() {
        let proposed = v1::MassRecovery {
            number: 3,
            proposed_at_ms: 100,
            proposal_expires_at_ms: 200,
            ..Default::default()
        };
        let on = v1::MassRecovery { confirmed_at_ms: 150, until_ms: 300, ..proposed.clone() };
        let ended = v1::MassRecovery { ended_at_ms: 250, until_ms: 0, ..on.clone() };
        for (last, now, state, said) in [
            (&proposed, 199, "proposed", "waits for another administrator"),
            (&proposed, 200, "lapsed", "not confirmed"),
            (&on, 299, "on", "ON UNTIL"),
            (&on, 300, "over", "off"),
            (&ended, 260, "ended", "was ended by"),
        ] {
            let view = MassRecoveryView::new(last.clone(), now);
            assert_eq!(view.state, state);
            assert!(view.said().contains(said), "{}", view.said());
        }
    }
}
