//! The pages about formats are enough for somebody else to write a client: a program that shares no code with Holdfast
//! makes the same bytes from them.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod evidence;

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Whether Python with the `cryptography` package (Debian: python3-cryptography) is there. Without it the test is skipped,
/// unless skipping is forbidden (CI).
fn python() -> bool {
    let found = Command::new("python3").args(["-c", "import cryptography"]).output();
    let why = match found {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("python3: {error}"),
    };
    let what = format!("python3 with its cryptography package is wanted: {why}");
    assert!(std::env::var("HOLDFAST_REQUIRE").as_deref() != Ok("all"), "{what}");
    // Not captured, unlike println: a skip that nobody sees is no skip.
    drop(writeln!(std::io::stderr(), "SKIPPED: {what}"));
    false
}

fn write(path: &Path, text: &str) {
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_client_written_from_the_page_alone_seals_and_signs_the_same_bytes() {
    if !python() {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/formats-sealing.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |page: &str| {
        let copy = dir.path().join("page.md");
        write(&copy, page);
        Command::new("python3").arg(root.join("tests/formats/seal.py")).arg(copy).output().unwrap()
    };
    let ran = run(&page);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "all vectors hold");
    // And it does look: with one digit of one vector changed it says which.
    let ran = run(&page.replacen("940bc9f3", "940bc9f4", 1));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.starts_with("ciphertext: "), "{said}");
}
