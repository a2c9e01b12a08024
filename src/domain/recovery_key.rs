//! The formats of recovery keys: BitLocker's numerical password and systemd's LUKS2 recovery key.
//!
//! A [`RecoveryKey`] is well-formed and in its canonical form. Its text is wiped from memory when it is dropped, and is
//! never part of an error, of `Debug` or of `Display`.

use std::fmt;

use rand::CryptoRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::ProtectorKind;

/// Groups of either format.
const GROUPS: usize = 8;
/// Digits of a group of a BitLocker password.
const BITLOCKER_GROUP: usize = 6;
/// Characters of a group of a LUKS2 recovery key.
const LUKS2_GROUP: usize = 8;
/// Largest value of a group of a BitLocker password: 11 times the largest 16-bit number.
const BITLOCKER_MOST: u32 = 11 * 65_535;
/// The modified hexadecimal alphabet, in the order of the digits' values (systemd, `modhex_alphabet`).
const MODHEX: &[u8; 16] = b"cbdefghijklnrtuv";

/// What is wrong with one group of a recovery key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum GroupFault {
    /// It has another number of characters than the format's (6 for BitLocker, 8 for LUKS2).
    #[error("has the wrong length")]
    Length,
    /// A character is no ASCII digit (BitLocker) or not one of `cbdefghijklnrtuv` (LUKS2).
    #[error("holds a character that does not belong there")]
    Character,
    /// The number is not divisible by 11: a digit is wrong, or two are swapped.
    #[error("is mistyped: a digit is wrong or two are swapped")]
    Checksum,
    /// The number is greater than 720,885.
    #[error("is greater than 720885")]
    Range,
}

/// Why a text is no recovery key. Never holds any of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum FormatError {
    /// There are not eight groups.
    #[error("the recovery key must have 8 groups, not {0}")]
    Groups(usize),
    /// The groups are separated by different characters.
    #[error("the groups of the recovery key must all be separated by the same character")]
    Separators,
    /// One group is wrong.
    #[error("group {group} of the recovery key {fault}")]
    Group {
        /// Which one, counted from 1.
        group: usize,
        /// What is wrong with it.
        fault: GroupFault,
    },
}

/// A well-formed recovery key in canonical form: eight groups separated by dashes, LUKS2 in lower case.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey {
    kind: ProtectorKind,
    text: Zeroizing<String>,
}

impl RecoveryKey {
    /// Parses strictly: for BitLocker eight groups of six ASCII digits that are separated by dashes throughout or by
    /// single spaces throughout; for LUKS2 eight groups of eight modhex characters in lower case, separated by dashes.
    ///
    /// # Errors
    /// Names the first group that is wrong, and what is wrong with it.
    pub fn parse(kind: ProtectorKind, text: &str) -> Result<Self, FormatError> {
        let separator = match kind {
            ProtectorKind::BitLockerRecoveryPassword if !text.contains('-') => ' ',
            ProtectorKind::BitLockerRecoveryPassword | ProtectorKind::Luks2RecoveryKey => '-',
        };
        if separator == '-' && text.contains(' ') && text.contains('-') {
            return Err(FormatError::Separators);
        }
        let groups = text.split(separator).count();
        if groups != GROUPS {
            return Err(FormatError::Groups(groups));
        }
        let mut canonical = Zeroizing::new(String::with_capacity(Self::text_bytes(kind)));
        for (index, group) in text.split(separator).enumerate() {
            check_group(kind, group)
                .map_err(|fault| FormatError::Group { group: index.saturating_add(1), fault })?;
            push_group(&mut canonical, group);
        }
        Ok(Self { kind, text: canonical })
    }

