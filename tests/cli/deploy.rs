//! What `deploy/` holds for real hosts.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether systemd-analyze is there. Without it the test is skipped, unless skipping is forbidden (CI).
fn systemd_analyze() -> bool {
    if Command::new("systemd-analyze").arg("--version").output().is_ok() {
        return true;
    }
    let why = "SKIPPED: systemd-analyze is missing (Debian package systemd)";
    assert!(std::env::var_os("HOLDFAST_REQUIRE").is_none_or(|all| all != "all"), "{why}");
    println!("{why}");
    false
}

/// The unit, starting the program that is tested.
fn unit(dir: &Path) -> PathBuf {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/holdfast.service");
    let text = std::fs::read_to_string(unit).unwrap();
    assert!(text.contains("/usr/bin/holdfast server"), "{text}");
    let path = dir.join("holdfast.service");
    let text = text.replace("/usr/bin/holdfast", env!("CARGO_BIN_EXE_holdfast"));
    std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes()).unwrap();
    path
}

#[track_caller]
fn analyze(args: &[&str], unit: &Path) {
    let output = Command::new("systemd-analyze").args(args).arg(unit).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}\n{out}\n{err}");
}

#[test]
fn the_systemd_unit_is_valid_and_exposes_at_most_2_of_10() {
    if !systemd_analyze() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = unit(dir.path());
    analyze(&["verify", "--man=no"], &unit);
    analyze(&["security", "--offline=true", "--no-pager", "--threshold=20"], &unit);
}
