//! cryptsetup's verbs, and what its exit codes mean.
//!
//! Secrets go to its standard input and nowhere else. Nothing is decided by what it says in words; its version, which it says only
//! in words, is read strictly.
//!
//! Two of its habits are traps. `open --test-passphrase` tries the volume's tokens *before* the key that it is given, so that any key
//! "opens" a volume that has a token for the kernel's keyring or the TPM: it is told to use tokens of a type that there is none of. And
//! `luksKillSlot -q` with an empty key asks for none: an [`UnlockSecret`] is never empty.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use super::Luks2Options;
use super::metadata::{Metadata, Number};
use super::run::{self, Answer, Call, RunError};
use super::token::{PBKDF_HASH, systemd_token};
use crate::agent::VolumeError;
use crate::agent::volume::{Progress, UnlockSecret};
use crate::domain::{RecoveryKey, VolumeId};

/// Oldest version that does all that is wanted: `--new-key-slot` and `--progress-json` came with it.
const NEEDED: (u32, u32) = (2, 6);
const NEEDED_TEXT: &str = "2.6";
/// No token is of this type.
const NO_TOKEN: &str = "holdfast-none";
/// What is asked for when a volume is encrypted.
const CIPHER: &str = "aes-xts-plain64";
const KEY_BITS: &str = "512";
/// Twice the room of header and key slots: half becomes the header, the other half holds the first part of the data meanwhile.
pub(super) const REDUCE_BYTES: u64 = 32 * 1024 * 1024;

/// The program, its version checked once.
pub(super) struct Tool {
    options: Luks2Options,
    checked: OnceCell<()>,
}

/// A new key slot: where, and what its key derivation costs.
pub(super) struct NewSlot {
    pub(super) slot: u8,
    pub(super) iterations: u32,
}

/// A header that is to be made.
pub(super) struct NewHeader<'a> {
    pub(super) volume: VolumeId,
    pub(super) subsystem: &'a str,
    pub(super) iterations: u32,
    /// Where the header lies until it is moved into the volume.
    pub(super) directory: &'a Path,
}

#[derive(Deserialize)]
struct ProgressLine {
    device_bytes: Number,
    device_size: Number,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn add<const N: usize>(args: &mut Vec<OsString>, more: [OsString; N]) {
    args.extend(more);
}

impl Tool {
    pub(super) fn new(options: Luks2Options) -> Self {
        Self { options, checked: OnceCell::new() }
    }

    /// Its version, asked for until the answer is a good one.
    pub(super) async fn check(&self) -> Result<(), VolumeError> {
        let check = || async {
            let answer = self.call("say its version", &words(["--version"]), &[], None).await?;
            let text = String::from_utf8_lossy(&answer.output).into_owned();
            let Some((found, version)) = version(&text).filter(|_| answer.code == 0) else {
                let why = "it says no version".to_owned();
                return Err(VolumeError::ToolGarbled { what: "say its version", why });
            };
            if version < NEEDED {
                let path = self.options.program.clone();
                return Err(VolumeError::ToolTooOld { path, found, needed: NEEDED_TEXT });
            }
            Ok(())
        };
        self.checked.get_or_try_init(check).await?;
        Ok(())
    }

    /// The volume's metadata.
    pub(super) async fn metadata(&self, path: &Path) -> Result<Metadata, VolumeError> {
        let what = "read the header";
        let mut args = words(["luksDump", "--dump-json-metadata"]);
        args.push(path.into());
        let answer = self.judged(what, path, args, &[]).await?;
        Metadata::parse(&answer.output).map_err(|why| VolumeError::ToolGarbled { what, why })
    }

    /// Opens one slot with this key, and nothing else.
    pub(super) async fn test_key(
        &self,
        path: &Path,
        slot: u8,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        let mut args = words(["open", "-q", "--test-passphrase", "--key-file", "-"]);
        args.extend(words(["--disable-external-tokens", "--token-type", NO_TOKEN, "--key-slot"]));
        add(&mut args, [slot.to_string().into(), path.into()]);
        let key = key.expose_secret().as_bytes();
        self.judged("try the key", path, args, key).await.map(drop)
    }

