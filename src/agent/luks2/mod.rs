//! LUKS2 volumes, with the cryptsetup of the machine.
//!
//! - `run` starts the program; `tool` has its verbs and knows what its exit codes mean.
//! - `metadata` reads the JSON of a header, `header` and `ext` what only the bytes of a volume say, `disks` what devices there are.
//! - `token` and `own` say which slot is ours; `keys` adds, proves and removes keys; `encrypt` encrypts in place, `abandon`
//!   takes that back, and `finish` does what cryptsetup 2.6 can't.
//!
//! Two things hold whatever happens in between: a slot that is not known to be ours is never removed, and neither is the last one.
//! `docs/agent.md` goes through every point at which the agent or cryptsetup can be killed.

mod abandon;
mod disks;
mod encrypt;
mod ext;
mod finish;
mod header;
mod keys;
mod metadata;
mod own;
mod run;
mod token;
mod tool;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use self::disks::Disk;
pub use self::disks::Kernel;
use self::header::{Content, Header};
use self::metadata::{Conversion, Metadata};
use self::own::OwnKey;
use self::tool::{REDUCE_BYTES, Tool};
use super::VolumeError;
use super::volume::{
    EncryptionPlan, Fingerprint, KeyName, Obstacle, Progress, Proof, Settled, Slots, UnlockSecret,
    Unsupported, Volume, VolumeProvider, VolumeState,
};
use crate::domain::{ProtectorId, RecoveryKey, VolumeId, VolumeKind};

/// What the provider is told.
#[derive(Debug, Clone)]
pub struct Luks2Options {
    /// cryptsetup.
    pub program: PathBuf,
    /// A directory of its own on a disk, for the time in which an encryption is begun.
    pub work_dir: PathBuf,
    /// Where the kernel says what devices there are.
    pub kernel: Kernel,
    /// Files that hold volumes, besides the devices.
    pub files: Vec<PathBuf>,
    /// How long one call of cryptsetup may take. Trying a key takes some seconds for each slot.
    pub deadline: Duration,
    /// How long an encryption may show no progress.
    pub stall: Duration,
    /// How long it is to take to derive with a passphrase that is added. Recovery keys need no such thing.
    pub unlock_iteration_time: Duration,
}

impl Default for Luks2Options {
    fn default() -> Self {
        Self {
            program: "/usr/sbin/cryptsetup".into(),
            work_dir: "/var/lib/holdfast-agent/luks2".into(),
            kernel: Kernel::default(),
            files: Vec::new(),
            deadline: Duration::from_secs(180),
            stall: Duration::from_secs(600),
            unlock_iteration_time: Duration::from_secs(2),
        }
    }
}

/// LUKS2 volumes.
pub struct Luks2 {
    options: Luks2Options,
    tool: Tool,
}

/// A device or file, and what it holds.
struct Seen {
    disk: Disk,
    content: Content,
}

/// A LUKS2 volume whose header could be read.
struct Opened {
    disk: Disk,
    header: Header,
    metadata: Metadata,
    id: VolumeId,
}

impl Opened {
    fn own_keys(&self) -> Vec<OwnKey> {
        own::keys(&self.metadata, &self.header)
    }

    fn own(&self, id: ProtectorId) -> Result<OwnKey, VolumeError> {
        let own = self.own_keys().into_iter().find(|own| own.name.id == id);
        own.ok_or_else(|| VolumeError::NotOurs { id, path: self.disk.path.clone() })
    }

    /// No key and no token is taken while a volume is being converted.
    fn not_converting(&self) -> Result<(), VolumeError> {
        let path = self.disk.path.clone();
        match self.metadata.conversion() {
            None => Ok(()),
            Some(Conversion::Encryption) => {
                Err(VolumeError::WrongState { path, is: "being encrypted" })
            }
            Some(Conversion::Other) => {
                Err(VolumeError::Unsupported { path, why: Unsupported::Conversion })
            }
        }
    }
}

impl Luks2 {
    /// A provider. Nothing is done yet: whether there is a cryptsetup is asked with the first call.
    pub fn new(options: Luks2Options) -> Self {
        Self { tool: Tool::new(options.clone()), options }
    }

