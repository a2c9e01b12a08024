//! The bytes of a snapshot file. Numbers are little-endian; each piece ends with the CRC32C of its own bytes before.
//!
//! ```text
//! header   magic "HFSNAP01", format version u32, heads length u32, heads (as stored by the state), CRC32C
//! block    1, body length u32, body, CRC32C         body: records, by table and key, ascending, across all blocks
//!          record: table tag u8, key length u32, value length u32, key, value
//! trailer  2, records u64, digest of the records (32 bytes), SHA-256 of the file before this field (32 bytes), CRC32C
//! ```
//!
//! Records of [`Table::Meta`] are in the file too, but neither counted nor part of the digest; the heads stand in the
//! header as well. Nothing here does I/O.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::state::Table;
use crate::storage::view::ViewRecord;

pub(super) const MAGIC: &[u8; 8] = b"HFSNAP01";
/// Version of the format that is written and read.
pub(super) const VERSION: u32 = 1;
/// Body size at which a block is closed.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;
/// Largest body that is believed: a record of the largest size may overshoot the block.
pub(super) const MAX_BLOCK_BYTES: usize = 64 * 1024 * 1024;
/// Largest heads that are believed.
pub(super) const MAX_HEADS_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of the header before the heads.
pub(super) const HEADER_BYTES: usize = 16;
/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;
/// First byte of a block.
pub(super) const BLOCK: u8 = 1;
/// First byte of the trailer.
pub(super) const TRAILER: u8 = 2;
/// Bytes of the trailer, checksum included.
pub(super) const TRAILER_BYTES: usize = 1 + 8 + 32 + 32 + CHECKSUM_BYTES;

/// Closes a piece with its checksum.
fn summed(mut piece: BytesMut) -> Bytes {
    let sum = crc32c::crc32c(&piece);
    piece.put_u32_le(sum);
    piece.freeze()
}

/// The body of a piece, if its checksum holds.
pub(super) fn unsummed(mut piece: Bytes) -> Option<Bytes> {
    let sum = piece.split_off(piece.len().checked_sub(CHECKSUM_BYTES)?).get_u32_le();
    (crc32c::crc32c(&piece) == sum).then_some(piece)
}

/// The header.
pub(super) fn header(heads: &Bytes) -> Option<Bytes> {
    let mut piece = BytesMut::with_capacity(HEADER_BYTES + heads.len() + CHECKSUM_BYTES);
    piece.put_slice(MAGIC);
    piece.put_u32_le(VERSION);
    piece.put_u32_le(u32::try_from(heads.len()).ok()?);
    piece.put_slice(heads);
    Some(summed(piece))
}

/// Adds a record to the body of a block.
pub(super) fn push_record(body: &mut BytesMut, (table, (key, value)): &ViewRecord) -> Option<()> {
    body.put_u8(table.tag());
    body.put_u32_le(u32::try_from(key.len()).ok()?);
    body.put_u32_le(u32::try_from(value.len()).ok()?);
    body.put_slice(key);
    body.put_slice(value);
    Some(())
}

/// The block of a body.
pub(super) fn block(body: &[u8]) -> Option<Bytes> {
    let mut piece = BytesMut::with_capacity(5 + body.len() + CHECKSUM_BYTES);
    piece.put_u8(BLOCK);
    piece.put_u32_le(u32::try_from(body.len()).ok()?);
    piece.put_slice(body);
    Some(summed(piece))
}

/// The records of a block's body.
pub(super) fn records(mut body: Bytes) -> Option<Vec<ViewRecord>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let table = Table::from_tag(body.try_get_u8().ok()?)?;
        let key = body.try_get_u32_le().ok()? as usize;
        let value = body.try_get_u32_le().ok()? as usize;
        if body.len() < key.checked_add(value)? {
            return None;
        }
        let key = body.split_to(key);
        records.push((table, (key, body.split_to(value))));
    }
    Some(records)
}

/// The trailer up to the SHA-256, which covers it.
pub(super) fn trailer_start(records: u64, digest: [u8; 32]) -> BytesMut {
    let mut piece = BytesMut::with_capacity(TRAILER_BYTES);
    piece.put_u8(TRAILER);
    piece.put_u64_le(records);
    piece.put_slice(&digest);
    piece
}

/// The rest of the trailer.
pub(super) fn trailer(mut start: BytesMut, sha256: &[u8]) -> Bytes {
    start.put_slice(sha256);
    summed(start)
}
