//! Receipts, exports and checkpoints from the command line, and their verification when no server is left.

use std::path::Path;

use uuid::Uuid;

use crate::harness::{Harness, Ran, write_file};

const KEY: &str = "471207-278498-422125-177177-561902-537405-468006-693451";

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Runs a command that knows nothing of the servers but the file of the CA.
async fn offline(harness: &Harness, args: &[&str]) -> Ran {
    let ca = harness.cluster.client_ca().display().to_string();
    let args: Vec<&str> =
        args.iter().copied().chain(["--ca", &ca, "--addr", "127.0.0.1:1"]).collect();
    harness.run(&harness.auditor, &args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_kept_is_verified_when_no_server_is_left() {
    let mut harness = Harness::start().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (receipt, export, early, late) =
        (path("receipt.json"), path("audit.jsonl"), path("early.json"), path("late.json"));
    let device = harness.device.to_string();
    let (volume, protector) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let escrow = ["key", "escrow", "--device", &device, "--volume", &volume];
    let escrow = escrow.into_iter().chain(["--protector", &protector, "--receipt-out", &receipt]);
    let escrow: Vec<&str> = escrow.chain(["-o", "json"]).collect();
    let printed = harness.run_with_input(&harness.agent, &escrow, KEY).await.ends_with(0).json();
    // Nothing is escrowed if the receipt has no place to go.
    harness.run_with_input(&harness.agent, &escrow, KEY).await.ends_with(6);

    let auditor = harness.auditor.clone();
    let checkpoint = ["audit", "checkpoint", "--out", &early];
    harness.run(&auditor, &checkpoint).await.ends_with(0);
    harness.run(&auditor, &checkpoint).await.ends_with(6);
    // With one server dead all of it goes on.
    harness.cluster.kill_node(1).await.unwrap();
    harness.run(&auditor, &["audit", "export", "--out", &export]).await.ends_with(0);
    harness.run(&auditor, &["audit", "checkpoint", "--out", &late]).await.ends_with(0);
    let helen = harness.help_desk.clone();
    harness.run(&helen, &["audit", "checkpoint", "--out", &path("none")]).await.ends_with(5);
    harness.run(&helen, &["audit", "export", "--out", &path("none")]).await.ends_with(5);
    assert!(!Path::new(&path("none")).exists());
    for node in [2, 3] {
        harness.cluster.kill_node(node).await.unwrap();
    }

    let digest = printed["sealed_digest"].as_str().unwrap().to_owned();
    let verify = ["receipt", "verify", &receipt, "--device", &device, "--volume", &volume];
    let verify = verify.into_iter().chain(["--protector", &protector, "--sealed-digest", &digest]);
    let verify: Vec<&str> = verify.chain(["-o", "json"]).collect();
    let verified = offline(&harness, &verify).await.ends_with(0).json();
    assert_eq!(verified["audit_sequence"], printed["audit_sequence"]);
    let other = Uuid::new_v4().to_string();
    let refused = offline(&harness, &["receipt", "verify", &receipt, "--volume", &other]).await;
    assert!(refused.ends_with(1).stderr().contains("its volume is"));

    let all = ["audit", "verify", &export, "--checkpoint", &early, "--receipt", &receipt];
    let held = offline(&harness, &[&all[..], &["-o", "json"]].concat()).await.ends_with(0).json();
    assert_eq!(held["anchors"].as_u64(), Some(2));
    assert!(held["records"].as_u64().unwrap() >= held["known_to"].as_u64().unwrap());
    // The export is on record itself, so that the later checkpoint is about a record that it lacks.
    let short = offline(&harness, &["audit", "verify", &export, "--checkpoint", &late]).await;
    assert!(short.ends_with(1).stderr().contains("it ends at record"));
    let edited = path("edited.jsonl");
    write_file(Path::new(&edited), read(&export).replacen("bootstrap", "find", 1).as_bytes());
    let edited = offline(&harness, &["audit", "verify", &edited]).await.ends_with(1);
    assert!(edited.stderr().contains("line 2: ") && edited.stderr().contains("audit record 1 "));

    // The CA of another cluster vouches for none of it.
    let foreign = path("pki");
    harness.run(&auditor, &["pki", "init", "--dir", &foreign]).await.ends_with(0);
    let ca = path("pki/node-ca.pem");
    for args in [&["receipt", "verify", &receipt][..], &all[..5]] {
        let refused = harness.run(&auditor, &[args, &["--ca", &ca]].concat()).await.ends_with(1);
        assert!(refused.stderr().contains("was not issued by the node CA"), "{}", refused.stderr());
    }
}
