//! Finishes an encryption that cryptsetup 2.6 can't finish itself.
//!
//! When the last piece is encrypted, cryptsetup writes so into the header, wipes the copy of the beginning at the end of the volume (16 MiB,
//! which takes a while), and then takes the requirement from the header. Killed in between, it can neither repair nor resume: it
//! counts the last piece as not done, and fails to plan it. Everything is encrypted then, and only the header says that something
//! is under way.
//!
//! So the header is copied to a file, what belongs to the conversion is taken out there, and cryptsetup reads it (checksums, slots,
//! digests) and puts it back itself. The slots stay byte for byte as they are.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rand::RngCore as _;

use super::metadata::MovedHead;
use super::{Luks2, Opened, header};
use crate::agent::VolumeError;
use crate::crypto::system_rng;

/// How much is overwritten at a time.
const CHUNK: u64 = 1024 * 1024;

impl Luks2 {
    /// Finishes it. The key of the volume has been tried before.
    pub(super) async fn finish(&self, volume: &Opened) -> Result<(), VolumeError> {
        let what = "encrypt the volume";
        let unexpected = |why: &str| VolumeError::ToolGarbled { what, why: why.to_owned() };
        let Some((json, header_bytes)) = volume.metadata.finished() else {
            return Err(unexpected("the header of an encryption that is complete looks different"));
        };
        let path = &volume.disk.path;
        let file = self.options.work_dir.join(format!("finish-{}.header", volume.id));
        let (from, to) = (path.clone(), file.clone());
        let copy = move || {
            let copied = header::read(&File::open(from)?, 0, header_bytes)?;
            let edited = header::with_json(copied, &json)
                .ok_or_else(|| io::Error::other("its header has not the length that it says"))?;
            write_anew(&to, &edited)
        };
        self.blocking(path, copy).await?;
        let edited = self.tool.metadata(&file).await?;
        if edited.conversion().is_some()
            || edited.opening_slots() != volume.metadata.opening_slots()
        {
            return Err(unexpected("its header can't be finished"));
        }
        if let Some(head) = volume.metadata.moved_head().filter(|_| !volume.disk.unlocked) {
            let (opened, is_file) = (path.clone(), volume.disk.is_file);
            self.blocking(path, move || wipe(&opened, head, is_file)).await?;
        }
        self.tool.restore_header(path, &file).await?;
        self.blocking(path, move || std::fs::remove_file(file)).await
    }
}

fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()
}

/// Overwrites what is left of the beginning of the data at the end of the volume, as cryptsetup does.
fn wipe(path: &Path, head: MovedHead, is_file: bool) -> io::Result<()> {
    let mut options = File::options();
    options.write(true);
    if !is_file {
        // Of a device: only if nobody has mounted or mapped it.
        options.custom_flags(i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or(0));
    }
    let volume = options.open(path)?;
    let mut rng = system_rng();
    let mut at = 0;
    while at < head.bytes {
        let bytes = CHUNK.min(head.bytes.saturating_sub(at));
        let mut noise = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        rng.fill_bytes(&mut noise);
        volume.write_all_at(&noise, head.offset.saturating_add(at))?;
        at = at.saturating_add(bytes);
    }
    volume.sync_all()
}
