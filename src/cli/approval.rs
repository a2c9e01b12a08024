//! `holdfast approval`: what takes a second person.

use holdfast_proto::v1;
use serde::Serialize;

use super::exit::Exit;
use super::key::WantedArgs;
use super::output::{Sheet, Show, dash, time};
use super::views::user_text;
use super::{Context, Done};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::ApprovalId;

/// What to do with approvals.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ApprovalCommand {
    /// Ask another person to approve the disclosure of a key: for a device under dual control, or above a quota
    Request(WantedArgs),
    /// Approve a request of somebody else: they may disclose that key once
    Grant {
        /// Number of the request
        number: ApprovalId,
        /// Why; it is listed and audited
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Refuse a request, or take an approval back that was not used yet
    Deny {
        /// Number of the request
        number: ApprovalId,
        /// Why; it is listed and audited
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// List requests for approval
    List {
        /// Also those that were used or refused, or whose time is over
        #[arg(long)]
        all: bool,
    },
}

pub(super) async fn run(context: &Context, command: ApprovalCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        ApprovalCommand::Request(args) => {
            let wanted = args.request()?;
            let made = client.request_approval(&wanted).await?;
            context.printer.print(&RequestedView {
                approval_id: made.approval_id,
                key_id: wanted.protector.to_string(),
                expires_at_ms: made.expires_at_ms,
            })?;
        }
        ApprovalCommand::Grant { number, reason } => {
            let expires_at_ms = client.decide_approval(number, true, &reason).await?;
            let (approval_id, approved) = (number.get(), true);
            context.printer.print(&DecidedView { approval_id, approved, expires_at_ms })?;
        }
        ApprovalCommand::Deny { number, reason } => {
            client.decide_approval(number, false, &reason).await?;
            let (approval_id, approved) = (number.get(), false);
            context.printer.print(&DecidedView { approval_id, approved, expires_at_ms: 0 })?;
        }
        ApprovalCommand::List { all } => {
            let now = SystemClock.now().as_millis();
            let found = client.approvals().await?.into_iter();
            let found = found.map(|approval| ApprovalView::new(approval, now));
            let approvals = found.filter(|approval| all || approval.open()).collect();
            context.printer.print(&ApprovalsView { approvals })?;
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct RequestedView {
    approval_id: u64,
    key_id: String,
    expires_at_ms: u64,
}

impl Show for RequestedView {
    fn sheet(&self) -> Sheet {
        let number = self.approval_id;
        Sheet::new()
            .facts([("approval", number.to_string()), ("waits until", time(self.expires_at_ms))])
            .line(format!("Another person approves it: holdfast approval grant {number}"))
            .line(format!(
                "Then disclose by it, once: holdfast key disclose {} --approval {number} ...",
                self.key_id
            ))
    }
}

#[derive(Debug, Serialize)]
struct DecidedView {
    approval_id: u64,
    approved: bool,
    expires_at_ms: u64,
}

impl Show for DecidedView {
    fn sheet(&self) -> Sheet {
        let number = self.approval_id;
        Sheet::new().line(if self.approved {
            format!("request {number} is approved until {}", time(self.expires_at_ms))
        } else {
            format!("request {number} is refused")
        })
    }
}

#[derive(Debug, Serialize)]
struct ApprovalsView {
    approvals: Vec<ApprovalView>,
}

#[derive(Debug, Serialize)]
struct ApprovalView {
    approval_id: u64,
    state: &'static str,
    requester: String,
    protector_id: String,
    version: u32,
    device_id: String,
    user: String,
    reason: String,
    reason_text: String,
    ticket: String,
    requested_at_ms: u64,
    expires_at_ms: u64,
    decided_by: String,
    decided_at_ms: u64,
    decision: String,
    used_at_ms: u64,
}

impl ApprovalView {
    fn new(approval: v1::Approval, now_ms: u64) -> Self {
        let over = approval.expires_at_ms <= now_ms;
        let state = match v1::ApprovalState::try_from(approval.state) {
            Ok(v1::ApprovalState::Pending) if over => "expired",
            Ok(v1::ApprovalState::Pending) => "waiting",
            Ok(v1::ApprovalState::Approved) if over => "expired",
            Ok(v1::ApprovalState::Approved) => "approved",
            Ok(v1::ApprovalState::Denied) => "denied",
            Ok(v1::ApprovalState::Used) => "used",
            Ok(v1::ApprovalState::Unspecified) | Err(_) => "unknown",
        };
        let reason = approval.reason.unwrap_or_default();
        Self {
            approval_id: approval.approval_id,
            state,
            requester: approval.requester,
            protector_id: approval.protector_id,
            version: approval.version,
            device_id: approval.device_id,
            user: approval.user.as_ref().map(user_text).unwrap_or_default(),
            reason: reason.code,
            reason_text: reason.text,
            ticket: approval.ticket,
            requested_at_ms: approval.requested_at_ms,
            expires_at_ms: approval.expires_at_ms,
            decided_by: approval.decided_by,
            decided_at_ms: approval.decided_at_ms,
            decision: approval.decision,
            used_at_ms: approval.used_at_ms,
        }
    }

    /// Whether something may still come of it.
    fn open(&self) -> bool {
        matches!(self.state, "waiting" | "approved")
    }
}

impl Show for ApprovalsView {
    fn sheet(&self) -> Sheet {
        let rows = self.approvals.iter().map(|approval| {
            [
                approval.approval_id.to_string(),
                approval.state.to_owned(),
                approval.requester.clone(),
                dash(&approval.user),
                format!("{} {}", approval.reason, approval.reason_text).trim().to_owned(),
                dash(&approval.ticket),
                approval.protector_id.clone(),
                approval.device_id.clone(),
                time(approval.expires_at_ms),
                dash(&approval.decided_by),
            ]
        });
        let header = [
            "no",
            "state",
            "asked by",
            "for",
            "reason",
            "ticket",
            "key id",
            "device",
            "until",
            "decided by",
        ];
        Sheet::new().table(header, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_whose_time_is_over_is_not_open_whatever_was_decided() {
        for (state, expires_at_ms, shown, open) in [
            (v1::ApprovalState::Pending, 8, "waiting", true),
            (v1::ApprovalState::Pending, 7, "expired", false),
            (v1::ApprovalState::Approved, 8, "approved", true),
            (v1::ApprovalState::Approved, 7, "expired", false),
            (v1::ApprovalState::Denied, 8, "denied", false),
            (v1::ApprovalState::Used, 8, "used", false),
        ] {
            let approval =
                v1::Approval { state: state.into(), expires_at_ms, ..Default::default() };
            let view = ApprovalView::new(approval, 7);
            assert_eq!((view.state, view.open()), (shown, open));
        }
    }
}
