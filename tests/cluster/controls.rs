//! What bounds disclosures, from outside: on every node, and across the loss of the leader.

use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::IssuedPaths;
use holdfast::client::{
    ApprovalRequest, ClientError, Disclosure, DisclosureRequest, ErrorKind, Refusal,
};
use holdfast::domain::{ApprovalId, ProtectorId, RecoveryKey, Role};
use secrecy::ExposeSecret as _;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, new_key, operator};

/// A cluster whose help desk may disclose one key in an hour, with a key and a second administrator.
async fn bounded() -> (Harness, ProtectorId, RecoveryKey, IssuedPaths) {
    let harness = Harness::start().await;
    let second = harness.cluster.operator(&operator("ruth")).unwrap();
    harness.cluster.grant(&operator("ruth"), &[Role::Administrator]).await.unwrap();
    let (escrow, key) = (new_escrow(harness.device), new_key());
    harness.client(&harness.agent).escrow(&escrow, &key, None).await.unwrap();
    let policy = ["disclosure", "policy", "--per-hour", "1", "--approval-ttl", "30m"];
    harness.run(&harness.administrator, &policy).await.ends_with(0);
    (harness, escrow.protector, key, second)
}

fn wanted(protector: ProtectorId, approval: Option<u64>) -> DisclosureRequest {
    let approval = approval.map(|number| ApprovalId::new(number).unwrap());
    DisclosureRequest { approval, ..disclosure(protector) }
}

async fn disclose(
    harness: &Harness,
    node: u64,
    protector: ProtectorId,
    approval: Option<u64>,
) -> Result<Disclosure, Refusal> {
    let helen = harness.client_of_node(node, &harness.help_desk);
    match helen.disclose(&wanted(protector, approval)).await {
        Ok(disclosure) => Ok(disclosure),
        Err(ClientError::Refused(refusal)) => Err(refusal),
        Err(other) => panic!("node {node}: {other}"),
    }
}

/// A quota that is used up is used up everywhere.
async fn is_over_quota(harness: &Harness, nodes: &[u64], protector: ProtectorId) {
    for node in nodes {
        let refusal = disclose(harness, *node, protector, None).await.unwrap_err();
        assert_eq!(
            (refusal.kind, refusal.reason.as_str()),
            (ErrorKind::Exhausted, "QUOTA_EXCEEDED")
        );
        let wait = refusal.retry_after.expect("it says how long").as_secs();
        assert!((3000..=3660).contains(&wait), "{wait}");
    }
}

