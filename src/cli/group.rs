//! `holdfast device group`: which groups devices are in. Grants may be limited to them.

use serde::Serialize;

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show};
use super::values::guid;
use super::{Context, Done};
use crate::client::Client;
use crate::domain::{DeviceId, GroupName};

/// What to do with groups of devices.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GroupCommand {
    /// Put devices into a group; they need not have called yet
    Add(GroupArgs),
    /// Take devices out of a group, however they came in
    Remove(GroupArgs),
    /// Show the groups of a device, which need not have called yet
    List {
        /// The device
        #[arg(value_parser = guid::<DeviceId>)]
        device: DeviceId,
    },
}

/// A group and some devices.
#[derive(Debug, clap::Args)]
pub(super) struct GroupArgs {
    /// Name of the group: 1 to 64 letters, digits and any of . - _
    group: GroupName,
    /// The devices
    #[arg(required = true, value_parser = guid::<DeviceId>)]
    devices: Vec<DeviceId>,
}

pub(super) async fn run(context: &Context, command: GroupCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        GroupCommand::Add(args) => change(context, &client, args, true).await?,
        GroupCommand::Remove(args) => change(context, &client, args, false).await?,
        GroupCommand::List { device } => {
            let groups = client.device_groups(device).await?;
            context.printer.print(&GroupsView { device_id: device.to_string(), groups })?;
        }
    }
    Ok(Exit::Ok)
}

/// Puts devices into a group or takes them out, one after the other.
async fn change(
    context: &Context,
    client: &Client,
    GroupArgs { group, devices }: GroupArgs,
    into: bool,
) -> Result<(), CliError> {
    let mut done = ChangesView { group: group.to_string(), into, devices: Vec::new() };
    let all = devices.len();
    for device in devices {
        let changed = if into {
            client.add_to_group(device, &group).await
        } else {
            client.remove_from_group(device, &group).await
        };
        let changed = changed.map_err(|error| {
            let mut error = CliError::from(error);
            error.add(format!("{} of {all} devices are done: repeat it", done.devices.len()));
            error
        })?;
        done.devices.push(ChangeView { device_id: device.to_string(), changed });
    }
    context.printer.print(&done)
}

/// Devices that are in a group now, or are not in it any more.
#[derive(Debug, Serialize)]
struct ChangesView {
    group: String,
    into: bool,
    devices: Vec<ChangeView>,
}

#[derive(Debug, Serialize)]
struct ChangeView {
    device_id: String,
    /// Whether this call changed it.
    changed: bool,
}

impl Show for ChangesView {
    fn sheet(&self) -> Sheet {
        let is = if self.into { "is" } else { "is not" };
        self.devices.iter().fold(Sheet::new(), |sheet, device| {
            let note = if device.changed { "" } else { " (nothing changed)" };
            sheet.line(format!("{} {is} in the group {}{note}", device.device_id, self.group))
        })
    }
}

/// The groups of a device.
#[derive(Debug, Serialize)]
struct GroupsView {
    device_id: String,
    groups: Vec<String>,
}

impl Show for GroupsView {
    fn sheet(&self) -> Sheet {
        let rows = self.groups.iter().map(|group| [group.clone()]);
        Sheet::new().table(["group"], rows)
    }
}
