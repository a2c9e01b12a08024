//! The digest of a state: a sum that is kept up to date record by record, whatever the order of changes.
//!
//! It finds damage and divergence, not forgery: who can write records can also make the sum fit.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::{Record, Table};

/// Sum, modulo 2^256, of the SHA-256 of each record: of the table's tag (1 byte), the key's length (4 bytes, big-endian),
/// the key, and the value. A sum and not an exclusive or: a record counted twice doesn't cancel itself out.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u64; 4]); // least significant first

impl Digest {
    /// The sum of no records.
    pub const ZERO: Self = Self([0; 4]);

    /// The digest of one record; zero for [`Table::Meta`], which is left out of the sum.
    pub fn of_record(table: Table, key: &[u8], value: &[u8]) -> Self {
        if table == Table::Meta {
            return Self::ZERO;
        }
        let mut hash = Sha256::new();
        hash.update([table.tag()]);
        // Keys are at most some hundred bytes.
        hash.update(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(key);
        hash.update(value);
        Self::from_bytes(&hash.finalize().into())
    }

    /// Adds a record's digest, or another sum.
    pub fn add(&mut self, other: Self) {
        let mut carry = false;
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            let (sum, over) = mine.overflowing_add(theirs);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *mine = sum;
            carry = over || over_again;
        }
    }

    /// Takes a record's digest, or another sum, away.
    pub fn remove(&mut self, other: Self) {
        let mut borrow = false;
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            let (rest, under) = mine.overflowing_sub(theirs);
            let (rest, under_again) = rest.overflowing_sub(u64::from(borrow));
            *mine = rest;
            borrow = under || under_again;
        }
    }

    /// Its 32 bytes, big-endian.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.rchunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        bytes
    }

    /// From 32 bytes, big-endian.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(bytes.rchunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(chunk);
            *limb = u64::from_be_bytes(eight);
        }
        Self(limbs)
    }

    /// Sum and number of all records, [`Table::Meta`] left out: what [`super::Heads`] must say about them.
    pub fn recount(records: impl IntoIterator<Item = (Table, Record)>) -> (Self, u64) {
        let mut sum = Self::ZERO;
        let mut count = 0;
        for (table, (key, value)) in records {
            if table != Table::Meta {
                sum.add(Self::of_record(table, &key, &value));
                count += 1;
            }
        }
        (sum, count)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_can_be_removed_in_any_order() {
        let a = Digest::of_record(Table::Keys, b"a", b"1");
        let b = Digest::from_bytes(&[0xff; 32]);
        let mut sum = Digest::ZERO;
        sum.add(a);
        sum.add(b);
        assert_ne!(sum, a);
        sum.remove(a);
        assert_eq!(sum, b);
        sum.remove(b);
        assert_eq!(sum, Digest::ZERO);
    }

    #[test]
    fn carries_run_through_all_limbs() {
        let mut sum = Digest::from_bytes(&[0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        sum.add(Digest::from_bytes(&one));
        assert_eq!(sum, Digest::ZERO);
        sum.remove(Digest::from_bytes(&one));
        assert_eq!(sum.to_bytes(), [0xff; 32]);
    }

    #[test]
    fn the_same_record_twice_does_not_cancel_out() {
        let a = Digest::of_record(Table::Keys, b"a", b"1");
        let mut sum = a;
        sum.add(a);
        assert_ne!(sum, Digest::ZERO);
    }

    #[test]
    fn a_record_is_told_from_one_whose_key_ends_elsewhere_and_one_of_another_table() {
        let a = Digest::of_record(Table::Keys, b"ab", b"c");
        assert_ne!(a, Digest::of_record(Table::Keys, b"a", b"bc"));
        assert_ne!(a, Digest::of_record(Table::Devices, b"ab", b"c"));
        assert_eq!(Digest::of_record(Table::Meta, b"ab", b"c"), Digest::ZERO);
    }

    #[test]
    fn a_digest_is_the_sha_256_of_its_layout() {
        // printf '\x02\x00\x00\x00\x02abc' | sha256sum
        assert_eq!(
            format!("{:?}", Digest::of_record(Table::Keys, b"ab", b"c")),
            hex::encode(Sha256::digest(b"\x02\x00\x00\x00\x02abc"))
        );
    }
}
