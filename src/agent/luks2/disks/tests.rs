//! A machine laid out in a directory.

use super::*;

struct Machine {
    root: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { root: tempfile::tempdir().unwrap() };
        machine.put("proc/self/mountinfo", "");
        std::fs::create_dir_all(machine.root.path().join("sys/class/block")).unwrap();
        machine
    }

    fn put(&self, path: &str, text: &str) {
        use std::io::Write as _;
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// A device as sysfs shows it: `at` is where it lies among the devices.
    fn device(&self, at: &str, numbers: &str, files: &[(&str, &str)]) {
        let name = at.rsplit('/').next().unwrap();
        self.put(&format!("sys/devices/{at}/size"), "204800\n");
        self.put(&format!("sys/devices/{at}/dev"), &format!("{numbers}\n"));
        for (file, text) in files {
            self.put(&format!("sys/devices/{at}/{file}"), &format!("{text}\n"));
        }
        let target = self.root.path().join("sys/devices").join(at);
        let link = self.root.path().join("sys/class/block").join(name);
        std::os::unix::fs::symlink(target, link).unwrap();
        self.put(&format!("dev/{}", name.replace('!', "/")), "");
    }

    fn kernel(&self) -> Kernel {
        let at = |directory| self.root.path().canonicalize().unwrap().join(directory);
        Kernel { sys: at("sys"), proc: at("proc"), dev: at("dev") }
    }

    fn list(&self) -> Vec<(String, Disk)> {
        let disks = list(&self.kernel()).unwrap().into_iter();
        let dev = self.kernel().dev;
        disks
            .map(|disk| {
                (disk.path.strip_prefix(&dev).unwrap().to_string_lossy().into_owned(), disk)
            })
            .collect()
    }

    fn names(&self) -> Vec<String> {
        self.list().into_iter().map(|(name, _)| name).collect()
    }
}

#[test]
fn a_disk_with_partitions_is_none_and_its_partitions_are_as_removable_as_it() {
    let machine = Machine::new();
    machine.device("sda", "8:0", &[("removable", "1"), ("ro", "0")]);
    machine.device("sda/sda1", "8:1", &[("partition", "1"), ("ro", "1")]);
    machine.device("sda/sda2", "8:2", &[("partition", "2"), ("ro", "0")]);
    machine.device("nvme0n1", "259:0", &[("removable", "0")]);
    machine.device("cciss!c0d0", "104:0", &[]);
    let list = machine.list();
    assert_eq!(machine.names(), ["cciss/c0d0", "nvme0n1", "sda1", "sda2"]);
    let facts: Vec<_> = list.iter().map(|(_, disk)| (disk.removable, disk.read_only)).collect();
    assert_eq!(facts, [(false, false), (false, false), (true, true), (true, false)]);
    assert!(list.iter().all(|(_, disk)| disk.bytes == 100 * 1024 * 1024 && !disk.is_file));
}

#[test]
fn what_has_no_room_or_is_no_disk_is_no_volume() {
    let machine = Machine::new();
    for name in ["ram0", "zram0", "sr0", "fd0"] {
        machine.device(name, "1:1", &[]);
    }
    machine.device("loop0", "7:0", &[("size", "0")]);
    machine.device("frame", "9:9", &[]);
    assert_eq!(machine.names(), ["frame"]);
}

#[test]
fn an_unlocked_volume_is_mounted_where_its_inside_is_and_the_inside_is_no_volume() {
    let machine = Machine::new();
    machine.device("sda", "8:0", &[("holders/dm-0", "")]);
    machine.device("dm-0", "254:0", &[("dm/uuid", "CRYPT-LUKS2-11111111222233334444-home")]);
    machine.device("sdb", "8:16", &[("holders/dm-1", "")]);
    machine.device("dm-1", "254:1", &[("dm/uuid", "LVM-abc")]);
    let mounts = "22 1 254:0 / /home/two\\040words rw - ext4 /dev/dm-0 rw\n\
                  23 1 254:1 / /srv rw - ext4 /dev/dm-1 rw\n";
    machine.put("proc/self/mountinfo", mounts);
    let list = machine.list();
    assert_eq!(machine.names(), ["dm-1", "sda", "sdb"]);
    let (_, sda) = &list[1];
    assert!(sda.unlocked);
    assert_eq!(sda.mounts, [Path::new("/home/two words")]);
    let (_, sdb) = &list[2];
    assert!(!sdb.unlocked && sdb.carrier && !sda.carrier);
    assert_eq!(sdb.users, ["dm-1 is built on it"]);
    assert_eq!(list[0].1.users, ["mounted on /srv"]);
}

#[test]
fn swap_counts_as_use() {
    let machine = Machine::new();
    machine.device("sda", "8:0", &[]);
    let sda = machine.kernel().dev.join("sda");
    let swaps = format!("Filename Type Size Used Priority\n{} partition 1 0 -2\n", sda.display());
    machine.put("proc/swaps", &swaps);
    assert_eq!(machine.list()[0].1.users, ["used for swap"]);
}

#[test]
fn a_file_is_in_use_by_the_loop_devices_on_it() {
    let machine = Machine::new();
    let file = machine.root.path().canonicalize().unwrap().join("volume");
    machine.put("volume", "12345");
    machine.device("loop0", "7:0", &[("loop/backing_file", file.to_str().unwrap())]);
    machine.device("loop1", "7:1", &[("loop/backing_file", "/elsewhere")]);
    let disk = look_up(&machine.kernel(), &file).unwrap();
    assert!(disk.is_file);
    assert_eq!((disk.bytes, disk.users), (5, vec!["loop0".to_owned()]));
}

#[test]
fn what_is_no_volume_is_not_looked_up() {
    let machine = Machine::new();
    let missing = look_up(&machine.kernel(), &machine.root.path().join("none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let directory = look_up(&machine.kernel(), machine.root.path()).unwrap_err();
    assert_eq!(directory.kind(), io::ErrorKind::InvalidInput);
}
