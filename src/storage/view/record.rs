//! How records stand in the engine: keys, and values with their checksums (I8).
//!
//! An engine key is the table's tag followed by the record's key; a table whose keys are dense numbers is packed, see
//! [`super::pack`]. An engine value is `CRC32C(engine key, payload)` in four bytes, little-endian, then the payload.
//! The key is part of the checksum, so that a value which an engine returns for another key is refused too. Nothing
//! here does I/O.

use bytes::{BufMut, Bytes, BytesMut};

use crate::state::{StoreError, Table};

/// Length of the checksum before each value.
const CHECKSUM_BYTES: usize = 4;

/// The engine key of an unpacked record.
pub(super) fn engine_key(table: Table, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(1 + key.len());
    bytes.put_u8(table.tag());
    bytes.put_slice(key);
    bytes.freeze()
}

/// The table and the rest of an engine key.
pub(super) fn split_key(engine_key: &Bytes) -> Result<(Table, Bytes), StoreError> {
    let table = engine_key.first().copied().and_then(Table::from_tag);
    match table {
        Some(table) => Ok((table, engine_key.slice(1..))),
        None => Err(StoreError::Engine("a record of an unknown table is in the view".to_owned())),
    }
}

/// A payload with its checksum, as it goes to the engine.
pub(super) fn seal(engine_key: &[u8], payload: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(CHECKSUM_BYTES + payload.len());
    bytes.put_u32_le(checksum(engine_key, payload));
    bytes.put_slice(payload);
    bytes.freeze()
}

/// The payload of a stored value.
///
/// # Errors
/// [`StoreError::Corrupt`] if it is not what was stored under this key.
pub(super) fn unseal(engine_key: &Bytes, stored: &Bytes) -> Result<Bytes, StoreError> {
    let (table, _) = split_key(engine_key)?;
    let damaged = |what: &str| StoreError::Corrupt { table, what: what.to_owned() };
    let (sum, payload) = stored
        .split_first_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| damaged("it is shorter than its checksum"))?;
    if u32::from_le_bytes(*sum) != checksum(engine_key, payload) {
        return Err(damaged("its checksum does not match"));
    }
    Ok(stored.slice(CHECKSUM_BYTES..))
}

fn checksum(engine_key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(engine_key), payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_with_a_flipped_bit_is_refused() {
        let key = engine_key(Table::Keys, b"some key");
        let stored = seal(&key, b"some value");
        assert_eq!(unseal(&key, &stored).unwrap(), "some value");
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unseal(&key, &flipped.into()), Err(StoreError::Corrupt { .. })));
        }
    }

    #[test]
    fn a_value_of_another_key_is_refused() {
        let stored = seal(&engine_key(Table::Keys, b"one"), b"value");
        let other = engine_key(Table::Keys, b"two");
        assert!(matches!(unseal(&other, &stored), Err(StoreError::Corrupt { .. })));
        let other = engine_key(Table::Packages, b"one");
        assert!(matches!(unseal(&other, &stored), Err(StoreError::Corrupt { .. })));
    }
}
