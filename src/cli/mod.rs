//! The command line: operator and help-desk commands over [`crate::client`], the server's own commands, and `dev`,
//! `demo` and `bench`, which run whole clusters of real processes.
//!
//! A command returns what it found or why it failed; one printer writes it, one place turns failures into exit codes.
//! Nothing here talks to a server but through the client, and no secret comes from or goes to an argument list.

mod approval;
mod audit;
mod bench;
mod cert;
mod cluster;
mod config;
mod connection;
mod demo;
mod dev;
mod device;
mod disclosure;
mod enrol;
mod escrow;
mod exit;
mod grant;
mod group;
mod key;
pub mod local_cluster;
mod login;
mod operator;
mod out_file;
mod output;
pub mod pki;
mod receipt;
mod report;
mod secret_file;
mod token;
mod token_file;
mod values;
mod views;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::clock::{Clock as _, SystemClock};

pub use connection::ConnectionArgs;
pub use exit::{CliError, Exit, exit_of};
pub use output::{Format, Printer, Sheet, Show};

/// A consensus-backed store for disk-encryption recovery keys
#[derive(Debug, clap::Parser)]
#[command(
    name = "holdfast",
    version = crate::planted::VERSION,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    /// How results are printed
    #[arg(
        id = "output-format",
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    output: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find, disclose and escrow recovery keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Ask for an approval to disclose a key, and approve what others ask for
    #[command(subcommand)]
    Approval(approval::ApprovalCommand),
    /// Show and set how much may be disclosed; lift the quotas on a day of mass recovery
    #[command(subcommand)]
    Disclosure(disclosure::DisclosureCommand),
    /// Verify receipts that were kept, without any server
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Read, export and verify the audit chain
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Make, show and change the cluster
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Show devices, put them into groups, and report as one
    #[command(subcommand)]
    Device(device::DeviceCommand),
    /// Show and change who may do what
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Deny certificates that were lost or stolen, and allow them again
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Seal and unseal servers: the root key and its shares
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Enrol this device with a one-time token, or issue such tokens
    Enrol(enrol::EnrolArgs),
    /// Make and show the CA that signs the certificates of devices that enrol
    #[command(subcommand)]
    AgentCa(token::AgentCaCommand),
    /// Log in at an OIDC provider, to work without a certificate for some minutes
    Login(login::LoginArgs),
    /// Forget the access token of the last login
    Logout,
    /// Make the certificate authorities, certificates and the root key
    #[command(subcommand)]
    Pki(pki::PkiCommand),
    /// Check or show a server's configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Run one server of a cluster
    Server(Box<crate::server::ServerArgs>),
    /// Run a cluster of three servers on this machine, to try things out
    Dev(dev::DevArgs),
    /// Show the whole story on this machine: escrow, failover, audited disclosure, recovery
    Demo(demo::DemoArgs),
    /// Measure a cluster
    Bench(bench::BenchArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// What a command needs besides its own arguments.
struct Context {
    connection: ConnectionArgs,
    printer: Printer,
}

/// How a command ended: well, or partly.
type Done = Result<Exit, CliError>;

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; for the rest clap's code is 2, which is ours for usage.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return match error.print() {
                Ok(()) => code.into(),
                Err(_) => Exit::Failed.into(),
            };
        }
    };
    let context = Context { connection: cli.connection, printer: Printer::new(cli.output) };
    // Keys pass through clients as well as servers.
    if let Err(error) = crate::hardening::keep_memory_private() {
        let what = format!("this process's memory can't be kept private: {error}");
        return finish(Err(CliError::failed(what)), context.printer);
    }
    match cli.command {
        Command::Server(args) => crate::server::run(*args),
        command => {
            let printer = context.printer;
            finish(run_command(context, command), printer)
        }
    }
}

/// Says how a command ended: to a person in a line, to a program in a line of JSON, both the last one on stderr.
fn finish(done: Done, printer: Printer) -> ExitCode {
    match done {
        Ok(exit) => exit.into(),
        Err(error) => {
            printer.progress(match printer.format() {
                Format::Table => format!("error: {error}"),
                Format::Json => error.to_json(),
            });
            error.exit().into()
        }
    }
}

fn run_command(context: Context, command: Command) -> Done {
    match command {
        Command::Pki(command) => run_pki(command, context.printer),
        Command::Config(command) => config::run(command, context.printer),
        Command::Receipt(command) => receipt::run(&context, command),
        Command::Logout => login::log_out(&context),
        Command::Completions { shell } => completions(shell, context.printer),
        command => run_async(context, command),
    }
}

fn run_async(context: Context, command: Command) -> Done {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("starting the runtime: {error}")))?;
    runtime.block_on(dispatch(context, command))
}

