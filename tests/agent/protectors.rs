//! Recovery keys in real LUKS2 volumes: added, proven, rotated, and never lost.

use std::process::Command;

use holdfast::agent::VolumeError;
use holdfast::agent::volume::{
    ProtectorType, Standing, UnlockSecret, VolumeProvider as _, VolumeState,
};
use serde_json::json;

use crate::require;
use crate::rig::{
    PASSPHRASE, Rig, add_key, cryptsetup, damage, dump, import_token, mark, new_key, new_name, ok,
    opens, own_token, passphrase, secret, slots, text, tokens,
};

#[tokio::test]
async fn a_recovery_key_goes_into_a_free_slot_with_both_tokens_and_is_proven() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (key, proof) = rig.protect(&path).await;
    assert_eq!(slots(&path), ["0", "31"]);
    let name = proof.key();
    let systemds = json!({ "type": "systemd-recovery", "keyslots": ["31"] });
    assert_eq!(tokens(&path), [own_token(name, 31, "added"), systemds]);
    assert_eq!(dump(&path)["keyslots"]["31"]["kdf"]["iterations"], mark(name));
    let key = key.expose_secret();
    assert!(opens(&path, Some(31), key.as_bytes()));
    assert!(!opens(&path, None, key.replace('-', "").as_bytes()), "the dashes belong to it");
    assert!(!opens(&path, None, key.to_uppercase().as_bytes()), "and so does its case");
    assert!(opens(&path, Some(0), PASSPHRASE), "the user's own is still there");
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.id, Some(proof.volume()));
    assert_eq!(volume.state, VolumeState::Locked);
    assert_eq!((volume.slots.used, volume.slots.free), (2, 30));
    assert_eq!(volume.protectors[0].kind, ProtectorType::Passphrase);
    assert_eq!(volume.protectors[1].own, Some((name, Standing::Present)));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [], "there is nothing to settle");
}

#[tokio::test]
async fn only_the_key_itself_proves_its_slot() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (_, proof) = rig.protect(&path).await;
    let other = new_key();
    let error = rig.provider.prove(&path, &other, proof.key()).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotProven { .. }), "{error:?}");
    let (second, _) = rig.protect(&path).await;
    let error = rig.provider.prove(&path, &second, proof.key()).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotProven { .. }), "another slot's key: {error:?}");
    let error = rig.provider.prove(&path, &second, new_name(1)).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotOurs { .. }), "{error:?}");
}

#[tokio::test]
async fn a_token_that_opens_the_volume_by_itself_proves_no_key() {
    let Some(rig) = Rig::new() else { return };
    if !require::tool("keyctl") {
        return;
    }
    let path = rig.luks2("volume");
    let (_, proof) = rig.protect(&path).await;
    let description = format!("holdfast-test-{}", proof.volume());
    ok(&cryptsetup(&["token", "add", "--key-description", &description, text(&path)], b""));
    let keyctl = Command::new("keyctl")
        .args(["add", "user", &description, std::str::from_utf8(PASSPHRASE).unwrap(), "@u"])
        .output()
        .unwrap();
    ok(&keyctl);
    assert!(opens(&path, Some(0), b"anything at all"), "what cryptsetup does of its own accord");
    let error = rig.provider.prove(&path, &new_key(), proof.key()).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotProven { .. }), "{error:?}");
    let number = String::from_utf8(keyctl.stdout).unwrap();
    ok(&Command::new("keyctl").args(["unlink", number.trim(), "@u"]).output().unwrap());
}

#[tokio::test]
async fn rotation_leaves_the_new_key_and_the_users_and_nothing_of_the_old_one() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (old_key, old) = rig.protect(&path).await;
    let (new_key, new) = (new_key(), new_name(2));
    let unlock = UnlockSecret::of_recovery_key(&old_key);
    rig.provider.add_recovery_key(&path, &unlock, &new_key, new).await.unwrap();
    let proof = rig.provider.prove(&path, &new_key, new).await.unwrap();
    rig.provider.remove_protector(&path, old.key().id, &proof, &new_key).await.unwrap();
    assert_eq!(slots(&path), ["0", "30"]);
    assert_eq!(tokens(&path).len(), 2);
    assert!(!opens(&path, None, old_key.expose_secret().as_bytes()));
    assert!(opens(&path, Some(30), new_key.expose_secret().as_bytes()));
    assert!(opens(&path, Some(0), PASSPHRASE));
    assert_eq!(rig.provider.fingerprint(&path, new.id).await.unwrap(), proof.fingerprint());
    let again = rig.provider.remove_protector(&path, old.key().id, &proof, &new_key).await;
    assert!(matches!(again, Err(VolumeError::NotOurs { .. })), "{again:?}");
}

