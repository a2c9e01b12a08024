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

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::ProtectorKind::{BitLockerRecoveryPassword, Luks2RecoveryKey};
    use super::*;

    const LIBBDE: &str = "471207-278498-422125-177177-561902-537405-468006-693451";
    const MODHEX_KEY: &str =
        "cbdefghi-jklnrtuv-cbdefghi-jklnrtuv-vutrnlkj-ihgfedbc-vutrnlkj-ihgfedbc";

    fn bitlocker(text: &str) -> Result<RecoveryKey, FormatError> {
        RecoveryKey::parse(BitLockerRecoveryPassword, text)
    }

    fn group(group: usize, fault: GroupFault) -> FormatError {
        FormatError::Group { group, fault }
    }

    #[test]
    fn published_bitlocker_passwords_parse_to_their_published_keys() {
        for (text, key) in [
            (LIBBDE, "55a7e662e795eb3e8ac7d7be32a641f6"),
            (
                "599907-126192-034078-378543-435050-262383-683309-100661",
                "09d5d02c1a0c6d867e9a2d5da7f2bf23",
            ),
            (
                "563200-557084-108284-218900-019151-415437-694144-239976",
                "00c8d4c57426bc4dcd06879380f63855",
            ),
            (
                "236808-089419-192665-495704-618299-073414-538373-542366",
                "1854c11f6b4408b091db121a2fbf9ac0",
            ),
        ] {
            let parsed = bitlocker(text).unwrap();
            assert_eq!(parsed.expose_secret(), text);
            assert_eq!(hex::encode(*parsed.bitlocker_key().unwrap()), key);
            let spaced = bitlocker(&text.replace('-', " ")).unwrap();
            assert_eq!(spaced.expose_secret(), text, "the canonical form has dashes");
        }
    }

    #[test]
    fn a_bitlocker_password_that_is_wrong_names_the_group_and_the_fault() {
        for (text, error) in [
            (
                "111111-222222-333333-444444-555555-666666-777777-888888",
                group(7, GroupFault::Range),
            ),
            (
                "471207-278498-422125-177177-561902-537405-468006-693452",
                group(8, GroupFault::Checksum),
            ),
            (
                "471207-278498-422125-177177-561902-537405-468006-720896",
                group(8, GroupFault::Range),
            ),
            (
                "+00011-278498-422125-177177-561902-537405-468006-693451",
                group(1, GroupFault::Character),
            ),
            ("471207-278498- 00011-177177-561902-537405-468006-693451", FormatError::Separators),
            (
                "471207-278498-422125-177177-561902-537405-468006-69345",
                group(8, GroupFault::Length),
            ),
            (
                "471207-278498-422125-177177-561902-537405-468006-６93451",
                group(8, GroupFault::Character),
            ),
            ("471207-278498-422125-177177-561902-537405-468006", FormatError::Groups(7)),
            ("471207-278498-422125-177177-561902-537405-468006-693451-", FormatError::Groups(9)),
            ("471207 278498-422125-177177-561902-537405-468006-693451", FormatError::Separators),
            ("", FormatError::Groups(1)),
            ("471207--278498-422125-177177-561902-537405-468006-693451", FormatError::Groups(9)),
            (
                "471207-278498-422125-177177-561902-537405-468006-693451\n",
                group(8, GroupFault::Character),
            ),
        ] {
            assert_eq!(bitlocker(text).unwrap_err(), error, "{text}");
        }
        let largest = LIBBDE.replace("693451", "720885");
        assert!(bitlocker(&largest).is_ok(), "the largest group there is");
    }

    #[test]
    fn every_single_wrong_digit_and_every_swap_of_neighbours_is_caught_in_its_group() {
        let digits: Vec<char> = LIBBDE.chars().collect();
        for at in (0..digits.len()).filter(|at| digits[*at] != '-') {
            for wrong in ('0'..='9').filter(|wrong| *wrong != digits[at]) {
                let mut typed = digits.clone();
                typed[at] = wrong;
                let error = bitlocker(&typed.iter().collect::<String>()).unwrap_err();
                let FormatError::Group { group, .. } = error else { panic!("{error}") };
                assert_eq!(group, at / 7 + 1);
            }
            if at + 1 < digits.len() && digits[at + 1] != '-' && digits[at] != digits[at + 1] {
                let mut typed = digits.clone();
                typed.swap(at, at + 1);
                assert!(bitlocker(&typed.iter().collect::<String>()).is_err());
            }
        }
    }

    #[test]
    fn a_luks2_recovery_key_is_taken_in_lower_case_with_dashes_only() {
        let luks2 = |text: &str| RecoveryKey::parse(Luks2RecoveryKey, text);
        assert_eq!(luks2(MODHEX_KEY).unwrap().expose_secret(), MODHEX_KEY);
        assert!(luks2(MODHEX_KEY).unwrap().bitlocker_key().is_none());
        let upper = MODHEX_KEY.to_uppercase();
        assert_eq!(luks2(&upper).unwrap_err(), group(1, GroupFault::Character));
        assert_eq!(luks2(&MODHEX_KEY.replace('-', " ")).unwrap_err(), FormatError::Groups(1));
        let wrong = MODHEX_KEY.replacen("jkln", "jkla", 1);
        assert_eq!(luks2(&wrong).unwrap_err(), group(2, GroupFault::Character));
        assert_eq!(luks2(&MODHEX_KEY[..70]).unwrap_err(), group(8, GroupFault::Length));
        assert_eq!(luks2(LIBBDE).unwrap_err(), group(1, GroupFault::Character));
    }

    #[test]
    fn what_a_person_types_is_normalised_where_that_is_safe() {
        let bare = LIBBDE.replace('-', "");
        for typed in [
            &format!("  {LIBBDE}\n"),
            &LIBBDE.replace('-', "  "),
            &LIBBDE.replace('-', " - "),
            &LIBBDE.replace('-', "\u{2013}"),
            &bare,
        ] {
            let parsed = RecoveryKey::parse_lenient(BitLockerRecoveryPassword, typed).unwrap();
            assert_eq!(parsed.expose_secret(), LIBBDE, "{typed:?}");
        }
        let upper = MODHEX_KEY.replace('-', "").to_uppercase();
        let parsed = RecoveryKey::parse_lenient(Luks2RecoveryKey, &upper).unwrap();
        assert_eq!(parsed.expose_secret(), MODHEX_KEY);
        for wrong in ["", " ", "471207", "４71207", &bare[1..], &format!("{bare}1")] {
            assert!(
                RecoveryKey::parse_lenient(BitLockerRecoveryPassword, wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn generated_keys_are_well_formed_and_use_the_whole_range() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut all_ones_or_more = 0;
        for kind in [BitLockerRecoveryPassword, Luks2RecoveryKey] {
            for _ in 0..500 {
                let key = RecoveryKey::generate(kind, &mut rng);
                let parsed = RecoveryKey::parse(kind, key.expose_secret()).unwrap();
                assert_eq!(parsed, key);
                if key.expose_secret().starts_with(['6', '7', 'u', 'v']) {
                    all_ones_or_more += 1;
                }
            }
        }
        assert!(all_ones_or_more > 50, "large groups occur: {all_ones_or_more}");
        let smallest = generated_group(BitLockerRecoveryPassword, &[0; 4]);
        let largest = generated_group(BitLockerRecoveryPassword, &[255; 4]);
        assert_eq!((smallest.as_str(), largest.as_str()), ("000000", "720885"));
        assert_eq!(
            generated_group(Luks2RecoveryKey, &[0x01, 0x23, 0xcd, 0xef]).as_str(),
            "cbdertuv"
        );
    }

    #[test]
    fn neither_debug_nor_an_error_shows_any_of_the_key() {
        let key = bitlocker(LIBBDE).unwrap();
        assert_eq!(format!("{key:?}"), "RecoveryKey(BitLockerRecoveryPassword, [redacted])");
        let error = bitlocker(&LIBBDE.replace("693451", "693452")).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("69345"), "{shown}");
        assert_eq!(
            error.to_string(),
            "group 8 of the recovery key is mistyped: a digit is wrong or two are swapped"
        );
    }
}
