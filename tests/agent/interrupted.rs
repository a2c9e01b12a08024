//! What an agent that ended between two steps has left, laid out step by step, and what the next start makes of it.

use std::io::Write as _;
use std::path::Path;

use holdfast::agent::VolumeError;
use holdfast::agent::volume::{
    EncryptionPlan, KeyName, Settled, Standing, UnlockSecret, VolumeProvider as _, VolumeState,
};
use holdfast::domain::RecoveryKey;
use serde_json::json;

use crate::encryption::{begin, decrypted, file_system, new_plan, rig};
use crate::require;
use crate::rig::{
    CRYPTSETUP, PASSPHRASE, Rig, add_key, cryptsetup, damage, dump, import_token, mark, new_key,
    new_name, ok, opens, own_token, slots, text, tokens,
};

/// The key and its mark in slot 31, added by cryptsetup itself.
fn add_marked(path: &Path, key: &RecoveryKey, name: KeyName) {
    add_key(path, 31, key.expose_secret().as_bytes(), mark(name), "sha512");
}

#[tokio::test]
async fn a_key_that_was_planned_and_never_added_leaves_nothing() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let name = new_name(3);
    import_token(&path, &own_token(name, 31, "planned"));
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.protectors[1].own, Some((name, Standing::Unsettled)));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::NeverAdded(name)]);
    assert_eq!(tokens(&path).len(), 0);
    assert_eq!(slots(&path), ["0"]);
}

#[tokio::test]
async fn a_key_that_was_added_and_not_yet_bound_gets_its_tokens() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (key, name) = (new_key(), new_name(3));
    import_token(&path, &own_token(name, 31, "planned"));
    add_marked(&path, &key, name);
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.protectors[1].own, Some((name, Standing::Unsettled)));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::Added(name)]);
    let systemds = json!({ "type": "systemd-recovery", "keyslots": ["31"] });
    assert_eq!(tokens(&path), [own_token(name, 31, "added"), systemds]);
    rig.provider.prove(&path, &key, name).await.unwrap();
}

#[tokio::test]
async fn a_key_that_lacks_only_systemds_token_gets_it() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (key, name) = (new_key(), new_name(3));
    add_marked(&path, &key, name);
    import_token(&path, &own_token(name, 31, "added"));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), []);
    assert_eq!(tokens(&path).len(), 2);
    rig.provider.prove(&path, &key, name).await.unwrap();
}

#[tokio::test]
async fn a_planned_slot_that_somebody_else_has_filled_is_theirs() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let name = new_name(3);
    import_token(&path, &own_token(name, 31, "planned"));
    // The same derivation, but for the mark; and a mark, but of another hash.
    for (iterations, hash) in [(mark(name) + 1, "sha512"), (mark(name), "sha256")] {
        add_key(&path, 31, b"somebody else's", iterations, hash);
        let settled = rig.provider.settle(&path).await.unwrap();
        assert_eq!(settled, [Settled::NeverAdded(name)]);
        assert!(opens(&path, Some(31), b"somebody else's"));
        assert_eq!(tokens(&path).len(), 0);
        ok(&cryptsetup(&["luksKillSlot", "-q", "--key-file", "-", text(&path), "31"], PASSPHRASE));
        import_token(&path, &own_token(name, 31, "planned"));
    }
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_done_when_it_is_asked_for_again() {
    let Some(rig) = Rig::new() else { return };
    let path = rig.luks2("volume");
    let (_, old) = rig.protect(&path).await;
    let (key, proof) = rig.protect(&path).await;
    // The slot is gone, and our token is still there.
    ok(&cryptsetup(&["luksKillSlot", "-q", "--key-file", "-", text(&path), "31"], PASSPHRASE));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), []);
    rig.provider.remove_protector(&path, old.key().id, &proof, &key).await.unwrap();
    let ours = tokens(&path).into_iter().filter(|token| token["type"] == "holdfast-recovery");
    assert_eq!(ours.count(), 1);
}

