//! `holdfast operator rotate` and `reseal`: a new escrow key, and stored keys that are sealed to it.

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::output::{Sheet, Show};
use crate::cli::{CliError, Context, Done};
use crate::domain::Epoch;

/// Steps after which progress is shown.
const STEPS: u32 = 16;

pub(super) async fn rotate(context: &Context) -> Done {
    let client = context.connection.client()?;
    let current = Epoch::new(client.seal_status().await?.epoch);
    let rotated = client.rotate_escrow_key(current).await?;
    context.printer.print(&RotatedView { epoch: rotated.epoch, changed: rotated.changed })?;
    if rotated.changed {
        context.printer.progress(
            "note: keys that are stored are sealed to older epochs still; `holdfast operator reseal` seals them to this one",
        );
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Serialize)]
struct RotatedView {
    epoch: u32,
    changed: bool,
}

impl Show for RotatedView {
    fn sheet(&self) -> Sheet {
        let note = if self.changed { "" } else { " (an earlier call made it; nothing changed)" };
        Sheet::new().line(format!("epoch {} is the newest{note}", self.epoch))
    }
}

pub(super) async fn reseal(context: &Context) -> Done {
    let client = context.connection.client()?;
    let mut view = ResealView::default();
    let mut page_token = String::new();
    for steps in 1_u32.. {
        let step = client.reseal_keys(&page_token).await.map_err(|error| {
            let mut error = CliError::from(error);
            error.add(format!("{} keys are sealed anew so far; repeat it to go on", view.resealed));
            error
        })?;
        view.epoch = step.epoch;
        view.looked_at = view.looked_at.saturating_add(step.looked_at.into());
        view.resealed = view.resealed.saturating_add(step.resealed.into());
        view.changed_meanwhile =
            view.changed_meanwhile.saturating_add(step.changed_meanwhile.into());
        view.failed = view.failed.saturating_add(step.failed.into());
        if step.next_page_token.is_empty() {
            break;
        }
        // A server that gives the same token again would keep us for ever.
        if step.next_page_token == page_token {
            return Err(CliError::failed("a server gave the same page_token twice"));
        }
        page_token = step.next_page_token;
        if steps % STEPS == 0 {
            let (looked_at, resealed) = (view.looked_at, view.resealed);
            context.printer.progress(format!("{looked_at} keys looked at, {resealed} sealed anew"));
        }
    }
    context.printer.print(&view)?;
    Ok(if view.failed > 0 { Exit::Partial } else { Exit::Ok })
}

#[derive(Debug, Default, Serialize)]
struct ResealView {
    epoch: u32,
    looked_at: u64,
    resealed: u64,
    /// Changed by somebody else meanwhile, and left as that one left them.
    changed_meanwhile: u64,
    /// Don't open; left as they are.
    failed: u64,
}

impl Show for ResealView {
    fn sheet(&self) -> Sheet {
        let number = |number: u64| number.to_string();
        Sheet::new().facts([
            ("sealed to epoch", self.epoch.to_string()),
            ("keys looked at", number(self.looked_at)),
            ("sealed anew", number(self.resealed)),
            ("changed meanwhile", number(self.changed_meanwhile)),
            ("DON'T OPEN", number(self.failed)),
        ])
    }
}
