//! What agents and the help desk do, through the public API, and what they must be told.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use holdfast::client::ChainVerifier;
use holdfast::crypto::{Binding, EscrowPublicKey, Part, seal};
use holdfast::domain::{
    Epoch, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, RequestId, Role, Sealed, VolumeId,
};
use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use holdfast_proto::v1::cluster_service_client::ClusterServiceClient;
use holdfast_proto::v1::escrow_service_client::EscrowServiceClient;
use holdfast_proto::v1::recovery_service_client::RecoveryServiceClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::cluster::{CLIENT_PORT, PEER_PORT};
use super::credentials::{CLUSTER, device, host};
use super::net::channel;
use super::oracle::{Disclosed, Escrowed};
use super::world::World;

/// How long a call may take before its outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(3);
/// Volumes of each device.
const VOLUMES: u8 = 2;
/// Below the quota of one requester.
const MOST_DISCLOSURES: usize = 150;

/// Somebody who calls the servers.
pub struct Caller {
    pub world: Arc<World>,
    name: String,
    pub rng: StdRng,
    channels: BTreeMap<u64, Channel>,
}

fn id16(rng: &mut StdRng) -> [u8; 16] {
    rng.random()
}

impl Caller {
    pub fn new(world: &Arc<World>, name: &str, number: u64) -> Self {
        let seed = world.seed.wrapping_mul(1009).wrapping_add(number);
        let rng = StdRng::seed_from_u64(seed);
        Self { world: Arc::clone(world), name: name.to_owned(), rng, channels: BTreeMap::new() }
    }

    pub fn channel(&mut self, node: u64) -> Channel {
        let made = || {
            let endpoint = Endpoint::from_shared(format!("http://{}:{CLIENT_PORT}", host(node)))
                .unwrap()
                .connect_timeout(Duration::from_millis(500))
                .http2_keep_alive_interval(Duration::from_secs(1))
                .keep_alive_timeout(Duration::from_secs(1));
            channel(&endpoint, Duration::from_millis(500))
        };
        self.channels.entry(node).or_insert_with(made).clone()
    }

    fn any_node(&mut self) -> u64 {
        let nodes: Vec<u64> = self.world.machines.lock().keys().copied().collect();
        nodes[self.rng.random_range(0..nodes.len())]
    }

    pub fn request_id(&mut self) -> String {
        RequestId::from_bytes(id16(&mut self.rng)).to_string()
    }

    /// Asks one node after another until one gives an answer that counts; nothing once the run is over.
    async fn until_answered<T, F>(
        &mut self,
        what: &str,
        call: impl Fn(Channel) -> F,
    ) -> Option<(u64, T)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        loop {
            let node = self.any_node();
            let channel = self.channel(node);
            let answer = timeout(PATIENCE, call(channel)).await;
            let status = match answer {
                Ok(Ok(answer)) => return Some((node, answer.into_inner())),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer"),
            };
            match status.code() {
                Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
                    self.world.oracle.lock().unknown += 1;
                }
                // Who has another time, or is no member any more, believes no certificate.
                Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => {
                    self.world.oracle.lock().refused += 1;
                }
                // A machine that is not in the cluster yet.
                Code::FailedPrecondition if status.message().contains("not initialised") => {}
                code => {
                    let message = status.message();
                    let what = format!("{} {what} at n{node}: {code:?} {message}", self.name);
                    self.world.violation(what);
                    return None;
                }
            }
            if World::is(&self.world.level) {
                self.world.violation(format!("{} {what}: no answer while all is well", self.name));
                return None;
            }
            let pause = self.rng.random_range(20..120);
            sleep(Duration::from_millis(pause)).await;
        }
    }
}

/// Makes the cluster of the first three nodes, and gives the help desk all its roles.
pub async fn make_cluster(desk: &mut Caller) {
    let nodes = (1..=3)
        .map(|id| v1::NodeSpec {
            node_id: id,
            peer_address: format!("{}:{PEER_PORT}", host(id)),
            client_address: format!("{}:{CLIENT_PORT}", host(id)),
        })
        .collect();
    let signer = &desk.world.credentials.signer;
    let init = v1::InitClusterRequest {
        nodes,
        first_administrator: "desk".to_owned(),
        signer_chain: signer.chain.clone(),
        signer_private_key: Bytes::copy_from_slice(signer.private_key.expose_secret()),
        request_id: desk.request_id(),
    };
    loop {
        let mut client = ClusterServiceClient::new(desk.channel(1));
        match timeout(Duration::from_secs(30), client.init_cluster(init.clone())).await {
            Ok(Ok(_)) => break,
            Ok(Err(status)) if status.message().contains("already") => break,
            other => desk.world.note(format!("not made yet: {}", code(&other))),
        }
        sleep(Duration::from_millis(200)).await;
    }
    for (number, _) in Role::ALL.iter().enumerate() {
        let grant = v1::GrantRoleRequest {
            request_id: desk.request_id(),
            operator: "desk".to_owned(),
            role: i32::try_from(number + 1).unwrap(),
        };
        let granting = desk.until_answered("grant", |channel| {
            let grant = grant.clone();
            async move { AdminServiceClient::new(channel).grant_role(grant).await }
        });
        granting.await;
    }
    desk.world.note("the cluster is made");
    desk.world.ready.store(true, Ordering::Relaxed);
}

