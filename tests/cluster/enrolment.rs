//! Enrolment from outside: tokens, certificates of the cluster's own CA, and what they are good for, with a leader killed in
//! between.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use holdfast::cli::local_cluster::wait_for;
use holdfast::cli::pki::{IssuedPaths, Subject};
use holdfast::client::{Client, ClientOptions};
use holdfast::clock::{Clock as _, SystemClock};
use holdfast::domain::{DeviceId, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{Harness, LIMIT, Ran, new_escrow, new_key};

/// A cluster whose servers have an enrolment port each.
pub(crate) struct Fleet {
    pub(crate) harness: Harness,
    /// The enrolment ports, for --addr.
    doors: String,
}

fn new_device() -> DeviceId {
    DeviceId::new(Uuid::new_v4())
}

/// Which files a device has its certificate and key in.
pub(crate) fn paths(out: &Path, device: DeviceId) -> IssuedPaths {
    IssuedPaths {
        certificate: out.join(format!("agent-{device}.pem")),
        private_key: out.join(format!("agent-{device}.key")),
    }
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let mut harness = Harness::start().await;
        let mut doors = Vec::new();
        for id in 1..=3 {
            // Taken for a moment, so that three different ones are found.
            let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let door = free.local_addr().unwrap().to_string();
            let path = harness.cluster.node(id).unwrap().config_path();
            let text = std::fs::read_to_string(&path).unwrap();
            let text = format!("enrolment_listen = \"{door}\"\n{text}");
            holdfast_test_write(&path, text.as_bytes());
            drop(free);
            harness.cluster.stop_node(id).await.unwrap();
            harness.cluster.start_node(id).await.unwrap();
            harness.cluster.wait_live(id).await.unwrap();
            doors.push(door);
        }
        harness.cluster.wait_same_digest(LIMIT).await.unwrap();
        Self { harness, doors: doors.join(",") }
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.harness.cluster.dir().join(name)
    }

    async fn admin(&self, args: &[&str]) -> Ran {
        self.harness.run(&self.harness.administrator, args).await
    }

    /// A token in a file of this name, bound as these arguments say.
    pub(crate) async fn token(&self, name: &str, binding: &[&str]) -> (PathBuf, Value) {
        let file = self.dir(name);
        let out = file.to_str().unwrap().to_owned();
        let create = ["enrol", "token", "create", "--out", &out, "-o", "json"];
        let created = self.admin(&[create.as_slice(), binding].concat()).await.ends_with(0).json();
        assert!(created.get("token").is_none(), "it is in the file alone");
        (file, created)
    }

    pub(crate) async fn enrol(&self, token: &Path, device: DeviceId, out: &Path) -> Ran {
        let (token, out) = (token.to_str().unwrap(), out.to_str().unwrap());
        let device = device.to_string();
        let addr = ["enrol", "--addr", &self.doors, "--token-file", token];
        let rest = ["--device", &device, "--out", out, "-o", "json"];
        // Whoever enrols has no certificate: the one of this caller is not shown.
        self.harness.run(&self.harness.agent, &[addr.as_slice(), &rest].concat()).await
    }

    async fn is_refused(&self, token: &Path, device: DeviceId, name: &str, reason: &str) {
        let refused = self.enrol(token, device, &self.dir(name)).await.ends_with(5);
        assert!(refused.stderr().contains(reason), "{}", refused.stderr());
        assert!(!paths(&self.dir(name), device).certificate.exists());
    }

    fn client(&self, addresses: &str, who: &IssuedPaths) -> Client {
        let options = ClientOptions::new(addresses, self.harness.cluster.client_ca()).unwrap();
        Client::open(options.with_identity(&who.certificate, &who.private_key)).unwrap()
    }

    pub(crate) async fn escrows_everywhere(&self, device: DeviceId, who: &IssuedPaths) {
        for node in 1..=3 {
            let address = self.harness.cluster.node(node).unwrap().ports().client_address();
            wait_for("the device is served", LIMIT, || async {
                let client = self.client(&address, who);
                let escrowed = client.escrow(&new_escrow(device), &new_key(), None).await;
                escrowed.map(drop).map_err(|error| error.to_string())
            })
            .await
            .unwrap();
        }
    }

    async fn audited(&self, action: &str) -> String {
        let args = ["audit", "list", "--action", action, "-o", "json"];
        let listed = self.harness.run(&self.harness.auditor, &args).await;
        listed.ends_with(0).stdout()
    }
}

