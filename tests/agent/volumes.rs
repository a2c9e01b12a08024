//! What the agent makes of volumes that are there, damaged, foreign, or gone.

use holdfast::agent::VolumeError;
use holdfast::agent::luks2::{Luks2, Luks2Options};
use holdfast::agent::volume::{
    Obstacle, ProtectorType, Unsupported, Volume, VolumeProvider as _, VolumeState,
};
use serde_json::json;

use crate::rig::{
    self, CRYPTSETUP, PASSPHRASE, Rig, cryptsetup, damage, import_token, new_key, new_name, ok,
    opens, options, passphrase, text,
};

#[tokio::test]
async fn configured_files_are_discovered_and_one_that_is_gone_hides_no_other() {
    let Some(rig) = Rig::new() else { return };
    let (luks2, plain) = (rig.luks2("luks2"), rig.ext4("plain", 48));
    let files = vec![rig.path("gone"), luks2.clone(), plain.clone(), rig.dir.path().to_owned()];
    let provider = Luks2::new(Luks2Options {
        files: files.clone(),
        ..options(rig.dir.path(), CRYPTSETUP.into())
    });
    let found = provider.discover().await.unwrap();
    let state = |path| {
        let mut volumes = found.iter().filter(|volume: &&Volume| &volume.path == path);
        volumes.next().unwrap().state.clone()
    };
    assert!(matches!(state(&files[0]), VolumeState::Unknown(_)));
    assert_eq!(state(&luks2), VolumeState::Locked);
    assert_eq!(state(&plain), VolumeState::Plain { obstacle: None });
    assert!(matches!(state(&files[3]), VolumeState::Unknown(_)));
}

#[tokio::test]
async fn a_volume_is_described_by_its_cipher_and_by_who_can_unlock_it() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    for (slot, kind) in
        (1..).zip(["systemd-tpm2", "systemd-fido2", "clevis", "systemd-recovery", "x"])
    {
        rig::add_key(&path, slot, b"key", 1000, "sha256");
        import_token(&path, &json!({ "type": kind, "keyslots": [slot.to_string()] }));
    }
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.cipher.as_deref(), Some("aes-xts-plain64"));
    assert_eq!(volume.key_bits, Some(512));
    let kinds: Vec<_> = volume.protectors.into_iter().map(|protector| protector.kind).collect();
    let other = ProtectorType::Other("x".to_owned());
    assert_eq!(
        kinds,
        [
            ProtectorType::Passphrase,
            ProtectorType::Tpm,
            ProtectorType::Fido2,
            ProtectorType::Network,
            ProtectorType::RecoveryKey,
            other
        ]
    );
}

#[tokio::test]
async fn luks1_is_named_unsupported_and_not_touched() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.file("volume", 17);
    let cheap = ["--pbkdf-force-iterations", "1000", "--key-file", "-", text(&path)];
    ok(&cryptsetup(&[&["luksFormat", "-q", "--type", "luks1"][..], &cheap].concat(), PASSPHRASE));
    let before = std::fs::read(&path).unwrap();
    let state = rig.provider.inspect(&path).await.unwrap().state;
    assert_eq!(state, VolumeState::Unsupported(Unsupported::Luks1));
    let added = rig.provider.add_recovery_key(&path, &passphrase(), &new_key(), new_name(1)).await;
    assert!(matches!(added, Err(VolumeError::Unsupported { .. })), "{added:?}");
    assert!(std::fs::read(&path).unwrap() == before);
}

#[tokio::test]
async fn one_damaged_copy_of_a_header_is_repaired_and_two_are_reported() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let noise = [0xa5; 4096];
    damage(&path, 0, &noise);
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.state, VolumeState::Locked);
    let (key, proof) = rig.protect(&path).await;
    damage(&path, 0x4000 + 5000, &noise);
    rig.provider.prove(&path, &key, proof.key()).await.unwrap();
    damage(&path, 5000, &noise);
    damage(&path, 0x4000 + 5000, &noise);
    assert_eq!(rig.provider.inspect(&path).await.unwrap().state, VolumeState::Damaged);
    let error = rig.provider.prove(&path, &key, proof.key()).await.unwrap_err();
    assert!(matches!(error, VolumeError::Damaged { .. }), "{error:?}");
}

#[tokio::test]
async fn a_volume_that_vanishes_or_is_cut_is_a_clear_error() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (key, proof) = rig.protect(&path).await;
    std::fs::File::options().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    let cut = rig.provider.fingerprint(&path, proof.key().id).await.unwrap_err();
    assert!(cut.to_string().contains("too small"), "{cut:?}");
    std::fs::remove_file(&path).unwrap();
    for error in [
        rig.provider.inspect(&path).await.unwrap_err(),
        rig.provider.prove(&path, &key, proof.key()).await.unwrap_err(),
        rig.provider.settle(&path).await.unwrap_err(),
    ] {
        assert!(matches!(error, VolumeError::Unreachable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_label_alone_claims_no_slot() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let args =
        ["config", "-q", "--subsystem", "hf:1854c11f6b4448b091db121a2ffffffe:1", text(&path)];
    ok(&cryptsetup(&args, b""));
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert!(volume.protectors.iter().all(|protector| protector.own.is_none()));
    let relative = rig.provider.inspect(std::path::Path::new("volume")).await.unwrap_err();
    assert!(
        matches!(relative, VolumeError::Io { .. }),
        "a path that depends on where we are: {relative:?}"
    );
    assert!(opens(&path, Some(0), PASSPHRASE));
}

#[tokio::test]
async fn a_file_system_that_leaves_no_room_says_how_much_too_large_it_is() {
    let Some(rig) = Rig::new() else { return };
    let mib = 1024 * 1024;
    for (size, obstacle) in [
        (48, None),
        (40, None),
        (39, Some(Obstacle::NoRoom { has: 8 * mib, may: 7 * mib })),
        (20, Some(Obstacle::NoRoom { has: 8 * mib, may: 0 })),
    ] {
        let path = rig.ext4(&format!("volume{size}"), size);
        let state = rig.provider.inspect(&path).await.unwrap().state;
        assert_eq!(state, VolumeState::Plain { obstacle }, "{size} MiB");
    }
    let nothing = rig.file("nothing", 48);
    let state = rig.provider.inspect(&nothing).await.unwrap().state;
    assert_eq!(state, VolumeState::Plain { obstacle: Some(Obstacle::FileSystem) });
}