fn code<T>(answer: &Result<Result<T, Status>, tokio::time::error::Elapsed>) -> String {
    match answer {
        Ok(Ok(_)) => "ok".to_owned(),
        Ok(Err(status)) => format!("{:?} {}", status.code(), status.message()),
        Err(_) => "no answer".to_owned(),
    }
}

/// An agent: escrows one key version after another.
pub async fn agent(world: Arc<World>, number: u64) -> turmoil::Result {
    let mut agent = Caller::new(&world, &format!("a{number}"), number);
    while !World::is(&world.ready) {
        sleep(Duration::from_millis(50)).await;
    }
    let answered = agent.until_answered("escrow key", |channel| async move {
        EscrowServiceClient::new(channel).get_escrow_key(v1::GetEscrowKeyRequest {}).await
    });
    let Some((_, key)) = answered.await else { return Ok(()) };
    let key = EscrowPublicKey {
        cluster: CLUSTER,
        epoch: Epoch::new(key.epoch),
        key: key.public_key.as_ref().try_into().unwrap(),
    };
    let mut versions: BTreeMap<u8, KeyVersion> = BTreeMap::new();
    while !World::is(&world.stopping) {
        let volume = agent.rng.random_range(0..VOLUMES);
        let before = versions.get(&volume).copied().unwrap_or(KeyVersion::NONE);
        let Some(version) = escrow(&mut agent, number, volume, before, &key).await else { break };
        versions.insert(volume, version);
        let pause = agent.rng.random_range(5..80);
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

fn sealed_message(sealed: &Sealed) -> v1::SealedKey {
    v1::SealedKey {
        epoch: sealed.epoch.get(),
        encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
        ciphertext: sealed.ciphertext.clone(),
    }
}

async fn escrow(
    agent: &mut Caller,
    number: u64,
    volume: u8,
    before: KeyVersion,
    key: &EscrowPublicKey,
) -> Option<KeyVersion> {
    let version = before.next()?;
    let kind = ProtectorKind::Luks2RecoveryKey;
    let secret = RecoveryKey::generate(kind, &mut agent.rng);
    let binding = Binding {
        cluster: CLUSTER,
        device: device(number),
        volume: VolumeId::from_bytes([volume + 1; 16]),
        protector: ProtectorId::from_bytes(id16(&mut agent.rng)),
        protector_kind: kind,
        version,
    };
    let text = secret.expose_secret();
    let sealed = seal(key, &binding, Part::Key, text.as_bytes(), &mut agent.rng).unwrap();
    let request = v1::EscrowRecoveryKeyRequest {
        request_id: agent.request_id(),
        device_id: binding.device.to_string(),
        volume_id: binding.volume.to_string(),
        protector_id: binding.protector.to_string(),
        protector_kind: v1::ProtectorKind::Luks2RecoveryKey.into(),
        volume_kind: v1::VolumeKind::FixedData.into(),
        expected_version: before.get(),
        sealed_key: Some(sealed_message(&sealed)),
        sealed_key_package: None,
        host_name: format!("pc-{number}"),
        users: Vec::new(),
    };
    let newest = agent.world.oracle.lock().newest;
    let answered = agent.until_answered("escrow", |channel| {
        let request = request.clone();
        async move { EscrowServiceClient::new(channel).escrow_recovery_key(request).await }
    });
    let (node, answer) = answered.await?;
    let receipt = answer.receipt.unwrap_or_default();
    let (index, term) = receipt.position.map_or((0, 0), |at| (at.index, at.term));
    let what = format!("a{number} v{volume}.{} by n{node} at {term}.{index}", version.get());
    agent.world.note(&what);
    if receipt.version != version.get() || receipt.protector_id != binding.protector.to_string() {
        agent.world.violation(format!("{what}: the receipt is for something else"));
    }
    if index <= newest {
        agent.world.violation(format!("{what}: it is before {newest}, which was done before"));
    }
    let mut oracle = agent.world.oracle.lock();
    oracle.newest = oracle.newest.max(index);
    oracle.escrows.push(Escrowed {
        protector: binding.protector,
        version,
        sealed,
        plaintext: text.to_owned(),
        request_id: request.request_id,
        audit: receipt.audit_head.map_or(0, |head| head.sequence),
        index,
    });
    Some(version)
}

/// The help desk: discloses keys that were acknowledged, and at the end looks whether everything is there.
pub async fn desk(world: Arc<World>) -> turmoil::Result {
    let mut desk = Caller::new(&world, "desk", 100);
    make_cluster(&mut desk).await;
    while !World::is(&world.stopping) {
        let pause = desk.rng.random_range(50..300);
        sleep(Duration::from_millis(pause)).await;
        if !disclose(&mut desk).await {
            break;
        }
        if desk.rng.random_ratio(1, 12) {
            transfer(&mut desk).await;
        }
    }
    while !World::is(&world.level) {
        sleep(Duration::from_millis(20)).await;
    }
    let members: Vec<u64> = world
        .machines
        .lock()
        .iter()
        .filter(|(_, machine)| machine.node.is_some())
        .map(|(id, _)| *id)
        .collect();
    for node in members {
        audit(&mut desk, node).await;
    }
    Ok(())
}

/// Leadership is handed on now and then. Whether that works out is of no account.
async fn transfer(desk: &mut Caller) {
    let node = desk.any_node();
    let request =
        v1::TransferLeadershipRequest { request_id: desk.request_id(), ..Default::default() };
    let mut client = ClusterServiceClient::new(desk.channel(node));
    let answer = timeout(PATIENCE, client.transfer_leadership(request)).await;
    let done = matches!(answer, Ok(Ok(_)));
    desk.world.note(format!("transfer by n{node}: {done}"));
}

async fn disclose(desk: &mut Caller) -> bool {
    let escrowed = {
        let oracle = desk.world.oracle.lock();
        if oracle.escrows.is_empty() || oracle.disclosures.len() >= MOST_DISCLOSURES {
            return true;
        }
        oracle.escrows[desk.rng.random_range(0..oracle.escrows.len())].clone()
    };
    let request = v1::DiscloseKeyRequest {
        request_id: desk.request_id(),
        protector_id: escrowed.protector.to_string(),
        version: 0,
        reason: Some(v1::Reason { code: "LOST_PIN".to_owned(), text: String::new() }),
        user: Some(v1::User { domain: String::new(), name: "bob".to_owned() }),
        ticket: String::new(),
        include_key_package: false,
    };
    let newest = desk.world.oracle.lock().newest;
    let answered = desk.until_answered("disclose", |channel| {
        let request = request.clone();
        async move { RecoveryServiceClient::new(channel).disclose_key(request).await }
    });
    let Some((node, answer)) = answered.await else { return false };
    let index = answer.position.map_or(0, |at| at.index);
    desk.world.note(format!("disclosed by n{node} at {index}"));
    if answer.recovery_key != escrowed.plaintext {
        desk.world.violation(format!("n{node} disclosed another key at {index}"));
    }
    if index <= newest {
        desk.world.violation(format!("disclosed at {index}, before {newest}, which was done before"));
    }
    let mut oracle = desk.world.oracle.lock();
    oracle.newest = oracle.newest.max(index);
    oracle.disclosures.push(Disclosed {
        protector: escrowed.protector,
        request_id: request.request_id,
        audit: answer.audit.map_or(0, |head| head.sequence),
        index,
    });
    true
}

/// Reads the whole audit chain from one node: it is unbroken, and has what was answered.
async fn audit(desk: &mut Caller, node: u64) {
    let channel = desk.channel(node);
    let mut records = BTreeMap::new();
    let mut chain = ChainVerifier::new();
    let reading = async {
        let mut pages = AuditServiceClient::new(channel)
            .list_records(v1::ListRecordsRequest::default())
            .await?
            .into_inner();
        while let Some(page) = pages.message().await? {
            for record in page.records {
                if let Err(error) = chain.take(&record) {
                    return Err(Status::data_loss(error.to_string()));
                }
                records.insert(record.sequence, record);
            }
        }
        Ok::<_, Status>(())
    };
    if let Err(status) = timeout(Duration::from_secs(20), reading).await.unwrap_or_else(|_| {
        Err(Status::deadline_exceeded("the audit chain was not read in time"))
    }) {
        desk.world.violation(format!("audit at n{node}: {status}"));
        return;
    }
    let (escrows, disclosures) = {
        let oracle = desk.world.oracle.lock();
        (oracle.escrows.clone(), oracle.disclosures.clone())
    };
    let expected = escrows
        .iter()
        .map(|done| (done.audit, done.index, &done.request_id, done.protector))
        .chain(disclosures.iter().map(|d| (d.audit, d.index, &d.request_id, d.protector)));
    for (sequence, index, request_id, protector) in expected {
        let fits = records.get(&sequence).is_some_and(|record| {
            record.request_id == *request_id
                && record.protector_id == protector.to_string()
                && record.position.is_some_and(|at| at.index <= index)
        });
        if !fits {
            desk.world.violation(format!("n{node} has no audit record of what was done at {index}"));
        }
    }
    desk.world.note(format!("n{node} has {} audit records", records.len()));
}
