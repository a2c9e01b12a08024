//! The superblock of ext2, ext3 and ext4: where the file system ends, and whether it was unmounted.

use super::header::number;

/// Where the superblock lies.
pub(super) const SUPERBLOCK_AT: u64 = 1024;
/// How long it is.
pub(super) const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC: u16 = 0xef53;
/// State: unmounted cleanly, and without known errors.
const CLEAN: u16 = 1;
/// Incompatible feature: the journal has to be replayed.
const TO_RECOVER: u32 = 0x4;
/// Incompatible feature: block numbers have 64 bits.
const WIDE: u32 = 0x80;

/// A file system of this family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) bytes: u64,
    pub(super) clean: bool,
    pub(super) uuid: [u8; 16],
}

impl FileSystem {
    /// Reads a superblock.
    pub(super) fn read(superblock: &[u8]) -> Option<Self> {
        let half = |at| number::<2>(superblock, at).map(u16::from_le_bytes);
        let word = |at| number::<4>(superblock, at).map(u32::from_le_bytes);
        if half(56)? != MAGIC {
            return None;
        }
        let features = word(96)?;
        let high = if features & WIDE == 0 { 0 } else { word(0x150)? };
        let blocks = u64::from(high) << 32 | u64::from(word(4)?);
        // Blocks of 1 KiB to 64 KiB.
        let block_bytes = word(24).filter(|log| *log <= 6).map(|log| 1024_u64 << log)?;
        Some(Self {
            bytes: blocks.checked_mul(block_bytes)?,
            clean: half(58)? == CLEAN && features & TO_RECOVER == 0,
            uuid: number(superblock, 104)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Vec<u8> {
        let mut block = vec![0; SUPERBLOCK_BYTES];
        block[4..8].copy_from_slice(&10_u32.to_le_bytes());
        block[24] = 2;
        block[56..58].copy_from_slice(&MAGIC.to_le_bytes());
        block[58] = 1;
        block[104] = 7;
        block[0x150] = 1;
        block
    }

    #[test]
    fn the_size_counts_blocks_beyond_32_bits_only_where_the_file_system_has_them() {
        let mut block = superblock();
        assert_eq!(FileSystem::read(&block).unwrap().bytes, 40_960);
        block[96] = 0x80;
        assert_eq!(FileSystem::read(&block).unwrap().bytes, ((1 << 32) + 10) * 4096);
    }

    #[test]
    fn a_file_system_with_errors_or_a_journal_to_replay_is_not_clean() {
        assert!(FileSystem::read(&superblock()).unwrap().clean);
        for (at, value) in [(58, 0), (58, 3), (96, 4)] {
            let mut block = superblock();
            block[at] = value;
            assert!(!FileSystem::read(&block).unwrap().clean, "{at}");
        }
    }

    #[test]
    fn what_is_no_superblock_is_none() {
        for (at, value) in [(56, 0), (24, 7)] {
            let mut block = superblock();
            block[at] = value;
            assert_eq!(FileSystem::read(&block), None, "{at}");
        }
        assert_eq!(FileSystem::read(&superblock()[..110]), None);
        assert_eq!(FileSystem::read(&[]), None);
    }
}
