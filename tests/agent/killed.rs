//! cryptsetup is killed at one of its writes, at every one where that is quick: whatever was under way is completed or as it was.

use std::path::Path;

use holdfast::agent::luks2::Luks2;
use holdfast::agent::volume::{UnlockSecret, VolumeProvider as _, VolumeState};

use crate::encryption::{begin, decrypted, file_system, new_plan, rig};
use crate::require;
use crate::rig::{PASSPHRASE, Rig, new_key, new_name, opens, options, passphrase, tokens};

/// The real cryptsetup, until the file `kill` names a call (counted without those that only read) and one of its writes.
const KILLER: &str = r#"
if [ "$1" != luksDump ] && [ -e "$here/kill" ]; then
    read -r call write <"$here/kill"
    if [ "$call" -le 1 ]; then
        mv "$here/kill" "$here/killing"
        exec strace -f -o /dev/null -e trace=write -e inject=write:signal=KILL:when="$write" \
            /usr/sbin/cryptsetup "$@"
    fi
    echo "$((call - 1)) $write" >"$here/kill"
fi
exec /usr/sbin/cryptsetup "$@"
"#;

struct Killer {
    provider: Luks2,
    dir: std::path::PathBuf,
}

impl Killer {
    fn new(rig: &Rig) -> Option<Self> {
        if !require::tool("strace") {
            return None;
        }
        let dir = rig.path("killer");
        std::fs::create_dir(&dir).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/fake-cryptsetup.sh");
        std::os::unix::fs::symlink(program, dir.join("cryptsetup")).unwrap();
        let killer =
            Self { provider: Luks2::new(options(rig.dir.path(), dir.join("cryptsetup"))), dir };
        killer.put("version", "cryptsetup 2.6.1 flags: KILLER\n");
        killer.put("behaviour", KILLER);
        Some(killer)
    }

