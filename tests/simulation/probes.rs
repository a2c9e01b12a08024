//! Callers that put single promises to the test: reads that must be new, requests that are repeated, a key that was sealed
//! for another place, and somebody who may do nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast::crypto::{Binding, EscrowPublicKey, Part, seal};
use holdfast::domain::{KeyVersion, ProtectorId, ProtectorKind, RecoveryKey, VolumeId};
use holdfast_proto::v1;
use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use holdfast_proto::v1::escrow_service_client::EscrowServiceClient;
use holdfast_proto::v1::recovery_service_client::RecoveryServiceClient;
use rand::Rng as _;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::credentials::{CLUSTER, FORGER, device};
use super::oracle::Check;
use super::workload::{Caller, PATIENCE};
use super::world::World;

/// Disclosures of either kind; they count for the quota of the help desk.
const MOST_OPENED: usize = 40;

async fn made(world: &World) {
    while !World::is(&world.ready) {
        sleep(Duration::from_millis(50)).await;
    }
}

/// Reads through any node: each read knows what was acknowledged before it began. Tries to have
/// forged keys disclosed, and repeats disclosures.
pub(crate) async fn reader(world: Arc<World>) -> turmoil::Result {
    let mut reader = Caller::new(&world, "reader", 300);
    made(&world).await;
    let _working = world.work();
    let mut opened = 0;
    while !World::is(&world.stopping) {
        let pause = reader.rng.random_range(20..150);
        sleep(Duration::from_millis(pause)).await;
        let goes_on = match reader.rng.random_range(0..6) {
            0 if opened < MOST_OPENED => {
                opened += 1;
                disclose_forged(&mut reader).await;
                true
            }
            1 if opened < MOST_OPENED => {
                opened += 1;
                disclose_twice(&mut reader).await
            }
            _ => read(&mut reader).await,
        };
        if !goes_on {
            break;
        }
    }
    Ok(())
}

async fn read(reader: &mut Caller) -> bool {
    let newest = reader.world.oracle.lock().newest;
    let answered = reader.until_answered("read", |channel| async move {
        AuditServiceClient::new(channel).get_head(v1::GetHeadRequest { stale: false }).await
    });
    let Some((node, answer)) = answered.await else { return false };
    if answer.applied_index < newest {
        let index = answer.applied_index;
        let what = format!("a read at n{node} ends at {index}, and {newest} was done before");
        reader.world.violation(Check::Fresh, what);
    }
    true
}

fn ask(caller: &mut Caller, protector: ProtectorId) -> v1::DiscloseKeyRequest {
    v1::DiscloseKeyRequest {
        request_id: caller.request_id(),
        protector_id: protector.to_string(),
        version: 0,
        reason: Some(v1::Reason { code: "LOST_PIN".to_owned(), text: String::new() }),
        user: Some(v1::User { domain: String::new(), name: "bob".to_owned() }),
        ticket: String::new(),
        include_key_package: false,
        approval_id: 0,
    }
}

async fn disclose_forged(reader: &mut Caller) {
    let Some((protector, differs)) = reader.world.oracle.lock().forged.last().copied() else {
        return;
    };
    let request = ask(reader, protector);
    let node = reader.any_node();
    let channel = reader.channel(node);
    let answer = timeout(PATIENCE, RecoveryServiceClient::new(channel).disclose_key(request)).await;
    if let Ok(Ok(_)) = answer {
        let what = format!("n{node} disclosed a key that was sealed for another {differs}");
        reader.world.violation(Check::Bound, what);
    }
}

/// Asks twice with one request id, perhaps two nodes: the second time it is known as a repetition.
async fn disclose_twice(reader: &mut Caller) -> bool {
    let protector = reader.world.oracle.lock().escrows.last().map(|escrowed| escrowed.protector);
    let Some(protector) = protector else { return true };
    let request = ask(reader, protector);
    for repeated in [false, true] {
        let answered = reader.until_answered("disclose", |channel| {
            let request = request.clone();
            async move { RecoveryServiceClient::new(channel).disclose_key(request).await }
        });
        let Some((node, answer)) = answered.await else {
            return reader.world.oracle.lock().violations.is_empty();
        };
        if repeated && !answer.repeated {
            let what = format!("n{node} took a repeated disclosure for a new one");
            reader.world.violation(Check::Once, what);
        }
    }
    true
}