    /// Adds `new`, with the derivation that `slot` says or with cryptsetup's own, wherever it likes, where there is none.
    pub(super) async fn add_key(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        new: &[u8],
        slot: Option<&NewSlot>,
    ) -> Result<(), VolumeError> {
        let mut args = words(["luksAddKey", "-q", "--force-password", "--new-keyfile", "-"]);
        if let Some(slot) = slot {
            args.extend(words(["--pbkdf", "pbkdf2", "--hash", PBKDF_HASH]));
            add(&mut args, ["--pbkdf-force-iterations".into(), slot.iterations.to_string().into()]);
            add(&mut args, ["--new-key-slot".into(), slot.slot.to_string().into()]);
        } else {
            let time = self.options.unlock_iteration_time.as_millis();
            add(&mut args, ["--iter-time".into(), time.to_string().into()]);
        }
        let old = unlock.expose_secret();
        // Both secrets come from one pipe. A line end tells where the second begins, so that no argument tells the length of a
        // passphrase; only a key file that holds a line end is told apart by its length.
        let line_end = !old.contains(&b'\n');
        if !line_end {
            args.extend(words(["--key-file", "-", "--keyfile-size"]));
            args.push(old.len().to_string().into());
        }
        args.push(path.into());
        let length = old.len().saturating_add(1).saturating_add(new.len());
        let mut input = Zeroizing::new(Vec::with_capacity(length));
        input.extend_from_slice(old);
        if line_end {
            input.push(b'\n');
        }
        input.extend_from_slice(new);
        self.judged("add a key", path, args, &input).await.map(drop)
    }

    /// Removes a slot, if `key` opens another one.
    pub(super) async fn kill_slot(
        &self,
        path: &Path,
        slot: u8,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        let mut args = words(["luksKillSlot", "-q", "--key-file", "-"]);
        add(&mut args, [path.into(), slot.to_string().into()]);
        let key = key.expose_secret().as_bytes();
        self.judged("remove a key slot", path, args, key).await.map(drop)
    }

    /// Writes a token: a new one, or over the one that is there.
    pub(super) async fn write_token(
        &self,
        path: &Path,
        number: u8,
        json: &serde_json::Value,
        replace: bool,
    ) -> Result<(), VolumeError> {
        let mut args = words(["token", "import", "--json-file", "-", "--token-id"]);
        args.push(number.to_string().into());
        if replace {
            args.push("--token-replace".into());
        }
        args.push(path.into());
        let json = json.to_string();
        self.judged("write a token", path, args, json.as_bytes()).await.map(drop)
    }

    /// Writes the token by which systemd knows a recovery key.
    pub(super) async fn write_systemd_token(
        &self,
        path: &Path,
        number: u8,
        slot: u8,
    ) -> Result<(), VolumeError> {
        self.write_token(path, number, &systemd_token(slot), false).await
    }

    pub(super) async fn remove_token(&self, path: &Path, number: u8) -> Result<(), VolumeError> {
        let mut args = words(["token", "remove", "--token-id"]);
        add(&mut args, [number.to_string().into(), path.into()]);
        self.judged("remove a token", path, args, &[]).await.map(drop)
    }

    /// Sets the header's subsystem label.
    pub(super) async fn set_subsystem(&self, path: &Path, label: &str) -> Result<(), VolumeError> {
        let mut args = words(["config", "-q", "--subsystem", label]);
        args.push(path.into());
        self.judged("label the header", path, args, &[]).await.map(drop)
    }

    /// Makes the header of a plain volume, with this key in slot 0. Nothing is encrypted yet.
    pub(super) async fn begin_encryption(
        &self,
        path: &Path,
        header: &NewHeader<'_>,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        let what = "begin the encryption";
        let mut args = words(["reencrypt", "-q", "--encrypt", "--init-only", "--type", "luks2"]);
        args.extend(words(["--cipher", CIPHER, "--key-size", KEY_BITS, "--key-file", "-"]));
        args.extend(words(["--pbkdf", "pbkdf2", "--hash", PBKDF_HASH, "--key-slot", "0"]));
        add(&mut args, ["--pbkdf-force-iterations".into(), header.iterations.to_string().into()]);
        add(&mut args, ["--reduce-device-size".into(), REDUCE_BYTES.to_string().into()]);
        add(&mut args, ["--uuid".into(), header.volume.to_string().into()]);
        add(&mut args, ["--subsystem".into(), header.subsystem.into(), path.into()]);
        let key = key.expose_secret().as_bytes();
        let answer = self.call(what, &args, key, Some(header.directory)).await?;
        judge(what, path, &answer)
    }

    /// Repairs what a killed encryption has left. Does nothing, but try the key, where there is nothing to repair.
    pub(super) async fn repair(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
    ) -> Result<(), VolumeError> {
        let mut args = words(["repair", "-q", "--key-file", "-"]);
        args.push(path.into());
        self.judged("repair the header", path, args, unlock.expose_secret()).await.map(drop)
    }

