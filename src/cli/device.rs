//! `holdfast device`: devices, their volumes and groups, and reporting as one of them.

use holdfast_proto::v1;

use super::exit::{CliError, Exit};
use super::values::guid;
use super::views::{DeviceAnswerView, DeviceView, DevicesView};
use super::{Context, Done, group, report};
use crate::domain::{DeviceId, GroupName};

/// Devices on one page of a listing.
const PAGE: u32 = 1000;

/// What to do with devices.
#[derive(Debug, clap::Subcommand)]
pub(super) enum DeviceCommand {
    /// Show a device and its volumes, without secrets
    Show {
        /// The device
        #[arg(value_parser = guid::<DeviceId>)]
        device: DeviceId,
        /// Take what the called node has, without asking the cluster
        #[arg(long)]
        stale: bool,
    },
    /// List all devices that your grants reach, in the order of their ids
    List {
        /// Only those of this group
        #[arg(long, value_name = "NAME")]
        group: Option<GroupName>,
        /// At most so many; 0 for all
        #[arg(long, default_value_t = 0)]
        limit: usize,
        /// Take what the called node has, without asking the cluster
        #[arg(long)]
        stale: bool,
    },
    /// Put devices into groups, take them out, and show which they are in
    #[command(subcommand)]
    Group(group::GroupCommand),
    /// Report the compliance of a device's volumes, as its agent does
    Report(report::ReportArgs),
}

pub(super) async fn run(context: &Context, command: DeviceCommand) -> Done {
    match command {
        DeviceCommand::Show { device, stale } => {
            let answer = context.connection.client()?.device(device, stale).await?;
            let device = answer
                .device
                .ok_or_else(|| CliError::failed("the server's answer holds no device"))?;
            context.printer.print(&DeviceAnswerView {
                device: device.into(),
                applied_index: answer.applied_index,
                age_ms: answer.age_ms,
            })?;
            Ok(Exit::Ok)
        }
        DeviceCommand::List { group, limit, stale } => list(context, group, limit, stale).await,
        DeviceCommand::Group(command) => group::run(context, command).await,
        DeviceCommand::Report(args) => report::run(context, args).await,
    }
}

async fn list(context: &Context, group: Option<GroupName>, limit: usize, stale: bool) -> Done {
    let client = context.connection.client()?;
    let mut devices: Vec<DeviceView> = Vec::new();
    let group = group.map(|group| group.to_string()).unwrap_or_default();
    let mut message =
        v1::ListDevicesRequest { page_size: PAGE, page_token: String::new(), stale, group };
    loop {
        let page = client.devices_page(message.clone()).await?;
        devices.extend(page.devices.into_iter().map(DeviceView::from));
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() || (limit > 0 && devices.len() >= limit) {
            break;
        }
    }
    if limit > 0 {
        devices.truncate(limit);
    }
    context.printer.print(&DevicesView { devices })?;
    Ok(Exit::Ok)
}
