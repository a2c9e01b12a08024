#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use holdfast_proto::v1;

use super::*;
use crate::agent::testing::{
    CLUSTER, DEVICE, NOW, dir, disk, open, receipt, report, request, sealed, sealed_part, volume,
};
use crate::domain::ClusterId;
use crate::fs::sim::{SimFs, Survivors};

fn with_package(of: u8, bytes: usize) -> SealedEscrow {
    let package = Some(sealed_part(9, bytes));
    let request = v1::EscrowRecoveryKeyRequest { sealed_key_package: package, ..request(of, 1) };
    SealedEscrow::from_message(CLUSTER, request).unwrap()
}

/// What the disk may look like after a power cut at each operation of `work`, which is done on a copy of `fs`.
fn at_every_power_cut(
    fs: &SimFs,
    work: impl Fn(&SimFs) -> bool,
    mut check: impl FnMut(Spool<SimFs>, bool),
) {
    let undisturbed = fs.restart();
    let before = undisturbed.operations();
    assert!(work(&undisturbed), "it can't be done at all");
    for step in 0..=undisturbed.operations() - before {
        let disk = fs.restart();
        disk.power_cut_at(disk.operations() + step);
        let done = work(&disk);
        let survivors = [Survivors::None, Survivors::All];
        for survivors in survivors.into_iter().chain((0..20).map(Survivors::Random)) {
            check(open(&disk.crash(survivors)), done);
        }
    }
}

#[test]
fn an_escrow_is_there_byte_for_byte_after_a_restart() {
    let fs = disk();
    let escrow = sealed(1, 1);
    let number = open(&fs).put_escrow(&escrow, NOW).unwrap();
    let spool = open(&fs.crash(Survivors::None));
    let entries: Vec<_> = spool.waiting().cloned().collect();
    assert_eq!(entries, [SpooledEscrow { number, made_at: NOW, sealed: escrow }]);
    assert_eq!(spool.damaged(), []);
}

#[test]
fn a_power_cut_takes_no_escrow_that_was_put_and_leaves_none_in_halves() {
    let fs = disk();
    open(&fs).put_escrow(&sealed(1, 1), NOW).unwrap();
    let second = sealed(1, 2);
    let put = |fs: &SimFs| {
        let spool = Spool::open(fs.clone(), dir(), DEVICE);
        spool.is_ok_and(|mut spool| spool.put_escrow(&second, NOW).is_ok())
    };
    at_every_power_cut(&fs, put, |spool, done| {
        let found: Vec<_> = spool.waiting().map(|entry| entry.sealed.version().get()).collect();
        assert!(found == [1, 2] || (found == [1] && !done), "{found:?}");
        assert_eq!(spool.damaged(), []);
    });
}

#[test]
fn a_power_cut_takes_the_entry_or_the_receipt_but_never_both() {
    let fs = disk();
    let escrow = sealed(1, 1);
    let number = open(&fs).put_escrow(&escrow, NOW).unwrap();
    let deliver = |fs: &SimFs| {
        let spool = Spool::open(fs.clone(), dir(), DEVICE);
        spool.is_ok_and(|mut spool| spool.delivered(number, &receipt(&escrow)).is_ok())
    };
    at_every_power_cut(&fs, deliver, |spool, done| {
        let kept = spool.receipt(volume(1), KeyVersion::new(1)).unwrap();
        let waits = spool.waiting().count() == 1;
        assert!(kept.is_some() || (waits && !done));
        if let Some(kept) = kept {
            assert_eq!(kept, receipt(&escrow).to_file().unwrap().into_bytes());
        }
    });
}

#[test]
fn a_power_cut_while_an_entry_is_set_aside_loses_nothing() {
    let fs = disk();
    let escrow = sealed(1, 1);
    let number = open(&fs).put_escrow(&escrow, NOW).unwrap();
    let set_aside = |fs: &SimFs| {
        let spool = Spool::open(fs.clone(), dir(), DEVICE);
        spool.is_ok_and(|mut spool| spool.set_aside(number).is_ok())
    };
    at_every_power_cut(&fs, set_aside, |spool, done| {
        let (waiting, refused) = (spool.waiting().count(), spool.refused().count());
        assert_eq!(waiting + refused, 1);
        assert!(!done || refused == 1);
    });
}

#[test]
fn of_each_volume_only_the_oldest_is_offered() {
    let fs = disk();
    let mut spool = open(&fs);
    let first = sealed(1, 1);
    let one = spool.put_escrow(&first, NOW).unwrap();
    let two = spool.put_escrow(&sealed(1, 2), NOW).unwrap();
    let three = spool.put_escrow(&sealed(2, 1), NOW).unwrap();
    let offered = |spool: &Spool<SimFs>| -> Vec<u64> {
        spool.next_escrows().map(|entry| entry.number).collect()
    };
    assert_eq!(offered(&spool), [one, three]);
    spool.delivered(one, &receipt(&first)).unwrap();
    assert_eq!(offered(&spool), [two, three]);
    assert_eq!(spool.receipts_of(volume(1)).unwrap(), [KeyVersion::new(1)]);
}

