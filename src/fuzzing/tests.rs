//! The corpora of `fuzz/` are replayed, and nothing that takes bytes is left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use holdfast_proto::DESCRIPTORS;
use proptest::prelude::*;
use prost::Message as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use super::*;
use crate::grpc::method_names;

/// Memory that all targets together may take while they replay, the test's own included.
const MOST_MEMORY: u64 = 256 << 20;
/// Time that one input may take, on a machine that is busy with other tests and in a build without optimisation.
const MOST_TIME: Duration = Duration::from_secs(10);
/// Time for all of them.
const ALL_TIME: Duration = Duration::from_secs(300);

/// What the name of a file begins with that an encoder of ours has made; others are what fuzzers found.
const SEED: &str = "seed-";

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn target_names() -> BTreeSet<String> {
    TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// What the encoders make now.
fn seeds() -> Vec<Seed> {
    [
        crate::grpc::fuzzing::seeds(),
        crate::raft::fuzzing::seeds(),
        crate::state::fuzzing::seeds(),
        crate::storage::fuzzing::seeds(),
        crate::crypto::fuzzing::seeds(),
        crate::auth::fuzzing::seeds(),
        crate::oidc::fuzzing::seeds(),
        crate::client::fuzzing::seeds(),
    ]
    .concat()
}

#[test]
#[ignore = "writes the seeds of fuzz/corpus anew: cargo test --lib fuzzing::tests::write_seeds -- --ignored"]
fn write_seeds() {
    for (target, _) in TARGETS {
        let directory = corpus().join(target);
        std::fs::create_dir_all(&directory).unwrap();
        for old in names(&directory).iter().filter(|name| name.starts_with(SEED)) {
            std::fs::remove_file(directory.join(old)).unwrap();
        }
    }
    for (target, name, bytes) in seeds() {
        let path = corpus().join(target).join(format!("{SEED}{name}"));
        std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), &bytes).unwrap();
    }
}

#[test]
fn every_target_takes_what_the_encoders_make_and_has_it_in_its_corpus() {
    assert_eq!(names(&corpus()), target_names(), "corpora and targets differ");
    let seeds = seeds();
    for (target, run) in TARGETS {
        let made: Vec<_> = seeds.iter().filter(|(of, ..)| of == target).collect();
        assert!(!made.is_empty(), "{target} has no seed");
        for (_, name, bytes) in made {
            assert!(run(bytes), "{target} refuses {name} as it is made now");
        }
        let directory = corpus().join(target);
        let kept: Vec<_> =
            names(&directory).into_iter().filter(|name| name.starts_with(SEED)).collect();
        assert!(!kept.is_empty(), "{target} has no seed in its corpus");
        for name in kept {
            // What was once written to a disk or a wire is taken for ever.
            assert!(run(&std::fs::read(directory.join(&name)).unwrap()), "{target} refuses {name}");
        }
    }
}

#[test]
#[ignore = "for a process of its own, whose memory is limited; the next test starts it"]
fn in_a_process_of_its_own() {
    let most = Rlimit { current: Some(MOST_MEMORY), maximum: Some(MOST_MEMORY) };
    setrlimit(Resource::Data, most).unwrap();
    for (target, run) in TARGETS {
        for name in names(&corpus().join(target)) {
            // The last line that is printed names the input that ended the process.
            eprintln!("{target}/{name}");
            let bytes = std::fs::read(corpus().join(target).join(&name)).unwrap();
            let started = Instant::now();
            run(&bytes);
            let took = started.elapsed();
            assert!(took < MOST_TIME, "it took {took:?}");
        }
    }
}

#[test]
fn the_corpora_are_replayed_without_a_panic_in_little_memory_and_time() {
    let name = "fuzzing::tests::in_a_process_of_its_own";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"]);
    let child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let (output, late) = match ended.recv_timeout(ALL_TIME) {
        Ok(output) => (output, false),
        Err(_) => {
            kill_process(pid, Signal::KILL).unwrap();
            (ended.recv().unwrap(), true)
        }
    };
    let output = output.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, passed) = (text(&output.stderr), text(&output.stdout).contains("1 passed"));
    assert!(!late && output.status.success() && passed, "{}: {said}", output.status);
    let inputs: usize = TARGETS.iter().map(|(name, _)| names(&corpus().join(name)).len()).sum();
    assert_eq!(said.lines().filter(|line| line.contains('/')).count(), inputs, "{said}");
}

