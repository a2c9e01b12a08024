//! Grants that are limited to groups of devices, over mTLS.

use holdfast_proto::v1::find_keys_request::Query;

use super::*;
use crate::domain::{DeviceId, Reach, Role};
use crate::service::Consensus as _;

/// A device that is in no group.
const OTHER: DeviceId = DeviceId::from_bytes([0xd2; 16]);

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

fn berlin() -> Reach {
    Reach::of(["berlin".parse().unwrap()]).unwrap()
}

fn escrow_for(bench: &Bench, device: DeviceId) -> v1::EscrowRecoveryKeyRequest {
    v1::EscrowRecoveryKeyRequest {
        request_id: new_id(),
        device_id: device.to_string(),
        volume_id: device.to_string(),
        protector_id: device.to_string(),
        ..escrow_request(bench)
    }
}

/// Two devices with a key each, one of them in Berlin; and Bea, who helps there and reads reports.
async fn running() -> (Running, Channel) {
    let running = Running::start(100).await;
    let mut admin = AdminServiceClient::new(running.alice().await);
    let add = v1::AddDeviceToGroupRequest {
        request_id: new_id(),
        device_id: DEVICE.to_string(),
        group: "berlin".to_owned(),
    };
    assert!(admin.add_device_to_group(add).await.unwrap().into_inner().changed);
    for device in [DEVICE, OTHER] {
        let channel = running.connect(&running.agents, &Actor::Agent(device)).await;
        let escrow = escrow_for(&running.bench, device);
        EscrowServiceClient::new(channel).escrow_recovery_key(escrow).await.unwrap();
    }
    running.bench.grant_for(60, "bea", Role::HelpDesk, berlin()).await;
    running.bench.grant_for(61, "bea", Role::ReportReader, berlin()).await;
    let bea = running.connect(&running.operators, &operator("bea")).await;
    (running, bea)
}

#[track_caller]
fn is_outside<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "OUTSIDE_GROUPS")
    );
}

#[tokio::test]
async fn reports_show_the_devices_of_the_groups_and_refuse_the_rest_without_saying_what_there_is() {
    let (running, bea) = running().await;
    let mut admin = AdminServiceClient::new(bea);
    let get =
        |device: DeviceId| v1::GetDeviceRequest { device_id: device.to_string(), stale: false };
    let shown = admin.get_device(get(DEVICE)).await.unwrap().into_inner().device.unwrap();
    assert_eq!(shown.groups, ["berlin"]);
    let before = running.bench.fake.proposed.lock().len();
    let nobody = DeviceId::from_bytes([9; 16]);
    let mut said = Vec::new();
    for device in [OTHER, nobody] {
        let refused = admin.get_device(get(device)).await;
        said.push(refused.as_ref().unwrap_err().message().to_owned());
        is_outside(refused);
        let groups = v1::ListDeviceGroupsRequest { device_id: device.to_string() };
        is_outside(admin.list_device_groups(groups).await);
    }
    assert_eq!(said[0], said[1]);
    let stale = v1::GetDeviceRequest { stale: true, ..get(OTHER) };
    is_outside(admin.get_device(stale).await);
    let list =
        |group: &str| v1::ListDevicesRequest { group: group.to_owned(), ..Default::default() };
    for group in ["", "berlin"] {
        let page = admin.list_devices(list(group)).await.unwrap().into_inner();
        let ids: Vec<_> = page.devices.iter().map(|device| device.device_id.clone()).collect();
        assert_eq!((ids, page.next_page_token.as_str()), (vec![DEVICE.to_string()], ""));
    }
    is_outside(admin.list_devices(list("munich")).await);
    // A server that stops records what it has counted. Nothing else came into the log.
    let (bench, _) = running.stop().await;
    let proposed = bench.fake.proposed.lock().split_off(before);
    let mut counted = std::collections::BTreeMap::new();
    for command in proposed {
        let crate::state::CommandBody::Refusals(counts) = command.body else {
            panic!("{:?}", command.body);
        };
        for refused in counts {
            let what = (refused.action.to_string(), refused.reason.to_string());
            *counted.entry(what).or_insert(0) += refused.count;
        }
    }
    let outside = |action: &str| (action.to_owned(), "OUTSIDE_GROUPS".to_owned());
    let wanted =
        [(outside("GetDevice"), 3), (outside("ListDeviceGroups"), 2), (outside("ListDevices"), 1)];
    assert_eq!(counted.into_iter().collect::<Vec<_>>(), wanted);
}

