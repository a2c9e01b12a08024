//! A data directory that is not this server's, or that another one uses, is refused, and nothing in it is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::cli::local_cluster::LocalCluster;

use crate::harness::{binary, last_word, prepared, temporary_dir, write_file};

/// All files below a directory, with their contents.
pub(crate) fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

/// Makes the data directory of node 1, by one short life of it.
async fn lived(cluster: &mut LocalCluster) -> PathBuf {
    cluster.start_node(1).await.unwrap();
    cluster.stop_node(1).await.unwrap();
    cluster.node(1).unwrap().data_dir()
}

/// The node must refuse its data directory with these words, and leave it as it is.
async fn refuses(cluster: &mut LocalCluster, node: u64, words: &[&str]) {
    let dir = cluster.node(node).unwrap().data_dir();
    let before = contents(&dir);
    cluster.spawn_node(node).unwrap();
    let (code, last) = last_word(cluster, node).await;
    assert_eq!(code, Some(1), "{last}");
    assert!(last.contains("the server can't start"), "{last}");
    assert!(last.contains(dir.to_str().unwrap()), "{last}");
    for word in words {
        assert!(last.contains(word), "{word}: {last}");
    }
    assert!(contents(&dir) == before, "something was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn i7_a_data_directory_of_another_cluster_or_another_node_is_refused_and_left_alone() {
    let (dir, other) = (temporary_dir(), temporary_dir());
    let (mut cluster, mut stranger) = (prepared(&dir), prepared(&other));
    let data = lived(&mut cluster).await;
    copy_dir(&data, &stranger.node(1).unwrap().data_dir());
    let cluster_id = cluster.pki().cluster().to_string();
    refuses(&mut stranger, 1, &[&format!("belongs to cluster {cluster_id}")]).await;
    copy_dir(&data, &cluster.node(2).unwrap().data_dir());
    refuses(&mut cluster, 2, &["belongs to node 1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_a_newer_format_is_refused_and_left_alone() {
    let dir = temporary_dir();
    let mut cluster = prepared(&dir);
    let data = lived(&mut cluster).await;
    let format = std::fs::read(data.join("FORMAT")).unwrap();
    let text = "version 2\n";
    let newer = format!("{text}crc32c {:08x}\n", crc32c::crc32c(text.as_bytes()));
    write_file(&data.join("FORMAT"), newer.as_bytes());
    refuses(&mut cluster, 1, &["layout version 2", "start the newer version"]).await;
    write_file(&data.join("FORMAT"), &format);

    // The log alone may be newer, too: its format stands behind eight bytes of magic, its checksum behind 32.
    let segment = data.join("wal/0000000000000000.log");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&sum.to_le_bytes());
    write_file(&segment, &bytes);
    refuses(&mut cluster, 1, &["log format 2", "start the newer version"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_refused_and_its_user_goes_on() {
    let dir = temporary_dir();
    let mut cluster = prepared(&dir);
    cluster.start_node(1).await.unwrap();
    let node = cluster.node(1).unwrap();
    let free = cluster.node(2).unwrap().ports();
    let mut second = Command::new(binary());
    second.arg("server").arg("--config").arg(node.config_path());
    second.args(["--client-listen", &free.client_address()]);
    second.args(["--peer-listen", &free.peer_address()]);
    second.args(["--http-listen", &free.http_address()]);
    let output = second.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    let last = error.lines().last().unwrap();
    assert!(last.contains("is in use by another process"), "{error}");
    assert!(last.contains(node.data_dir().to_str().unwrap()), "{error}");
    cluster.check_running().unwrap();
    cluster.stop_node(1).await.unwrap();
}
