//! What a device or file holds, as far as its first bytes tell: a LUKS2 header, a file system, something else.
//!
//! cryptsetup's JSON says everything about a LUKS2 volume but its UUID and its labels; these stand in the binary header (LUKS2 On-Disk
//! Format Specification, section 2.1), which has two copies with a checksum each.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

use super::ext::{FileSystem, SUPERBLOCK_AT, SUPERBLOCK_BYTES};

const FIRST_MAGIC: &[u8] = b"LUKS\xba\xbe";
const SECOND_MAGIC: &[u8] = b"SKUL\xba\xbe";
const BITLOCKER_MAGIC: &[u8] = b"-FVE-FS-";
/// The sizes that a header can have; its second copy follows at once.
const HEADER_BYTES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];
/// The binary part of a header.
const BINARY_BYTES: usize = 4096;

/// What is in the binary header and not in the JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) uuid: String,
    pub(super) subsystem: String,
    sequence: u64,
}

/// What a device or file holds.
#[derive(Debug)]
pub(super) enum Content {
    Luks2(Header),
    /// There is the beginning of a LUKS2 header, or its second copy, and no whole one.
    DamagedLuks2,
    Luks1,
    BitLocker,
    Ext(FileSystem),
    Other,
}

/// Looks at it.
pub(super) fn probe(file: &File) -> io::Result<Content> {
    let begin = read(file, 0, BINARY_BYTES)?;
    match (begin.get(..6), number::<2>(&begin, 6).map(u16::from_be_bytes)) {
        (Some(FIRST_MAGIC), Some(1)) => return Ok(Content::Luks1),
        (Some(FIRST_MAGIC), _) => {
            return Ok(whole_header(file)?.map_or(Content::DamagedLuks2, Content::Luks2));
        }
        _ => {}
    }
    if begin.get(3..11) == Some(BITLOCKER_MAGIC) {
        return Ok(Content::BitLocker);
    }
    let superblock = read(file, SUPERBLOCK_AT, SUPERBLOCK_BYTES)?;
    if let Some(file_system) = FileSystem::read(&superblock) {
        return Ok(Content::Ext(file_system));
    }
    // Only now: a second copy may be left over behind the beginning of a file system that was made later.
    Ok(whole_header(file)?.map_or(Content::Other, Content::Luks2))
}

/// The newer of the copies that are whole.
fn whole_header(file: &File) -> io::Result<Option<Header>> {
    let mut found = read_copy(file, 0, FIRST_MAGIC)?;
    for at in HEADER_BYTES {
        let second = read_copy(file, at, SECOND_MAGIC)?;
        let newer = |header: &Header| found.as_ref().is_none_or(|f| f.sequence < header.sequence);
        if second.as_ref().is_some_and(newer) {
            found = second;
        }
    }
    Ok(found)
}

fn read_copy(file: &File, at: u64, magic: &[u8]) -> io::Result<Option<Header>> {
    let binary = read(file, at, BINARY_BYTES)?;
    let bytes = number::<8>(&binary, 8).map(u64::from_be_bytes);
    let right_size = |bytes: &u64| HEADER_BYTES.contains(bytes) && (at == 0 || at == *bytes);
    let Some(bytes) = bytes.filter(right_size).filter(|_| binary.starts_with(magic)) else {
        return Ok(None);
    };
    let whole = read(file, at, usize::try_from(bytes).unwrap_or(BINARY_BYTES))?;
    Ok(decode(whole, bytes))
}

/// The fields of a copy whose checksum is right.
fn decode(mut copy: Vec<u8>, bytes: u64) -> Option<Header> {
    if copy.len() as u64 != bytes || text(&copy, 72, 32)? != "sha256" {
        return None;
    }
    let sum = copy.get_mut(448..512)?;
    let stored = sum.get(..32)?.to_vec();
    sum.fill(0);
    if Sha256::digest(&copy).as_slice() != stored {
        return None;
    }
    Some(Header {
        uuid: text(&copy, 168, 40)?,
        subsystem: text(&copy, 208, 48)?,
        sequence: number::<8>(&copy, 16).map(u64::from_be_bytes)?,
    })
}