/// A header that was being made: cryptsetup has done everything but write it over the volume.
fn half_begun(rig: &Rig, path: &Path) -> (RecoveryKey, EncryptionPlan, Vec<u8>) {
    let (key, plan) = (new_key(), new_plan());
    let directory = rig.path("work").join(plan.volume.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    let copy = rig.path("copy");
    std::fs::copy(path, &copy).unwrap();
    let uuid = plan.volume.to_string();
    let label = format!("hf:{}:1", plan.key.id.uuid().simple());
    let iterations = mark(plan.key).to_string();
    let begin =
        ["reencrypt", "-q", "--encrypt", "--init-only", "--type", "luks2", "--key-file", "-"];
    let reduce = ["--reduce-device-size", "32M", "--uuid", &uuid, "--subsystem", &label];
    let derive = ["--pbkdf", "pbkdf2", "--hash", "sha512", "--pbkdf-force-iterations", &iterations];
    let args = [&begin[..], &reduce, &derive, &[text(&copy)]].concat();
    ok(&cryptsetup(&args, key.expose_secret().as_bytes()));
    let begun = std::fs::read(&copy).unwrap();
    let (head, tail) = (&begun[..16 << 20], &begun[begun.len() - (16 << 20)..]);
    // The copy of the beginning is at the end, and the header in its file.
    damage(path, (begun.len() - tail.len()) as u64, tail);
    write(&directory.join(format!("LUKS2-temp-{uuid}.new")), head);
    let note = note(path, plan, &original_uuid(tail), None);
    write(&directory.join("begin.json"), note.to_string().as_bytes());
    (key, plan, head.to_vec())
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

fn original_uuid(file_system: &[u8]) -> String {
    hex::encode(&file_system[1024 + 104..1024 + 120])
}

fn note(
    path: &Path,
    plan: EncryptionPlan,
    uuid: &str,
    back: Option<(u64, u64)>,
) -> serde_json::Value {
    json!({
        "path": path, "file_system": uuid, "volume": plan.volume, "key": plan.key.id,
        "version": plan.key.version, "back": back,
    })
}

#[tokio::test]
async fn a_header_that_was_never_written_over_the_volume_is_dropped() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    let (_, plan, _) = half_begun(&rig, &path);
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::NeverBegun(plan)]);
    assert!(file_system(&path) == original);
    assert_eq!(std::fs::read_dir(rig.path("work")).unwrap().count(), 0);
    begin(&rig.provider, &path).await;
}

#[tokio::test]
async fn a_header_that_was_not_complete_is_dropped() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    for complete in [0, 4096, 20_000] {
        let (_, plan, head) = half_begun(&rig, &path);
        let directory = rig.path("work").join(plan.volume.to_string());
        let mut incomplete = vec![0; head.len()];
        if complete == 20_000 {
            // A whole header, that of a volume that is not being encrypted yet.
            let fresh = rig.luks2("fresh");
            incomplete = std::fs::read(fresh).unwrap();
        } else {
            incomplete[..complete].copy_from_slice(&head[..complete]);
        }
        write(&directory.join(format!("LUKS2-temp-{}.new", plan.volume)), &incomplete);
        assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::NeverBegun(plan)]);
    }
}

#[tokio::test]
async fn a_header_that_was_written_in_part_is_written_again() {
    let Some(rig) = rig() else { return };
    for written in [512, 4096, 20_000, 300_000, (16 << 20) - 512] {
        let path = rig.ext4("volume", 48);
        let original = file_system(&path);
        let (key, plan, head) = half_begun(&rig, &path);
        damage(&path, 0, &head[..written]);
        assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::Begun(plan)], "{written}");
        rig.provider.prove(&path, &key, plan.key).await.unwrap();
        if written == 20_000 {
            let unlock = UnlockSecret::of_recovery_key(&key);
            rig.provider.resume_encryption(&path, &unlock, &|_| {}).await.unwrap();
            assert!(decrypted(&path, &key) == original);
        }
    }
}