#[test]
fn seeds_with_a_little_damage_are_taken_or_refused() {
    let config = ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() };
    let seeds = seeds();
    for (target, run) in TARGETS {
        let valid = seeds.iter().filter(|(of, ..)| of == target);
        let valid = valid.map(|(_, _, bytes)| bytes.clone()).collect();
        proptest!(config.clone(), |(bytes in crate::testing::hostile(valid))| {
            run(&bytes);
        });
    }
}

#[test]
fn fuzz_has_a_program_for_each_target_and_no_other() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let mut programs = BTreeSet::new();
    for program in manifest["bin"].as_array().unwrap() {
        let name = program["name"].as_str().unwrap();
        let path = program["path"].as_str().unwrap();
        let text = std::fs::read_to_string(fuzz.join(path)).unwrap();
        assert!(text.contains(&format!("holdfast::fuzzing::{name}(")), "{path} runs another one");
        programs.insert(name.to_owned());
    }
    assert_eq!(programs, target_names());
}

/// Methods whose requests have no field, or only flags and an age, which can't be malformed.
const NOTHING_TO_CHECK: [&str; 11] = [
    "holdfast.peer.v1.PeerService/Compare",
    "holdfast.peer.v1.PeerService/Hello",
    "holdfast.peer.v1.PeerService/ReadIndex",
    "holdfast.peer.v1.PeerService/Status",
    "holdfast.v1.AuditService/GetHead",
    "holdfast.v1.CertificateService/ListAgentCas",
    "holdfast.v1.ClusterService/GetStatus",
    "holdfast.v1.DisclosureService/GetDisclosureStatus",
    "holdfast.v1.EscrowService/GetEscrowKey",
    "holdfast.v1.OperatorService/GetSealStatus",
    "holdfast.v1.RecoveryService/ListReasons",
];