#[test]
fn a_version_that_is_not_the_next_is_refused() {
    let mut spool = open(&disk());
    spool.put_escrow(&sealed(1, 2), NOW).unwrap();
    for version in [1, 2] {
        let refused = spool.put_escrow(&sealed(1, version), NOW).unwrap_err();
        assert!(matches!(refused, SpoolError::NotTheNext { .. }), "{refused}");
    }
    let other = SealedEscrow::from_message(ClusterId::from_bytes([7; 16]), request(1, 3)).unwrap();
    let refused = spool.put_escrow(&other, NOW).unwrap_err();
    assert!(matches!(refused, SpoolError::ForeignCluster(_)), "{refused}");
    assert_eq!(spool.waiting().count(), 1);
}

#[test]
fn a_full_spool_takes_no_more_keys_and_drops_none() {
    let mut spool = open(&disk());
    for number in 0..ESCROWS {
        let version = u8::try_from(number % 64 + 1).unwrap();
        spool.put_escrow(&sealed(u8::try_from(number / 64).unwrap() + 1, version), NOW).unwrap();
    }
    let refused = spool.put_escrow(&sealed(200, 1), NOW).unwrap_err();
    assert!(refused.to_string().contains("256 sealed keys wait"), "{refused}");
    assert_eq!(spool.waiting().count(), ESCROWS);
}

#[test]
fn a_spool_takes_four_mebibytes_of_sealed_keys_and_no_more() {
    let mut spool = open(&disk());
    let mut taken: u8 = 0;
    let refused = loop {
        match spool.put_escrow(&with_package(taken + 1, 64 * 1024), NOW) {
            Ok(_) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SpoolError::Full { .. }), "{refused}");
    // 64 packages of 64 KiB are 4 MiB; with what stands around them the last one is too many.
    assert_eq!(taken, 63);
    spool.put_escrow(&sealed(200, 1), NOW).unwrap();
}

#[test]
fn what_is_of_another_device_is_refused_and_never_sent() {
    let fs = disk();
    open(&fs).put_escrow(&sealed(1, 1), NOW).unwrap();
    let other = DeviceId::from_bytes([0xee; 16]);
    let mut cloned = Spool::open(fs.restart(), dir(), other).unwrap();
    assert_eq!(cloned.waiting().count(), 0);
    let named: Vec<_> = cloned.damaged().iter().map(|file| file.damage.clone()).collect();
    assert_eq!(named, [Damage::ForeignDevice(DEVICE)]);
    let refused = cloned.put_escrow(&sealed(1, 1), NOW).unwrap_err();
    assert!(matches!(refused, SpoolError::ForeignDevice(DEVICE)), "{refused}");
    let refused = cloned.put_report(report("fd-0007"), NOW).unwrap_err();
    assert!(matches!(refused, SpoolError::ForeignDevice(DEVICE)), "{refused}");
}

#[test]
fn an_entry_with_any_bit_changed_is_named_and_never_sent() {
    let fs = disk();
    let number = open(&fs).put_escrow(&sealed(1, 1), NOW).unwrap();
    let path = dir().join(format!("escrows/{number:016x}.sealed"));
    for offset in 0..fs.file_len(&path).unwrap() {
        let rotten = fs.restart();
        rotten.flip_bit(&path, offset, u8::try_from(offset % 8).unwrap()).unwrap();
        let mut spool = open(&rotten);
        assert_eq!(spool.waiting().count(), 0, "byte {offset}");
        assert_eq!(spool.damaged().len(), 1, "byte {offset}");
        // Nor is it ever written over.
        assert!(spool.put_escrow(&sealed(1, 1), NOW).unwrap() > number);
        assert!(rotten.exists(&path).unwrap());
    }
}

#[test]
fn a_file_of_a_later_version_or_of_something_else_is_named() {
    let fs = disk();
    drop(open(&fs));
    let put = |name: &str, bytes: &[u8]| {
        write_atomically(&fs, &dir().join("escrows").join(name), bytes).unwrap();
    };
    let mut later = SpooledEscrow::encode(&sealed(1, 1), NOW);
    later[4] = 2;
    put("0000000000000001.sealed", &later);
    put("0000000000000002.sealed", b"short");
    put("0000000000000003.sealed", b"something else altogether");
    put("notes.txt", b"");
    let reported = SpooledReport { number: 1, made_at: NOW, request: report("h") };
    put("0000000000000004.sealed", &reported.encode());
    let spool = open(&fs);
    let damage: Vec<_> = spool.damaged().iter().map(|file| file.damage.to_string()).collect();
    assert!(damage[0].contains("format 2"), "{damage:?}");
    assert!(damage[1].contains("no entry of a spool"), "{damage:?}");
    assert!(damage[2].contains("no entry of a spool"), "{damage:?}");
    assert!(damage[3].contains("kind 2"), "{damage:?}");
    assert!(damage[4].contains("no entry of a spool"), "{damage:?}");
    assert_eq!(spool.waiting().count(), 0);
}