fn holdfast_test_write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

/// Whether any file below a directory holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let read = std::fs::read(&path).unwrap_or_default();
        read.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_while_the_leader_is_killed_and_is_served_everywhere() {
    let mut fleet = Fleet::start().await;
    let made = fleet.admin(&["agent-ca", "create", "-o", "json"]).await.ends_with(0).json();
    assert_eq!(made["number"], 1);
    let twice = fleet.admin(&["agent-ca", "create"]).await.ends_with(6);
    assert!(twice.stderr().contains("AGENT_CA_NUMBER"), "{}", twice.stderr());
    let device = new_device();
    let (token, created) = fleet.token("token", &["--device", &device.to_string()]).await;

    let leader = fleet.harness.cluster.leader().await.unwrap();
    fleet.harness.cluster.kill_node(leader).await.unwrap();
    let out = fleet.dir("device");
    let enrolled = fleet.enrol(&token, device, &out).await.ends_with(0).json();
    assert_eq!(enrolled["again"], false);
    let who = paths(&out, device);
    let client = fleet.client(&fleet.harness.cluster.endpoints(), &who);
    client.escrow(&new_escrow(device), &new_key(), None).await.unwrap();

    // The certificate was lost before it was on disk: with the same key the device gets the same one again.
    std::fs::remove_file(&who.certificate).unwrap();
    let again = fleet.enrol(&token, device, &out).await.ends_with(0).json();
    assert_eq!(again["fingerprint"], enrolled["fingerprint"]);
    // Whoever found the token comes with another key.
    fleet.is_refused(&token, device, "thief", "TOKEN_USED").await;

    fleet.harness.cluster.start_node(leader).await.unwrap();
    fleet.harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    fleet.escrows_everywhere(device, &who).await;
    fleet.harness.cluster.stop().await.unwrap();
    fleet.harness.cluster.start().await.unwrap();
    fleet.escrows_everywhere(device, &who).await;

    let records = fleet.audited("enrol").await;
    assert!(records.contains(created["token_id"].as_str().unwrap()), "{records}");
    assert!(records.contains("TOKEN_USED"), "{records}");
    assert!(fleet.audited("token-issue").await.contains(&device.to_string()));
    // What is printed on the token is nowhere on the servers.
    let text = std::fs::read_to_string(&token).unwrap();
    let digits = text.trim().rsplit(':').next().unwrap().to_owned();
    let (id, secret) = (hex::decode(&digits[..32]).unwrap(), hex::decode(&digits[32..]).unwrap());
    for node in fleet.harness.cluster.nodes() {
        let dir = node.data_dir();
        assert!(!holds(&dir, &secret) && !holds(&dir, digits.as_bytes()));
        assert!(holds(&dir, &id), "its id is there, so that the search finds what is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_others_are_refused_by_name_and_a_second_enrolment_is_seen() {
    let fleet = Fleet::start().await;
    fleet.admin(&["agent-ca", "create"]).await.ends_with(0);
    let (one, two) = (new_device(), new_device());
    let (token, _) = fleet.token("one", &["--device", &one.to_string()]).await;
    fleet.is_refused(&token, two, "two", "TOKEN_FOREIGN_DEVICE").await;
    let (revoked, created) = fleet.token("revoked", &["--device", &one.to_string()]).await;
    let id = created["token_id"].as_str().unwrap();
    fleet.admin(&["enrol", "token", "revoke", id]).await.ends_with(0);
    fleet.is_refused(&revoked, one, "revoked-out", "TOKEN_REVOKED").await;
    fleet.enrol(&token, one, &fleet.dir("one-out")).await.ends_with(0);

    let group = ["--group", "berlin", "--count", "2", "--ttl", "1h"];
    let (group, _) = fleet.token("group", &group).await;
    let again = fleet.enrol(&group, one, &fleet.dir("one-again")).await.ends_with(0).json();
    assert_eq!(again["again"], true);
    for node in 1..=3 {
        fleet.harness.metric_is(node, "holdfast_enrolled_again", 1.0).await;
    }
    assert!(fleet.audited("enrol-again").await.contains(&one.to_string()));
    fleet.enrol(&group, two, &fleet.dir("two-out")).await.ends_with(0);
    fleet.is_refused(&group, new_device(), "third", "TOKEN_USED").await;

    let tokens = fleet.admin(&["enrol", "token", "list", "-o", "json"]).await.ends_with(0).json();
    let mut states: Vec<_> = tokens["tokens"].as_array().unwrap().iter().collect();
    states.sort_by_key(|token| token["issued_at_ms"].as_u64());
    let states: Vec<_> = states.iter().map(|token| token["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["used", "revoked", "used"]);

    // A device that is denied is shut out with its certificate, and a token does not bring it back.
    let subject = format!("agent/{two}");
    fleet.admin(&["cert", "deny", &subject, "--reason", "stolen"]).await.ends_with(0);
    let (last, _) = fleet.token("last", &["--device", &two.to_string()]).await;
    fleet.is_refused(&last, two, "denied", "CERTIFICATE_DENIED").await;
    let who = paths(&fleet.dir("two-out"), two);
    let client = fleet.client(&fleet.harness.cluster.endpoints(), &who);
    let refused = client.escrow(&new_escrow(two), &new_key(), None).await.unwrap_err();
    assert!(refused.to_string().contains("CERTIFICATE_DENIED"), "{refused}");
    let rights = fleet.harness.run(&fleet.harness.help_desk, &["agent-ca", "create"]).await;
    assert!(rights.ends_with(5).stderr().contains("ROLE_MISSING"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_in_its_last_third_and_not_before() {
    let fleet = Fleet::start().await;
    fleet.admin(&["agent-ca", "create"]).await.ends_with(0);
    let device = new_device();
    let (token, _) = fleet.token("token", &["--device", &device.to_string()]).await;
    let out = fleet.dir("device");
    fleet.enrol(&token, device, &out).await.ends_with(0);
    // Each server takes agents of a new CA a moment after it was made.
    fleet.escrows_everywhere(device, &paths(&out, device)).await;
    let next = fleet.dir("next");
    let renew = ["enrol", "renew", "--out", next.to_str().unwrap(), "-o", "json"];
    let early = fleet.harness.run(&paths(&out, device), &renew).await.ends_with(6);
    assert!(early.stderr().contains("RENEWAL_TOO_EARLY"), "{}", early.stderr());

    // A certificate of a day that was issued twenty hours ago, by the configured CA.
    let old = new_device();
    let hours = 20 * 3_600_000;
    let then = Timestamp::from_millis(SystemClock.now().as_millis() - hours);
    let pki = fleet.harness.cluster.pki();
    let issued = pki.issue(&Subject::Agent(old), 1, &fleet.dir("old"), then).unwrap();
    let renewed = fleet.harness.run(&issued, &renew).await.ends_with(0).json();
    let until = renewed["not_after_ms"].as_u64().unwrap();
    let days = (until - SystemClock.now().as_millis()) / 86_400_000;
    assert!((89..=90).contains(&days), "{days}");
    fleet.escrows_everywhere(old, &paths(&next, old)).await;
    assert!(fleet.audited("renew").await.contains(&old.to_string()));
    // The answer was lost: the same once more.
    std::fs::remove_file(paths(&next, old).certificate).unwrap();
    let again = fleet.harness.run(&issued, &renew).await.ends_with(0).json();
    assert_eq!(again["fingerprint"], renewed["fingerprint"]);
}