/// Asks for an approval; its number.
async fn requested(harness: &Harness, protector: ProtectorId) -> u64 {
    let helen = harness.client(&harness.help_desk);
    let DisclosureRequest { version, reason, user, ticket, .. } = disclosure(protector);
    let request = ApprovalRequest { protector, version, reason, user, ticket };
    helen.request_approval(&request).await.unwrap().approval_id
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_survives_the_kill_of_the_leader_and_is_used_once_whoever_is_asked() {
    let (mut harness, protector, key, _) = bounded().await;
    disclose(&harness, 1, protector, None).await.unwrap();
    is_over_quota(&harness, &[1, 2, 3], protector).await;
    let number = requested(&harness, protector).await;
    let waiting = disclose(&harness, 2, protector, Some(number)).await.unwrap_err();
    assert_eq!(waiting.reason, "APPROVAL_PENDING");
    let grant = ["approval", "grant", &number.to_string(), "--reason", "called back"];
    // The help desk has not the role for it; an administrator has.
    let own = harness.run(&harness.help_desk, &grant).await.ends_with(5);
    assert!(own.stderr().contains("ROLE_MISSING"), "{}", own.stderr());
    harness.run(&harness.administrator, &grant).await.ends_with(0);

    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    let left: Vec<_> = (1..=3).filter(|id| *id != leader).collect();
    wait_for("another one leads", LIMIT, || async {
        let status = harness.client_of_node(left[0], &harness.administrator).status(false).await;
        let led = status.map_err(|error| error.to_string())?.leader_id;
        if led == 0 || led == leader { Err(format!("{led} leads")) } else { Ok(()) }
    })
    .await
    .unwrap();
    is_over_quota(&harness, &left, protector).await;

    // Two at once, on both servers that are left: one gets the key.
    let (one, other) = tokio::join!(
        disclose(&harness, left[0], protector, Some(number)),
        disclose(&harness, left[1], protector, Some(number)),
    );
    let (opened, refused) = match (one, other) {
        (Ok(opened), Err(refused)) | (Err(refused), Ok(opened)) => (opened, refused),
        (Ok(_), Ok(_)) => panic!("an approval was used twice"),
        (Err(one), Err(other)) => panic!("nobody got the key: {one}; {other}"),
    };
    assert_eq!(opened.recovery_key.expose_secret(), key.expose_secret());
    assert_eq!((refused.kind, refused.reason.as_str()), (ErrorKind::Conflict, "APPROVAL_USED"));

    harness.cluster.start_node(leader).await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    for node in 1..=3 {
        let used = disclose(&harness, node, protector, Some(number)).await.unwrap_err();
        assert_eq!(used.reason, "APPROVAL_USED", "node {node}");
    }
    let listed = harness.run(&harness.auditor, &["approval", "list", "--all", "-o", "json"]).await;
    let listed = listed.ends_with(0).json();
    let approval = &listed["approvals"][0];
    assert_eq!(
        (&approval["state"], &approval["decided_by"]),
        (&"used".into(), &"operator/admin".into())
    );
    let records = ["audit", "list", "--action", "disclose", "-o", "json"];
    let records = harness.run(&harness.auditor, &records).await.ends_with(0).stdout();
    let said = format!("approval {number} by operator/admin");
    assert_eq!(records.matches(&said).count(), 1, "{records}");
    harness.cluster.wait_same_digest(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_administrators_lift_the_quotas_on_every_node_until_one_ends_it() {
    let (mut harness, protector, _, ruth) = bounded().await;
    disclose(&harness, 3, protector, None).await.unwrap();
    is_over_quota(&harness, &[1, 2, 3], protector).await;
    let propose =
        ["disclosure", "mass-recovery", "propose", "--for", "2h", "--reason", "bad update"];
    let proposed = harness.run(&harness.administrator, &propose).await.ends_with(0);
    assert!(proposed.stdout().contains("mass-recovery confirm 1"), "{}", proposed.stdout());
    let confirm = ["disclosure", "mass-recovery", "confirm", "1"];
    let alone = harness.run(&harness.administrator, &confirm).await.ends_with(5);
    assert!(alone.stderr().contains("SECOND_PERSON_REQUIRED"), "{}", alone.stderr());
    is_over_quota(&harness, &[1, 2, 3], protector).await;

    harness.run(&ruth, &confirm).await.ends_with(0);
    for node in 1..=3 {
        harness.metric_is(node, "holdfast_mass_recovery", 1.0).await;
        for _ in 0..2 {
            disclose(&harness, node, protector, None).await.unwrap();
        }
    }
    let status = harness.run(&harness.administrator, &["cluster", "status"]).await.ends_with(0);
    assert!(status.stdout().contains("LIFTED BY A MASS RECOVERY"), "{}", status.stdout());
    // It outlives the leader that it was confirmed through.
    let leader = harness.cluster.leader().await.unwrap();
    harness.cluster.kill_node(leader).await.unwrap();
    let node = (1..=3).find(|id| *id != leader).unwrap();
    disclose(&harness, node, protector, None).await.unwrap();
    let records = ["audit", "list", "--action", "disclose", "-o", "json"];
    let records = harness.run(&harness.auditor, &records).await.ends_with(0).stdout();
    assert_eq!(records.matches("\"mass recovery 1\"").count(), 7, "{records}");

    harness.cluster.start_node(leader).await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
    harness.run(&harness.administrator, &["disclosure", "mass-recovery", "end"]).await.ends_with(0);
    for node in 1..=3 {
        harness.metric_is(node, "holdfast_mass_recovery", 0.0).await;
    }
    is_over_quota(&harness, &[1, 2, 3], protector).await;
    let shown = harness.run(&ruth, &["disclosure", "status"]).await.ends_with(0);
    assert!(shown.stdout().contains("was ended by operator/admin"), "{}", shown.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_marked_device_takes_two_people_on_every_node() {
    let (harness, protector, key, ruth) = bounded().await;
    let device = harness.device.to_string();
    let add = ["device", "group", "add", "vip", &device];
    harness.run(&harness.administrator, &add).await.ends_with(0);
    let mark = ["disclosure", "policy", "--dual-control", "vip"];
    harness.run(&ruth, &mark).await.ends_with(0);
    for node in 1..=3 {
        let refused = disclose(&harness, node, protector, None).await.unwrap_err();
        assert_eq!(refused.reason, "APPROVAL_REQUIRED", "node {node}");
        let number = requested(&harness, protector).await;
        let grant = ["approval", "grant", &number.to_string()];
        harness.run(&ruth, &grant).await.ends_with(0);
        let opened = disclose(&harness, node, protector, Some(number)).await.unwrap();
        assert_eq!(opened.recovery_key.expose_secret(), key.expose_secret());
    }
}
