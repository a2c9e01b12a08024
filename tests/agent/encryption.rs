//! Encryption in place, of real file systems in files and loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use holdfast::agent::VolumeError;
use holdfast::agent::volume::{
    EncryptionPlan, Obstacle, Progress, Proof, Standing, UnlockSecret, VolumeProvider, VolumeState,
};
use holdfast::domain::{RecoveryKey, VolumeId};
use uuid::Uuid;

use crate::require;
use crate::rig::{
    PASSPHRASE, Rig, cryptsetup, damage, dump, new_key, new_name, ok, opens, own_token, passphrase,
    secret, text, tokens,
};

/// Bytes of the file systems that are encrypted here.
const FILE_SYSTEM: usize = 8 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;

pub(crate) fn new_plan() -> EncryptionPlan {
    EncryptionPlan { volume: VolumeId::new(Uuid::new_v4()), key: new_name(1) }
}

/// Where cryptsetup keeps its locks only root may.
pub(crate) fn rig() -> Option<Rig> {
    if require::root() && require::tool("mkfs.ext4") { Rig::new() } else { None }
}

/// The file system of a plain volume.
pub(crate) fn file_system(path: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes.truncate(FILE_SYSTEM);
    bytes
}

/// Decrypts a volume for good, and looks at what was in it.
pub(crate) fn decrypted(path: &Path, key: &RecoveryKey) -> Vec<u8> {
    let header = path.with_extension("header");
    let args = ["reencrypt", "-q", "--decrypt", "--force-offline-reencrypt", "--key-file", "-"];
    let args = [&args[..], &["--header", text(&header), text(path)]].concat();
    ok(&cryptsetup(&args, key.expose_secret().as_bytes()));
    file_system(path)
}

pub(crate) async fn begin(
    provider: &impl VolumeProvider,
    path: &Path,
) -> (RecoveryKey, EncryptionPlan, Proof) {
    let (key, plan) = (new_key(), new_plan());
    let proof = provider.begin_encryption(path, &plan, &key).await.unwrap();
    (key, plan, proof)
}

#[tokio::test]
async fn a_file_system_is_encrypted_in_place_with_its_recovery_key_proven_before() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    let (key, plan, proof) = begin(&rig.provider, &path).await;
    assert_eq!((proof.volume(), proof.key()), (plan.volume, plan.key));
    assert_eq!(std::fs::read_dir(rig.path("work")).unwrap().count(), 0, "nothing stays behind");
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.id, Some(plan.volume));
    assert_eq!(volume.state, VolumeState::Encrypting(Progress { done: 0, total: 16 * MIB }));
    assert_eq!(volume.protectors[0].own, Some((plan.key, Standing::Present)));

    let seen = Mutex::new(Vec::new());
    let unlock = UnlockSecret::of_recovery_key(&key);
    let progress = |progress| seen.lock().unwrap().push(progress);
    rig.provider.resume_encryption(&path, &unlock, &progress).await.unwrap();
    let last = seen.into_inner().unwrap().pop().unwrap();
    assert_eq!(last.done, last.total);

    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!((volume.state, volume.id), (VolumeState::Locked, Some(plan.volume)));
    assert_eq!((volume.cipher.as_deref(), volume.key_bits), (Some("aes-xts-plain64"), Some(512)));
    assert_eq!(tokens(&path)[0], own_token(plan.key, 0, "added"));
    assert_eq!(tokens(&path).len(), 2);
    let again = rig.provider.prove(&path, &key, plan.key).await.unwrap();
    assert_eq!(again, proof, "the proof from before holds on");
    rig.provider.add_unlock(&path, &unlock, &passphrase()).await.unwrap();
    assert!(opens(&path, None, PASSPHRASE));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), []);
    ok(&cryptsetup(
        &["luksKillSlot", "-q", "--key-file", "-", text(&path), "1"],
        key.expose_secret().as_bytes(),
    ));
    assert!(decrypted(&path, &key) == original);
}

#[tokio::test]
async fn while_a_volume_is_encrypted_its_keys_stay_as_they_are() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let (key, plan, proof) = begin(&rig.provider, &path).await;
    let before = dump(&path);
    let unlock = UnlockSecret::of_recovery_key(&key);
    let added = rig.provider.add_recovery_key(&path, &unlock, &new_key(), new_name(2)).await;
    let unlocks = rig.provider.add_unlock(&path, &unlock, &passphrase()).await;
    let removed = rig.provider.remove_protector(&path, plan.key.id, &proof, &key).await;
    let begun = rig.provider.begin_encryption(&path, &new_plan(), &new_key()).await.map(drop);
    for refused in [added, unlocks, removed, begun] {
        assert!(matches!(refused, Err(VolumeError::WrongState { .. })), "{refused:?}");
    }
    let wrong = rig.provider.resume_encryption(&path, &secret(b"wrong"), &|_| {}).await;
    assert!(matches!(wrong, Err(VolumeError::WrongSecret { .. })), "{wrong:?}");
    assert_eq!(dump(&path), before);
}

