//! Groups of devices from outside: who helps one site gets its keys and no others, whichever server is asked and whichever has
//! died.

use std::path::Path;

use holdfast::cli::pki::IssuedPaths;
use holdfast::domain::{DeviceId, ProtectorId, VolumeId};
use uuid::Uuid;

use crate::harness::{Harness, LIMIT, Ran, new_escrow, new_key, operator, write_file};

const KEY: &str = "471207-278498-422125-177177-561902-537405-468006-693451";

/// A device with a certificate of its own and a key that it has escrowed.
struct Site {
    device: DeviceId,
    protector: String,
}

impl Site {
    async fn new(harness: &Harness) -> Self {
        let device = DeviceId::new(Uuid::new_v4());
        let agent = harness.client(&harness.cluster.agent(device).unwrap());
        let escrow = new_escrow(device);
        agent.escrow(&escrow, &new_key(), None).await.unwrap();
        Self { device, protector: escrow.protector.to_string() }
    }
}

async fn admin(harness: &Harness, args: &[&str]) -> Ran {
    harness.run(&harness.administrator, args).await.ends_with(0)
}

async fn disclose(harness: &Harness, who: &IssuedPaths, id: &str) -> Ran {
    let args = ["key", "disclose", id, "--reason", "LOST_PIN", "--user", "alice", "-o", "json"];
    harness.run(who, &args).await
}

