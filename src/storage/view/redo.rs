//! Makes the write of an overlay to the engine atomic.
//!
//! All changes go to a redo file before the first goes to the engine; it is removed once the engine is flushed. A file
//! that is whole is applied again at open (changes are absolute, so that is harmless); one that is not proves that the
//! engine was not touched. The file is not fsync'ed: after a power loss the engine can't be relied on anyhow, and the
//! digest decides. It costs one sequential write of what the engine writes several times over.
//!
//! Format: magic `HFREDO01`, number of changes (u64), changes, CRC32C of all before (u32). A change: 1 to put or 0 to
//! remove, key length (u32), value length (u32), key, value. Numbers are little-endian.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bytes::{Buf, Bytes};

use super::engine::EngineWrite;

const MAGIC: &[u8; 8] = b"HFREDO01";
const CHECKSUM_BYTES: usize = 4;

/// Computes the checksum of what passes through.
struct Summing<W> {
    to: W,
    sum: u32,
}

impl<W: Write> Summing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum = crc32c::crc32c_append(self.sum, bytes);
        self.to.write_all(bytes)
    }
}

/// Writes the redo file.
pub(super) fn write(path: &Path, writes: &[EngineWrite]) -> io::Result<()> {
    let mut out = Summing { to: BufWriter::with_capacity(1 << 18, File::create(path)?), sum: 0 };
    out.put(MAGIC)?;
    out.put(&(writes.len() as u64).to_le_bytes())?;
    for (key, value) in writes {
        out.put(&[u8::from(value.is_some())])?;
        out.put(&length(key.len())?)?;
        out.put(&length(value.as_ref().map_or(0, Bytes::len))?)?;
        out.put(key)?;
        out.put(value.as_deref().unwrap_or_default())?;
    }
    let sum = out.sum;
    out.to.write_all(&sum.to_le_bytes())?;
    out.to.flush()
}

/// Removes the redo file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// The changes of a redo file; `None` if there is no file, or none that was written to its end.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<EngineWrite>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(decode(bytes.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn decode(mut bytes: Bytes) -> Option<Vec<EngineWrite>> {
    let body = bytes.len().checked_sub(CHECKSUM_BYTES)?;
    let sum = bytes.split_off(body).get_u32_le();
    if crc32c::crc32c(&bytes) != sum || !bytes.starts_with(MAGIC) {
        return None;
    }
    bytes.advance(MAGIC.len());
    let count = bytes.try_get_u64_le().ok()?;
    let mut writes = Vec::new();
    for _ in 0..count {
        let put = bytes.try_get_u8().ok()?;
        let key = bytes.try_get_u32_le().ok()? as usize;
        let value = bytes.try_get_u32_le().ok()? as usize;
        if bytes.len() < key.checked_add(value)? {
            return None;
        }
        let key = bytes.split_to(key);
        let value = bytes.split_to(value);
        writes.push((key, (put == 1).then_some(value)));
    }
    bytes.is_empty().then_some(writes)
}

fn length(length: usize) -> io::Result<[u8; 4]> {
    let length = u32::try_from(length).map_err(|_| io::Error::other("a record is over 4 GiB"))?;
    Ok(length.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redo_file_that_is_cut_or_damaged_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redo");
        let writes: Vec<EngineWrite> =
            vec![("a".into(), Some("1".into())), ("b".into(), None), ("c".into(), Some("".into()))];
        write(&path, &writes).unwrap();
        assert_eq!(read(&path).unwrap(), Some(writes));
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            assert_eq!(decode(whole[..length].to_vec().into()), None, "cut at {length}");
        }
        for byte in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[byte] ^= 0x10;
            assert_eq!(decode(flipped.into()), None, "flipped at {byte}");
        }
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }
}