    /// Parses what a person typed: blanks around it are dropped, any run of blanks, dashes (also typographic ones)
    /// separates groups, a key without any separator is cut into groups, and LUKS2 may be in upper case.
    /// Everything else is as strict as [`RecoveryKey::parse`].
    ///
    /// # Errors
    /// As [`RecoveryKey::parse`].
    pub fn parse_lenient(kind: ProtectorKind, text: &str) -> Result<Self, FormatError> {
        let is_separator =
            |c: char| c.is_whitespace() || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}');
        let mut plain = Zeroizing::new(String::with_capacity(text.len().saturating_mul(2)));
        if text.trim().contains(is_separator) {
            for group in text.split(is_separator).filter(|group| !group.is_empty()) {
                push_group(&mut plain, group);
            }
        } else {
            for (index, c) in text.trim().chars().enumerate() {
                if index > 0 && index.is_multiple_of(group_length(kind)) {
                    plain.push('-');
                }
                plain.push(c);
            }
        }
        if kind == ProtectorKind::Luks2RecoveryKey {
            plain.make_ascii_lowercase();
        }
        Self::parse(kind, &plain)
    }

    /// Makes a new key with the randomness of `rng`: 128 bits for BitLocker, 256 bits for LUKS2.
    pub fn generate(kind: ProtectorKind, rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(Self::text_bytes(kind)));
        for _ in 0..GROUPS {
            let mut random = Zeroizing::new([0; 4]);
            rng.fill_bytes(random.as_mut());
            push_group(&mut text, &generated_group(kind, &random));
        }
        Self { kind, text }
    }

    /// What kind of secret it is.
    pub const fn kind(&self) -> ProtectorKind {
        self.kind
    }

    /// The key as it has to be typed.
    pub fn expose_secret(&self) -> &str {
        &self.text
    }

    /// The 128-bit key that a BitLocker password stands for: each group divided by 11, little-endian. `None` for LUKS2.
    pub fn bitlocker_key(&self) -> Option<Zeroizing<[u8; 16]>> {
        if self.kind != ProtectorKind::BitLockerRecoveryPassword {
            return None;
        }
        let mut key = Zeroizing::new([0; 16]);
        for (group, slot) in self.text.split('-').zip(key.chunks_exact_mut(2)) {
            let number: u32 = group.parse().ok()?;
            slot.copy_from_slice(&u16::try_from(number / 11).ok()?.to_le_bytes());
        }
        Some(key)
    }

    const fn text_bytes(kind: ProtectorKind) -> usize {
        GROUPS * (group_length(kind) + 1) - 1
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({:?}, [redacted])", self.kind)
    }
}

const fn group_length(kind: ProtectorKind) -> usize {
    match kind {
        ProtectorKind::BitLockerRecoveryPassword => BITLOCKER_GROUP,
        ProtectorKind::Luks2RecoveryKey => LUKS2_GROUP,
    }
}

fn push_group(text: &mut String, group: &str) {
    if !text.is_empty() {
        text.push('-');
    }
    text.push_str(group);
}

fn check_group(kind: ProtectorKind, group: &str) -> Result<(), GroupFault> {
    let belongs = |byte: u8| match kind {
        ProtectorKind::BitLockerRecoveryPassword => byte.is_ascii_digit(),
        ProtectorKind::Luks2RecoveryKey => MODHEX.contains(&byte),
    };
    if !group.bytes().all(belongs) {
        return Err(GroupFault::Character);
    }
    if group.len() != group_length(kind) {
        return Err(GroupFault::Length);
    }
    if kind == ProtectorKind::BitLockerRecoveryPassword {
        // Only digits are left, so this can't overflow; a leading sign or blank, which strtol would take, is refused above.
        let number = group.bytes().fold(0, |sum: u32, digit| {
            sum.saturating_mul(10).saturating_add(u32::from(digit.saturating_sub(b'0')))
        });
        if !number.is_multiple_of(11) {
            return Err(GroupFault::Checksum);
        }
        if number > BITLOCKER_MOST {
            return Err(GroupFault::Range);
        }
    }
    Ok(())
}

fn generated_group(kind: ProtectorKind, random: &[u8; 4]) -> Zeroizing<String> {
    let mut group = Zeroizing::new(String::with_capacity(group_length(kind)));
    match kind {
        ProtectorKind::BitLockerRecoveryPassword => {
            let [low, high, ..] = *random;
            let mut rest = 11 * u32::from(u16::from_le_bytes([low, high]));
            for divisor in [100_000, 10_000, 1000, 100, 10, 1] {
                group.push(char::from_digit(rest / divisor, 10).unwrap_or('0'));
                rest %= divisor;
            }
            rest.zeroize();
        }
        ProtectorKind::Luks2RecoveryKey => {
            for nibble in random.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
                group.push(char::from(*MODHEX.get(usize::from(nibble)).unwrap_or(&b'c')));
            }
        }
    }
    group
}