#[tokio::test]
async fn what_was_begun_on_one_volume_is_never_written_to_another() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let (_, plan, _) = half_begun(&rig, &path);
    // Another disk of the same size gets its name.
    std::fs::remove_file(&path).unwrap();
    let path = rig.ext4("volume", 48);
    for copied in [false, true] {
        if copied {
            // The other one was begun as well, elsewhere.
            damage(&path, 32 << 20, &file_system(&path));
            damage(&path, 0, b"LUKS");
        }
        let before = std::fs::read(&path).unwrap();
        let error = rig.provider.settle(&path).await.unwrap_err();
        assert!(matches!(error, VolumeError::Leftover { .. }), "{error:?}");
        assert!(std::fs::read(&path).unwrap() == before);
    }
    assert!(rig.path("work").join(plan.volume.to_string()).exists(), "nor is it forgotten");
}

#[tokio::test]
async fn a_beginning_that_was_put_back_in_part_is_put_back() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    let (_, plan, _) = begin(&rig.provider, &path).await;
    let tail = &std::fs::read(&path).unwrap()[32 << 20..];
    let note = note(&path, plan, &original_uuid(tail), Some((32 << 20, 16 << 20)));
    let directory = rig.path("work").join(plan.volume.to_string());
    std::fs::create_dir_all(&directory).unwrap();
    write(&directory.join("begin.json"), note.to_string().as_bytes());
    // All but the first part; and of that, what no header survives.
    damage(&path, 1 << 20, &tail[1 << 20..]);
    damage(&path, 0, &tail[..20_000]);
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::NeverBegun(plan)]);
    assert!(file_system(&path) == original);
    let state = rig.provider.inspect(&path).await.unwrap().state;
    assert_eq!(state, VolumeState::Plain { obstacle: None });
}

#[tokio::test]
async fn an_encryption_that_ended_without_its_tokens_gets_them() {
    let Some(rig) = rig() else { return };
    let path = rig.ext4("volume", 48);
    let (key, plan, proof) = begin(&rig.provider, &path).await;
    let args = ["reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--key-file", "-"];
    let args = [&args[..], &[text(&path)]].concat();
    ok(&cryptsetup(&args, key.expose_secret().as_bytes()));
    assert_eq!(dump(&path)["tokens"], json!({}));
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.protectors[0].own, Some((plan.key, Standing::Unsettled)));
    assert_eq!(rig.provider.settle(&path).await.unwrap(), [Settled::Encrypted(plan.key)]);
    assert_eq!(tokens(&path).len(), 2);
    assert_eq!(rig.provider.fingerprint(&path, plan.key.id).await.unwrap(), proof.fingerprint());
    assert_eq!(rig.provider.settle(&path).await.unwrap(), []);
}

#[tokio::test]
async fn an_encryption_that_cryptsetup_can_not_finish_is_finished() {
    let Some(rig) = rig() else { return };
    if !require::tool("strace") {
        return;
    }
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    let (key, plan, proof) = begin(&rig.provider, &path).await;
    // Everything is encrypted; cryptsetup is killed before it wipes what is left at the end of the volume.
    let mut killed = std::process::Command::new("strace")
        .args(["-f", "-o", "/dev/null", "-e", "trace=write"])
        .args(["-e", "inject=write:signal=KILL:when=14", CRYPTSETUP])
        .args(["reencrypt", "-q", "--resume-only", "--force-offline-reencrypt", "--key-file", "-"])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    killed.stdin.take().unwrap().write_all(key.expose_secret().as_bytes()).unwrap();
    assert!(!killed.wait().unwrap().success());
    let left = || std::fs::read(&path).unwrap()[32 << 20..].starts_with(&original[..4096]);
    assert!(left(), "the beginning of the file system is still to be read at the end");
    let unlock = UnlockSecret::of_recovery_key(&key);
    rig.provider.resume_encryption(&path, &unlock, &|_| {}).await.unwrap();
    assert!(!left());
    let volume = rig.provider.inspect(&path).await.unwrap();
    assert_eq!(volume.state, VolumeState::Locked);
    assert_eq!(rig.provider.prove(&path, &key, plan.key).await.unwrap(), proof);
    assert_eq!(std::fs::read_dir(rig.path("work")).unwrap().count(), 0, "nothing stays behind");
    assert!(decrypted(&path, &key) == original);
}