/// The requests that a layer's `fuzzing.rs` decodes, and the method of each.
const FUZZED: [(&str, &str, &str); 47] = [
    ("src/grpc/fuzzing.rs", "decode_escrow", "holdfast.v1.EscrowService/EscrowRecoveryKey"),
    ("src/grpc/fuzzing.rs", "decode_report", "holdfast.v1.ComplianceService/ReportCompliance"),
    ("src/grpc/fuzzing.rs", "decode_find", "holdfast.v1.RecoveryService/FindKeys"),
    ("src/grpc/fuzzing.rs", "decode_disclose", "holdfast.v1.RecoveryService/DiscloseKey"),
    ("src/grpc/fuzzing.rs", "decode_request", "holdfast.v1.DisclosureService/RequestApproval"),
    ("src/grpc/fuzzing.rs", "decode_decide", "holdfast.v1.DisclosureService/DecideApproval"),
    ("src/grpc/fuzzing.rs", "ListApprovalsRequest", "holdfast.v1.DisclosureService/ListApprovals"),
    ("src/grpc/fuzzing.rs", "decode_policy", "holdfast.v1.DisclosureService/SetDisclosurePolicy"),
    ("src/grpc/fuzzing.rs", "decode_propose", "holdfast.v1.DisclosureService/ProposeMassRecovery"),
    (
        "src/grpc/fuzzing.rs",
        "ConfirmMassRecoveryRequest",
        "holdfast.v1.DisclosureService/ConfirmMassRecovery",
    ),
    (
        "src/grpc/fuzzing.rs",
        "EndMassRecoveryRequest",
        "holdfast.v1.DisclosureService/EndMassRecovery",
    ),
    ("src/grpc/fuzzing.rs", "decode_filter", "holdfast.v1.AuditService/ListRecords"),
    ("src/grpc/fuzzing.rs", "GrantRoleRequest", "holdfast.v1.AdminService/GrantRole"),
    ("src/grpc/fuzzing.rs", "RevokeRoleRequest", "holdfast.v1.AdminService/RevokeRole"),
    ("src/grpc/fuzzing.rs", "decode_deny", "holdfast.v1.AdminService/DenyCertificate"),
    ("src/grpc/fuzzing.rs", "AllowCertificateRequest", "holdfast.v1.AdminService/AllowCertificate"),
    ("src/grpc/fuzzing.rs", "GetDeviceRequest", "holdfast.v1.AdminService/GetDevice"),
    ("src/grpc/fuzzing.rs", "ListDevicesRequest", "holdfast.v1.AdminService/ListDevices"),
    ("src/grpc/fuzzing.rs", "AddDeviceToGroupRequest", "holdfast.v1.AdminService/AddDeviceToGroup"),
    (
        "src/grpc/fuzzing.rs",
        "RemoveDeviceFromGroupRequest",
        "holdfast.v1.AdminService/RemoveDeviceFromGroup",
    ),
    ("src/grpc/fuzzing.rs", "ListDeviceGroupsRequest", "holdfast.v1.AdminService/ListDeviceGroups"),
    ("src/grpc/fuzzing.rs", "ListGrantsRequest", "holdfast.v1.AdminService/ListGrants"),
    ("src/grpc/fuzzing.rs", "ListDenialsRequest", "holdfast.v1.AdminService/ListDenials"),
    ("src/grpc/fuzzing.rs", "decode_init", "holdfast.v1.ClusterService/InitCluster"),
    ("src/grpc/fuzzing.rs", "AddLearnerRequest", "holdfast.v1.ClusterService/AddLearner"),
    ("src/grpc/fuzzing.rs", "PromoteNodeRequest", "holdfast.v1.ClusterService/PromoteNode"),
    ("src/grpc/fuzzing.rs", "RemoveNodeRequest", "holdfast.v1.ClusterService/RemoveNode"),
    (
        "src/grpc/fuzzing.rs",
        "TransferLeadershipRequest",
        "holdfast.v1.ClusterService/TransferLeadership",
    ),
    ("src/grpc/fuzzing.rs", "decode_enrol", "holdfast.v1.EnrolmentService/Enrol"),
    ("src/grpc/fuzzing.rs", "decode_issue", "holdfast.v1.CertificateService/IssueToken"),
    ("src/grpc/fuzzing.rs", "decode_revoke", "holdfast.v1.CertificateService/RevokeToken"),
    ("src/grpc/fuzzing.rs", "decode_create", "holdfast.v1.CertificateService/CreateAgentCa"),
    (
        "src/grpc/fuzzing.rs",
        "RenewCertificateRequest",
        "holdfast.v1.CertificateService/RenewCertificate",
    ),
    ("src/grpc/fuzzing.rs", "ListTokensRequest", "holdfast.v1.CertificateService/ListTokens"),
    ("src/grpc/fuzzing.rs", "decode_share", "holdfast.v1.OperatorService/GiveShare"),
    ("src/grpc/fuzzing.rs", "decode_seal", "holdfast.v1.OperatorService/SealCluster"),
    ("src/grpc/fuzzing.rs", "UnsealClusterRequest", "holdfast.v1.OperatorService/UnsealCluster"),
    ("src/grpc/fuzzing.rs", "decode_rotate", "holdfast.v1.OperatorService/RotateEscrowKey"),
    ("src/grpc/fuzzing.rs", "decode_rekey", "holdfast.v1.OperatorService/RekeyRootKey"),
    ("src/grpc/fuzzing.rs", "ResealKeysRequest", "holdfast.v1.OperatorService/ResealKeys"),
    ("src/raft/fuzzing.rs", "AppendRequest", "holdfast.peer.v1.PeerService/Append"),
    ("src/raft/fuzzing.rs", "VoteRequest", "holdfast.peer.v1.PeerService/Vote"),
    ("src/raft/fuzzing.rs", "VoteRequest", "holdfast.peer.v1.PeerService/PreVote"),
    ("src/raft/fuzzing.rs", "SnapshotChunk", "holdfast.peer.v1.PeerService/InstallSnapshot"),
    ("src/raft/fuzzing.rs", "TransferLeaderRequest", "holdfast.peer.v1.PeerService/TransferLeader"),
    ("src/raft/fuzzing.rs", "ForwardRequest", "holdfast.peer.v1.PeerService/Forward"),
    ("src/raft/fuzzing.rs", "MembershipRequest", "holdfast.peer.v1.PeerService/Membership"),
];

#[test]
fn every_method_is_fuzzed_or_has_nothing_to_check() {
    let descriptors = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let fuzzed = FUZZED.iter().map(|(_, _, method)| *method);
    let known: BTreeSet<String> = fuzzed.chain(NOTHING_TO_CHECK).map(str::to_owned).collect();
    assert_eq!(method_names(&descriptors), known);
    for (file, decoder, method) in FUZZED {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(decoder), "{file} no longer reads what {method} takes");
    }
}
