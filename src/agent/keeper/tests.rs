#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod world;

use std::sync::Arc;

use self::world::{Disk, PATH, World};
use super::*;
use crate::agent::testing::{DEVICE, dir, disk, report};
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::fs::sim::{SimFs, Survivors};

type TestKeeper = Keeper<SimFs, World, World, World>;

#[derive(Debug)]
struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        crate::agent::testing::NOW
    }
}

/// The agent as it starts on this machine.
fn start(fs: &SimFs, world: &World) -> TestKeeper {
    let device = Device {
        id: DEVICE,
        host_name: Text::name("host_name", "fd-0007").unwrap(),
        users: Vec::new(),
    };
    let state = dir().parent().unwrap().join("volumes");
    Keeper::new(
        device,
        ProtectorKind::Luks2RecoveryKey,
        world.clone(),
        world.clone(),
        world.clone(),
        Arc::new(Noon),
        Spool::open(fs.clone(), dir(), DEVICE).unwrap(),
        Ledger::open(fs.clone(), &state).unwrap(),
    )
}

async fn round(keeper: &mut TestKeeper) -> VolumeReport {
    let mut reports = keeper.round(&[Path::new(PATH)]).await.unwrap();
    reports.remove(0)
}

/// Encrypted, and by exactly the key that the help desk would disclose.
fn assert_protected(world: &World, report: &VolumeReport) {
    assert!(report.protected, "{}", report.sentence());
    let inner = world.0.lock();
    assert_eq!(inner.disk, Disk::Encrypted);
    let own: Vec<_> = inner.slots.iter().map(|(_, text)| text.clone()).collect();
    assert_eq!(own, [inner.disclosed()]);
    assert!(inner.passphrase, "nobody can open it day to day");
}

#[tokio::test]
async fn a_plain_volume_is_escrowed_then_encrypted_and_opens_by_what_was_escrowed() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    let report = round(&mut keeper).await;
    assert_protected(&world, &report);
    assert_eq!(report.version, 1);
    // Nothing is left to be done, also after a start.
    drop(keeper);
    let report = round(&mut start(&fs, &world)).await;
    assert_protected(&world, &report);
    assert_eq!(world.0.lock().current.get(), 1);
}

#[tokio::test]
async fn an_agent_that_is_killed_before_or_after_any_step_goes_on_at_its_next_start() {
    let mut died = 0;
    for step in 0.. {
        let (fs, world) = (disk(), World::new());
        world.0.lock().dies_at = Some(step);
        let mut keeper = start(&fs, &world);
        if round(&mut keeper).await.protected {
            break;
        }
        died += 1;
        drop(keeper);
        world.0.lock().dies_at = None;
        let fs = fs.crash(Survivors::None);
        let report = round(&mut start(&fs, &world)).await;
        assert_protected(&world, &report);
    }
    // Two for each: the servers, the header, two halves of the encryption, the secret that is let in.
    assert_eq!(died, 10);
}

#[tokio::test]
async fn a_rotation_that_is_cut_off_anywhere_ends_with_one_key_that_is_newer() {
    let mut died = 0;
    for step in 0.. {
        let (fs, world) = (disk(), World::new());
        let mut keeper = start(&fs, &world);
        round(&mut keeper).await;
        let old = world.0.lock().disclosed();
        order_rotation(&world, &mut keeper).await;
        let steps = world.0.lock().steps();
        world.0.lock().dies_at = Some(steps + step);
        let done = round(&mut keeper).await.protected;
        drop(keeper);
        world.0.lock().dies_at = None;
        let report = round(&mut start(&fs.crash(Survivors::None), &world)).await;
        assert_protected(&world, &report);
        assert!(report.version >= 2 && !world.0.lock().opens(&old));
        if done {
            break;
        }
        died += 1;
    }
    // Two for each: the servers, the key that is added, proven, and the one that goes.
    assert_eq!(died, 8);
}

/// An order to rotate comes with the answer to a report.
async fn order_rotation(world: &World, keeper: &mut TestKeeper) {
    world.0.lock().rotation_due = true;
    keeper.spool.put_report(report("fd-0007"), Noon.now()).unwrap();
    keeper.deliver().await.unwrap();
    world.0.lock().rotation_due = false;
}

#[tokio::test]
async fn without_servers_a_plain_volume_stays_as_it_is_and_nothing_fails() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    world.0.lock().servers_up = false;
    for _ in 0..3 {
        let report = round(&mut keeper).await;
        assert!(!report.protected && report.sentence().contains("nobody is there"), "{report:?}");
        assert_eq!(world.0.lock().disk, Disk::Plain);
    }
    world.0.lock().servers_up = true;
    assert_protected(&world, &round(&mut keeper).await);
}

#[tokio::test]
async fn servers_that_go_after_the_key_was_sealed_hold_the_gate_shut() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    // Sealing works, and then nobody answers.
    world.0.lock().dies_at = Some(0);
    let report = round(&mut keeper).await;
    assert!(matches!(report.waiting, Waiting::Escrow(Some(_))), "{report:?}");
    assert_eq!((world.0.lock().disk, keeper.spool().waiting().count()), (Disk::Plain, 1));
    world.0.lock().dies_at = None;
    let report = round(&mut keeper).await;
    assert_protected(&world, &report);
    assert_eq!(report.version, 1, "the key in hand was still good");
}

#[tokio::test]
async fn a_receipt_that_does_not_verify_opens_no_gate() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    world.0.lock().forged = true;
    let report = round(&mut keeper).await;
    assert!(report.sentence().contains("another key id"), "{}", report.sentence());
    assert_eq!(world.0.lock().disk, Disk::Plain);
}

#[tokio::test]
async fn a_version_that_somebody_else_has_taken_is_followed_by_a_new_key() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    world.0.lock().current = KeyVersion::new(6);
    let report = round(&mut keeper).await;
    assert_protected(&world, &report);
    assert_eq!(report.version, 7);
}

#[tokio::test]
async fn an_agent_that_has_lost_all_it_knew_makes_a_new_key() {
    let world = World::new();
    round(&mut start(&disk(), &world)).await;
    let old = world.0.lock().disclosed();
    let report = round(&mut start(&disk(), &world)).await;
    assert_protected(&world, &report);
    assert_eq!((report.version, world.0.lock().opens(&old)), (2, false));
}

#[tokio::test]
async fn a_key_slot_that_was_changed_is_replaced_by_a_new_key() {
    let (fs, world) = (disk(), World::new());
    round(&mut start(&fs, &world)).await;
    world.0.lock().slots[0].1 = "something else".to_owned();
    let report = round(&mut start(&fs, &world)).await;
    assert_protected(&world, &report);
    assert_eq!(report.version, 2);
}

#[tokio::test]
async fn nothing_begins_before_it_is_settled_who_opens_the_volume_day_to_day() {
    let (fs, world) = (disk(), World::new());
    let mut keeper = start(&fs, &world);
    world.0.lock().secret_known = false;
    let report = round(&mut keeper).await;
    assert!(report.sentence().contains("holdfast-agent protect"), "{}", report.sentence());
    assert_eq!(world.0.lock().disk, Disk::Plain);
    world.0.lock().secret_known = true;
    assert_protected(&world, &round(&mut keeper).await);
}