    /// Reads files and devices where that may block, and not for ever.
    async fn blocking<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let outcome = match timeout(self.options.deadline, tokio::task::spawn_blocking(work)).await
        {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Err(io::Error::other(panicked)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
                VolumeError::Unreachable { path: path.to_owned() }
            }
            _ => VolumeError::io(path.display().to_string(), error),
        })
    }

    async fn look(&self, path: &Path) -> Result<Seen, VolumeError> {
        if !path.is_absolute() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "must be an absolute path");
            return Err(VolumeError::io(path.display().to_string(), error));
        }
        let (kernel, wanted) = (self.options.kernel.clone(), path.to_owned());
        let disk = self.blocking(path, move || disks::look_up(&kernel, &wanted)).await?;
        self.look_at(disk).await
    }

    async fn look_at(&self, disk: Disk) -> Result<Seen, VolumeError> {
        let path = disk.path.clone();
        let content = self.blocking(&disk.path, move || header::probe(&File::open(path)?)).await?;
        Ok(Seen { disk, content })
    }

    /// A LUKS2 volume, or why it is none.
    async fn opened(&self, path: &Path) -> Result<Opened, VolumeError> {
        self.tool.check().await?;
        let Seen { disk, content } = self.look(path).await?;
        let path = disk.path.clone();
        let header = match content {
            Content::Luks2(header) => header,
            Content::DamagedLuks2 => return Err(VolumeError::Damaged { path }),
            Content::Luks1 => {
                return Err(VolumeError::Unsupported { path, why: Unsupported::Luks1 });
            }
            Content::BitLocker => {
                return Err(VolumeError::Unsupported { path, why: Unsupported::BitLocker });
            }
            Content::Ext(_) | Content::Other => {
                return Err(VolumeError::WrongState { path, is: "not encrypted" });
            }
        };
        let metadata = self.tool.metadata(&path).await?;
        if let Some(unknown) = metadata.unknown_requirement() {
            let why = Unsupported::Requirement(unknown.to_owned());
            return Err(VolumeError::Unsupported { path, why });
        }
        let id = header.uuid.parse();
        let id = id.map_err(|_| VolumeError::Unsupported { path, why: Unsupported::Uuid })?;
        Ok(Opened { disk, header, metadata, id })
    }

    async fn examine(&self, seen: Seen) -> Result<Volume, VolumeError> {
        let disk = &seen.disk;
        let mut volume = Volume {
            path: disk.path.clone(),
            id: None,
            kind: kind(disk),
            bytes: disk.bytes,
            mount_points: disk.mounts.clone(),
            state: VolumeState::Damaged,
            cipher: None,
            key_bits: None,
            protectors: Vec::new(),
            slots: Slots::default(),
        };
        match &seen.content {
            Content::Luks1 => volume.state = VolumeState::Unsupported(Unsupported::Luks1),
            Content::BitLocker => volume.state = VolumeState::Unsupported(Unsupported::BitLocker),
            Content::Ext(_) | Content::Other => {
                volume.state = VolumeState::Plain { obstacle: seen.obstacle() };
            }
            Content::DamagedLuks2 => {}
            Content::Luks2(header) => {
                let metadata = self.tool.metadata(&disk.path).await?;
                describe(&mut volume, disk, header, &metadata);
            }
        }
        Ok(volume)
    }
}

impl Seen {
    /// What keeps a plain volume from being encrypted in place.
    fn obstacle(&self) -> Option<Obstacle> {
        let may = self.disk.bytes.saturating_sub(REDUCE_BYTES);
        match &self.content {
            _ if !self.disk.users.is_empty() => Some(Obstacle::InUse(self.disk.users.join(", "))),
            _ if self.disk.read_only => Some(Obstacle::ReadOnly),
            Content::Ext(file_system) if !file_system.clean => Some(Obstacle::NotClean),
            Content::Ext(file_system) if file_system.bytes > may => {
                Some(Obstacle::NoRoom { has: file_system.bytes, may })
            }
            Content::Ext(_) => None,
            _ => Some(Obstacle::FileSystem),
        }
    }
}

fn kind(disk: &Disk) -> VolumeKind {
    if disk.mounts.iter().any(|mount| mount == Path::new("/")) {
        VolumeKind::OperatingSystem
    } else if disk.removable {
        VolumeKind::RemovableData
    } else {
        VolumeKind::FixedData
    }
}

