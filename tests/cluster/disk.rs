//! A small disk for one node, which can be filled, and whose power can be cut.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast::cli::local_cluster::LocalCluster;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

const FILLER: &str = "filler";
/// FS_IOC_GOINGDOWN without flushing the journal: whatever was not synced is lost, as when the power goes.
const POWER_OFF: &str = "open(my $dir, '<', $ARGV[0]) or die $!; my $flags = pack('I', 2); \
                         ioctl($dir, 0x8004587d, $flags) or die $!;";

/// A mounted file system. Unmounted when it is dropped, whoever still uses it.
pub(crate) struct Mount {
    point: PathBuf,
    image: Option<PathBuf>,
}

fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {error}");
}

impl Mount {
    /// A file system in memory for the data of each node.
    pub(crate) fn tmpfs_each(cluster: &LocalCluster, mebibytes: u64) -> Vec<Self> {
        cluster.nodes().iter().map(|node| Self::tmpfs(node.data_dir(), mebibytes)).collect()
    }

    /// A file system in memory at a directory.
    pub(crate) fn tmpfs(point: PathBuf, mebibytes: u64) -> Self {
        std::fs::create_dir_all(&point).unwrap();
        let size = format!("size={mebibytes}m");
        let args = ["-t", "tmpfs", "-o", size.as_str(), "tmpfs"].map(Path::new);
        run("mount", &[&args[..], &[&point]].concat());
        Self { point, image: None }
    }

    /// An ext4 of its own for the data of each node.
    pub(crate) fn ext4_each(cluster: &LocalCluster, mebibytes: u64) -> Vec<Self> {
        let mount = |point: PathBuf| {
            std::fs::create_dir_all(&point).unwrap();
            let image = point.with_extension("img");
            File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
            let quick = Path::new("lazy_itable_init=1,lazy_journal_init=1");
            run("mkfs.ext4", &[Path::new("-q"), Path::new("-E"), quick, &image]);
            let mount = Self { point, image: Some(image) };
            mount.mount_image();
            mount
        };
        cluster.nodes().iter().map(|node| mount(node.data_dir())).collect()
    }

    fn mount_image(&self) {
        let image = self.image.as_ref().unwrap();
        run("mount", &[Path::new("-o"), Path::new("loop"), image, &self.point]);
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let file = File::create(self.point.join(FILLER)).unwrap();
        let mut length = 0;
        let mut step = 1 << 30;
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        assert!(statvfs(&self.point).unwrap().f_bavail < 16, "the disk is not full");
    }

    /// Takes the room but for so many bytes.
    pub(crate) fn fill_all_but(&self, bytes: u64) {
        self.fill();
        let file = File::options().write(true).open(self.point.join(FILLER)).unwrap();
        file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
    }

    /// Gives the room back.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.point.join(FILLER)).unwrap();
    }

    /// Cuts the power: nothing is written from now on, and what was not synced is lost.
    pub(crate) fn power_off(&self) {
        run("perl", &[Path::new("-e"), Path::new(POWER_OFF), &self.point]);
    }

    /// The disk as it is after the power came back. Nobody may use it meanwhile.
    pub(crate) fn power_on(&self) {
        run("umount", &[&self.point]);
        self.mount_image();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a server that was just killed may not be gone yet. The loop device goes with the last use.
        let ended = Command::new("umount").arg("-l").arg(&self.point).status();
        if !std::thread::panicking() {
            assert!(ended.unwrap().success(), "{} is still mounted", self.point.display());
        }
    }
}