#[tokio::test]
async fn keys_outside_the_groups_are_refused_and_each_attempt_is_on_record() {
    let (running, bea) = running().await;
    let mut recovery = RecoveryServiceClient::new(bea);
    let find = |query| v1::FindKeysRequest { request_id: new_id(), query: Some(query) };
    let disclose = |device: DeviceId| v1::DiscloseKeyRequest {
        request_id: new_id(),
        protector_id: device.to_string(),
        reason: Some(v1::Reason { code: "LOST_PIN".into(), text: String::new() }),
        user: Some(v1::User { domain: String::new(), name: "bob".into() }),
        ..Default::default()
    };
    let inside = find(Query::DeviceId(DEVICE.to_string()));
    assert_eq!(recovery.find_keys(inside).await.unwrap().into_inner().keys.len(), 1);
    // What is sealed there is no key, so that getting so far is to be let in.
    let opened = recovery.disclose_key(disclose(DEVICE)).await.unwrap_err();
    assert_eq!(opened.code(), Code::DataLoss);
    let by_digits = find(Query::KeyId(OTHER.to_string()));
    assert!(recovery.find_keys(by_digits).await.unwrap().into_inner().keys.is_empty());
    let view = running.bench.context.consensus().view();
    let before = crate::state::Heads::load(view).unwrap().audit.sequence;
    is_outside(recovery.find_keys(find(Query::DeviceId(OTHER.to_string()))).await);
    is_outside(recovery.disclose_key(disclose(OTHER)).await);
    let records = crate::state::query::audit_records(view, before + 1, u64::MAX, 9).unwrap();
    assert_eq!(records.len(), 2);
    for record in records {
        assert_eq!(record.outcome.as_str(), "OUTSIDE_GROUPS");
        assert_eq!((record.actor, record.device), (Some(operator("bea")), Some(OTHER)));
    }
}

#[tokio::test]
async fn an_import_for_a_device_of_the_group_gets_a_receipt_and_one_outside_reaches_no_log() {
    let (running, _) = running().await;
    running.bench.grant_for(62, "mia", Role::DataMigration, berlin()).await;
    let mia = running.connect(&running.operators, &operator("mia")).await;
    let mut escrow = EscrowServiceClient::new(mia);
    escrow.get_escrow_key(v1::GetEscrowKeyRequest {}).await.unwrap();
    let volume = new_id();
    let import = |device| v1::EscrowRecoveryKeyRequest {
        volume_id: volume.clone(),
        protector_id: volume.clone(),
        ..escrow_for(&running.bench, device)
    };
    let answer = escrow.escrow_recovery_key(import(DEVICE)).await.unwrap().into_inner();
    assert_eq!(answer.receipt.unwrap().device_id, DEVICE.to_string());
    let escrows = || {
        let proposed = running.bench.fake.proposed.lock();
        let escrow = |body: &_| matches!(body, crate::state::CommandBody::Escrow(_));
        proposed.iter().filter(|command| escrow(&command.body)).count()
    };
    let before = escrows();
    is_outside(escrow.escrow_recovery_key(import(OTHER)).await);
    assert_eq!(escrows(), before);
    let next =
        v1::EscrowRecoveryKeyRequest { expected_version: 1, ..escrow_for(&running.bench, DEVICE) };
    let own = escrow.escrow_recovery_key(next).await.unwrap_err();
    assert_eq!(
        (own.code(), reason(&own).as_str()),
        (Code::FailedPrecondition, "ESCROWED_BY_DEVICE")
    );
}

#[tokio::test]
async fn a_listing_of_a_group_finds_its_devices_among_many_page_by_page() {
    let running = Running::start(100).await;
    let bench = &running.bench;
    let mut members = Vec::new();
    for n in 0..60_u8 {
        let device = DeviceId::from_bytes([n + 1; 16]);
        let channel = running.connect(&running.agents, &Actor::Agent(device)).await;
        let escrow = escrow_for(bench, device);
        EscrowServiceClient::new(channel).escrow_recovery_key(escrow).await.unwrap();
        if n % 10 == 7 {
            members.push(device.to_string());
        }
    }
    let mut admin = AdminServiceClient::new(running.alice().await);
    for device_id in members.clone() {
        let add =
            v1::AddDeviceToGroupRequest { request_id: new_id(), device_id, group: "x".into() };
        admin.add_device_to_group(add).await.unwrap();
    }
    let mut message =
        v1::ListDevicesRequest { page_size: 4, group: "x".into(), ..Default::default() };
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = admin.list_devices(message.clone()).await.unwrap().into_inner();
        sizes.push(page.devices.len());
        found.extend(page.devices.into_iter().map(|device| device.device_id));
        message.page_token = page.next_page_token;
        if message.page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, sizes), (members, vec![4, 2]));
}