fn describe(volume: &mut Volume, disk: &Disk, header: &Header, metadata: &Metadata) {
    volume.id = header.uuid.parse().ok();
    volume.state = match (metadata.unknown_requirement(), metadata.conversion()) {
        (Some(unknown), _) => {
            VolumeState::Unsupported(Unsupported::Requirement(unknown.to_owned()))
        }
        (None, Some(Conversion::Encryption)) => {
            VolumeState::Encrypting(metadata.progress(disk.bytes))
        }
        (None, Some(Conversion::Other)) => VolumeState::Unsupported(Unsupported::Conversion),
        (None, None) if volume.id.is_none() => VolumeState::Unsupported(Unsupported::Uuid),
        (None, None) if disk.unlocked => VolumeState::Protected,
        (None, None) => VolumeState::Locked,
    };
    volume.cipher = metadata.cipher().map(str::to_owned);
    volume.key_bits = metadata.key_bytes().and_then(|bytes| bytes.checked_mul(8));
    volume.protectors = own::protectors(metadata, header);
    let used = u8::try_from(metadata.keyslots().len()).unwrap_or(metadata::SLOTS);
    volume.slots = Slots { used, free: metadata.free_slots().0 };
}

impl VolumeProvider for Luks2 {
    async fn discover(&self) -> Result<Vec<Volume>, VolumeError> {
        self.tool.check().await?;
        let kernel = self.options.kernel.clone();
        let listed = self.blocking(&self.options.kernel.sys, move || disks::list(&kernel)).await?;
        let mut volumes = Vec::new();
        for disk in listed.into_iter().filter(|disk| !disk.carrier) {
            let unknown = unknown(&disk.path, kind(&disk), disk.bytes);
            let examined = match self.look_at(disk).await {
                Ok(seen) => self.examine(seen).await,
                Err(error) => Err(error),
            };
            volumes.push(examined.unwrap_or_else(unknown));
        }
        for file in &self.options.files {
            let unknown = unknown(file, VolumeKind::FixedData, 0);
            volumes.push(self.inspect(file).await.unwrap_or_else(unknown));
        }
        Ok(volumes)
    }

    async fn inspect(&self, path: &Path) -> Result<Volume, VolumeError> {
        self.tool.check().await?;
        let seen = self.look(path).await?;
        self.examine(seen).await
    }

    async fn settle(&self, path: &Path) -> Result<Vec<Settled>, VolumeError> {
        self.settle_volume(path).await
    }

    async fn add_recovery_key(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<(), VolumeError> {
        self.add_key(path, unlock, key, name).await
    }

    async fn prove(
        &self,
        path: &Path,
        key: &RecoveryKey,
        name: KeyName,
    ) -> Result<Proof, VolumeError> {
        self.prove_key(path, key, name).await
    }

    async fn fingerprint(&self, path: &Path, id: ProtectorId) -> Result<Fingerprint, VolumeError> {
        self.fingerprint_key(path, id).await
    }

    async fn remove_protector(
        &self,
        path: &Path,
        old: ProtectorId,
        proof: &Proof,
        key: &RecoveryKey,
    ) -> Result<(), VolumeError> {
        self.remove_key(path, old, proof, key).await
    }

    async fn add_unlock(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        new: &UnlockSecret,
    ) -> Result<(), VolumeError> {
        self.add_unlock_secret(path, unlock, new).await
    }

    async fn begin_encryption(
        &self,
        path: &Path,
        plan: &EncryptionPlan,
        key: &RecoveryKey,
    ) -> Result<Proof, VolumeError> {
        self.begin(path, plan, key).await
    }

    async fn abandon_encryption(&self, path: &Path) -> Result<(), VolumeError> {
        self.abandon(path).await
    }

    async fn resume_encryption(
        &self,
        path: &Path,
        unlock: &UnlockSecret,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), VolumeError> {
        self.resume(path, unlock, progress).await
    }
}

/// A volume that could not be looked at.
fn unknown(
    path: &Path,
    kind: VolumeKind,
    bytes: u64,
) -> impl FnOnce(VolumeError) -> Volume + use<> {
    let path = path.to_owned();
    move |error| Volume {
        path,
        id: None,
        kind,
        bytes,
        mount_points: Vec::new(),
        state: VolumeState::Unknown(error.to_string()),
        cipher: None,
        key_bits: None,
        protectors: Vec::new(),
        slots: Slots::default(),
    }
}
