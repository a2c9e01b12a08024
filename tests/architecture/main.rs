//! Holds the edges of the layer map in `src/lib.rs`: who may know whom; and what may be built into the program at all.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod supply_chain;

use std::path::Path;

/// Layers that all may know.
const LEAVES: [&str; 7] = ["fs", "clock", "hardening", "tls", "telemetry", "turns", "planted"];

/// For each layer, the layers of this crate that it may name besides the leaves.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("fs", &[]),
    ("clock", &["domain"]),
    ("hardening", &[]),
    ("telemetry", &[]),
    ("turns", &[]),
    ("planted", &[]),
    ("state", &["domain"]),
    ("crypto", &["domain"]),
    ("tls", &["domain", "crypto"]),
    ("storage", &["domain", "state"]),
    ("auth", &["domain", "crypto"]),
    ("oidc", &["domain", "crypto", "auth"]),
    ("raft", &["domain", "state", "storage", "crypto"]),
    ("service", &["domain", "state", "storage", "raft", "auth", "crypto"]),
    ("grpc", &["domain", "state", "raft", "auth", "service", "crypto", "oidc"]),
    ("client", &["domain", "crypto"]),
    ("agent", &["domain", "crypto", "client"]),
];

fn rust_files(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files_of(layer: &str) -> Vec<std::path::PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let file = source.join(format!("{layer}.rs"));
    if file.exists() {
        files.push(file);
    }
    if source.join(layer).is_dir() {
        rust_files(&source.join(layer), &mut files);
    }
    files
}

/// The layers that a file names as `crate::layer`, outside its tests.
fn named_layers(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
        .collect()
}

fn is_test_file(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|stem| stem == "tests" || stem == "testing" || stem == "harness")
}

#[test]
fn no_layer_names_one_that_it_may_not_know() {
    let layers: Vec<&str> =
        MAY_KNOW.iter().map(|(layer, _)| *layer).chain(["server", "cli"]).collect();
    let mut faults = Vec::new();
    for (layer, may_know) in MAY_KNOW {
        let files = files_of(layer);
        assert!(!files.is_empty(), "the layer {layer} has no files");
        for path in files.iter().filter(|path| !is_test_file(path)) {
            let text = std::fs::read_to_string(path).unwrap();
            for named in named_layers(&text) {
                let known = named == *layer
                    || LEAVES.contains(&named.as_str())
                    || may_know.contains(&named.as_str());
                if layers.contains(&named.as_str()) && !known {
                    faults.push(format!("{}: {layer} names {named}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_the_consensus_layer_names_openraft() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for path in files.iter().filter(|path| !path.starts_with(source.join("raft"))) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("openraft::"), "{} names openraft", path.display());
    }
}

#[test]
fn nothing_in_the_product_is_a_simulation() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        for call in ["::start_simulated(", "::simulate(", "::slow_disks("] {
            assert!(!product.contains(call), "{} calls {call}", path.display());
        }
    }
}

/// Where the product has a planted bug, besides the list of them.
const PLANTED: [&str; 15] = [
    "auth/permit.rs",
    "cli/mod.rs",
    "crypto/seal.rs",
    "raft/foretold.rs",
    "raft/link.rs",
    "raft/machine.rs",
    "raft/node.rs",
    "raft/runtime.rs",
    "server/process.rs",
    "service/recovery.rs",
    "state/apply/access.rs",
    "state/apply/requests.rs",
    "storage/snapshot/write.rs",
    "storage/wal/recover.rs",
    "storage/wal/writer.rs",
];

#[test]
fn planted_bugs_are_only_where_the_map_allows_and_each_is_somewhere() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    let mut planted = Vec::new();
    for path in files {
        let inside = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        if inside == "planted.rs" || !text.contains("planted") {
            continue;
        }
        let may = inside == "lib.rs" || inside == "raft/mod.rs";
        let may = may || PLANTED.iter().any(|prefix| inside.starts_with(prefix));
        assert!(may, "{inside} speaks of planted bugs");
        for plant in holdfast::planted::Plant::ALL {
            if text.contains(&format!("is(Plant::{plant:?})")) {
                planted.push(*plant);
            }
        }
    }
    planted.sort_unstable();
    planted.dedup();
    assert_eq!(planted, holdfast::planted::Plant::ALL);
}

#[test]
fn the_feature_of_planted_bugs_is_off_unless_it_is_asked_for() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
    let features = manifest["features"].as_table().unwrap();
    assert!(features["planted"].as_array().unwrap().is_empty());
    for (name, of) in features.iter().filter(|(name, _)| *name != "planted") {
        let of = of.as_array().unwrap();
        assert!(of.iter().all(|of| of.as_str() != Some("planted")), "{name} has planted bugs");
    }
}

#[test]
#[cfg(not(feature = "planted"))]
fn a_program_without_the_feature_does_not_know_of_planted_bugs() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_holdfast")).unwrap();
    for word in ["HOLDFAST_PLANT", "PLANTED: this build"] {
        let found = program.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!found, "the program has {word:?} in it");
    }
}

#[test]
fn secrets_are_exposed_only_where_the_map_allows() {
    let allowed = [
        "agent",
        "crypto",
        "domain/recovery_key",
        "grpc/",
        "client",
        "cli",
        "service/recovery",
        "tls",
    ];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    for path in files.into_iter().filter(|path| !is_test_file(path)) {
        let inside = path.strip_prefix(&source).unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let may = allowed.iter().any(|prefix| inside.starts_with(prefix));
        assert!(may || !text.contains("expose_secret"), "{inside} exposes a secret");
    }
}

#[test]
fn the_word_after_crate_is_read_as_the_layer() {
    assert_eq!(
        named_layers("use crate::state::Store;\n// crate::cli\nfn f(x: crate::domain::User)"),
        ["state", "domain"]
    );
}
