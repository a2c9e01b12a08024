//! The block devices of the machine, from sysfs: what is on what, and where it is mounted.
//!
//! Read from the kernel itself and not from `lsblk`: it is no other program that may be missing or hang, says the same in a container
//! without udev, and can be laid out in a directory for a test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

/// Bytes of the sectors that sysfs counts in, whatever the device's own are.
const SECTOR: u64 = 512;
/// Devices that hold no volume of anybody's.
const NO_VOLUMES: [&str; 4] = ["ram", "zram", "sr", "fd"];

/// Where the kernel says what there is.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// sysfs.
    pub sys: PathBuf,
    /// procfs.
    pub proc: PathBuf,
    /// The directory of device nodes.
    pub dev: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// A device or file that may be a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) removable: bool,
    pub(super) read_only: bool,
    pub(super) is_file: bool,
    /// Where it is mounted, itself or unlocked.
    pub(super) mounts: Vec<PathBuf>,
    /// Where it itself is mounted or used for swap, and what is built on it.
    pub(super) users: Vec<String>,
    /// Whether it is unlocked.
    pub(super) unlocked: bool,
    /// Whether it only carries others (a member of a RAID or of a volume group), which are listed themselves.
    pub(super) carrier: bool,
}

/// Everything that may be a volume: whatever has room and is neither divided into partitions nor the inside of an encrypted volume.
pub(super) fn list(kernel: &Kernel) -> io::Result<Vec<Disk>> {
    let devices = kernel.sys.join("class/block");
    let mounts = Mounts::read(kernel)?;
    let mut disks = Vec::new();
    for name in names(&devices)? {
        let device = Device { directory: devices.join(&name), name };
        if device.may_be_a_volume()? {
            disks.push(device.disk(kernel, &devices, &mounts)?);
        }
    }
    Ok(disks)
}

/// One device or file.
pub(super) fn look_up(kernel: &Kernel, path: &Path) -> io::Result<Disk> {
    let path = path.canonicalize()?;
    let about = path.metadata()?;
    let listed = list(kernel)?.into_iter().find(|disk| disk.path == path);
    match listed {
        Some(disk) => Ok(disk),
        None if about.is_file() => file(kernel, path, about.len()),
        None if about.file_type().is_block_device() => {
            let why = "is divided into partitions, or the inside of an encrypted volume";
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "is no device and no file")),
    }
}

fn file(kernel: &Kernel, path: PathBuf, bytes: u64) -> io::Result<Disk> {
    let devices = kernel.sys.join("class/block");
    let mut users = Vec::new();
    for name in names(&devices)? {
        let backing = read(&devices.join(&name).join("loop/backing_file"))?;
        if backing.is_some_and(|backing| Path::new(&backing) == path) {
            users.push(name);
        }
    }
    let read_only = path.metadata()?.permissions().readonly();
    Ok(Disk {
        path,
        bytes,
        removable: false,
        read_only,
        is_file: true,
        mounts: Vec::new(),
        users,
        unlocked: false,
        carrier: false,
    })
}

struct Device {
    directory: PathBuf,
    name: String,
}

impl Device {
    fn may_be_a_volume(&self) -> io::Result<bool> {
        let of_none = NO_VOLUMES.iter().any(|kind| {
            let rest = self.name.strip_prefix(kind);
            rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if of_none || self.bytes()? == 0 || self.crypt_uuid()?.is_some() {
            return Ok(false);
        }
        let parts = names(&self.directory)?;
        Ok(!parts.iter().any(|part| self.directory.join(part).join("partition").exists()))
    }

    fn bytes(&self) -> io::Result<u64> {
        let sectors = read(&self.directory.join("size"))?.and_then(|size| size.parse().ok());
        Ok(sectors.unwrap_or(0_u64).saturating_mul(SECTOR))
    }

    /// What device-mapper calls it, if it is the inside of an encrypted volume.
    fn crypt_uuid(&self) -> io::Result<Option<String>> {
        let uuid = read(&self.directory.join("dm/uuid"))?;
        Ok(uuid.filter(|uuid| uuid.starts_with("CRYPT-")))
    }

    fn flag(&self, name: &str) -> io::Result<bool> {
        Ok(read(&self.directory.join(name))?.as_deref() == Some("1"))
    }

    fn disk(&self, kernel: &Kernel, devices: &Path, mounts: &Mounts) -> io::Result<Disk> {
        let own = mounts.of(&self.directory)?;
        let mut disk = Disk {
            path: kernel.dev.join(self.name.replace('!', "/")),
            bytes: self.bytes()?,
            // A partition is as removable as its disk, whose directory it lies in.
            removable: self.flag("removable")? || self.flag("../removable")?,
            read_only: self.flag("ro")?,
            is_file: false,
            users: own.iter().map(|mount| format!("mounted on {}", mount.display())).collect(),
            mounts: own,
            unlocked: false,
            carrier: false,
        };
        if mounts.swaps.contains(&disk.path) {
            disk.users.push("used for swap".to_owned());
        }
        for name in names(&self.directory.join("holders"))? {
            let holder = Device { directory: devices.join(&name), name };
            match holder.crypt_uuid()? {
                Some(_) => disk.unlocked = true,
                None => disk.carrier = true,
            }
            disk.mounts.extend(mounts.of(&holder.directory)?);
            disk.users.push(format!("{} is built on it", holder.name));
        }
        Ok(disk)
    }
}

/// What is mounted where.
struct Mounts {
    /// By major and minor number, as text.
    by_device: BTreeMap<String, Vec<PathBuf>>,
    swaps: Vec<PathBuf>,
}

impl Mounts {
    fn read(kernel: &Kernel) -> io::Result<Self> {
        let mut by_device: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mounts = std::fs::read(kernel.proc.join("self/mountinfo"))?;
        for line in mounts.split(|byte| *byte == b'\n') {
            let mut fields = line.split(|byte| *byte == b' ');
            if let (Some(device), Some(point)) = (fields.nth(2), fields.nth(1)) {
                let device = String::from_utf8_lossy(device).into_owned();
                by_device.entry(device).or_default().push(unescape(point));
            }
        }
        let swaps = read(&kernel.proc.join("swaps"))?.unwrap_or_default();
        let swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        Ok(Self { by_device, swaps: swaps.map(|path| unescape(path.as_bytes())).collect() })
    }

    fn of(&self, device: &Path) -> io::Result<Vec<PathBuf>> {
        let number = read(&device.join("dev"))?.unwrap_or_default();
        Ok(self.by_device.get(&number).cloned().unwrap_or_default())
    }
}

/// The kernel writes blanks and the like in paths as three octal digits.
fn unescape(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| behind.get(..3)).flatten();
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                path.push(*first);
                rest = behind;
            }
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

/// The names in a directory, sorted; none, if it is not there (any more).
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// One value of sysfs, without its line end; `None`, if it is not there (any more).
fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())),
        // A device that went away between two reads says the latter.
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::NODEV, rustix::io::Errno::NXIO, rustix::io::Errno::NOTDIR];
    codes.iter().any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}

#[cfg(test)]
mod tests;
