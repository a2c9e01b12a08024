//! A simulated server: the real node with its real services on a simulated machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast::clock::SharedClock;
use holdfast::domain::NodeId;
use holdfast::fs::sim::SimFs;
use holdfast::grpc::{PeerApi, Services, routes};
use holdfast::raft::{Node, NodeOptions, RaftTimes, StorageSizes};
use holdfast::service::{Context, Deadlines, Sealing, refresh_sealing};
use tonic::service::Routes;
use tonic::transport::server::Server;

use super::credentials::{CLUSTER, Credentials, host};
use super::net::{SimDial, incoming};
use super::world::World;

/// Ports of each machine.
pub(crate) const CLIENT_PORT: u16 = 7401;
pub(crate) const PEER_PORT: u16 = 7402;
/// The data directory on each disk.
pub(crate) const DATA: &str = "/data";
const LOOK: Duration = Duration::from_millis(3);
const KEYRING: Duration = Duration::from_millis(250);

fn options(id: u64) -> NodeOptions {
    NodeOptions {
        cluster: CLUSTER,
        id: NodeId::new(id),
        data_dir: DATA.into(),
        peer_address: format!("{}:{PEER_PORT}", host(id)),
        client_address: format!("{}:{CLIENT_PORT}", host(id)),
        tls: Credentials::no_files(),
        times: RaftTimes {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(350),
            snapshot_chunk: Duration::from_secs(10),
        },
        // All small, so that a short run has many segments, snapshots and purges.
        sizes: StorageSizes {
            wal_segment_bytes: 16 * 1024,
            wal_keep_entries: 16,
            wal_cache_bytes: 32 * 1024,
            overlay_bytes: 256 * 1024,
            overlay_age: Duration::from_secs(1),
            view_cache_bytes: 1 << 20,
            snapshot_floor_bytes: 24 * 1024,
        },
    }
}

/// The process of a server. When it ends by itself, what was running with it is left for [`super::run`] to stop.
pub(crate) async fn process(world: Arc<World>, id: u64) -> turmoil::Result {
    let (disk, clock, dial) = {
        let machines = world.machines.lock();
        let machine = &machines[&id];
        let dial = SimDial { closed: Arc::clone(&machine.closed) };
        (machine.disk.clone(), Arc::clone(&machine.clock), dial)
    };
    let why = serve(&world, id, disk.clone(), clock, dial).await;
    // A process that has ended writes nothing any more.
    disk.power_cut();
    world.note(format!("n{id} ended: {}", first_words(&why)));
    world.machines.lock().get_mut(&id).unwrap().ended = Some(why);
    std::future::pending().await
}

/// Without what may differ between two runs of the same seed.
fn first_words(why: &str) -> String {
    why.chars().take(60).collect()
}

async fn serve(
    world: &Arc<World>,
    id: u64,
    disk: SimFs,
    clock: SharedClock,
    dial: SimDial,
) -> String {
    let started =
        Node::start_simulated(disk, options(id), Arc::clone(&clock), Arc::new(dial)).await;
    let node = match started {
        Ok(node) => Arc::new(node),
        Err(error) => return format!("refused to start: {error}"),
    };
    world.machines.lock().get_mut(&id).unwrap().node = Some(Arc::clone(&node));
    world.note(format!("n{id} runs"));
    let credentials = Arc::clone(&world.credentials);
    let authorities = Arc::clone(&credentials.authorities);
    let peer = PeerApi::new(&node, Arc::clone(&authorities), Arc::clone(&clock)).into_server();
    let context = Arc::new(Context::new(
        Arc::clone(&node),
        clock,
        CLUSTER,
        NodeId::new(id),
        Deadlines::default(),
    ));
    let sealing = Arc::new(Sealing::new(CLUSTER, Some(credentials.root_key()), DATA.into()));
    let services = Services {
        context: Arc::clone(&context),
        sealing: Arc::clone(&sealing),
        signer: tokio::sync::watch::Sender::new(credentials.node_signer(id)).subscribe(),
        authorities,
    };
    let connections = (
        incoming(PEER_PORT, Arc::clone(&credentials)).await,
        incoming(CLIENT_PORT, credentials).await,
    );
    let (Ok(peers), Ok(clients)) = connections else { return "can't listen".to_owned() };
    let peers =
        Server::builder().add_routes(Routes::new(peer)).serve_with_incoming(Box::pin(peers));
    let clients =
        Server::builder().add_routes(routes(services)).serve_with_incoming(Box::pin(clients));
    let unseal = async {
        let mut tick = tokio::time::interval(KEYRING);
        loop {
            tick.tick().await;
            if let Err(error) = refresh_sealing(&context, &sealing) {
                return format!("the keyring can't be read: {error}");
            }
        }
    };
    let looking = look_on(world, id, &node);
    let mut failed = node.failed();
    let failed = async {
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        why = failed => why,
        why = context.faulted() => why,
        why = unseal => why,
        () = looking => "nobody looks any more".to_owned(),
        ended = peers => format!("the peer port ended: {ended:?}"),
        ended = clients => format!("the client port ended: {ended:?}"),
    }
}

/// Hears what the node says of itself, again and again. From inside, where time is the simulation's.
async fn look_on(world: &World, id: u64, node: &Node<SimFs>) {
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let view = node.statuses(false).await;
        let own = view.members.iter().find(|status| status.member.id.get() == id);
        let Some(Ok(report)) = own.map(|status| &status.answer) else { continue };
        world.oracle.lock().look(world.millis(), id, report, view.leader);
        if let Some(machine) = world.machines.lock().get_mut(&id) {
            machine.says(report);
            let seen = (report.last_log_index, report.applied_index);
            machine.seen = view.leader.map(|_| seen);
        }
    }
}

/// Where the log lies on a disk.
pub(crate) fn wal_dir() -> std::path::PathBuf {
    Path::new(DATA).join("wal")
}
