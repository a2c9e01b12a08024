//! The main job, once through the client and once through the command line.

use holdfast::client::{AuditFilter, ChainVerifier, ErrorKind, KeyQuery};
use holdfast::domain::ProtectorId;
use holdfast_proto::v1;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

use crate::harness::{Harness, disclosure, new_escrow, new_key, write_file};

#[tokio::test(flavor = "multi_thread")]
async fn an_escrowed_key_is_found_disclosed_and_on_record() {
    let harness = Harness::start().await;
    let agent = harness.client(&harness.agent);
    let (escrow, key) = (new_escrow(harness.device), new_key());
    let package = b"key package".as_slice();
    let receipt = agent.escrow(&escrow, &key, Some(package)).await.unwrap();
    assert_eq!(receipt.facts.version.get(), 1);

    // The same sealed escrow again gives the same facts.
    let helen = harness.client(&harness.help_desk);
    for query in [
        KeyQuery::Prefix(escrow.protector.prefix()),
        KeyQuery::Protector(escrow.protector),
        KeyQuery::Device(harness.device),
        KeyQuery::Volume(harness.device, escrow.volume),
    ] {
        let found = helen.find_keys(query).await.unwrap();
        assert_eq!(found.keys.len(), 1, "{query:?}");
        assert_eq!(found.keys[0].protector_id, escrow.protector.to_string());
        assert_eq!(found.keys[0].state, i32::from(v1::KeyState::Active));
    }
    let mut wanted = disclosure(escrow.protector);
    wanted.with_package = true;
    let disclosed = helen.disclose(&wanted).await.unwrap();
    assert_eq!(disclosed.recovery_key.expose_secret(), key.expose_secret());
    assert_eq!(disclosed.package.as_ref().unwrap().as_slice(), package);
    assert!(!disclosed.malformed && !disclosed.repeated);
    assert_eq!(disclosed.key.state, i32::from(v1::KeyState::RotationDue));
    let none = helen.disclose(&disclosure(ProtectorId::new(Uuid::new_v4()))).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);

    let arthur = harness.client(&harness.auditor);
    let mut listing = arthur.audit_records(&AuditFilter::default());
    let mut chain = ChainVerifier::new();
    let mut actions = Vec::new();
    while let Some(page) = listing.next().await.unwrap() {
        for record in &page {
            chain.take(record).unwrap();
            let head = chain.head();
            if head.sequence == receipt.facts.audit_sequence {
                assert_eq!(head.hash, receipt.facts.audit_hash, "the receipt lies on the chain");
            }
            actions.push(record.action.clone());
        }
    }
    chain.finish(listing.head().unwrap()).unwrap();
    for action in ["bootstrap", "grant", "escrow", "find", "disclose"] {
        assert!(actions.iter().any(|found| found == action), "{action} is on record: {actions:?}");
    }
    // A refused disclosure is on record as well.
    let filter = AuditFilter { action: "disclose".to_owned(), ..AuditFilter::default() };
    let mut disclosures = arthur.audit_records(&filter);
    let page = disclosures.next().await.unwrap().unwrap();
    let outcomes: Vec<_> = page.iter().map(|record| record.outcome.as_str()).collect();
    assert_eq!(outcomes, ["ok", "UNKNOWN_KEY"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_can_not_be_saved_costs_no_disclosure_and_no_disclosed_key() {
    let harness = Harness::start().await;
    let (escrow, key) = (new_escrow(harness.device), new_key());
    let agent = harness.client(&harness.agent);
    agent.escrow(&escrow, &key, Some(b"key package")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let protector = escrow.protector.to_string();
    let disclose = |file: &str| {
        let args = ["key", "disclose", &protector, "--reason", "LOST_PIN", "--user", "alice"];
        let args = args.into_iter().chain(["--package-out", file]);
        args.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let disclosures = async || {
        let args = ["audit", "list", "--action", "disclose", "-o", "json"];
        let listed = harness.run(&harness.auditor, &args).await.ends_with(0);
        listed.stdout().matches("\"disclose\"").count()
    };

    // What is there already, or has no place, is found out before the call.
    write_file(std::path::Path::new(&path("taken")), b"mine");
    for file in [path("taken"), path("none/package")] {
        let args = disclose(&file);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let refused = harness.run(&harness.help_desk, &args).await.ends_with(2);
        assert!(refused.stderr().contains(&file), "{}", refused.stderr());
        assert_eq!(refused.stdout(), "");
    }
    assert_eq!(std::fs::read_to_string(path("taken")).unwrap(), "mine");
    assert_eq!(disclosures().await, 0);
    // A disk that is full too late: the key is on record as disclosed, so it is shown.
    let args = disclose(&path("late"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let late = harness.run_on_full_disk(&harness.help_desk, &args).await.ends_with(1);
    assert_eq!(late.stdout().lines().next(), Some(key.expose_secret()));
    assert!(late.stderr().contains("not saved"), "{}", late.stderr());
    assert_eq!(disclosures().await, 1);
    let args = disclose(&path("good"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    harness.run(&harness.help_desk, &args).await.ends_with(0);
    assert_eq!(std::fs::read(path("good")).unwrap(), b"key package");
    // A refused disclosure leaves no empty file behind.
    let args = disclose(&path("refused"));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    harness.run(&harness.auditor, &args).await.ends_with(5);
    assert!(!std::path::Path::new(&path("refused")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_main_job_with_its_documented_exit_codes() {
    let harness = Harness::start().await;
    let key = "471207-278498-422125-177177-561902-537405-468006-693451";
    let protector = "1854c11f-6b44-08b0-91db-121a2fbf9ac0";
    let device = harness.device.to_string();
    let volume = Uuid::new_v4().to_string();
    let escrow = |version: &'static str| {
        let ids = ["key", "escrow", "--device", &device, "--volume", &volume];
        let rest = ["--protector", protector, "--expected-version", version, "-o", "json"];
        ids.into_iter().chain(rest).map(ToOwned::to_owned).collect::<Vec<String>>()
    };
    let first = escrow("0");
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    // Nothing is sent if a group is mistyped, and the group is named.
    let mistyped = key.replace("693451", "693452");
    let refused = harness.run_with_input(&harness.agent, &first, &mistyped).await.ends_with(2);
    assert!(refused.stderr().contains("group 8"), "{}", refused.stderr());
    let receipt = harness.run_with_input(&harness.agent, &first, key).await.ends_with(0).json();
    assert_eq!((receipt["version"].as_u64(), receipt["verified"].as_bool()), (Some(1), Some(true)));
    // Another key for the same version is a conflict.
    let other = "236808-089419-192665-495704-618299-073414-538373-542366";
    let stale = harness.run_with_input(&harness.agent, &first, other).await.ends_with(6);
    assert!(stale.stderr().contains("version"), "{}", stale.stderr());

    let found = harness.run(&harness.help_desk, &["key", "find", "1854c11f", "-o", "json"]).await;
    assert_eq!(found.ends_with(0).json()["keys"][0]["protector_id"], protector);
    harness.run(&harness.help_desk, &["key", "find", "00000000"]).await.ends_with(4);
    harness.run(&harness.help_desk, &["key", "find", "1854c1"]).await.ends_with(2);
    // No reason, no key; help desk must name the user.
    harness.run(&harness.help_desk, &["key", "disclose", protector]).await.ends_with(2);
    let unnamed = ["key", "disclose", protector, "--reason", "LOST_PIN"];
    harness.run(&harness.help_desk, &unnamed).await.ends_with(2);
    let named = ["key", "disclose", protector, "--reason", "LOST_PIN", "--user", "CORP\\alice"];
    let disclosed = harness.run(&harness.help_desk, &named).await.ends_with(0);
    assert_eq!(disclosed.stdout().lines().next(), Some(key));
    // manage-bde prints GUIDs in braces; the record of a search by device names the device.
    let braces = format!("{{{protector}}}");
    harness.run(&harness.help_desk, &["key", "find", &braces]).await.ends_with(0);
    harness.run(&harness.help_desk, &["key", "find", "--device", &device]).await.ends_with(0);
    let listed = harness.run(&harness.auditor, &["audit", "list", "--action", "find"]).await;
    let listed = listed.ends_with(0).stdout();
    assert!(listed.contains(&format!("device {device}")), "{listed}");
    // Who has no grant gets nothing.
    harness.run(&harness.auditor, &named).await.ends_with(5);
    harness.run(&harness.help_desk, &["audit", "list"]).await.ends_with(5);
    harness.run(&harness.agent, &["key", "find", "1854c11f"]).await.ends_with(5);

    let verified = harness.run(&harness.auditor, &["audit", "verify", "-o", "json"]).await;
    let records = verified.ends_with(0).json()["records"].as_u64().unwrap();
    let head = harness.run(&harness.auditor, &["audit", "head", "-o", "json"]).await.ends_with(0);
    assert!(head.json()["sequence"].as_u64().unwrap() >= records);
    let wrong = format!("1:{}", "0".repeat(64));
    harness.run(&harness.auditor, &["audit", "verify", "--known", &wrong]).await.ends_with(1);

    let report = ["device", "report", "--device", &device, "--volume", &volume, "-o", "json"];
    let due = harness.run(&harness.agent, &report).await.ends_with(0).json();
    assert_eq!(due["rotation_due_volume_ids"][0], volume, "a disclosed key has to be rotated");
    let shown = harness.run(&harness.reader, &["device", "show", &device, "-o", "json"]).await;
    let shown = shown.ends_with(0).json();
    assert_eq!(shown["device"]["volumes"][0]["key_state"], "rotation-due");
    assert_eq!(shown["device"]["volumes"][0]["compliance"], "compliant");
    harness.run(&harness.reader, &["device", "show", &volume]).await.ends_with(4);
    let grants = harness.run(&harness.administrator, &["grant", "list", "-o", "json"]).await;
    assert_eq!(grants.ends_with(0).json()["grants"].as_array().unwrap().len(), 4);
    let last = ["grant", "remove", "admin", "administrator"];
    harness.run(&harness.administrator, &last).await.ends_with(6);
}
