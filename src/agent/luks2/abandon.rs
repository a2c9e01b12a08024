//! Takes back an encryption that was begun and of which nothing is done yet.
//!
//! The recovery key is the only one of such a volume, and it exists in the memory of the agent alone: when that ends before it has encrypted
//! anything, the key is gone (but for the copy that was escrowed). Nothing is lost by that. The beginning of the file system
//! lies at the end of the volume and the rest where it always was, so it is put back without any key, over the header.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::encrypt::{Note, file_system_at};
use super::header;
use super::metadata::{Conversion, MovedHead};
use super::token::read_label;
use super::{Luks2, Opened};
use crate::agent::VolumeError;

/// How much is copied at a time.
const CHUNK: u64 = 1024 * 1024;

impl Luks2 {
    pub(super) async fn abandon(&self, path: &Path) -> Result<(), VolumeError> {
        self.settle_attempts(path).await?;
        let volume = self.opened(path).await?;
        let head = untouched(&volume)?;
        let path = volume.disk.path.clone();
        let Some(name) = read_label(&volume.header.subsystem) else {
            let is = "being encrypted by somebody else";
            return Err(VolumeError::WrongState { path, is });
        };
        let opened = path.clone();
        let look = move || file_system_at(&File::open(opened)?, head.offset);
        let file_system = self.blocking(&path, look).await?;
        let Some(file_system) = file_system else {
            return Err(VolumeError::Damaged { path });
        };
        let note = Note {
            path: path.clone(),
            file_system: hex::encode(file_system.uuid),
            volume: volume.id,
            key: name.id,
            version: name.version,
            back: Some((head.offset, head.bytes)),
        };
        let attempt = self.attempt(note).await?;
        self.put_back(&path, head, volume.disk.is_file).await?;
        self.end(attempt).await
    }

    /// Copies the beginning of the data to where it was. May be done any number of times.
    pub(super) async fn put_back(
        &self,
        path: &Path,
        head: MovedHead,
        is_file: bool,
    ) -> Result<(), VolumeError> {
        let (opened, busy) = (path.to_owned(), path.to_owned());
        let copied = self.blocking(path, move || copy_back(&opened, head, is_file)).await;
        copied.map_err(|error| match error {
            VolumeError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy => {
                VolumeError::Busy { path: busy }
            }
            other => other,
        })
    }
}

/// Where the beginning of the data lies, if nothing is encrypted.
fn untouched(volume: &Opened) -> Result<MovedHead, VolumeError> {
    let wrong = |is| VolumeError::WrongState { path: volume.disk.path.clone(), is };
    if volume.metadata.conversion() != Some(Conversion::Encryption) {
        return Err(wrong("not being encrypted"));
    }
    if !volume.disk.users.is_empty() {
        return Err(VolumeError::Busy { path: volume.disk.path.clone() });
    }
    let head = volume.metadata.moved_head().filter(|_| volume.metadata.is_all_plain());
    head.ok_or_else(|| wrong("encrypted in part"))
}

/// From the end to the beginning, so that the header goes last: what is killed before is still a volume that is being encrypted.
fn copy_back(path: &Path, head: MovedHead, is_file: bool) -> io::Result<()> {
    let mut options = File::options();
    options.read(true).write(true);
    if !is_file {
        // Of a device: only if nobody has mounted or mapped it.
        options.custom_flags(i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or(0));
    }
    let volume = options.open(path)?;
    let mut at = head.bytes;
    while at > 0 {
        let bytes = CHUNK.min(at);
        at = at.saturating_sub(bytes);
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let chunk = header::read(&volume, head.offset.saturating_add(at), length)?;
        if chunk.len() != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if at == 0 {
            volume.sync_data()?;
        }
        volume.write_all_at(&chunk, at)?;
    }
    volume.sync_all()
}