#[test]
fn of_reports_only_the_newest_waits() {
    let fs = disk();
    let mut spool = open(&fs);
    let first = spool.put_report(report("old"), NOW).unwrap();
    let second = spool.put_report(report("new"), NOW).unwrap();
    // The answer to the first comes late.
    spool.report_delivered(first);
    drop(spool);
    let fs = fs.crash(Survivors::None);
    let mut spool = open(&fs);
    assert_eq!(spool.report().unwrap().request.host_name, "new");
    spool.report_delivered(second);
    drop(spool);
    assert_eq!(open(&fs.crash(Survivors::None)).report(), None);
}

#[test]
fn a_full_disk_is_refused_and_forgiven() {
    let fs = disk();
    let mut spool = open(&fs);
    spool.put_report(report("before"), NOW).unwrap();
    fs.set_capacity(Some(fs.used_bytes() + 10));
    for _ in 0..3 {
        let refused = spool.put_escrow(&sealed(1, 1), NOW).unwrap_err();
        assert!(matches!(&refused, SpoolError::Io(e) if e.kind() == io::ErrorKind::StorageFull));
        assert!(spool.put_report(report("after"), NOW).is_err());
    }
    assert_eq!(spool.report().unwrap().request.host_name, "before");
    fs.set_capacity(None);
    spool.put_escrow(&sealed(1, 1), NOW).unwrap();
    assert_eq!(spool.broken(), None);
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_the_spool_is_opened_again() {
    for sync in 1..=2 {
        let fs = disk();
        let mut spool = open(&fs);
        fs.fail_sync(sync);
        assert!(spool.put_escrow(&sealed(1, 1), NOW).is_err());
        assert!(spool.broken().is_some());
        let refused = spool.put_escrow(&sealed(1, 1), NOW).unwrap_err();
        assert!(matches!(refused, SpoolError::Broken(_)), "{refused}");
        drop(spool);
        open(&fs.restart()).put_escrow(&sealed(1, 2), NOW).unwrap();
    }
}

#[test]
fn a_receipt_for_another_key_lets_no_entry_go() {
    let mut spool = open(&disk());
    let escrow = sealed(1, 1);
    let number = spool.put_escrow(&escrow, NOW).unwrap();
    let other_bytes = SealedEscrow::from_message(
        CLUSTER,
        v1::EscrowRecoveryKeyRequest {
            sealed_key: Some(sealed_part(77, 87)),
            ..escrow.message().clone()
        },
    );
    for other in [sealed(1, 2), sealed(2, 1), other_bytes.unwrap()] {
        let refused = spool.delivered(number, &receipt(&other)).unwrap_err();
        assert!(matches!(refused, SpoolError::ForeignReceipt(_)), "{refused}");
    }
    let refused = spool.delivered(number + 1, &receipt(&escrow)).unwrap_err();
    assert!(matches!(refused, SpoolError::NoSuchEntry(_)), "{refused}");
    assert_eq!(spool.waiting().count(), 1);
}

#[test]
fn what_was_refused_goes_when_a_later_key_of_the_volume_has_a_receipt() {
    let fs = disk();
    let mut spool = open(&fs);
    let stale = spool.put_escrow(&sealed(1, 1), NOW).unwrap();
    let other = spool.put_escrow(&sealed(2, 1), NOW).unwrap();
    spool.set_aside(stale).unwrap();
    spool.set_aside(other).unwrap();
    let next = sealed(1, 2);
    let number = spool.put_escrow(&next, NOW).unwrap();
    spool.delivered(number, &receipt(&next)).unwrap();
    drop(spool);
    let spool = open(&fs.crash(Survivors::None));
    let left: Vec<_> = spool.refused().map(|entry| entry.number).collect();
    assert_eq!(left, [other]);
    assert_eq!(spool.waiting().count(), 0);
}

#[test]
fn two_agents_cannot_have_one_spool() {
    let fs = disk();
    let first = open(&fs);
    let second = Spool::open(fs.clone(), dir(), DEVICE).unwrap_err();
    assert!(matches!(second, SpoolError::InUse { .. }), "{second}");
    drop(first);
    drop(open(&fs));
}
