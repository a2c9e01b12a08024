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
    Epoch, KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, RequestId, Sealed, VolumeId,
};
use holdfast_proto::v1;
use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use holdfast_proto::v1::escrow_service_client::EscrowServiceClient;
use holdfast_proto::v1::recovery_service_client::RecoveryServiceClient;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::cluster::CLIENT_PORT;
use super::credentials::{CLUSTER, device, host};
use super::net::{Connections, counted_channel};
use super::oracle::{Check, Disclosed, Escrowed};
use super::sights::Sight;
use super::world::World;

/// How long a call may take before its outcome counts as unknown.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Volumes of each device.
const VOLUMES: u8 = 2;
/// Below the quota of one requester.
const MOST_DISCLOSURES: usize = 150;

/// Somebody who calls the servers.
pub(crate) struct Caller {
    pub(crate) world: Arc<World>,
    name: String,
    pub(crate) rng: StdRng,
    channels: BTreeMap<u64, (Channel, Connections)>,
    /// For each node, on which connection it last answered.
    answered: BTreeMap<u64, u64>,
}

fn id16(rng: &mut StdRng) -> [u8; 16] {
    rng.random()
}

impl Caller {
    pub(crate) fn new(world: &Arc<World>, name: &str, number: u64) -> Self {
        let seed = world.seed.wrapping_mul(1009).wrapping_add(number);
        let rng = StdRng::seed_from_u64(seed);
        Self {
            world: Arc::clone(world),
            name: name.to_owned(),
            rng,
            channels: BTreeMap::new(),
            answered: BTreeMap::new(),
        }
    }

    pub(crate) fn channel(&mut self, node: u64) -> Channel {
        let made = || {
            let endpoint = Endpoint::from_shared(format!("http://{}:{CLIENT_PORT}", host(node)))
                .unwrap()
                .connect_timeout(Duration::from_millis(500))
                .http2_keep_alive_interval(Duration::from_secs(1))
                .keep_alive_timeout(Duration::from_secs(1));
            counted_channel(&endpoint, Duration::from_millis(500))
        };
        self.channels.entry(node).or_insert_with(made).0.clone()
    }

    /// Number of the newest connection to a node.
    fn connection(&self, node: u64) -> u64 {
        self.channels.get(&node).map_or(0, |(_, made)| made.load(Ordering::Relaxed))
    }

    pub(crate) fn any_node(&mut self) -> u64 {
        let nodes: Vec<u64> = self.world.machines.lock().keys().copied().collect();
        nodes[self.rng.random_range(0..nodes.len())]
    }

    pub(crate) fn request_id(&mut self) -> String {
        RequestId::from_bytes(id16(&mut self.rng)).to_string()
    }

