use super::*;
use crate::crypto::system_rng;
use crate::crypto::testing::CLUSTER;

fn root() -> RootKey {
    RootKey::from_bytes([0x4b; 32])
}

fn split(shares: u8, threshold: u8) -> Vec<Share> {
    Share::split(&root(), CLUSTER, (shares, threshold), &mut system_rng()).unwrap()
}

fn is_root(key: &RootKey) -> bool {
    key.bytes() == root().bytes()
}

#[test]
fn any_three_of_five_give_the_root_key_in_whatever_order() {
    let shares = split(5, 3);
    for a in 0..5 {
        for b in 0..5 {
            for c in 0..5 {
                let chosen = [&shares[a], &shares[b], &shares[c]];
                let combined = Share::combine(&chosen);
                if a != b && b != c && a != c {
                    assert!(is_root(&combined.unwrap()), "{a} {b} {c}");
                } else {
                    assert!(matches!(combined, Err(CryptoError::SharesDontFit)), "{a} {b} {c}");
                }
            }
        }
    }
    assert!(is_root(&Share::combine(&shares.iter().collect::<Vec<_>>()).unwrap()));
}

#[test]
fn fewer_than_the_threshold_give_nothing_even_if_one_is_there_twice() {
    let shares = split(5, 3);
    for few in [&[] as &[&Share], &[&shares[0]], &[&shares[0], &shares[1], &shares[1]]] {
        assert!(matches!(Share::combine(few), Err(CryptoError::SharesDontFit)));
    }
}

#[test]
fn shares_of_two_splittings_don_t_mix() {
    let (one, other) = (split(5, 3), split(5, 3));
    assert_ne!(one[0].label().set.id(), other[0].label().set.id());
    let mixed = Share::combine(&[&one[0], &one[1], &other[2]]);
    assert!(matches!(mixed, Err(CryptoError::SharesDontFit)));
}

#[test]
fn a_share_is_read_back_as_it_was_printed_and_as_people_type_it() {
    for share in split(5, 3) {
        let text = share.expose_text();
        assert_eq!(text.len(), 18 + 128 + 15);
        let spaced = format!(" {}\n", text.replace('-', " "));
        let prefix_and_capitals = format!("{SHARE_PREFIX}{}", text[18..].to_ascii_uppercase());
        // The prefix has dashes of its own.
        let spaced = spaced.replacen("holdfast share v1:", SHARE_PREFIX, 1);
        for typed in [text.as_str(), &spaced, &prefix_and_capitals] {
            let read = Share::parse(typed.as_bytes()).unwrap();
            assert_eq!(read.label(), share.label());
            assert_eq!(*read.value, *share.value);
        }
    }
}

#[test]
fn each_single_mistyped_digit_is_noticed() {
    let text = split(3, 2)[1].expose_text().to_string();
    for at in SHARE_PREFIX.len()..text.len() {
        let mut typed = text.clone().into_bytes();
        typed[at] = match typed[at] {
            b'-' => continue,
            b'0' => b'1',
            _ => b'0',
        };
        assert_eq!(Share::parse(&typed).unwrap_err(), ShareFault::Checksum, "at {at}");
    }
}

#[test]
fn what_is_no_share_is_said_and_not_repeated() {
    let text = split(3, 2)[0].expose_text().to_string();
    let fault = |text: &str| Share::parse(text.as_bytes()).unwrap_err();
    assert_eq!(fault(""), ShareFault::NotAShare);
    assert_eq!(fault("holdfast-root-key-v1:00"), ShareFault::NotAShare);
    assert_eq!(fault(&text[..text.len() - 2]), ShareFault::Length(126));
    assert_eq!(fault(&format!("{text}00")), ShareFault::Length(130));
    assert_eq!(fault(&text.replacen(":", ":g", 1)), ShareFault::NotHexadecimal);
    assert!(matches!(fault(&text.repeat(5)), ShareFault::Length(_) | ShareFault::NotHexadecimal));
    let secret = &text[text.len() - 60..];
    for typed in [&text[..40], &text.replacen(":", ":g", 1)] {
        assert!(!fault(typed).to_string().contains(secret));
    }
}

#[test]
fn impossible_numbers_are_refused_whatever_the_checksum_says() {
    let set = |shares, threshold| {
        let mut bytes = [0_u8; SHARE_BYTES];
        bytes[24] = 1;
        bytes[25] = shares;
        bytes[26] = threshold;
        let checksum = checksum_of(&bytes[..CONTENT_BYTES]);
        bytes[CONTENT_BYTES..].copy_from_slice(&checksum);
        bytes
    };
    assert!(Share::from_bytes(&set(5, 3)).is_ok());
    for (shares, threshold) in [(0, 0), (5, 1), (5, 6), (200, 3)] {
        let fault = Share::from_bytes(&set(shares, threshold)).unwrap_err();
        assert_eq!(fault, ShareFault::Numbers, "{threshold} of {shares}");
    }
    let mut bytes = set(5, 3);
    for number in [0, 6] {
        bytes[24] = number;
        let checksum = checksum_of(&bytes[..CONTENT_BYTES]);
        bytes[CONTENT_BYTES..].copy_from_slice(&checksum);
        assert_eq!(Share::from_bytes(&bytes).unwrap_err(), ShareFault::Numbers, "share {number}");
    }
}

#[test]
fn a_forged_share_gives_another_root_key_which_the_check_value_shows() {
    let shares = split(5, 3);
    let mut forged = Share::parse(shares[2].expose_text().as_bytes()).unwrap();
    forged.value[0] ^= 1;
    let combined = Share::combine(&[&shares[0], &shares[1], &forged]).unwrap();
    let recorded = root().check_value(CLUSTER).unwrap();
    assert!(matches!(combined.check(CLUSTER, &recorded), Err(CryptoError::WrongRootKey)));
}

#[test]
fn no_share_is_the_root_key_and_each_splitting_is_another_one() {
    let (one, other) = (split(5, 3), split(5, 3));
    for (a, b) in one.iter().zip(&other) {
        assert_ne!(*a.value, *root().bytes());
        assert_ne!(*a.value, *b.value);
    }
}

#[test]
fn debug_of_a_share_shows_its_number_and_nothing_of_its_value() {
    let share = &split(5, 3)[3];
    assert_eq!(format!("{share:?}"), "Share(4 of 5, [redacted])");
}
