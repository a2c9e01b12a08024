//! What is built in from elsewhere, held against `deny.toml`, and no unsafe code of our own.
//!
//! `cargo deny` reads the same file and knows more (all platforms, duplicates, advisories); this needs nothing but cargo, and so it
//! runs in every `cargo test`. `docs/security.md`, "Supply chain", says which of them covers what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};
use toml::Table;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";
const FORBID: &str = "#![forbid(unsafe_code)]";
/// Packages with a lock file of their own.
const WORKSPACES: [&str; 2] = [".", "fuzz"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read_toml(path: &str) -> Table {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    text.parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What cargo says of a workspace.
fn metadata(workspace: &str, args: &[&str]) -> Value {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let output = cargo.arg(root().join(workspace).join("Cargo.toml")).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Everything that is built here, tests and tools included: what is only for other platforms need not have been downloaded.
fn packages_built_here() -> Vec<Value> {
    let host = Command::new("rustc").arg("-vV").output().unwrap();
    let host = String::from_utf8(host.stdout).unwrap();
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let all = metadata(".", &["--all-features", "--filter-platform", &host]);
    all["packages"].as_array().unwrap().clone()
}

/// The words of a list in `deny.toml`.
fn listed(section: &str, list: &str) -> BTreeSet<String> {
    let deny = read_toml("deny.toml");
    let words = deny[section][list].as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap_or_else(|| word["name"].as_str().unwrap()).to_owned())
        .collect()
}

/// The packages of a lock file as (name, source, checksum).
fn locked(workspace: &str) -> Vec<(String, Option<String>, Option<String>)> {
    let lock = read_toml(&format!("{workspace}/Cargo.lock"));
    let packages = lock["package"].as_array().unwrap();
    let text = |package: &toml::Value, field| Some(package.get(field)?.as_str()?.to_owned());
    packages
        .iter()
        .map(|p| (text(p, "name").unwrap(), text(p, "source"), text(p, "checksum")))
        .collect()
}

/// Whether a package of this licence may be built in.
fn permitted(licence: &str, allowed: &BTreeSet<Licensee>) -> bool {
    // Old packages write a slash where an OR belongs.
    let expression = Expression::parse_mode(licence, ParseMode::LAX);
    expression.is_ok_and(|expression| {
        expression.evaluate(|wanted| allowed.iter().any(|allowed| allowed.satisfies(wanted)))
    })
}

fn allowed_licences() -> BTreeSet<Licensee> {
    let names = listed("licenses", "allow");
    names.iter().map(|name| Licensee::parse(name).unwrap()).collect()
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let allowed = allowed_licences();
    let packages = packages_built_here();
    assert!(packages.len() > 200, "{} packages", packages.len());
    let refused = packages.iter().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("none");
        (!permitted(licence, &allowed)).then(|| format!("{}: {licence}", package["name"]))
    });
    let refused: Vec<_> = refused.collect();
    assert!(refused.is_empty(), "not allowed by deny.toml: {refused:#?}");
}

#[test]
fn a_licence_is_read_with_its_and_its_or_and_its_exception() {
    let allowed = allowed_licences();
    for good in
        ["MIT", "MIT/Apache-2.0", "MIT OR GPL-3.0-only", "(MIT OR Apache-2.0) AND Unicode-3.0"]
    {
        assert!(permitted(good, &allowed), "{good}");
    }
    for bad in
        ["none", "", "GPL-3.0-only", "MIT AND GPL-3.0-only", "GPL-2.0 WITH GCC-exception-2.0"]
    {
        assert!(!permitted(bad, &allowed), "{bad}");
    }
}

#[test]
fn everything_comes_from_crates_io_with_a_checksum_and_nothing_is_banned() {
    let banned = listed("bans", "deny");
    let deny = read_toml("deny.toml");
    for kind in ["unknown-registry", "unknown-git"] {
        assert_eq!(deny["sources"][kind].as_str(), Some("deny"), "{kind}");
    }
    for workspace in WORKSPACES {
        let own: BTreeSet<String> = metadata(workspace, &["--no-deps"])["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| package["name"].as_str().unwrap().to_owned())
            .chain(["holdfast", "holdfast-proto"].map(str::to_owned))
            .collect();
        for (name, source, checksum) in locked(workspace) {
            assert!(!banned.contains(&name), "{workspace} has {name}, which deny.toml bans");
            match source {
                Some(source) => {
                    assert_eq!(source, CRATES_IO, "{workspace} has {name} from elsewhere");
                    assert!(checksum.is_some_and(|sum| sum.len() == 64), "{name} has no checksum");
                }
                None => assert!(own.contains(&name), "{workspace} has {name} from some directory"),
            }
        }
    }
}

#[test]
fn both_lock_files_have_the_same_version_of_what_both_have() {
    let versions = |workspace: &str| -> BTreeMap<String, BTreeSet<String>> {
        let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, _, checksum) in locked(workspace) {
            versions.entry(name).or_default().extend(checksum);
        }
        versions
    };
    let (product, fuzz) = (versions("."), versions("fuzz"));
    for (name, fuzzed) in fuzz {
        // What only fuzz/ has is its own affair; what both have must be what is shipped.
        let Some(shipped) = product.get(&name) else { continue };
        assert!(fuzzed.is_subset(shipped), "fuzz/Cargo.lock has another version of {name}");
    }
}

#[test]
fn no_dependency_takes_any_version() {
    for workspace in WORKSPACES {
        for package in metadata(workspace, &["--no-deps"])["packages"].as_array().unwrap() {
            for dependency in package["dependencies"].as_array().unwrap() {
                let wild = dependency["req"] == "*" && dependency["path"].is_null();
                assert!(!wild, "{} takes any {}", package["name"], dependency["name"]);
            }
        }
    }
}

/// The file that each crate of ours begins with: libraries, programs, tests, benchmarks, build scripts and fuzz targets.
fn crate_roots() -> BTreeSet<PathBuf> {
    let mut roots = BTreeSet::new();
    for workspace in WORKSPACES {
        for package in metadata(workspace, &["--no-deps"])["packages"].as_array().unwrap() {
            for target in package["targets"].as_array().unwrap() {
                roots.insert(PathBuf::from(target["src_path"].as_str().unwrap()));
            }
        }
    }
    roots
}

#[test]
fn no_crate_of_ours_may_have_unsafe_code() {
    let roots = crate_roots();
    assert!(roots.len() > 30, "{roots:?}");
    for path in roots {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().any(|line| line == FORBID), "{} lacks {FORBID}", path.display());
    }
}