async fn dispatch(context: Context, command: Command) -> Done {
    match command {
        Command::Key(command) => key::run(&context, command).await,
        Command::Approval(command) => approval::run(&context, command).await,
        Command::Disclosure(command) => disclosure::run(&context, command).await,
        Command::Audit(command) => audit::run(&context, command).await,
        Command::Cluster(command) => cluster::run(&context, command).await,
        Command::Device(command) => device::run(&context, command).await,
        Command::Grant(command) => grant::run(&context, command).await,
        Command::Enrol(args) => enrol::run(&context, args).await,
        Command::AgentCa(command) => token::run_agent_ca(&context, command).await,
        Command::Login(args) => login::run(&context, args).await,
        Command::Cert(command) => cert::run(&context, command).await,
        Command::Operator(command) => operator::run(&context, command).await,
        Command::Dev(args) => dev::run(&context, args).await,
        Command::Demo(args) => demo::run(&context, args).await,
        Command::Bench(args) => bench::run(&context, args).await,
        Command::Server(_)
        | Command::Pki(_)
        | Command::Config(_)
        | Command::Receipt(_)
        | Command::Logout
        | Command::Completions { .. } => Err(CliError::failed("this command runs elsewhere")),
    }
}

fn run_pki(command: pki::PkiCommand, printer: Printer) -> Done {
    printer.print(&pki::run(command, SystemClock.now())?)?;
    Ok(Exit::Ok)
}

fn completions(shell: clap_complete::Shell, printer: Printer) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "holdfast", &mut script);
    printer.raw(&script)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_no_conflicting_arguments() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_output_format_is_taken_after_subcommands_and_their_arguments() {
        for line in [
            "holdfast -o json key find 1854c11f",
            "holdfast key -o json find 1854c11f",
            "holdfast key find 1854c11f -o json",
            "holdfast key find 1854c11f --output=json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.output, Format::Json, "{line}");
        }
    }

    #[test]
    fn enrol_is_a_command_of_the_device_and_of_administrators() {
        let device = "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5";
        let enrol = format!("holdfast enrol --token-file t --device {device} --out o");
        let token = format!("holdfast enrol token create --device {device}");
        for line in [
            enrol.clone(),
            format!("{enrol} --addr a:1 --ca f -o json"),
            enrol.replace("enrol ", "--addr a:1 enrol "),
            token.clone(),
            format!("{token} --ttl 7d --addr a:1"),
            token.replace("enrol ", "-o json --addr a:1 enrol "),
            "holdfast enrol token create --group berlin --count 7".to_owned(),
            "holdfast enrol token list --addr a:1".to_owned(),
            "holdfast enrol renew --out o --cert c --key k".to_owned(),
            "holdfast agent-ca create --replace".to_owned(),
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        for line in [
            "holdfast enrol --token-file t --out o".to_owned(),
            "holdfast enrol token create".to_owned(),
            "holdfast enrol token create --group berlin".to_owned(),
            format!("{token} --group berlin --count 7"),
            format!("{token} --count 7"),
            format!("{enrol} token list"),
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_grant_may_name_groups_and_a_change_of_a_group_several_devices() {
        let device = "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5";
        for line in [
            "holdfast grant add bob help-desk".to_owned(),
            "holdfast grant add bob help-desk --group berlin --group munich".to_owned(),
            "holdfast grant add --group berlin mia data-migration -o json".to_owned(),
            format!("holdfast device group add berlin {device} {{{device}}}"),
            format!("holdfast device group remove berlin {device}"),
            format!("holdfast device group list {device}"),
            "holdfast device list --group berlin".to_owned(),
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        for line in [
            "holdfast grant remove bob help-desk --group berlin".to_owned(),
            "holdfast grant add bob help-desk --group a/b".to_owned(),
            "holdfast device group add berlin".to_owned(),
            format!("holdfast device group add a/b {device}"),
            "holdfast device list --group a/b".to_owned(),
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn quotas_and_approvals_are_commands_of_their_own() {
        let key = "8c9d0e1f-2a3b-4c5d-6e7f-8091a2b3c4d5";
        for line in [
            format!("holdfast approval request {key} --reason LOST_PIN --user eve"),
            "holdfast approval grant 17".to_owned(),
            "holdfast approval deny 17 --reason no".to_owned(),
            "holdfast approval list --all -o json".to_owned(),
            format!("holdfast key disclose {key} --reason LOST_PIN --approval 17"),
            "holdfast disclosure status".to_owned(),
            "holdfast disclosure policy --per-hour 50 --dual-control vip,board".to_owned(),
            "holdfast disclosure policy --no-dual-control --approval-ttl 5m".to_owned(),
            "holdfast disclosure mass-recovery propose --for 8h --reason update".to_owned(),
            "holdfast disclosure mass-recovery confirm 3".to_owned(),
            "holdfast disclosure mass-recovery end".to_owned(),
        ] {
            let parsed = Cli::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
        for line in [
            "holdfast approval grant 0",
            "holdfast disclosure policy",
            "holdfast disclosure policy --per-hour 0",
            "holdfast disclosure policy --per-hour 1001",
            "holdfast disclosure policy --no-dual-control --dual-control vip",
            "holdfast disclosure mass-recovery propose",
            "holdfast disclosure mass-recovery confirm",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn a_recovery_key_is_never_taken_from_the_argument_list() {
        let command = Cli::command();
        let key = command.find_subcommand("key").unwrap();
        let escrow = key.find_subcommand("escrow").unwrap();
        assert!(escrow.get_positionals().next().is_none());
    }
}