#[tokio::test]
async fn no_key_is_removed_without_a_fresh_proof_of_another_one() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (old_key, old) = rig.protect(&path).await;
    let (new_key, new) = rig.protect(&path).await;
    let (other_key, other) = rig.protect(&rig.luks2("other")).await;
    let before = dump(&path);
    let remove = |id, proof, key| rig.provider.remove_protector(&path, id, proof, key);
    for (what, refused) in [
        ("itself", remove(old.key().id, &old, &old_key).await),
        ("another volume's proof", remove(old.key().id, &other, &other_key).await),
        ("another key than the one that is proven", remove(old.key().id, &new, &old_key).await),
    ] {
        assert!(matches!(refused, Err(VolumeError::Kept { .. })), "{what}: {refused:?}");
    }
    assert_eq!(dump(&path), before);
    // Somebody fills the slot of the key that was proven anew, with the same key.
    let iterations = mark(new.key()).to_string();
    let convert = ["luksConvertKey", "-q", "--key-slot", "30", "--key-file", "-", "--pbkdf"];
    let derive = ["pbkdf2", "--hash", "sha512", "--pbkdf-force-iterations", &iterations];
    let key = new_key.expose_secret().as_bytes();
    ok(&cryptsetup(&[&convert[..], &derive, &[text(&path)]].concat(), key));
    let refused = rig.provider.remove_protector(&path, old.key().id, &new, &new_key).await;
    assert!(matches!(refused, Err(VolumeError::Kept { .. })), "{refused:?}");
    let new = rig.provider.prove(&path, &new_key, new.key()).await.unwrap();
    // And damages it.
    let now = dump(&path);
    let area = now["keyslots"]["30"]["area"]["offset"].as_str().unwrap().parse().unwrap();
    damage(&path, area, b"a bad sector");
    let refused = rig.provider.remove_protector(&path, old.key().id, &new, &new_key).await;
    assert!(matches!(refused, Err(VolumeError::Kept { .. })), "{refused:?}");
    let error = rig.provider.prove(&path, &new_key, new.key()).await.unwrap_err();
    assert!(matches!(error, VolumeError::NotProven { .. }), "{error:?}");
    assert!(opens(&path, None, old_key.expose_secret().as_bytes()));
}

#[tokio::test]
async fn a_slot_that_only_a_token_claims_is_not_ours_and_stays() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (key, proof) = rig.protect(&path).await;
    let claimed = new_name(7);
    import_token(&path, &own_token(claimed, 0, "added"));
    let volume = rig.provider.inspect(&path).await.unwrap();
    let changed = volume.protectors.iter().find(|p| p.own.is_some_and(|own| own.0 == claimed));
    assert_eq!(changed.unwrap().own, Some((claimed, Standing::Changed)));
    rig.provider.remove_protector(&path, claimed.id, &proof, &key).await.unwrap();
    assert!(opens(&path, Some(0), PASSPHRASE));
    assert_eq!(tokens(&path).len(), 2, "the token is gone");
}

#[tokio::test]
async fn a_slot_that_somebody_else_has_removed_or_replaced_is_noticed() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (_, gone) = rig.protect(&path).await;
    let (_, changed) = rig.protect(&path).await;
    for slot in ["31", "30"] {
        ok(&cryptsetup(&["luksKillSlot", "-q", "--key-file", "-", text(&path), slot], PASSPHRASE));
    }
    add_key(&path, 30, b"somebody else's", 1000, "sha256");
    let volume = rig.provider.inspect(&path).await.unwrap();
    let standing = |id| {
        let own = volume.protectors.iter().find_map(|p| p.own.filter(|own| own.0.id == id));
        own.unwrap().1
    };
    assert_eq!(standing(gone.key().id), Standing::Gone);
    assert_eq!(standing(changed.key().id), Standing::Gone, "its token went with the slot");
    for proof in [gone, changed] {
        let error = rig.provider.fingerprint(&path, proof.key().id).await.unwrap_err();
        assert!(matches!(error, VolumeError::NotProven { .. }), "{error:?}");
    }
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [], "a new key is wanted, no repair");
}

