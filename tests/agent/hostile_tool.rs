//! A cryptsetup that is missing, too old, hangs, floods or makes no sense: each is a clear error, and nothing of a secret gets out.

use std::path::Path;
use std::time::{Duration, Instant};

use holdfast::agent::VolumeError;
use holdfast::agent::luks2::{Luks2, Luks2Options};
use holdfast::agent::volume::{VolumeProvider as _, VolumeState};

use crate::fake::{Fake, METADATA, encrypting};
use crate::rig::{PASSPHRASE, new_key, new_name, passphrase, secret};

/// Long enough for any of the calls, and short of the deadline of a good provider.
const SOON: Duration = Duration::from_secs(60);

fn is_running(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    // One that has ended and nobody has waited for is as good as gone.
    status.is_ok_and(|status| !status.contains(") Z "))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < SOON, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_missing_cryptsetup_is_named_with_its_package() {
    let fake = Fake::new(METADATA, "");
    let program = fake.path("none");
    let provider = Luks2::new(Luks2Options { program: program.clone(), ..fake.options() });
    let error = provider.discover().await.unwrap_err();
    assert!(matches!(error, VolumeError::ToolMissing { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(program.to_str().unwrap()) && text.contains("cryptsetup-bin"), "{text}");
}

#[tokio::test]
async fn one_that_is_too_old_is_refused_until_it_is_upgraded() {
    let fake = Fake::new(METADATA, "");
    fake.put("version", b"cryptsetup 2.4.3\n");
    let provider = fake.provider();
    let error = provider.inspect(&fake.path("volume")).await.unwrap_err();
    let VolumeError::ToolTooOld { found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(found, "2.4.3");
    assert!(!fake.read("calls").contains("luksDump"), "{}", fake.read("calls"));
    fake.put("version", b"cryptsetup 2.6.1 flags: FAKE\n");
    let volume = provider.inspect(&fake.path("volume")).await.unwrap();
    assert_eq!(volume.state, VolumeState::Locked);
    provider.inspect(&fake.path("volume")).await.unwrap();
    assert_eq!(fake.read("calls").matches("--version").count(), 2, "asked once when all is well");
}

#[tokio::test]
async fn what_is_no_version_is_none() {
    for nonsense in [&b""[..], b"\xff\xfe\x00", b"cryptsetup", b"version 2.6.1", b"cryptsetup x.y"]
    {
        let fake = Fake::new(METADATA, "");
        fake.put("version", nonsense);
        let error = fake.provider().discover().await.unwrap_err();
        assert!(matches!(error, VolumeError::ToolGarbled { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn one_that_hangs_is_killed_with_everything_it_started() {
    let fake = Fake::new(METADATA, "sleep 600 & echo $! > \"$here/child\"; wait");
    let provider = fake.impatient();
    let error = provider
        .add_unlock(&fake.path("volume"), &passphrase(), &secret(b"new"))
        .await
        .unwrap_err();
    assert!(matches!(error, VolumeError::ToolHung { .. }), "{error:?}");
    let child = fake.read("child");
    assert!(!child.is_empty());
    until("what it started runs on", || !is_running(&child)).await;
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_killed() {
    let behaviour = "[ $1 = repair ] && exit 0; echo $$ > \"$here/child\"; exec sleep 600";
    let fake = Fake::new(&encrypting(), behaviour);
    let provider = fake.provider();
    let path = fake.path("volume");
    {
        let (secret, quiet) = (passphrase(), |_| {});
        let resume = provider.resume_encryption(&path, &secret, &quiet);
        tokio::pin!(resume);
        let started = until("it was not started", || fake.read("child").ends_with('\n'));
        tokio::select! {
            outcome = &mut resume => panic!("{outcome:?}"),
            () = started => {}
        }
    }
    let child = fake.read("child");
    until("it runs on", || !is_running(&child)).await;
}

#[tokio::test]
async fn an_encryption_that_shows_no_progress_is_asked_to_end_before_it_is_killed() {
    let behaviour = "[ $1 = repair ] && exit 0\n\
        trap 'echo interrupted >&2; echo asked > \"$here/asked\"; exit 1' TERM\n\
        echo '{\"device\":\"x\",\"device_bytes\":\"5\",\"device_size\":\"10\",\"speed\":\"1\"}'\n\
        echo nonsense\n\
        while :; do sleep 0.1; done";
    let fake = Fake::new(&encrypting(), behaviour);
    let seen = std::sync::Mutex::new(Vec::new());
    let progress = |progress| seen.lock().unwrap().push(progress);
    let error = fake
        .impatient()
        .resume_encryption(&fake.path("volume"), &passphrase(), &progress)
        .await
        .unwrap_err();
    assert!(matches!(error, VolumeError::ToolHung { .. }), "{error:?}");
    assert_eq!(fake.read("asked"), "asked\n");
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 1, "a line that is none is left out: {seen:?}");
    assert_eq!((seen[0].done, seen[0].total), (5, 10));
}

#[tokio::test]
async fn an_encryption_that_claims_to_be_done_is_not_believed() {
    let fake = Fake::new(&encrypting(), "exit 0");
    let path = fake.path("volume");
    let error = fake.provider().resume_encryption(&path, &passphrase(), &|_| {}).await.unwrap_err();
    assert!(matches!(error, VolumeError::ToolGarbled { .. }), "{error:?}");
}

#[tokio::test]
async fn one_that_floods_is_cut_off_at_once() {
    for behaviour in ["exec yes", "exec yes >&2", "exec yes | tr -d '\\n'"] {
        let fake = Fake::new(METADATA, "");
        fake.put("behaviour", behaviour.as_bytes());
        let begun = Instant::now();
        let error = fake.provider().settle(&fake.path("volume")).await.unwrap_err();
        assert!(matches!(error, VolumeError::ToolGarbled { .. }), "{behaviour}: {error:?}");
        assert!(begun.elapsed() < SOON);
    }
}

#[tokio::test]
async fn garbage_for_a_header_is_refused_and_not_repeated() {
    let long = format!("{{\"keyslots\":\"{}\"}}", "x".repeat(100_000));
    for garbage in ["", "{", "LUKS header information", "{\"keyslots\": []}", "\u{0}", &long] {
        let fake = Fake::new(garbage, "");
        let error = fake.provider().settle(&fake.path("volume")).await.unwrap_err();
        assert!(matches!(error, VolumeError::ToolGarbled { .. }), "{error:?}");
        assert!(error.to_string().len() < 1000, "{error}");
        let found = fake.provider().discover().await.unwrap();
        let file = found.iter().find(|volume| volume.path == fake.path("volume")).unwrap();
        assert!(matches!(file.state, VolumeState::Unknown(_)), "{:?}", file.state);
    }
}

#[tokio::test]
async fn each_exit_code_means_what_the_manual_says() {
    for (code, wanted) in [
        (1, "ToolFailed"),
        (2, "WrongSecret"),
        (3, "OutOfMemory"),
        (4, "Unreachable"),
        (5, "Busy"),
        (6, "ToolFailed"),
        (255, "ToolFailed"),
    ] {
        let fake = Fake::new(METADATA, &format!("echo some words >&2; exit {code}"));
        let provider = fake.provider();
        let path = fake.path("volume");
        let error = provider.add_unlock(&path, &passphrase(), &secret(b"new")).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(wanted), "{code}: {error:?}");
        if wanted == "ToolFailed" {
            assert!(error.to_string().contains("some words"), "{error}");
        }
    }
    let fake = Fake::new(METADATA, "kill -9 $$");
    let path = fake.path("volume");
    let killed = fake.provider().add_unlock(&path, &passphrase(), &secret(b"new")).await;
    let killed = killed.unwrap_err();
    assert!(matches!(killed, VolumeError::ToolFailed { code: -1, .. }), "{killed:?}");
}

#[tokio::test]
async fn words_are_cut_and_cleaned_before_anybody_reads_them() {
    let fake = Fake::new(
        METADATA,
        "printf '\\033[31mred\\r\\n\\007' >&2; yes word | head -n 5000 >&2; exit 1",
    );
    let path = fake.path("volume");
    let error =
        fake.provider().add_unlock(&path, &passphrase(), &secret(b"new")).await.unwrap_err();
    let VolumeError::ToolFailed { said, .. } = error else { panic!("{error:?}") };
    assert!(said.len() <= 300 && !said.contains(char::is_control), "{said:?}");
}

#[tokio::test]
async fn secrets_go_to_the_standard_input_and_nowhere_else() {
    let fake = Fake::new(METADATA, "cat >> \"$here/input\"; echo >> \"$here/input\"; exit 1");
    let (key, path) = (new_key(), fake.path("volume"));
    let provider = fake.provider();
    let error = provider.add_recovery_key(&path, &passphrase(), &key, new_name(1)).await;
    let shown = format!("{:?}", error.unwrap_err());
    let passphrase = std::str::from_utf8(PASSPHRASE).unwrap();
    // The planned token is refused already; let it be taken.
    fake.put(
        "behaviour",
        b"if [ \"$1\" = luksDump ]; then cat \"$here/metadata\"; exit 0; fi\n\
        cat >> \"$here/input\"; [ \"$1\" = token ] && exit 0; exit 1\n",
    );
    let error = provider.add_recovery_key(&path, &secret(PASSPHRASE), &key, new_name(1)).await;
    let shown = format!("{shown} {:?}", error.unwrap_err());
    let input = fake.read("input");
    assert!(input.contains(&format!("{passphrase}\n{}", key.expose_secret())), "{input}");
    for elsewhere in [fake.read("calls"), fake.read("environment"), shown] {
        assert!(!elsewhere.contains(passphrase) && !elsewhere.contains(key.expose_secret()));
        assert!(!elsewhere.contains("keyfile-size 29"), "not even how long the passphrase is");
    }
}

#[tokio::test]
async fn a_secret_that_it_does_not_want_to_read_blocks_nothing() {
    let fake = Fake::new(METADATA, "exit 2");
    let path = fake.path("volume");
    let large = secret(&vec![b'x'; 1024 * 1024]);
    let error = fake.provider().add_unlock(&path, &large, &secret(b"new")).await.unwrap_err();
    assert!(matches!(error, VolumeError::WrongSecret { .. }), "{error:?}");
}