    /// Asks one node after another until one gives an answer that counts. None if there was something wrong with the answer, or it
    /// comes too late to be given again.
    pub(crate) async fn until_answered<T, F>(
        &mut self,
        what: &str,
        call: impl Fn(Channel) -> F,
    ) -> Option<(u64, T)>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut unknown = false;
        loop {
            let node = self.any_node();
            let channel = self.channel(node);
            let answer = timeout(PATIENCE, call(channel)).await;
            let status = match answer {
                Ok(Ok(answer)) => {
                    if unknown {
                        self.world.saw(Sight::AfterUnknown);
                    }
                    self.answered.insert(node, self.connection(node));
                    return Some((node, answer.into_inner()));
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("no answer"),
            };
            match status.code() {
                Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
                    self.world.saw(Sight::Unknown);
                    unknown = true;
                }
                // Who has another time, or is no member any more, believes no certificate.
                Code::Unavailable | Code::Unauthenticated | Code::PermissionDenied => {
                    self.world.saw(Sight::Refused);
                    let same = self.answered.get(&node) == Some(&self.connection(node));
                    if status.code() == Code::Unauthenticated && same {
                        self.world.saw(Sight::RefusedForTime);
                    }
                }
                // A machine that is not in the cluster yet.
                Code::FailedPrecondition if status.message().contains("not initialised") => {}
                // Replicated time moved on while a clock was wrong: the first try may have been recorded, and is not answered any more.
                Code::FailedPrecondition if status.message().contains("again too late") => {
                    self.world.saw(Sight::Refused);
                    return None;
                }
                code => {
                    let message = status.message();
                    let what = format!("{} {what} at n{node}: {code:?} {message}", self.name);
                    self.world.violation(Check::Answers, what);
                    return None;
                }
            }
            let pause = self.rng.random_range(20..120);
            sleep(Duration::from_millis(pause)).await;
        }
    }

    /// What agents seal to.
    pub(crate) async fn escrow_key(&mut self) -> Option<EscrowPublicKey> {
        let answered = self.until_answered("escrow key", |channel| async move {
            EscrowServiceClient::new(channel).get_escrow_key(v1::GetEscrowKeyRequest {}).await
        });
        let (_, key) = answered.await?;
        Some(EscrowPublicKey {
            cluster: CLUSTER,
            epoch: Epoch::new(key.epoch),
            key: key.public_key.as_ref().try_into().unwrap(),
        })
    }
}

/// An agent: escrows one key version after another.
pub(crate) async fn agent(world: Arc<World>, number: u64) -> turmoil::Result {
    let mut agent = Caller::new(&world, &format!("a{number}"), number);
    while !World::is(&world.ready) {
        sleep(Duration::from_millis(50)).await;
    }
    let _working = world.work();
    let Some(key) = agent.escrow_key().await else { return Ok(()) };
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
        agent.world.violation(Check::Answers, format!("{what}: the receipt is for something else"));
    }
    if index <= newest {
        agent.world.violation(
            Check::Order,
            format!("{what}: it is before {newest}, which was done before"),
        );
    }
    let mut oracle = agent.world.oracle.lock();
    oracle.newest = oracle.newest.max(index);
    oracle.saw(Sight::Escrow);
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
pub(crate) async fn desk(world: Arc<World>) -> turmoil::Result {
    let mut desk = Caller::new(&world, "desk", 100);
    while !World::is(&world.ready) {
        sleep(Duration::from_millis(50)).await;
    }
    let working = world.work();
    while !World::is(&world.stopping) {
        let pause = desk.rng.random_range(50..300);
        sleep(Duration::from_millis(pause)).await;
        if !disclose(&mut desk).await {
            break;
        }
    }
    drop(working);
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
        approval_id: 0,
    };
    let newest = desk.world.oracle.lock().newest;
    let answered = desk.until_answered("disclose", |channel| {
        let request = request.clone();
        async move { RecoveryServiceClient::new(channel).disclose_key(request).await }
    });
    let Some((node, answer)) = answered.await else {
        return desk.world.oracle.lock().violations.is_empty();
    };
    let index = answer.position.map_or(0, |at| at.index);
    desk.world.note(format!("disclosed by n{node} at {index}"));
    if answer.recovery_key != escrowed.plaintext {
        desk.world.violation(Check::Answers, format!("n{node} disclosed another key at {index}"));
    }
    if index <= newest {
        let what = format!("disclosed at {index}, before {newest}, which was done before");
        desk.world.violation(Check::Order, what);
    }
    let mut oracle = desk.world.oracle.lock();
    oracle.newest = oracle.newest.max(index);
    oracle.saw(Sight::Disclosure);
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
    if let Err(status) = timeout(Duration::from_secs(20), reading)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the audit chain was not read in time")))
    {
        desk.world.violation(Check::Audited, format!("audit at n{node}: {status}"));
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
            let what = format!("n{node} has no audit record of what was done at {index}");
            desk.world.violation(Check::Audited, what);
        }
    }
    desk.world.note(format!("n{node} has {} audit records", records.len()));
}
