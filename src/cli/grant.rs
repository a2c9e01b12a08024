//! `holdfast grant`: who may do what.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::exit::Exit;
use super::views::{ChangedView, GrantsView};
use super::{Context, Done};
use crate::domain::{GroupName, OperatorName, Reach, Role};

/// What to do with grants.
#[derive(Debug, clap::Subcommand)]
pub(super) enum GrantCommand {
    /// Grant a role to an operator, for all devices or for those of some groups
    Add(AddArgs),
    /// Take a role away from an operator
    Remove(GrantArgs),
    /// List all grants
    List,
}

/// An operator and a role.
#[derive(Debug, clap::Args)]
pub(super) struct GrantArgs {
    /// Operator's name, as in the certificate
    operator: OperatorName,
    /// What the operator may do
    #[arg(value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)).try_map(|role| role.parse::<Role>()))]
    role: Role,
}

/// An operator, a role, and for which devices.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    grant: GrantArgs,
    /// Only for devices of this group; several times for several. These take the place of the groups that were granted before;
    /// without any the grant is for all devices
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<GroupName>,
}

pub(super) async fn run(context: &Context, command: GrantCommand) -> Done {
    let client = context.connection.client()?;
    match command {
        GrantCommand::Add(AddArgs { grant: GrantArgs { operator, role }, groups }) => {
            let reach = Reach::of(groups)?;
            reach.check(role)?;
            let changed = client.grant_for(&operator, role, &reach).await?;
            let what = format!("{operator} has the role {role} for {reach}");
            context.printer.print(&ChangedView { what, changed })?;
        }
        GrantCommand::Remove(GrantArgs { operator, role }) => {
            let changed = client.revoke(&operator, role).await?;
            let what = format!("{operator} doesn't have the role {role}");
            context.printer.print(&ChangedView { what, changed })?;
        }
        GrantCommand::List => {
            context.printer.print(&GrantsView::from(client.grants().await?))?;
        }
    }
    Ok(Exit::Ok)
}
