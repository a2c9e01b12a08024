//! Volumes in files, made by the machine's own cryptsetup, with key derivations that cost nothing.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use holdfast::agent::luks2::{Luks2, Luks2Options};
use holdfast::agent::volume::{KeyName, Proof, UnlockOrigin, UnlockSecret, VolumeProvider as _};
use holdfast::crypto::{Secret, system_rng};
use holdfast::domain::{KeyVersion, ProtectorId, ProtectorKind, RecoveryKey};
use serde_json::Value;
use uuid::Uuid;

use crate::require;

/// What a user types.
pub(crate) const PASSPHRASE: &[u8] = b"correct horse, battery staple";
pub(crate) const CRYPTSETUP: &str = "/usr/sbin/cryptsetup";
const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

/// A directory with volumes in it.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) provider: Luks2,
}

impl Rig {
    /// `None`, and the test is skipped, where there is no cryptsetup.
    pub(crate) fn new() -> Option<Self> {
        if !require::tool(CRYPTSETUP) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let provider = Luks2::new(options(dir.path(), CRYPTSETUP.into()));
        Some(Self { dir, provider })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// An empty LUKS2 volume that [`PASSPHRASE`] opens by slot 0.
    pub(crate) fn luks2(&self, name: &str) -> PathBuf {
        let path = self.file(name, 17);
        let args = ["luksFormat", "-q", "--type", "luks2", "--key-file", "-"];
        ok(&cryptsetup(&[&args[..], &CHEAP, &[text(&path)]].concat(), PASSPHRASE));
        path
    }

    /// A plain file system of 8 MiB in a volume of `mib`.
    pub(crate) fn ext4(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.file(name, mib);
        // Its content: sources of ours, so that there is something to compare.
        let content = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/domain");
        let mut mkfs = Command::new("mkfs.ext4");
        ok(&mkfs.args(["-q", "-F", "-d"]).arg(content).arg(&path).arg("8M").output().unwrap());
        path
    }

    pub(crate) fn file(&self, name: &str, mib: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(mib * 1024 * 1024).unwrap();
        path
    }

    /// Adds and proves a new key.
    pub(crate) async fn protect(&self, path: &Path) -> (RecoveryKey, Proof) {
        let (key, name) = (new_key(), new_name(1));
        self.provider.add_recovery_key(path, &passphrase(), &key, name).await.unwrap();
        let proof = self.provider.prove(path, &key, name).await.unwrap();
        (key, proof)
    }
}

pub(crate) fn options(dir: &Path, program: PathBuf) -> Luks2Options {
    Luks2Options {
        program,
        work_dir: dir.join("work"),
        deadline: Duration::from_secs(120),
        stall: Duration::from_secs(120),
        unlock_iteration_time: Duration::from_millis(1),
        ..Luks2Options::default()
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn secret(bytes: &[u8]) -> UnlockSecret {
    UnlockSecret::new(UnlockOrigin::Passphrase, Secret::new(bytes.to_vec())).unwrap()
}

pub(crate) fn passphrase() -> UnlockSecret {
    secret(PASSPHRASE)
}

pub(crate) fn new_key() -> RecoveryKey {
    RecoveryKey::generate(ProtectorKind::Luks2RecoveryKey, &mut system_rng())
}

pub(crate) fn new_name(version: u32) -> KeyName {
    let id = ProtectorId::new(Uuid::new_v4());
    KeyName { id, version: KeyVersion::new(version) }
}

/// Runs cryptsetup itself, as any other program would.
pub(crate) fn cryptsetup(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(CRYPTSETUP);
    // It leaves a file where it is killed.
    command.current_dir(std::env::temp_dir());
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end without wanting it.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

#[track_caller]
pub(crate) fn ok(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

/// Whether a key opens a slot, or any.
pub(crate) fn opens(path: &Path, slot: Option<u8>, key: &[u8]) -> bool {
    let slot = slot.map(|slot| slot.to_string());
    let mut args = vec!["open", "-q", "--test-passphrase", "--key-file", "-"];
    args.extend(slot.iter().flat_map(|slot| ["--key-slot", slot.as_str()]));
    args.push(text(path));
    cryptsetup(&args, key).status.success()
}

/// The header as cryptsetup prints it.
pub(crate) fn dump(path: &Path) -> Value {
    let output = cryptsetup(&["luksDump", "--dump-json-metadata", text(path)], b"");
    ok(&output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The numbers of the slots that are used.
pub(crate) fn slots(path: &Path) -> Vec<String> {
    dump(path)["keyslots"].as_object().unwrap().keys().cloned().collect()
}

/// The tokens without their numbers.
pub(crate) fn tokens(path: &Path) -> Vec<Value> {
    dump(path)["tokens"].as_object().unwrap().values().cloned().collect()
}

/// Writes a token as any other program would.
pub(crate) fn import_token(path: &Path, token: &Value) {
    // What systemd installs to check its tokens is not wanted here.
    let args = ["token", "import", "--disable-external-tokens", "--json-file", "-", text(path)];
    ok(&cryptsetup(&args, token.to_string().as_bytes()));
}

/// Adds a key as any other program would.
pub(crate) fn add_key(path: &Path, slot: u8, key: &[u8], iterations: u32, hash: &str) {
    let (slot, size) = (slot.to_string(), key.len().to_string());
    let iterations = iterations.to_string();
    let args = ["luksAddKey", "-q", "--force-password", "--pbkdf", "pbkdf2", "--hash", hash];
    let more = ["--pbkdf-force-iterations", &iterations, "--new-key-slot", &slot];
    let input = ["--new-keyfile", "-", "--new-keyfile-size", &size, text(path)];
    let secrets = [PASSPHRASE, b"\n", key].concat();
    ok(&cryptsetup(&[&args[..], &more, &input].concat(), &secrets));
}

/// The number of iterations that marks a slot as this key's, as `docs/agent.md` says.
pub(crate) fn mark(name: KeyName) -> u32 {
    let id = name.id.as_bytes();
    1000 + (u32::from_be_bytes([0, id[13], id[14], id[15]]) & 0x1_ffff)
}

/// Our token, as `docs/agent.md` says.
pub(crate) fn own_token(name: KeyName, slot: u8, stage: &str) -> Value {
    let keyslots = if stage == "added" { vec![slot.to_string()] } else { Vec::new() };
    serde_json::json!({
        "type": "holdfast-recovery", "keyslots": keyslots, "format": 1, "escrow_id": name.id,
        "version": name.version, "slot": slot, "stage": stage,
    })
}

/// Overwrites bytes.
pub(crate) fn damage(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}
