//! `holdfast dev`: a cluster of three servers on this machine, to try things out. It stays until it is told to stop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{CliError, Exit};
use super::local_cluster::{ADMINISTRATOR, LocalCluster, LocalError, LocalOptions, write_json};
use super::output::{Printer, Sheet, Show};
use super::pki::{CaKind, IssuedPaths};
use super::{Context, Done};
use crate::domain::{OperatorName, Role};

/// How often it is looked whether all servers still run.
const WATCH: Duration = Duration::from_millis(200);
/// How long a server that has ended stays away: long enough to see the other two go on without it.
const RESTART: Duration = Duration::from_secs(10);

/// Where the cluster lies.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// Directory of everything; a second start on it brings the same data back
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What the servers log, such as info,holdfast::raft=debug
    #[arg(long, default_value = "info,openraft=warn")]
    server_log: String,
}

impl From<LocalError> for CliError {
    fn from(error: LocalError) -> Self {
        match error {
            LocalError::Client(error) => error.into(),
            LocalError::Pki(error) => error.into(),
            LocalError::InUse { .. }
            | LocalError::Foreign { .. }
            | LocalError::PortTaken { .. } => Self::new(Exit::Conflict, error.to_string()),
            LocalError::Timeout { .. } => Self::new(Exit::Unavailable, error.to_string()),
            LocalError::Io { .. }
            | LocalError::Description { .. }
            | LocalError::NoPorts
            | LocalError::NoNode(_)
            | LocalError::Ended { .. }
            | LocalError::NotStopped { .. } => Self::failed(error.to_string()),
        }
    }
}

pub(super) async fn run(context: &Context, args: DevArgs) -> Done {
    let printer = context.printer;
    let mut stop = Stop::new()?;
    let mut options = LocalOptions::of_this_program(&args.dir)?;
    options.extra.insert("log".to_owned(), log_table(&args.server_log));
    let mut cluster = LocalCluster::prepare(options)?;
    let again = cluster.initialised();
    printer.progress(format!(
        "starting three servers in {}{}",
        cluster.dir().display(),
        if again { ", with the data of an earlier start" } else { "" }
    ));
    let outcome = tokio::select! {
        served = serve(&mut cluster, printer) => served,
        () = stop.wait() => Ok(()),
    };
    printer.progress("stopping the servers");
    let stopped = cluster.stop().await;
    outcome?;
    stopped?;
    printer.progress(format!(
        "all servers have stopped; `holdfast dev --dir {}` starts them again",
        args.dir.display()
    ));
    Ok(Exit::Ok)
}

/// Starts everything and watches it; ends only with an error. A server that ends by itself, or is killed to see what
/// happens then, is started again after a while, as systemd would.
async fn serve(cluster: &mut LocalCluster, printer: Printer) -> Result<(), CliError> {
    cluster.start().await?;
    let identities = Identities::make(cluster).await?;
    let view = DevView::new(cluster, &identities);
    write_json(&cluster.dir().join("dev.json"), &view)?;
    printer.print(&view)?;
    let mut ended: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        match cluster.check_running() {
            Ok(()) => {}
            Err(LocalError::Ended { node, status, .. }) => {
                printer.progress(format!(
                    "server {node} has ended ({status}); it is started again in {} seconds",
                    RESTART.as_secs()
                ));
                ended.insert(node, Instant::now());
            }
            Err(error) => return Err(error.into()),
        }
        let due: Vec<u64> =
            ended.iter().filter(|(_, at)| at.elapsed() >= RESTART).map(|(node, _)| *node).collect();
        for node in due {
            match cluster.start_node(node).await {
                Ok(()) => ended.remove(&node),
                Err(LocalError::Ended { .. }) => ended.insert(node, Instant::now()),
                Err(error) => return Err(error.into()),
            };
            let view = DevView::new(cluster, &identities);
            write_json(&cluster.dir().join("dev.json"), &view)?;
            let pid = view.nodes.iter().find(|of| of.node_id == node).map_or(0, |of| of.pid);
            printer.progress(match pid {
                0 => format!("server {node} ended again; its log says why"),
                pid => format!("server {node} is started again, process id {pid}"),
            });
        }
        tokio::time::sleep(WATCH).await;
    }
}

fn log_table(level: &str) -> toml::Value {
    let mut table = toml::Table::new();
    table.insert("level".to_owned(), level.into());
    table.into()
}