#[tokio::test]
async fn what_can_not_be_encrypted_is_refused_with_the_reason_and_not_written_to() {
    let Some(rig) = rig() else { return };
    let small = rig.ext4("small", 39);
    let unclean = rig.ext4("unclean", 48);
    damage(&unclean, 1024 + 58, &[0, 0]);
    let empty = rig.file("empty", 48);
    let read_only = rig.ext4("read-only", 48);
    let mut permissions = read_only.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&read_only, permissions).unwrap();
    for (path, wanted) in [
        (small, Obstacle::NoRoom { has: 8 * MIB, may: 7 * MIB }),
        (unclean, Obstacle::NotClean),
        (empty, Obstacle::FileSystem),
        (read_only, Obstacle::ReadOnly),
    ] {
        let before = std::fs::read(&path).unwrap();
        let refused = rig.provider.begin_encryption(&path, &new_plan(), &new_key()).await;
        let Err(VolumeError::Obstacle { obstacle, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(*obstacle, wanted);
        assert!(std::fs::read(&path).unwrap() == before);
    }
    let luks2 = rig.luks2("luks2");
    let refused = rig.provider.begin_encryption(&luks2, &new_plan(), &new_key()).await;
    assert!(matches!(refused, Err(VolumeError::WrongState { .. })), "{refused:?}");
    let before = std::fs::read(&luks2).unwrap();
    rig.provider.resume_encryption(&luks2, &passphrase(), &|_| {}).await.unwrap();
    assert!(std::fs::read(&luks2).unwrap() == before, "there is nothing to resume");
    let resumed =
        rig.provider.resume_encryption(&rig.ext4("plain", 48), &passphrase(), &|_| {}).await;
    assert!(matches!(resumed, Err(VolumeError::WrongState { .. })), "{resumed:?}");
    assert!(!rig.path("work").exists(), "nothing was begun");
}

#[tokio::test]
async fn an_encryption_of_which_nothing_is_done_is_taken_back_without_a_key() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    let (key, _, _) = begin(&rig.provider, &path).await;
    assert!(file_system(&path) != original);
    rig.provider.abandon_encryption(&path).await.unwrap();
    assert!(file_system(&path) == original);
    let state = rig.provider.inspect(&path).await.unwrap().state;
    assert_eq!(state, VolumeState::Plain { obstacle: None });
    assert_eq!(std::fs::read_dir(rig.path("work")).unwrap().count(), 0, "nothing stays behind");
    assert!(!opens(&path, None, key.expose_secret().as_bytes()));
    // And anew, with the next key.
    let (key, _, _) = begin(&rig.provider, &path).await;
    let unlock = UnlockSecret::of_recovery_key(&key);
    rig.provider.resume_encryption(&path, &unlock, &|_| {}).await.unwrap();
    let refused = rig.provider.abandon_encryption(&path).await;
    assert!(matches!(refused, Err(VolumeError::WrongState { .. })), "{refused:?}");
    assert!(decrypted(&path, &key) == original);
}

/// A loop device on a file, which ends with it.
struct Loop(PathBuf);

impl Loop {
    fn on(file: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        ok(&output);
        Self(String::from_utf8(output.stdout).unwrap().trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(Command::new("losetup").arg("--detach").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_device_is_encrypted_as_a_file_is_and_a_file_under_a_device_is_in_use() {
    let Some(rig) = rig() else { return };
    let file = rig.ext4("volume", 48);
    let original = file_system(&file);
    let device = Loop::on(&file);
    let refused = rig.provider.begin_encryption(&file, &new_plan(), &new_key()).await;
    let Err(VolumeError::Obstacle { obstacle: Obstacle::InUse(_), .. }) = refused else {
        panic!("{refused:?}")
    };
    let found = rig.provider.discover().await.unwrap();
    let volume = found.iter().find(|volume| volume.path == device.0).unwrap();
    assert_eq!(volume.state, VolumeState::Plain { obstacle: None });
    assert_eq!(volume.bytes, 48 * MIB);
    begin(&rig.provider, &device.0).await;
    rig.provider.abandon_encryption(&device.0).await.unwrap();
    let (key, plan, _) = begin(&rig.provider, &device.0).await;
    let unlock = UnlockSecret::of_recovery_key(&key);
    let busy = rig.provider.resume_encryption(&file, &unlock, &|_| {}).await;
    assert!(matches!(busy, Err(VolumeError::Busy { .. })), "{busy:?}");
    rig.provider.resume_encryption(&device.0, &unlock, &|_| {}).await.unwrap();
    rig.provider.prove(&device.0, &key, plan.key).await.unwrap();
    drop(device);
    assert!(decrypted(&file, &key) == original);
}

#[tokio::test]
async fn a_mounted_file_system_is_not_encrypted() {
    let Some(rig) = rig() else { return };
    let file = rig.ext4("volume", 48);
    let device = Loop::on(&file);
    let at = rig.path("mounted");
    std::fs::create_dir(&at).unwrap();
    ok(&Command::new("mount").arg(&device.0).arg(&at).output().unwrap());
    let refused = rig.provider.begin_encryption(&device.0, &new_plan(), &new_key()).await;
    let mounted = rig.provider.inspect(&device.0).await;
    ok(&Command::new("umount").arg(&at).output().unwrap());
    let Err(VolumeError::Obstacle { obstacle: Obstacle::InUse(by), .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(by, format!("mounted on {}", at.display()));
    assert_eq!(mounted.unwrap().mount_points, [at]);
}
