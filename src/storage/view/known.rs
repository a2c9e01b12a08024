//! Which key ids the view may hold: a Bloom filter in front of the engine.
//!
//! An escrow asks whether its key's id is taken, and nearly always it isn't. In an engine larger than its cache that answer
//! costs a read of a page; the filter gives it from memory (docs/performance.md). It never says no to an id that is held:
//! whatever was committed, loaded or found in the engine is noted here before anybody can ask. Where that is not sure
//! there is no filter, and the engine is asked. Nothing here does I/O.

use std::num::NonZero;

use crate::state::{StoreError, Table};

/// Bytes of a key of [`Table::Keys`] that name the key's id; the version follows them.
const ID_BYTES: usize = 16;
/// Ids that the first part is made for; each further part is made for twice as many as the one before.
const FIRST_IDS: u64 = 1 << 16;
/// Bits for each id: with [`PROBES`] of one block, about one id in a thousand that is not held passes.
const ID_BITS: u64 = 16;
/// Bits set for an id, all within one block, so that a question costs one cache line of each part.
const PROBES: u32 = 6;
/// Words of 64 bits in a block.
const BLOCK_WORDS: usize = 8;
/// Most parts: ids of a filter of that many fit in no memory.
const MOST_PARTS: u32 = 24;
/// Begins the stored form; the number counts its versions. Another version is no filter.
const MAGIC: &[u8] = b"holdfast-known 1\n";

/// The ids of [`Table::Keys`] that the view may hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    blocks: Vec<[u64; BLOCK_WORDS]>,
    ids: u64,
}

impl Known {
    /// Notes a record that the view holds from now on.
    pub(super) fn note(&mut self, table: Table, key: &[u8]) {
        let Some(hash) = hash_of(table, key) else { return };
        if self.parts.last().is_none_or(|part| part.ids >= part.capacity()) {
            self.grow();
        }
        if let Some(part) = self.parts.last_mut() {
            part.insert(hash);
        }
    }

    /// Whether the view may hold a record whose key begins with `prefix`. `false` is certain.
    pub(super) fn may_hold(&self, table: Table, prefix: &[u8]) -> bool {
        match hash_of(table, prefix) {
            Some(hash) => self.parts.iter().any(|part| part.contains(hash)),
            None => true,
        }
    }

    /// The stored form: the magic, then for each part its number of ids and its blocks, little-endian.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for part in &self.parts {
            bytes.extend_from_slice(&part.ids.to_le_bytes());
            for word in part.blocks.iter().flatten() {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads the stored form. The caller knows by a checksum that the bytes are those that were written.
    ///
    /// # Errors
    /// If they are not of this version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Corrupt {
            table: Table::Keys,
            what: "the filter of known keys is of another version".to_owned(),
        };
        let body = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (words, rest) = body.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(damaged());
        }
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut known = Self::default();
        while let Some(ids) = words.next() {
            known.grow();
            let part = known.parts.last_mut().ok_or_else(damaged)?;
            part.ids = ids;
            for word in part.blocks.iter_mut().flatten() {
                *word = words.next().ok_or_else(damaged)?;
            }
        }
        Ok(known)
    }

    /// Adds an empty part.
    fn grow(&mut self) {
        let part = u32::try_from(self.parts.len()).unwrap_or(MOST_PARTS).min(MOST_PARTS);
        let ids = FIRST_IDS << part;
        let blocks = ids * ID_BITS / (64 * BLOCK_WORDS as u64);
        let blocks = vec![[0; BLOCK_WORDS]; usize::try_from(blocks).unwrap_or(1)];
        self.parts.push(Part { blocks, ids: 0 });
    }
}

impl Part {
    const fn capacity(&self) -> u64 {
        self.blocks.len() as u64 * (64 * BLOCK_WORDS as u64) / ID_BITS
    }

    fn insert(&mut self, hash: u64) {
        let at = self.block_of(hash);
        let Some(block) = self.blocks.get_mut(at) else { return };
        for (word, bits) in block.iter_mut().zip(masks(hash)) {
            *word |= bits;
        }
        self.ids += 1;
    }

    fn contains(&self, hash: u64) -> bool {
        let block = self.blocks.get(self.block_of(hash));
        block.is_some_and(|block| {
            block.iter().zip(masks(hash)).all(|(word, bits)| word & bits == bits)
        })
    }

    /// By the upper half of the hash; the lower half chooses the bits.
    fn block_of(&self, hash: u64) -> usize {
        let blocks = NonZero::new(self.blocks.len() as u64).unwrap_or(NonZero::<u64>::MIN);
        usize::try_from((hash >> 32) % blocks).unwrap_or(0)
    }
}

/// The bits of a block that stand for a hash: for each of its words a mask.
fn masks(hash: u64) -> [u64; BLOCK_WORDS] {
    let mut masks = [0_u64; BLOCK_WORDS];
    let mut bits = mix(hash);
    for _ in 0..PROBES {
        let word = (bits >> 6) as usize & (BLOCK_WORDS - 1);
        if let Some(mask) = masks.get_mut(word) {
            *mask |= 1 << (bits & 63);
        }
        bits >>= 9;
    }
    masks
}

/// The hash of the id in a key, or in a prefix that holds a whole id. Ids are made by clients: an id that is chosen so that
/// it passes costs its own escrow a read, and nobody else anything.
fn hash_of(table: Table, key: &[u8]) -> Option<u64> {
    if table != Table::Keys {
        return None;
    }
    let id = key.first_chunk::<ID_BYTES>()?;
    let (halves, _) = id.as_chunks::<8>();
    Some(halves.iter().fold(0, |hash, half| mix(hash ^ u64::from_le_bytes(*half))))
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every bit of the argument changes every bit of the result.
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> Vec<u8> {
        [&n.to_be_bytes()[..], &[0; 8], &[0xff; 4]].concat()
    }

    #[test]
    fn an_id_that_was_noted_is_never_denied_and_few_others_pass() {
        let mut known = Known::default();
        let ids = FIRST_IDS * 5;
        for n in 0..ids {
            known.note(Table::Keys, &key(n));
        }
        assert_eq!(known.parts.len(), 3, "the filter grew by parts");
        assert!((0..ids).all(|n| known.may_hold(Table::Keys, &key(n)[..ID_BYTES])));
        let passed =
            (ids..ids * 2).filter(|n| known.may_hold(Table::Keys, &key(*n))).count() as u64;
        assert!(passed < ids / 100, "{passed} of {ids} ids that are not held passed");
    }

    #[test]
    fn what_names_no_whole_id_of_a_key_is_left_to_the_engine() {
        let known = Known::default();
        assert!(!known.may_hold(Table::Keys, &key(1)));
        assert!(known.may_hold(Table::Keys, &key(1)[..ID_BYTES - 1]));
        assert!(known.may_hold(Table::Packages, &key(1)));
    }

    #[test]
    fn the_stored_form_reads_back_and_another_one_is_refused() {
        let mut known = Known::default();
        for n in 0..FIRST_IDS + 1 {
            known.note(Table::Keys, &key(n));
        }
        let bytes = known.encode();
        assert_eq!(Known::decode(&bytes).unwrap(), known);
        assert_eq!(Known::decode(MAGIC).unwrap(), Known::default());
        for wrong in
            [&bytes[..bytes.len() - 1], &bytes[..bytes.len() - 8], b"holdfast-known 2\n", b""]
        {
            assert!(Known::decode(wrong).is_err());
        }
    }
}