/// Ctrl-C or SIGTERM.
pub(super) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    pub(super) fn new() -> Result<Self, CliError> {
        let catch = |kind| {
            signal(kind).map_err(|error| CliError::failed(format!("catching signals: {error}")))
        };
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The identities that a try needs.
struct Identities {
    administrator: IssuedPaths,
    help_desk: IssuedPaths,
    auditor: IssuedPaths,
    agent: IssuedPaths,
}

impl Identities {
    async fn make(cluster: &LocalCluster) -> Result<Self, CliError> {
        let administrator: OperatorName = ADMINISTRATOR.parse()?;
        let help_desk: OperatorName = "helpdesk".parse()?;
        let auditor: OperatorName = "auditor".parse()?;
        cluster.grant(&help_desk, &[Role::HelpDesk, Role::ReportReader]).await?;
        cluster.grant(&auditor, &[Role::Auditor]).await?;
        Ok(Self {
            administrator: cluster.operator(&administrator)?,
            help_desk: cluster.operator(&help_desk)?,
            auditor: cluster.operator(&auditor)?,
            agent: cluster.agent(cluster.device())?,
        })
    }
}

#[derive(Debug, Serialize)]
struct NodeView {
    node_id: u64,
    pid: u32,
    client_address: String,
    peer_address: String,
    http_address: String,
    data_dir: PathBuf,
    log: PathBuf,
}

#[derive(Debug, Serialize)]
struct IdentityView {
    name: String,
    roles: Vec<&'static str>,
    cert: PathBuf,
    key: PathBuf,
}

/// Everything that somebody needs to use the cluster; `dev.json` has the same.
#[derive(Debug, Serialize)]
struct DevView {
    cluster_id: String,
    /// The program that runs the servers.
    program: PathBuf,
    endpoints: String,
    node_ca: PathBuf,
    agent_ca: PathBuf,
    operator_ca: PathBuf,
    pki_dir: PathBuf,
    pid: u32,
    nodes: Vec<NodeView>,
    administrator: IdentityView,
    help_desk: IdentityView,
    auditor: IdentityView,
    agent: IdentityView,
    device_id: String,
}

impl DevView {
    fn new(cluster: &LocalCluster, identities: &Identities) -> Self {
        let node = |node: &super::local_cluster::LocalNode| NodeView {
            node_id: node.id(),
            pid: node.pid().unwrap_or_default(),
            client_address: node.ports().client_address(),
            peer_address: node.ports().peer_address(),
            http_address: node.ports().http_address(),
            data_dir: node.data_dir(),
            log: node.log_path(),
        };
        let identity = |name: &str, roles: &[&'static str], paths: &IssuedPaths| IdentityView {
            name: name.to_owned(),
            roles: roles.to_vec(),
            cert: paths.certificate.clone(),
            key: paths.private_key.clone(),
        };
        let pki = cluster.pki();
        let device = cluster.device().to_string();
        Self {
            cluster_id: pki.cluster().to_string(),
            program: cluster.program().to_owned(),
            endpoints: cluster.endpoints(),
            node_ca: pki.ca_path(CaKind::Node),
            agent_ca: pki.ca_path(CaKind::Agent),
            operator_ca: pki.ca_path(CaKind::Operator),
            pki_dir: pki.directory().to_owned(),
            pid: std::process::id(),
            nodes: cluster.nodes().iter().map(node).collect(),
            administrator: identity(ADMINISTRATOR, &["administrator"], &identities.administrator),
            help_desk: identity("helpdesk", &["help-desk", "report-reader"], &identities.help_desk),
            auditor: identity("auditor", &["auditor"], &identities.auditor),
            agent: identity(&format!("agent/{device}"), &[], &identities.agent),
            device_id: device,
        }
    }

    fn as_identity(who: &IdentityView) -> String {
        format!("export HOLDFAST_CERT={} HOLDFAST_KEY={}", quoted(&who.cert), quoted(&who.key))
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

impl Show for DevView {
    fn sheet(&self) -> Sheet {
        let rows = self.nodes.iter().map(|node| {
            [
                node.node_id.to_string(),
                node.pid.to_string(),
                node.client_address.clone(),
                node.peer_address.clone(),
                node.http_address.clone(),
                node.log.display().to_string(),
            ]
        });
        let volume = "0b9f9d8e-5d0b-4a0e-9d57-6c1f0c6f3a10";
        let protector = "1854c11f-6b44-08b0-91db-121a2fbf9ac0";
        Sheet::new()
            .line(format!("cluster {} works", self.cluster_id))
            .line("")
            .table(["node", "pid", "clients", "peers", "metrics", "log"], rows)
            .line("")
            .line("In another terminal:")
            .line("")
            .line(format!("export PATH={}:$PATH", quoted(self.program.parent().unwrap_or(&self.program))))
            .line(format!("export HOLDFAST_ADDR={}", self.endpoints))
            .line(format!("export HOLDFAST_CACERT={}", quoted(&self.node_ca)))
            .line("")
            .line("# as the administrator: look at the cluster and at who may do what")
            .line(Self::as_identity(&self.administrator))
            .line("holdfast cluster status")
            .line("holdfast grant list")
            .line("")
            .line("# as a device: seal a recovery key here and escrow it")
            .line(Self::as_identity(&self.agent))
            .line("echo 471207-278498-422125-177177-561902-537405-468006-693451 | holdfast key escrow \\")
            .line(format!("    --device {} --volume {volume} --protector {protector}", self.device_id))
            .line("")
            .line("# as the help desk: find it by its first eight digits, and disclose it")
            .line(Self::as_identity(&self.help_desk))
            .line("holdfast key find 1854c11f")
            .line(format!("holdfast key disclose {protector} --reason LOST_PIN --user alice"))
            .line("")
            .line("# as the auditor: see who did what, and verify that nothing was changed")
            .line(Self::as_identity(&self.auditor))
            .line("holdfast audit list")
            .line("holdfast audit verify")
            .line("")
            .line("# kill a server (kill -9 PID): the others go on, and it is started again after 10 seconds; Ctrl-C stops all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted(Path::new("/tmp/a-b_1")), "/tmp/a-b_1");
        assert_eq!(quoted(Path::new("/tmp/it's here")), "'/tmp/it'\\''s here'");
    }
}