#[tokio::test]
async fn a_fingerprint_outlives_everything_that_happens_to_other_slots() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (_, proof) = rig.protect(&path).await;
    add_key(&path, 5, b"another user's", 1000, "sha256");
    ok(&cryptsetup(&["luksKillSlot", "-q", "--key-file", "-", text(&path), "5"], PASSPHRASE));
    ok(&cryptsetup(&["config", "-q", "--label", "home", text(&path)], b""));
    ok(&cryptsetup(
        &["config", "-q", "--key-slot", "31", "--priority", "prefer", text(&path)],
        b"",
    ));
    import_token(&path, &json!({ "type": "somebody's", "keyslots": ["0"] }));
    let backup = rig.path("backup");
    let args = ["--header-backup-file", text(&backup), text(&path)];
    ok(&cryptsetup(&[&["luksHeaderBackup"][..], &args].concat(), b""));
    ok(&cryptsetup(&[&["luksHeaderRestore", "-q"][..], &args].concat(), b""));
    let now = rig.provider.fingerprint(&path, proof.key().id).await.unwrap();
    assert_eq!(now, proof.fingerprint());
}

#[tokio::test]
async fn a_wrong_passphrase_is_said_to_be_wrong_and_leaves_nothing_behind() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let before = dump(&path);
    for wrong in [&PASSPHRASE[1..], b"wrong\nkey file", b"correct horse, battery staple "] {
        let (key, name) = (new_key(), new_name(1));
        let error = rig.provider.add_recovery_key(&path, &secret(wrong), &key, name).await;
        assert!(matches!(error, Err(VolumeError::WrongSecret { .. })), "{error:?}");
    }
    assert_eq!(dump(&path), before);
}

#[tokio::test]
async fn any_bytes_can_unlock_a_volume() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let mut unlock = passphrase();
    let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
    for bytes in [&b"\n"[..], b" two\nlines\n", &all] {
        let next = secret(bytes);
        rig.provider.add_unlock(&path, &unlock, &next).await.unwrap();
        assert!(opens(&path, None, bytes), "{bytes:?}");
        unlock = next;
    }
    let name = new_name(1);
    rig.provider.add_recovery_key(&path, &unlock, &new_key(), name).await.unwrap();
}

#[tokio::test]
async fn a_volume_without_a_free_slot_says_so_and_stays_as_it_is() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    for slot in 1..32 {
        add_key(&path, slot, b"full", 1000, "sha256");
    }
    let before = dump(&path);
    let added = rig.provider.add_recovery_key(&path, &passphrase(), &new_key(), new_name(1)).await;
    assert!(matches!(added, Err(VolumeError::NoFreeSlot { .. })), "{added:?}");
    let added = rig.provider.add_unlock(&path, &passphrase(), &secret(b"one more")).await;
    assert!(matches!(added, Err(VolumeError::NoFreeSlot { .. })), "{added:?}");
    assert_eq!(dump(&path), before);
    assert_eq!(rig.provider.inspect(&path).await.unwrap().slots.free, 0);
}

#[tokio::test]
async fn a_volume_without_a_free_token_says_so_and_stays_as_it_is() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    for _ in 0..31 {
        import_token(&path, &json!({ "type": "somebody's", "keyslots": [] }));
    }
    let before = dump(&path);
    let added = rig.provider.add_recovery_key(&path, &passphrase(), &new_key(), new_name(1)).await;
    assert!(matches!(added, Err(VolumeError::NoFreeToken { .. })), "{added:?}");
    assert_eq!(dump(&path), before);
}

#[tokio::test]
async fn an_empty_secret_unlocks_nothing() {
    use holdfast::agent::volume::{UNLOCK_SECRET_BYTES, UnlockOrigin};
    use holdfast::crypto::Secret;
    for (length, taken) in
        [(0, false), (1, true), (UNLOCK_SECRET_BYTES, true), (UNLOCK_SECRET_BYTES + 1, false)]
    {
        let made = UnlockSecret::new(UnlockOrigin::KeyFile, Secret::new(vec![b'x'; length]));
        assert_eq!(made.is_ok(), taken, "{length}");
    }
}
