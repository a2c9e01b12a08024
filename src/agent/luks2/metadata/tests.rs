//! Headers as cryptsetup 2.6.1 prints them, shortened.

use super::*;

fn slot(offset: u64) -> Value {
    serde_json::json!({
        "type": "luks2", "key_size": 64,
        "area": { "type": "raw", "offset": offset.to_string(), "size": "258048" },
        "kdf": { "type": "pbkdf2", "hash": "sha512", "iterations": 1000, "salt": "AA==" },
    })
}

fn header() -> Value {
    serde_json::json!({
        "keyslots": { "0": slot(32768), "3": slot(290_816) },
        "tokens": { "5": { "type": "systemd-recovery", "keyslots": ["3"] } },
        "segments": { "0": { "type": "crypt", "offset": "16777216", "size": "dynamic",
            "encryption": "aes-xts-plain64", "sector_size": 512 } },
        "digests": { "0": { "type": "pbkdf2", "keyslots": ["0", "3"], "segments": ["0"],
            "salt": "BB==", "digest": "CC==" } },
        "config": { "json_size": "12288", "keyslots_size": "16744448" },
    })
}

fn read(value: &Value) -> Result<Metadata, String> {
    Metadata::parse(value.to_string().as_bytes())
}

#[test]
fn a_header_says_its_slots_cipher_and_room() {
    let metadata = read(&header()).unwrap();
    assert_eq!(metadata.opening_slots().into_iter().collect::<Vec<_>>(), [0, 3]);
    assert_eq!(metadata.free_slots(), (30, Some(31)));
    assert_eq!((metadata.cipher(), metadata.key_bytes()), (Some("aes-xts-plain64"), Some(64)));
    assert_eq!(metadata.conversion(), None);
    assert_eq!(metadata.free_tokens().next(), Some(0));
    assert_eq!(metadata.area(3), Some((290_816, 258_048)));
    assert_eq!(metadata.area(1), None);
}

#[test]
fn a_slot_is_free_only_as_far_as_there_is_room_for_its_area() {
    let mut header = header();
    // Header copies end at 32768; two areas are taken; room for one and a half is left.
    header["config"]["keyslots_size"] = (258_048 * 7 / 2).to_string().into();
    assert_eq!(read(&header).unwrap().free_slots(), (1, Some(31)));
    header["config"]["keyslots_size"] = (258_048 * 2 + 4096).to_string().into();
    assert_eq!(read(&header).unwrap().free_slots(), (0, None));
    // A gap in front counts as well.
    header["keyslots"].as_object_mut().unwrap().remove("0");
    assert_eq!(read(&header).unwrap().free_slots(), (1, Some(31)));
}

#[test]
fn a_slot_that_opens_no_data_is_no_opening_slot() {
    let mut header = header();
    header["digests"]["0"]["keyslots"] = serde_json::json!(["0"]);
    header["digests"]["1"] = serde_json::json!({ "keyslots": ["3"], "segments": [] });
    let metadata = read(&header).unwrap();
    assert_eq!(metadata.opening_slots().into_iter().collect::<Vec<_>>(), [0]);
    assert!(metadata.fingerprint(3, b"area").is_none());
}

#[test]
fn what_is_needed_and_malformed_is_refused_and_what_is_unknown_is_not() {
    for (at, bad) in [
        ("/config/json_size", serde_json::json!("+1")),
        ("/config/json_size", serde_json::json!(12288)),
        ("/keyslots/0/area/offset", serde_json::json!("")),
        ("/keyslots/0/area/offset", serde_json::json!("99999999999999999999")),
        ("/tokens/5/keyslots", serde_json::json!(["three"])),
        ("/keyslots", serde_json::json!({ "32": slot(0) })),
        ("/keyslots", serde_json::json!({ "x": slot(0) })),
        ("/tokens", serde_json::json!({ "32": { "type": "t", "keyslots": [] } })),
        ("/digests", serde_json::json!(null)),
    ] {
        let mut header = header();
        *header.pointer_mut(at).unwrap() = bad.clone();
        assert!(read(&header).is_err(), "{at}: {bad}");
    }
    for garbage in ["", "{", "[]", "null", "\u{0}\u{1}", "{\"keyslots\":{}}"] {
        assert!(Metadata::parse(garbage.as_bytes()).is_err(), "{garbage:?}");
    }
    let mut header = header();
    header["new"] = serde_json::json!({ "things": [1, 2.5, null] });
    header["keyslots"]["0"]["new"] = true.into();
    assert!(read(&header).is_ok());
}

#[test]
fn hostile_metadata_is_refused_or_read_and_nothing_worse() {
    crate::testing::survives(vec![header().to_string().into_bytes()], |bytes| {
        Metadata::parse(bytes).is_ok_and(|metadata| {
            let (free, highest) = metadata.free_slots();
            let described = metadata.progress(u64::MAX).done >= u64::from(free);
            described || metadata.finished().is_some() || highest.is_some() || free == 0
        })
    });
}

