use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::crypto::testing::{CLUSTER, rng};

const OTHER: ClusterId = ClusterId::from_bytes([9; 16]);

fn key() -> RootKey {
    RootKey::from_bytes([0x4b; 32])
}

fn write(path: &Path, content: &[u8], mode: u32) {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    file.write_all(content).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
}

fn load(content: &[u8], mode: u32) -> Result<RootKey, RootKeyFault> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.key");
    write(&path, content, mode);
    match RootKey::load(&path, &directory.path().join("data")) {
        Ok(key) => Ok(key),
        Err(CryptoError::RootKeyFile { path: named, fault }) => {
            assert_eq!(named, path);
            Err(fault)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_root_key_file_of_mode_0400_is_read() {
    let text = key().expose_file_text();
    assert!(text.starts_with(ROOT_KEY_PREFIX) && text.ends_with("4b\n") && text.len() == 86);
    for content in [text.as_bytes(), text.trim_end().as_bytes()] {
        let loaded = load(content, 0o400).unwrap();
        assert_eq!(loaded.0, key().0);
    }
}

#[test]
fn a_root_key_file_that_others_may_read_or_that_may_be_written_is_refused() {
    let text = key().expose_file_text();
    for mode in [0o600, 0o644, 0o440, 0o404, 0o500] {
        let fault = load(text.as_bytes(), mode).unwrap_err();
        assert!(matches!(fault, RootKeyFault::Mode(found) if found == mode), "{mode:o}: {fault}");
        assert!(fault.to_string().contains("chmod 0400"), "{fault}");
    }
}

#[test]
fn a_root_key_file_inside_the_data_directory_is_refused_also_behind_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("keys")).unwrap();
    let path = data.join("keys/root.key");
    write(&path, key().expose_file_text().as_bytes(), 0o400);
    let link = directory.path().join("root.key");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for place in [path, link] {
        let error = RootKey::load(&place, &data).unwrap_err();
        let CryptoError::RootKeyFile { fault, .. } = error else { panic!("{error}") };
        assert!(matches!(fault, RootKeyFault::InsideDataDirectory), "{fault}");
    }
}

#[test]
fn a_root_key_file_with_any_other_content_is_refused() {
    let good = key().expose_file_text();
    for content in [
        String::new(),
        good.replace("v1", "v2"),
        good.replace("4b\n", "4\n"),
        good.replace("4b\n", "4b4b\n"),
        good.replace("4b\n", "4g\n"),
        format!("{}\n", good.as_str()),
        format!(" {}", good.as_str()),
        good.repeat(40),
    ] {
        let fault = load(content.as_bytes(), 0o400).unwrap_err();
        assert!(matches!(fault, RootKeyFault::Content), "{fault}");
    }
}

#[test]
fn a_missing_file_and_a_directory_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let error = RootKey::load(&missing, directory.path()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let data = directory.path().join("data");
    let error = RootKey::load(directory.path(), &data).unwrap_err();
    let CryptoError::RootKeyFile { fault, .. } = error else { panic!("{error}") };
    assert!(matches!(fault, RootKeyFault::NotAFile), "{fault}");
}

#[test]
fn another_root_key_and_another_cluster_have_another_check_value() {
    let check = key().check_value(CLUSTER).unwrap();
    assert!(key().check(CLUSTER, &check).is_ok());
    assert!(matches!(key().check(OTHER, &check), Err(CryptoError::WrongRootKey)));
    let other = RootKey::generate(&mut rng());
    assert!(matches!(other.check(CLUSTER, &check), Err(CryptoError::WrongRootKey)));
}

#[test]
fn what_is_wrapped_unwraps_for_its_purpose_and_cluster_only() {
    let purpose = WrapPurpose::Epoch(Epoch::new(1));
    let mut rng = rng();
    let wrapped = key().wrap(purpose, CLUSTER, b"secret", &mut rng).unwrap();
    assert_ne!(wrapped, key().wrap(purpose, CLUSTER, b"secret", &mut rng).unwrap(), "the nonce");
    let opened = key().unwrap(purpose, CLUSTER, &wrapped).unwrap().unwrap();
    assert_eq!(opened.expose_secret(), b"secret");
    for (purpose, cluster) in [
        (WrapPurpose::Epoch(Epoch::new(2)), CLUSTER),
        (WrapPurpose::Signer, CLUSTER),
        (purpose, OTHER),
    ] {
        assert!(key().unwrap(purpose, cluster, &wrapped).unwrap().is_none());
    }
    let other = RootKey::generate(&mut rng);
    assert!(other.unwrap(purpose, CLUSTER, &wrapped).unwrap().is_none());
}

#[test]
fn changed_or_cut_wrapped_bytes_do_not_unwrap() {
    let wrapped = key().wrap(WrapPurpose::Signer, CLUSTER, b"secret", &mut rng()).unwrap();
    for at in 0..wrapped.len() {
        let mut bytes = wrapped.to_vec();
        bytes[at] ^= 1;
        let opened = key().unwrap(WrapPurpose::Signer, CLUSTER, &bytes).unwrap();
        assert!(opened.is_none(), "byte {at}");
        let opened = key().unwrap(WrapPurpose::Signer, CLUSTER, &wrapped[..at]).unwrap();
        assert!(opened.is_none(), "{at} bytes");
    }
}

#[test]
fn debug_of_a_root_key_prints_none_of_it() {
    assert_eq!(format!("{:?}", key()), "RootKey([redacted])");
}