/// An agent that escrows what it sealed for another place. No server can see that before it opens it.
pub(crate) async fn forger(world: Arc<World>) -> turmoil::Result {
    let mut forger = Caller::new(&world, "forger", 400);
    made(&world).await;
    let _working = world.work();
    let Some(key) = forger.escrow_key().await else { return Ok(()) };
    let mut version = KeyVersion::NONE;
    while !World::is(&world.stopping) {
        let Some(next) = version.next() else { break };
        if !forge(&mut forger, &key, next).await {
            break;
        }
        version = next;
        let pause = forger.rng.random_range(200..1500);
        sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}

/// What is sealed differs in one thing from what is said of it.
fn rebound(said: &Binding, which: u32) -> (Binding, &'static str) {
    let mut bound = *said;
    let differs = match which {
        0 => {
            bound.device = device(1);
            "device"
        }
        1 => {
            bound.volume = VolumeId::from_bytes([0x77; 16]);
            "volume"
        }
        2 => {
            bound.protector = ProtectorId::from_bytes([0x77; 16]);
            "key id"
        }
        3 => {
            bound.protector_kind = ProtectorKind::BitLockerRecoveryPassword;
            "kind of key"
        }
        _ => {
            bound.version = KeyVersion::new(said.version.get() + 1);
            "version"
        }
    };
    (bound, differs)
}

async fn forge(forger: &mut Caller, key: &EscrowPublicKey, version: KeyVersion) -> bool {
    let kind = ProtectorKind::Luks2RecoveryKey;
    let secret = RecoveryKey::generate(kind, &mut forger.rng);
    let said = Binding {
        cluster: CLUSTER,
        device: device(FORGER),
        volume: VolumeId::from_bytes([1; 16]),
        protector: ProtectorId::from_bytes(forger.rng.random()),
        protector_kind: kind,
        version,
    };
    let (bound, differs) = rebound(&said, forger.rng.random_range(0..5));
    let text = secret.expose_secret();
    let sealed = seal(key, &bound, Part::Key, text.as_bytes(), &mut forger.rng).unwrap();
    let request = v1::EscrowRecoveryKeyRequest {
        request_id: forger.request_id(),
        device_id: said.device.to_string(),
        volume_id: said.volume.to_string(),
        protector_id: said.protector.to_string(),
        protector_kind: v1::ProtectorKind::Luks2RecoveryKey.into(),
        volume_kind: v1::VolumeKind::FixedData.into(),
        expected_version: version.get() - 1,
        sealed_key: Some(v1::SealedKey {
            epoch: sealed.epoch.get(),
            encapsulated_key: Bytes::copy_from_slice(&sealed.encapsulated_key),
            ciphertext: sealed.ciphertext.clone(),
        }),
        sealed_key_package: None,
        host_name: "forger".to_owned(),
        users: Vec::new(),
    };
    let answered = forger.until_answered("escrow", |channel| {
        let request = request.clone();
        async move { EscrowServiceClient::new(channel).escrow_recovery_key(request).await }
    });
    if answered.await.is_none() {
        return false;
    }
    forger.world.note(format!("sealed for another {differs}"));
    forger.world.oracle.lock().forged.push((said.protector, differs));
    true
}

/// An operator without a role.
pub(crate) async fn stranger(world: Arc<World>) -> turmoil::Result {
    let mut stranger = Caller::new(&world, "stranger", 500);
    made(&world).await;
    let _working = world.work();
    while !World::is(&world.stopping) {
        let pause = stranger.rng.random_range(200..1200);
        sleep(Duration::from_millis(pause)).await;
        let protector = world.oracle.lock().escrows.last().map(|escrowed| escrowed.protector);
        let Some(protector) = protector else { continue };
        let node = stranger.any_node();
        let channel = stranger.channel(node);
        if let Some(what) = try_all(&mut stranger, &channel, protector).await {
            let what = format!("n{node} let an operator without a role {what}");
            world.violation(Check::Roles, what);
        }
    }
    Ok(())
}

/// What was allowed, if anything was.
async fn try_all(
    stranger: &mut Caller,
    channel: &Channel,
    protector: ProtectorId,
) -> Option<&'static str> {
    let asked = ask(stranger, protector);
    let mut recovery = RecoveryServiceClient::new(channel.clone());
    if matches!(timeout(PATIENCE, recovery.disclose_key(asked)).await, Ok(Ok(_))) {
        return Some("disclose a key");
    }
    let grant = v1::GrantRoleRequest {
        request_id: stranger.request_id(),
        operator: "stranger".to_owned(),
        role: v1::Role::HelpDesk.into(),
        groups: Vec::new(),
    };
    let mut admin = AdminServiceClient::new(channel.clone());
    if matches!(timeout(PATIENCE, admin.grant_role(grant)).await, Ok(Ok(_))) {
        return Some("grant a role");
    }
    let listed = admin.list_grants(v1::ListGrantsRequest::default());
    if matches!(timeout(PATIENCE, listed).await, Ok(Ok(_))) {
        return Some("list the grants");
    }
    None
}