#[test]
fn an_encryption_is_finished_by_taking_the_conversion_out_of_its_header() {
    let (whole, mut header) = (header(), header());
    header["config"]["requirements"] = serde_json::json!({ "mandatory": ["online-reencrypt-v2"] });
    header["keyslots"]["1"] = serde_json::json!({ "type": "reencrypt", "key_size": 1, "mode": "encrypt",
        "area": { "type": "datashift", "offset": "548864", "size": "4096" } });
    header["digests"]["0"]["segments"] = serde_json::json!(["0", "1"]);
    header["digests"]["1"] = serde_json::json!({ "keyslots": ["1"], "segments": [] });
    let mut last = header["segments"]["0"].clone();
    last["flags"] = serde_json::json!(["backup-final"]);
    header["segments"]["1"] = last;
    let (json, bytes) = read(&header).unwrap().finished().unwrap();
    assert_eq!(bytes, 16 << 20);
    let finished: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(finished, whole);
    // Not while anything is plain or in the works, and not without a conversion.
    for (at, other) in [
        ("/segments/0/type", serde_json::json!("linear")),
        ("/segments/0/size", serde_json::json!("1048576")),
        ("/segments/1/flags", serde_json::json!([])),
        ("/config/requirements", serde_json::json!({})),
    ] {
        let mut header = header.clone();
        *header.pointer_mut(at).unwrap() = other;
        assert!(read(&header).unwrap().finished().is_none(), "{at}");
    }
    header["segments"]["0"]["flags"] = serde_json::json!(["in-reencryption"]);
    assert!(read(&header).unwrap().finished().is_none());
}

#[test]
fn a_requirement_is_a_conversion_or_unknown() {
    let mut header = header();
    header["config"]["requirements"] = serde_json::json!({ "mandatory": ["online-reencrypt-v2"] });
    assert_eq!(read(&header).unwrap().conversion(), Some(Conversion::Other));
    header["keyslots"]["1"] = serde_json::json!({ "type": "reencrypt", "key_size": 1, "mode": "encrypt",
        "area": { "type": "datashift", "offset": "548864", "size": "4096" } });
    let metadata = read(&header).unwrap();
    assert_eq!(metadata.conversion(), Some(Conversion::Encryption));
    assert_eq!(metadata.unknown_requirement(), None);
    assert!(!metadata.opening_slots().contains(&1));
    header["config"]["requirements"] = serde_json::json!({ "mandatory": ["opal"] });
    let metadata = read(&header).unwrap();
    assert_eq!((metadata.conversion(), metadata.unknown_requirement()), (None, Some("opal")));
}

#[test]
fn progress_counts_what_is_encrypted_now_and_not_what_was_or_will_be() {
    let mut header = header();
    header["segments"] = serde_json::json!({
        "0": { "type": "linear", "offset": "67108864", "size": "16777216" },
        "1": { "type": "crypt", "offset": "33554432", "size": "16777216", "flags": ["in-reencryption"] },
        "2": { "type": "crypt", "offset": "50331648", "size": "dynamic" },
        "3": { "type": "linear", "offset": "0", "size": "50331648", "flags": ["backup-previous"] },
        "4": { "type": "crypt", "offset": "16777216", "size": "dynamic", "flags": ["backup-final"] },
        "5": { "type": "linear", "offset": "67108864", "size": "16777216", "flags": ["backup-moved-segment"] },
    });
    let metadata = read(&header).unwrap();
    let mib = 1024 * 1024;
    assert_eq!(metadata.progress(80 * mib), Progress { done: 32 * mib, total: 64 * mib });
    assert_eq!(metadata.moved_head(), Some(MovedHead { offset: 64 * mib, bytes: 16 * mib }));
}

#[test]
fn a_fingerprint_changes_with_the_slot_and_not_with_its_neighbours() {
    let before = read(&header()).unwrap().fingerprint(3, b"area").unwrap();
    for (at, other) in [
        ("/keyslots/3/kdf/salt", serde_json::json!("DD==")),
        ("/keyslots/3/kdf/iterations", serde_json::json!(1001)),
        ("/keyslots/3/area/offset", serde_json::json!("290817")),
        ("/digests/0/digest", serde_json::json!("EE==")),
    ] {
        let mut header = header();
        *header.pointer_mut(at).unwrap() = other;
        assert_ne!(read(&header).unwrap().fingerprint(3, b"area").unwrap(), before, "{at}");
    }
    assert_ne!(read(&header()).unwrap().fingerprint(3, b"arena").unwrap(), before);
    assert_ne!(read(&header()).unwrap().fingerprint(0, b"area").unwrap(), before);
    let mut header = header();
    header["keyslots"]["3"]["priority"] = 2.into();
    header["keyslots"].as_object_mut().unwrap().remove("0");
    header["digests"]["0"]["keyslots"] = serde_json::json!(["3"]);
    header["tokens"] = serde_json::json!({});
    header["segments"]["0"]["sector_size"] = 4096.into();
    assert_eq!(read(&header).unwrap().fingerprint(3, b"area").unwrap(), before);
}