    /// Encrypts what is not encrypted yet.
    pub(super) async fn resume_encryption(
        &self,
        path: &Path,
        is_file: bool,
        unlock: &UnlockSecret,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), VolumeError> {
        let what = "encrypt the volume";
        let mut args = words(["reencrypt", "-q", "--resume-only", "--key-file", "-"]);
        args.extend(words(["--progress-json", "--progress-frequency", "1"]));
        if is_file {
            // cryptsetup can't know whether a file is in use; the caller has looked.
            args.push("--force-offline-reencrypt".into());
        }
        args.push(path.into());
        let line = |line: &[u8]| {
            // A line that is none is left out: whether it is done is read from the header.
            if let Ok(line) = serde_json::from_slice::<ProgressLine>(line) {
                progress(Progress { done: line.device_bytes.get(), total: line.device_size.get() });
            }
        };
        let call = Call {
            program: &self.options.program,
            args: &args,
            input: unlock.expose_secret(),
            directory: Path::new("/"),
            deadline: self.options.stall,
        };
        let answer = run::follow(&call, &line).await;
        judge(what, path, &answer.map_err(|error| self.failed(what, self.options.stall, error))?)
    }

    /// Puts a saved header into the volume.
    pub(super) async fn restore_header(
        &self,
        path: &Path,
        saved: &Path,
    ) -> Result<(), VolumeError> {
        let mut args = words(["luksHeaderRestore", "-q", "--header-backup-file"]);
        add(&mut args, [saved.into(), path.into()]);
        self.judged("restore the header", path, args, &[]).await.map(drop)
    }

    async fn judged(
        &self,
        what: &'static str,
        path: &Path,
        args: Vec<OsString>,
        input: &[u8],
    ) -> Result<Answer, VolumeError> {
        let answer = self.call(what, &args, input, None).await?;
        judge(what, path, &answer)?;
        Ok(answer)
    }

    async fn call(
        &self,
        what: &'static str,
        args: &[OsString],
        input: &[u8],
        directory: Option<&Path>,
    ) -> Result<Answer, VolumeError> {
        let deadline = self.options.deadline;
        let program = &self.options.program;
        let directory = directory.unwrap_or_else(|| Path::new("/"));
        let answer = run::run(&Call { program, args, input, directory, deadline }).await;
        answer.map_err(|error| self.failed(what, deadline, error))
    }

    fn failed(
        &self,
        what: &'static str,
        after: std::time::Duration,
        error: RunError,
    ) -> VolumeError {
        match error {
            RunError::Start(source) => {
                VolumeError::ToolMissing { path: self.options.program.clone(), source }
            }
            RunError::Hung => VolumeError::ToolHung { what, after },
            RunError::TooMuch => VolumeError::ToolGarbled { what, why: error.to_string() },
            RunError::Pipe(source) => VolumeError::io("the pipes to cryptsetup", source),
        }
    }
}

/// What an exit code means (cryptsetup(8), "RETURN CODES").
fn judge(what: &'static str, path: &Path, answer: &Answer) -> Result<(), VolumeError> {
    let path = || PathBuf::from(path);
    match answer.code {
        0 => Ok(()),
        2 => Err(VolumeError::WrongSecret { path: path() }),
        3 => Err(VolumeError::OutOfMemory { what }),
        4 => Err(VolumeError::Unreachable { path: path() }),
        5 => Err(VolumeError::Busy { path: path() }),
        code => Err(VolumeError::ToolFailed { what, code, said: answer.said.clone() }),
    }
}

/// The version in `cryptsetup 2.6.1 flags: ...`, as text and as numbers.
fn version(text: &str) -> Option<(String, (u32, u32))> {
    let mut words = text.split_whitespace();
    let version = (words.next()? == "cryptsetup").then(|| words.next()).flatten()?;
    let mut numbers = version.split(['.', '-']);
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let pair = (number()?, number()?);
    Some((version.chars().take(20).collect(), pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_strictly() {
        let read = |text| version(text).map(|(_, numbers)| numbers);
        assert_eq!(read("cryptsetup 2.6.1 flags: UDEV BLKID\n"), Some((2, 6)));
        assert_eq!(read("cryptsetup 2.7.0-rc1"), Some((2, 7)));
        assert_eq!(read("cryptsetup 10.0"), Some((10, 0)));
        for none in ["", "cryptsetup", "cryptsetup 2", "cryptsetup two.six", "other 2.6.1", "2.6.1"]
        {
            assert_eq!(read(none), None, "{none:?}");
        }
    }
}
