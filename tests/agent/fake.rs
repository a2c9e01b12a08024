//! A cryptsetup that does as it is told, and a volume that it may claim to know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::agent::luks2::{Luks2, Luks2Options};
use sha2::{Digest as _, Sha256};

use crate::rig;

/// A header with one slot, as cryptsetup prints it.
pub(crate) const METADATA: &str = r#"{
  "keyslots": { "0": { "type": "luks2", "key_size": 64,
    "area": { "type": "raw", "offset": "32768", "size": "258048" },
    "kdf": { "type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "AA==" } } },
  "tokens": {},
  "segments": { "0": { "type": "crypt", "offset": "16777216", "size": "dynamic",
    "encryption": "aes-xts-plain64", "sector_size": 512 } },
  "digests": { "0": { "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"] } },
  "config": { "json_size": "12288", "keyslots_size": "16744448" }
}"#;

/// The same, being encrypted.
pub(crate) fn encrypting() -> String {
    let slot = r#""keyslots": { "1": { "type": "reencrypt", "mode": "encrypt", "key_size": 1,
      "area": { "type": "datashift", "offset": "290816", "size": "4096" } }, "#;
    let requirement = r#""config": { "requirements": { "mandatory": ["online-reencrypt-v2"] }, "#;
    METADATA
        .replace(r#""keyslots": { "0""#, &format!("{slot}\"0\""))
        .replace(r#""config": { "#, requirement)
        .replace(r#""type": "crypt", "offset""#, r#""type": "linear", "offset""#)
}

/// A directory with the program and a volume in it.
pub(crate) struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    /// It behaves as the lines of shell say; but for `luksDump`, which prints `metadata`.
    pub(crate) fn new(metadata: &str, behaviour: &str) -> Self {
        let fake = Self { dir: tempfile::tempdir().unwrap() };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/fake-cryptsetup.sh");
        std::os::unix::fs::symlink(program, fake.path("cryptsetup")).unwrap();
        fake.put("version", b"cryptsetup 2.6.1 flags: FAKE\n");
        fake.put("metadata", metadata.as_bytes());
        let dump = "if [ \"$1\" = luksDump ]; then cat \"$here/metadata\"; exit 0; fi";
        fake.put("behaviour", format!("{dump}\n{behaviour}\n").as_bytes());
        std::fs::create_dir(fake.path("work")).unwrap();
        let mut volume = [header(b"LUKS\xba\xbe"), header(b"SKUL\xba\xbe")].concat();
        volume.resize(1024 * 1024, 0);
        fake.put("volume", &volume);
        fake
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        use std::io::Write as _;
        std::fs::File::create(self.path(name)).unwrap().write_all(bytes).unwrap();
    }

    /// What a file beside the program holds; nothing, if it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn options(&self) -> Luks2Options {
        let volume = vec![self.path("volume")];
        Luks2Options { files: volume, ..rig::options(&self.path(""), self.path("cryptsetup")) }
    }

    pub(crate) fn provider(&self) -> Luks2 {
        Luks2::new(self.options())
    }

    /// One that does not wait long.
    pub(crate) fn impatient(&self) -> Luks2 {
        // Yet longer than any of its calls takes on a busy machine.
        let soon = Duration::from_secs(5);
        Luks2::new(Luks2Options { deadline: soon, stall: soon, ..self.options() })
    }
}

/// One copy of a binary header, with its checksum.
fn header(magic: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; 0x4000];
    copy[..6].copy_from_slice(magic);
    copy[6..8].copy_from_slice(&2_u16.to_be_bytes());
    copy[8..16].copy_from_slice(&0x4000_u64.to_be_bytes());
    copy[72..78].copy_from_slice(b"sha256");
    copy[168..204].copy_from_slice(b"11111111-2222-4333-8444-555555555555");
    let sum = Sha256::digest(&copy);
    copy[448..480].copy_from_slice(&sum);
    copy
}
