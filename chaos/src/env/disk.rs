//! A disk of its own for each host: an ext4 in a file, mounted by a loop device.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::command::{call, call_blocking};
use super::files;

const FILLER: &str = "filler";
/// FS_IOC_GOINGDOWN without flushing the journal: whatever was not synced is lost, as when the power goes.
/// Of several disks, one right after the other.
const POWER_OFF: &str = "my @dirs = map { open(my $dir, '<', $_) or die $!; $dir } @ARGV; \
                         for my $dir (@dirs) { my $flags = pack('I', 2); \
                         ioctl($dir, 0x8004587d, $flags) or die $!; }";

/// A mounted disk.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Makes an image and mounts it.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub fn make(image: PathBuf, point: PathBuf, mebibytes: u64) -> anyhow::Result<Self> {
        let disk = Self { image, point };
        std::fs::create_dir_all(&disk.point).with_context(|| disk.point.display().to_string())?;
        let file = File::create(&disk.image).with_context(|| disk.image.display().to_string())?;
        file.set_len(mebibytes << 20).context("the length of an image")?;
        let image = disk.image.to_string_lossy().into_owned();
        let quick = "lazy_itable_init=1,lazy_journal_init=1";
        call_blocking("mkfs.ext4", &["-q", "-F", "-E", quick, &image], "")?;
        let point = disk.point.to_string_lossy().into_owned();
        call_blocking("mount", &["-o", "loop", &image, &point], "")?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The file that holds it.
    pub fn image(&self) -> &Path {
        &self.image
    }

    fn point_text(&self) -> String {
        self.point.to_string_lossy().into_owned()
    }

    /// Takes all the room that is left; gives how many bytes that was.
    ///
    /// # Errors
    /// If the filler can't be made, or room is left.
    pub fn fill(&self) -> anyhow::Result<u64> {
        let path = self.point.join(FILLER);
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let mut length = 0_u64;
        let mut step = 1_u64 << 30;
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(_) => step /= 2,
            }
        }
        let left = statvfs(&self.point).context("statvfs")?.f_bavail;
        anyhow::ensure!(left < 64, "{left} blocks are left");
        Ok(length)
    }

    /// Gives the room back. Nothing to do if it is not filled.
    ///
    /// # Errors
    /// If the filler can't be removed.
    pub fn free(&self) -> anyhow::Result<()> {
        match std::fs::remove_file(self.point.join(FILLER)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Cuts the power of disks at once: nothing is written from now on, and what was not synced is lost.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn power_off(disks: &[&Self]) -> anyhow::Result<()> {
        let points: Vec<_> = disks.iter().map(|disk| disk.point_text()).collect();
        let args: Vec<_> =
            ["-e", POWER_OFF].into_iter().chain(points.iter().map(String::as_str)).collect();
        call("perl", &args).await.map(drop)
    }

    /// The disk as it is after the power came back. Nobody may use it meanwhile.
    ///
    /// # Errors
    /// If it can't be unmounted and mounted again.
    pub async fn power_on(&self) -> anyhow::Result<()> {
        let point = self.point_text();
        if is_mounted(&self.point) {
            call("umount", &[&point]).await?;
        }
        call("mount", &["-o", "loop", &self.image.to_string_lossy(), &point]).await.map(drop)
    }

    /// A new disk in the place of this one, which is lost.
    ///
    /// # Errors
    /// If one of the programs fails.
    pub async fn replace(&self) -> anyhow::Result<()> {
        let point = self.point_text();
        call("umount", &[&point]).await?;
        let image = self.image.to_string_lossy();
        let quick = "lazy_itable_init=1,lazy_journal_init=1";
        call("mkfs.ext4", &["-q", "-F", "-E", quick, &image]).await?;
        call("mount", &["-o", "loop", &image, &point]).await.map(drop)
    }
}

fn mounts_below(dir: &Path) -> Vec<String> {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Vec::new() };
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

/// Whether something is mounted at this very place.
pub fn is_mounted(point: &Path) -> bool {
    mounts_below(point).iter().any(|mounted| Path::new(mounted) == point)
}

/// Lets the frozen file systems of a run go on.
pub fn thaw_all_below(out: &Path) {
    for point in mounts_below(out) {
        // It says an error when it is not frozen, as most are not.
        drop(call_blocking("fsfreeze", &["-u", &point], ""));
    }
}

/// Unmounts the file systems of a run. The loop devices go with them.
pub fn unmount_all_below(out: &Path) -> Vec<anyhow::Error> {
    let mut problems = Vec::new();
    for point in mounts_below(out).into_iter().rev() {
        let unmounted = files::wait_until(std::time::Duration::from_secs(5), || {
            call_blocking("umount", &[&point], "").is_ok()
        });
        if !unmounted {
            problems.extend(call_blocking("umount", &["-l", &point], "").err());
        }
    }
    problems
}
