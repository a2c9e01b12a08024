use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use super::*;

fn file(fs: &SimFs, name: &str, content: &[u8]) -> SimFile {
    let file = fs.open(Path::new(name), OpenMode::CreateNew).unwrap();
    file.write_at(content, 0).unwrap();
    file
}

fn content(fs: &SimFs, name: &str) -> Option<Vec<u8>> {
    let path = Path::new(name);
    fs.exists(path).unwrap().then(|| crate::fs::read_file(fs, path).unwrap())
}

#[test]
fn a_file_whose_directory_was_not_synced_disappears_or_stays() {
    let fs = SimFs::new();
    file(&fs, "a", b"x").sync_all().unwrap();
    assert_eq!(content(&fs.crash(Survivors::None), "a"), None);
    assert_eq!(content(&fs.crash(Survivors::All), "a").as_deref(), Some(&b"x"[..]));
    let outcomes: BTreeSet<_> = (0..20).map(|seed| content(&fs.crash(seed), "a")).collect();
    assert_eq!(outcomes.len(), 2);
    fs.sync_dir(Path::new("")).unwrap();
    assert_eq!(content(&fs.crash(Survivors::None), "a").as_deref(), Some(&b"x"[..]));
}

#[test]
fn an_unsynced_rename_is_undone_or_survives_as_a_whole() {
    let fs = SimFs::new();
    file(&fs, "a", b"new").sync_all().unwrap();
    file(&fs, "b", b"old").sync_all().unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    fs.rename(Path::new("a"), Path::new("b")).unwrap();
    let outcomes: BTreeSet<_> = (0..20)
        .map(|seed| {
            let disk = fs.crash(seed);
            (content(&disk, "a"), content(&disk, "b"))
        })
        .collect();
    let expected = [(None, Some(b"new".to_vec())), (Some(b"new".to_vec()), Some(b"old".to_vec()))];
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn any_subset_of_unsynced_sectors_survives() {
    let fs = SimFs::new();
    let f = file(&fs, "a", &[1; 3 * SECTOR]);
    f.sync_all().unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    f.write_at(&[2; 3 * SECTOR], 0).unwrap();
    let shapes: BTreeSet<Vec<u8>> = (0..200)
        .map(|seed| {
            let bytes = content(&fs.crash(seed), "a").unwrap();
            bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
        })
        .collect();
    assert_eq!(shapes.len(), 8);
    f.sync_data().unwrap();
    assert_eq!(content(&fs.crash(Survivors::None), "a").unwrap(), [2; 3 * SECTOR]);
}

#[test]
fn a_failed_fsync_loses_the_bytes_and_its_retry_lies() {
    let fs = SimFs::new();
    let f = file(&fs, "a", b"old");
    f.sync_all().unwrap();
    fs.sync_dir(Path::new("")).unwrap();
    f.write_at(b"new", 0).unwrap();
    fs.fail_sync(1);
    let error = f.sync_data().unwrap_err();
    assert!(error.to_string().contains("fdatasync a"), "{error}");
    f.sync_data().unwrap();
    assert_eq!(content(&fs, "a").unwrap(), b"new");
    assert_eq!(content(&fs.crash(Survivors::All), "a").unwrap(), b"old");
    assert_eq!(content(&fs.crash(Survivors::None), "a").unwrap(), b"old");
}

#[test]
fn a_full_disk_says_so_and_allocation_counts() {
    let fs = SimFs::new();
    fs.set_capacity(Some(1000));
    let f = file(&fs, "a", b"x");
    f.allocate(900).unwrap();
    assert_eq!(fs.available_bytes(Path::new("")).unwrap(), 100);
    assert_eq!(f.allocate(1001).unwrap_err().kind(), ErrorKind::StorageFull);
    f.write_at(&[0; 900], 0).unwrap();
    assert_eq!(f.write_at(&[0; 200], 900).unwrap_err().kind(), ErrorKind::StorageFull);
    drop(f);
    fs.remove_file(Path::new("a")).unwrap();
    assert_eq!(fs.available_bytes(Path::new("")).unwrap(), 1000);
}

#[test]
fn after_a_power_cut_everything_fails() {
    let fs = SimFs::new();
    let f = file(&fs, "a", b"x");
    fs.power_cut_at(fs.operations() + 1);
    f.sync_all().unwrap();
    assert!(f.write_at(b"y", 0).is_err());
    assert!(f.read_at(&mut [0], 0).is_err());
    assert!(fs.open(Path::new("a"), OpenMode::Read).is_err());
    assert!(fs.crash(Survivors::None).operations() == 0);
}

#[test]
fn a_torn_write_leaves_its_beginning() {
    let fs = SimFs::new();
    let f = file(&fs, "a", b"......");
    fs.tear_write(2, 2);
    f.write_at(b"whole!", 0).unwrap();
    assert!(f.write_at(b"abcdef", 0).is_err());
    assert_eq!(content(&fs.crash(Survivors::All), "a").unwrap(), b"abole!");
}

#[test]
fn a_lock_is_exclusive_until_its_file_is_closed() {
    let fs = SimFs::new();
    let first = file(&fs, "a", b"");
    let second = fs.open(Path::new("a"), OpenMode::ReadWrite).unwrap();
    assert!(first.try_lock_exclusive().unwrap());
    assert!(!second.try_lock_exclusive().unwrap());
    drop(first);
    assert!(second.try_lock_exclusive().unwrap());
}

#[test]
fn a_removed_file_stays_readable_while_open() {
    let fs = SimFs::new();
    let f = file(&fs, "d", b"x");
    fs.remove_file(Path::new("d")).unwrap();
    let mut byte = [0];
    f.read_at(&mut byte, 0).unwrap();
    assert_eq!(&byte, b"x");
}