#[track_caller]
fn is_outside(ran: Ran) -> String {
    let said = ran.ends_with(5).stderr();
    assert!(said.contains("OUTSIDE_GROUPS"), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_help_desk_of_one_group_gets_its_keys_and_no_others_with_a_server_killed_in_between() {
    let mut harness = Harness::start().await;
    let (berlin, munich) = (Site::new(&harness).await, Site::new(&harness).await);
    admin(&harness, &["device", "group", "add", "berlin", &berlin.device.to_string()]).await;
    admin(&harness, &["device", "group", "add", "munich", &munich.device.to_string()]).await;
    admin(&harness, &["grant", "add", "bea", "help-desk", "--group", "berlin"]).await;
    let bea = harness.cluster.operator(&operator("bea")).unwrap();
    let disclosed = disclose(&harness, &bea, &berlin.protector).await.ends_with(0).json();
    assert_eq!(disclosed["key"]["device_id"], berlin.device.to_string());
    is_outside(disclose(&harness, &bea, &munich.protector).await);

    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    disclose(&harness, &bea, &berlin.protector).await.ends_with(0);
    let elsewhere = is_outside(disclose(&harness, &bea, &munich.protector).await);
    let nowhere = is_outside(disclose(&harness, &bea, &Uuid::new_v4().to_string()).await);
    assert_eq!(elsewhere, nowhere, "that there is such a key is not said");
    // Digits find what is in the group, and reports show it.
    let found = harness.run(&bea, &["key", "find", &munich.protector[..8]]).await;
    found.ends_with(4);
    let listed = harness.run(&bea, &["device", "list", "-o", "json"]).await.ends_with(0).json();
    let listed = listed["devices"].as_array().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["device_id"], berlin.device.to_string());
    let show = ["device", "show", &munich.device.to_string()];
    is_outside(harness.run(&bea, &show).await);

    // The device moves, and its keys with it, through whichever server.
    admin(&harness, &["device", "group", "remove", "munich", &munich.device.to_string()]).await;
    admin(&harness, &["device", "group", "add", "berlin", &munich.device.to_string()]).await;
    disclose(&harness, &bea, &munich.protector).await.ends_with(0);
    harness.cluster.start_node(leader).await.unwrap();
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    let third = Site::new(&harness).await;
    for node in 1..=3 {
        let client = harness.client_of_node(node, &bea);
        let inside = crate::harness::disclosure(munich.protector.parse().unwrap());
        client.disclose(&inside).await.unwrap();
        let outside = crate::harness::disclosure(third.protector.parse().unwrap());
        let refused = client.disclose(&outside).await.map(drop).unwrap_err();
        assert_eq!(refused.reason(), "OUTSIDE_GROUPS", "{refused}");
    }
    let args = ["audit", "list", "--action", "disclose", "-o", "json"];
    let records = harness.run(&harness.auditor, &args).await.ends_with(0).stdout();
    let refused = records.matches("OUTSIDE_GROUPS").count();
    assert_eq!(refused, 6, "{records}");
    assert!(records.contains(&third.device.to_string()), "the record names the device: {records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_enrols_into_a_group_is_reached_by_its_help_desk() {
    let fleet = crate::enrolment::Fleet::start().await;
    let harness = &fleet.harness;
    admin(harness, &["agent-ca", "create"]).await;
    admin(harness, &["grant", "add", "bea", "help-desk", "--group", "berlin"]).await;
    let bea = harness.cluster.operator(&operator("bea")).unwrap();
    let device = DeviceId::new(Uuid::new_v4());
    let (token, _) = fleet.token("token", &["--group", "berlin", "--count", "1"]).await;
    let out = fleet.dir("device");
    fleet.enrol(&token, device, &out).await.ends_with(0);
    let groups = ["device", "group", "list", &device.to_string(), "-o", "json"];
    assert_eq!(admin(harness, &groups).await.json()["groups"], serde_json::json!(["berlin"]));
    let who = crate::enrolment::paths(&out, device);
    fleet.escrows_everywhere(device, &who).await;
    let find = ["key", "find", "--device", &device.to_string(), "-o", "json"];
    let found = harness.run(&bea, &find).await.ends_with(0).json();
    let id = found["keys"][0]["protector_id"].as_str().unwrap();
    disclose(harness, &bea, id).await.ends_with(0);
}

/// Escrows a key from a file for a device, as an operator does who moves a fleet from elsewhere.
async fn import(harness: &Harness, who: &IssuedPaths, device: DeviceId, receipt: &Path) -> Ran {
    let file = harness.cluster.dir().join("imported-key");
    write_file(&file, KEY.as_bytes());
    let (volume, protector) =
        (VolumeId::new(Uuid::new_v4()), ProtectorId::new(Uuid::new_v4()).to_string());
    let (device, volume) = (device.to_string(), volume.to_string());
    let escrow = ["key", "escrow", "--device", &device, "--volume", &volume];
    let rest = ["--protector", &protector, "--key-file", file.to_str().unwrap()];
    let kept = ["--receipt-out", receipt.to_str().unwrap(), "-o", "json"];
    harness.run(who, &[escrow.as_slice(), &rest, &kept].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_imports_gets_receipts_for_devices_of_the_group_and_reads_nothing() {
    let harness = Harness::start().await;
    let (inside, outside) = (DeviceId::new(Uuid::new_v4()), DeviceId::new(Uuid::new_v4()));
    // They have no agents yet.
    admin(&harness, &["device", "group", "add", "berlin", &inside.to_string()]).await;
    admin(&harness, &["grant", "add", "mia", "data-migration", "--group", "berlin"]).await;
    let mia = harness.cluster.operator(&operator("mia")).unwrap();
    let kept = harness.cluster.dir().join("receipt.json");
    let imported = import(&harness, &mia, inside, &kept).await.ends_with(0).json();
    assert_eq!(imported["verified"], true);
    let verify = ["receipt", "verify", kept.to_str().unwrap(), "--device", &inside.to_string()];
    harness.run(&mia, &verify).await.ends_with(0);
    let other = harness.cluster.dir().join("other.json");
    is_outside(import(&harness, &mia, outside, &other).await);

    let id = imported["protector_id"].as_str().unwrap();
    let refused = [
        vec!["key", "find", id],
        vec!["key", "disclose", id, "--reason", "LOST_PIN", "--user", "alice"],
        vec!["device", "list"],
        vec!["key", "reasons"],
    ];
    for args in refused {
        let said = harness.run(&mia, &args).await.ends_with(5).stderr();
        assert!(said.contains("ROLE_MISSING"), "{args:?}: {said}");
    }
    let disclosed = disclose(&harness, &harness.help_desk, id).await.ends_with(0).json();
    assert_eq!(disclosed["recovery_key"], KEY);
    assert_eq!(disclosed["key"]["imported_by"], "mia");
    let args = ["audit", "list", "--action", "escrow", "--actor", "operator/mia", "-o", "json"];
    let records = harness.run(&harness.auditor, &args).await.ends_with(0).stdout();
    assert!(records.contains(&inside.to_string()), "{records}");
}