/// A whole header with other JSON in both copies. `None`, if there is no room for it or the header is not whole.
pub(super) fn with_json(mut header: Vec<u8>, json: &str) -> Option<Vec<u8>> {
    let bytes = usize::try_from(u64::from_be_bytes(number(&header, 8)?)).ok()?;
    let area = bytes.checked_sub(BINARY_BYTES)?;
    let mut text = json.as_bytes().to_vec();
    // The JSON ends with a zero byte, at least.
    if text.len() >= area {
        return None;
    }
    text.resize(area, 0);
    let sequence = u64::from_be_bytes(number(&header, 16)?).checked_add(2)?;
    for at in [0, bytes] {
        let copy = header.get_mut(at..at.checked_add(bytes)?)?;
        copy.get_mut(16..24)?.copy_from_slice(&sequence.to_be_bytes());
        copy.get_mut(BINARY_BYTES..)?.copy_from_slice(&text);
        copy.get_mut(448..512)?.fill(0);
        let sum = Sha256::digest(&*copy);
        copy.get_mut(448..480)?.copy_from_slice(&sum);
    }
    Some(header)
}

/// Bytes from `at`; fewer, where the file ends before.
pub(super) fn read(file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    let mut filled = 0_usize;
    while let Some(rest) = read.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(more) => filled = filled.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    read.truncate(filled);
    Ok(read)
}

/// `N` bytes of a field.
pub(super) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// Text that ends with its field or with a zero byte.
fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at.checked_add(length)?)?;
    let field = field.split(|byte| *byte == 0).next()?;
    String::from_utf8(field.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A copy of a header of the smallest size.
    fn copy(magic: &[u8], sequence: u64, subsystem: &str) -> Vec<u8> {
        let mut copy = vec![0; 0x4000];
        copy[..6].copy_from_slice(magic);
        copy[6..8].copy_from_slice(&2_u16.to_be_bytes());
        copy[8..16].copy_from_slice(&0x4000_u64.to_be_bytes());
        copy[16..24].copy_from_slice(&sequence.to_be_bytes());
        copy[72..78].copy_from_slice(b"sha256");
        copy[168..204].copy_from_slice(b"11111111-2222-3333-4444-555555555555");
        copy[208..208 + subsystem.len()].copy_from_slice(subsystem.as_bytes());
        let sum = Sha256::digest(&copy);
        copy[448..480].copy_from_slice(&sum);
        copy
    }

    fn file(parts: &[&[u8]]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        parts.iter().for_each(|part| file.write_all(part).unwrap());
        file
    }

    #[test]
    fn of_two_whole_copies_the_newer_one_counts_and_of_one_that_one() {
        let (first, second) = (copy(FIRST_MAGIC, 4, "old"), copy(SECOND_MAGIC, 5, "new"));
        let Content::Luks2(header) = probe(&file(&[&first, &second])).unwrap() else { panic!() };
        assert_eq!(header.subsystem, "new");
        assert_eq!(header.uuid, "11111111-2222-3333-4444-555555555555");
        let mut damaged = first.clone();
        damaged[5000] = 1;
        let Content::Luks2(header) = probe(&file(&[&damaged, &second])).unwrap() else { panic!() };
        assert_eq!(header.subsystem, "new");
        let Content::Luks2(header) = probe(&file(&[&first, &damaged])).unwrap() else { panic!() };
        assert_eq!(header.subsystem, "old");
        let overwritten = vec![0; 0x4000];
        assert!(matches!(probe(&file(&[&overwritten, &second])).unwrap(), Content::Luks2(_)));
    }

    #[test]
    fn what_is_cut_short_or_damaged_is_said_to_be_damaged_and_nothing_worse() {
        let mut damaged = copy(FIRST_MAGIC, 4, "");
        damaged[5000] = 1;
        assert!(matches!(probe(&file(&[&damaged, &damaged])).unwrap(), Content::DamagedLuks2));
        for length in [6, 8, 100, 4096, 0x3fff] {
            let cut = &copy(FIRST_MAGIC, 4, "")[..length];
            assert!(matches!(probe(&file(&[cut])).unwrap(), Content::DamagedLuks2), "{length}");
        }
        assert!(matches!(probe(&file(&[b""])).unwrap(), Content::Other));
        assert!(matches!(probe(&file(&[b"LUKS\xba\xbe\x00\x01"])).unwrap(), Content::Luks1));
        assert!(matches!(probe(&file(&[b"\xeb\x58\x90-FVE-FS-"])).unwrap(), Content::BitLocker));
    }
}
