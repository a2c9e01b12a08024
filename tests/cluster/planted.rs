//! No plaintext of a key is on a server: known keys are planted, and every byte that the servers wrote is searched.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use holdfast::cli::local_cluster::http_get;
use holdfast::domain::{ProtectorKind, RecoveryKey};
use secrecy::ExposeSecret as _;

use crate::harness::{Harness, LIMIT, disclosure, new_escrow, write_file};

/// Published examples; see the product's demonstration for where they come from.
const PLANTED: [(ProtectorKind, &str); 3] = [
    (
        ProtectorKind::BitLockerRecoveryPassword,
        "471207-278498-422125-177177-561902-537405-468006-693451",
    ),
    (
        ProtectorKind::BitLockerRecoveryPassword,
        "236808-089419-192665-495704-618299-073414-538373-542366",
    ),
    (
        ProtectorKind::Luks2RecoveryKey,
        "cbdefghi-jklnrtuv-vutrnlkj-ihgfedbc-cdcdcdcd-efefefef-ghghghgh-ijijijij",
    ),
];

/// A form that a key could stand somewhere in, with its name.
pub(crate) type Needle = (String, Vec<u8>);

/// The part of a base64 text that does not depend on what stands before and after, for each way it can be aligned.
fn base64_forms(name: &str, bytes: &[u8]) -> Vec<Needle> {
    let aligned = (0..3_usize).map(|before| {
        let padded: Vec<u8> = vec![0; before].into_iter().chain(bytes.iter().copied()).collect();
        let text = STANDARD_NO_PAD.encode(&padded);
        let (skip, keep) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
        (format!("{name} in base64, aligned by {before}"), text.as_bytes()[skip..keep].to_vec())
    });
    aligned.collect()
}

pub(crate) fn forms(key: &RecoveryKey) -> Vec<Needle> {
    let dashed = key.expose_secret().to_owned();
    let plain = dashed.replace('-', "");
    let mut needles = Vec::new();
    for (name, text) in [("with dashes", &dashed), ("without dashes", &plain)] {
        needles.push((name.to_owned(), text.as_bytes().to_vec()));
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        needles.push((format!("{name} in UTF-16, little-endian"), utf16));
        let utf16 = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        needles.push((format!("{name} in UTF-16, big-endian"), utf16));
        // As a log shows a list of bytes.
        let listed = text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
        needles.push((format!("{name} as a list of bytes"), listed.into_bytes()));
        needles.extend(base64_forms(name, text.as_bytes()));
    }
    if let Some(raw) = key.bitlocker_key() {
        needles.push(("raw".to_owned(), raw.to_vec()));
        needles.push(("raw in hexadecimal".to_owned(), hex::encode(*raw).into_bytes()));
        needles.extend(base64_forms("raw", raw.as_slice()));
    }
    needles
}

/// Finds any of several byte strings in one pass.
pub(crate) struct Search {
    needles: Vec<Needle>,
    /// Whether any needle begins with these two bytes.
    begins: Vec<bool>,
}

impl Search {
    pub(crate) fn new(needles: Vec<Needle>) -> Self {
        let mut begins = vec![false; 65_536];
        for (_, needle) in &needles {
            begins[usize::from(needle[0]) << 8 | usize::from(needle[1])] = true;
        }
        Self { needles, begins }
    }

    pub(crate) fn in_bytes(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            if self.begins[usize::from(pair[0]) << 8 | usize::from(pair[1])] {
                let here = self.needles.iter().filter(|(_, n)| bytes[at..].starts_with(n));
                found.extend(here.map(|(name, _)| format!("{place}, byte {at}: {name}")));
            }
        }
        found
    }

    fn in_files(&self, dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for path in files(dir) {
            let bytes = std::fs::read(&path).unwrap();
            found.extend(self.in_bytes(&path.display().to_string(), &bytes));
        }
        found
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

/// Starts the servers again with everything in their logs that an operator could turn on.
async fn log_everything(harness: &mut Harness) {
    harness.cluster.stop().await.unwrap();
    for node in harness.cluster.nodes() {
        let config = std::fs::read_to_string(node.config_path()).unwrap();
        let verbose = config.replace("level = \"info\"", "level = \"trace,openraft=trace\"");
        assert_ne!(verbose, config);
        write_file(&node.config_path(), verbose.as_bytes());
    }
    harness.cluster.start_nodes().await.unwrap();
    harness.cluster.wait_healthy(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_planted_key_is_in_data_directories_logs_or_metrics() {
    let mut harness = Harness::start().await;
    log_everything(&mut harness).await;
    let agent = harness.client(&harness.agent);
    let keys = PLANTED.map(|(kind, text)| RecoveryKey::parse(kind, text).unwrap());
    let mut protectors = Vec::new();
    for key in &keys {
        let escrow = new_escrow(harness.device);
        agent.escrow(&escrow, key, Some(b"package")).await.unwrap();
        protectors.push(escrow.protector);
    }
    // All but the last are disclosed, by each server.
    for node in [1, 2, 3] {
        let helen = harness.client_of_node(node, &harness.help_desk);
        for (protector, key) in protectors.iter().zip(&keys).take(2) {
            let disclosed = helen.disclose(&disclosure(*protector)).await.unwrap();
            assert_eq!(disclosed.recovery_key.expose_secret(), key.expose_secret());
        }
    }
    let search = Search::new(keys.iter().flat_map(forms).collect());
    let mut found = Vec::new();
    for node in harness.cluster.nodes() {
        let (status, metrics) = http_get(&node.ports().http_address(), "/metrics").await.unwrap();
        assert_eq!(status, 200);
        assert!(metrics.len() > 500, "there are metrics to search: {metrics}");
        found.extend(search.in_bytes("metrics", metrics.as_bytes()));
    }
    let nodes = harness.cluster.dir().join("nodes");
    found.extend(search.in_files(&nodes));
    // After a stop in order, what was in memory is on disk as well.
    harness.cluster.stop().await.unwrap();
    found.extend(search.in_files(&nodes));
    assert!(found.is_empty(), "{found:#?}");

    // The search finds what is there: a positive in every form, planted on purpose.
    let data = harness.cluster.node(1).unwrap().data_dir();
    let planted: Vec<_> = keys.iter().flat_map(forms).enumerate().collect();
    for (number, (_, needle)) in &planted {
        let bytes = [b"before".as_slice(), needle, b"after"].concat();
        write_file(&data.join(format!("planted-{number}")), &bytes);
    }
    let found = search.in_files(&data);
    for (number, (name, _)) in &planted {
        let place = format!("planted-{number}, byte 6: {name}");
        assert!(found.iter().any(|found| found.ends_with(&place)), "{place} in {found:#?}");
    }
    let log = std::fs::read_to_string(harness.cluster.node(1).unwrap().log_path()).unwrap();
    assert!(log.contains("TRACE"), "everything was logged");
    let ids: Vec<_> = protectors.iter().map(ToString::to_string).collect();
    assert!(ids.iter().all(|id| !log.contains(id)), "logs show at most eight digits of a key id");
}