    fn put(&self, name: &str, text: &str) {
        use std::io::Write as _;
        std::fs::File::create(self.dir.join(name)).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The write of the call at which cryptsetup is killed next.
    fn at(&self, call: u32, write: u32) {
        self.put("kill", &format!("{call} {write}\n"));
    }

    /// Whether there was such a call.
    fn was_called(&self) -> bool {
        let called = std::fs::remove_file(self.dir.join("killing")).is_ok();
        drop(std::fs::remove_file(self.dir.join("kill")));
        called
    }
}

#[tokio::test]
async fn killed_at_any_write_of_adding_a_key_it_is_added_in_full_or_not_at_all() {
    let Some(rig) = Rig::new() else { return };
    let Some(killer) = Killer::new(&rig) else { return };
    let fresh = rig.luks2("fresh");
    let path = rig.path("volume");
    let mut kills = 0;
    for call in 1.. {
        let mut write = 1;
        loop {
            std::fs::copy(&fresh, &path).unwrap();
            let (key, name) = (new_key(), new_name(1));
            killer.at(call, write);
            let added = killer.provider.add_recovery_key(&path, &passphrase(), &key, name).await;
            let called = killer.was_called();
            if added.is_ok() {
                assert!(called || write == 1, "there are more calls than at first");
                if !called {
                    assert!(call > 4 && kills > 20, "{kills} kills within {call} calls");
                    return;
                }
                break;
            }
            kills += 1;
            rig.provider.settle(&path).await.unwrap();
            assert_eq!(rig.provider.settle(&path).await.unwrap(), [], "{call}, {write}");
            assert!(opens(&path, Some(0), PASSPHRASE), "{call}, {write}");
            match tokens(&path).len() {
                0 => rig.provider.add_recovery_key(&path, &passphrase(), &key, name).await.unwrap(),
                tokens => assert_eq!(tokens, 2, "{call}, {write}"),
            }
            rig.provider.prove(&path, &key, name).await.unwrap();
            write += 1;
        }
    }
}

#[tokio::test]
async fn killed_at_any_write_of_removing_a_key_the_others_stay_and_it_can_be_removed() {
    let Some(rig) = Rig::new() else { return };
    let Some(killer) = Killer::new(&rig) else { return };
    let full = rig.luks2("full");
    let (_, old) = rig.protect(&full).await;
    let (key, proof) = rig.protect(&full).await;
    let path = rig.path("volume");
    let mut kills = 0;
    // It tries the key, removes systemd's token, the slot, and our token.
    for call in 1..=4 {
        let mut write = 1;
        loop {
            std::fs::copy(&full, &path).unwrap();
            killer.at(call, write);
            let removed = killer.provider.remove_protector(&path, old.key().id, &proof, &key).await;
            assert!(killer.was_called());
            if removed.is_ok() {
                break;
            }
            kills += 1;
            rig.provider.settle(&path).await.unwrap();
            assert_eq!(rig.provider.prove(&path, &key, proof.key()).await.unwrap(), proof);
            assert!(opens(&path, Some(0), PASSPHRASE), "{call}, {write}");
            let left = rig.provider.inspect(&path).await.unwrap().protectors.into_iter();
            if left.filter_map(|p| p.own).any(|own| own.0 == old.key()) {
                rig.provider.remove_protector(&path, old.key().id, &proof, &key).await.unwrap();
            }
            assert_eq!(tokens(&path).len(), 2, "{call}, {write}");
            write += 1;
        }
    }
    assert!(kills > 15, "{kills}");
}

#[tokio::test]
async fn killed_while_it_begins_an_encryption_the_volume_is_plain_or_begun() {
    let Some(rig) = rig() else { return };
    let Some(killer) = Killer::new(&rig) else { return };
    let path = rig.ext4("volume", 48);
    let original = file_system(&path);
    for (plain, write) in (1..).step_by(3).enumerate() {
        let (key, plan) = (new_key(), new_plan());
        killer.at(1, write);
        let begun = killer.provider.begin_encryption(&path, &plan, &key).await;
        assert!(killer.was_called());
        assert_eq!(std::fs::read_dir(rig.path("work")).unwrap().count(), 0, "{write}");
        let state = rig.provider.inspect(&path).await.unwrap().state;
        if begun.is_ok() {
            assert!(plain > 8, "{plain}");
            break;
        }
        assert_eq!(state, VolumeState::Plain { obstacle: None }, "{write}");
        assert!(file_system(&path) == original, "{write}");
    }
}

#[tokio::test]
async fn killed_while_it_encrypts_it_goes_on_and_every_byte_is_there() {
    let Some(rig) = rig() else { return };
    let Some(killer) = Killer::new(&rig) else { return };
    let begun = rig.ext4("begun", 80);
    let original = file_system(&begun);
    let (key, plan, proof) = begin(&rig.provider, &begun).await;
    let unlock = UnlockSecret::of_recovery_key(&key);
    let path = rig.path("volume");
    let (mut kills, mut in_part, mut at_the_end) = (0, 0, 0);
    for write in (2..).step_by(7) {
        std::fs::copy(&begun, &path).unwrap();
        // The first call tries the key and repairs.
        killer.at(2, write);
        let resumed = killer.provider.resume_encryption(&path, &unlock, &|_| {}).await;
        if resumed.is_ok() {
            assert!(kills > 5 && in_part > 2 && at_the_end > 1, "{kills}, {in_part}, {at_the_end}");
            break;
        }
        kills += 1;
        let state = rig.provider.inspect(&path).await.unwrap().state;
        if let VolumeState::Encrypting(progress) = state {
            at_the_end += u32::from(progress.done == progress.total);
            if progress.done > 0 {
                in_part += 1;
                assert!(rig.provider.abandon_encryption(&path).await.is_err(), "{write}");
            }
        }
        let wrong = rig.provider.prove(&path, &new_key(), plan.key).await;
        assert!(wrong.is_err(), "{write}");
        rig.provider.resume_encryption(&path, &unlock, &|_| {}).await.unwrap();
        assert_eq!(rig.provider.prove(&path, &key, plan.key).await.unwrap(), proof, "{write}");
        assert!(decrypted(&path, &key) == original, "{write}");
        std::fs::remove_file(path.with_extension("header")).unwrap();
    }
}
