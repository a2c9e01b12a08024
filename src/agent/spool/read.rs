//! What a spool finds when it is opened.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{
    Damage, DamagedFile, REPORT_FILE, SEALED, Spool, SpoolError, SpooledEscrow, SpooledReport,
    length,
};
use crate::fs::{Fs, read_file};

/// Largest file that is read: a request has at most 1 MiB.
const FILE_BYTES: u64 = 2 * 1024 * 1024;
/// End of the name of a file whose writing was cut short.
const TEMPORARY: &str = ".tmp";

impl<F: Fs> Spool<F> {
    pub(super) fn read_small(&self, path: &Path) -> io::Result<Vec<u8>> {
        let length = self.fs.file_len(path)?;
        if length > FILE_BYTES {
            let what =
                format!("{} has {length} bytes, and at most {FILE_BYTES} are read", path.display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        read_file(&self.fs, path)
    }

    /// What a write left behind that was cut short: nobody was told that it is there.
    pub(super) fn sweep(&self, dir: &Path) -> Result<Vec<String>, SpoolError> {
        let mut kept = Vec::new();
        for name in self.fs.read_dir(dir)? {
            if name.ends_with(TEMPORARY) {
                self.fs.remove_file(&dir.join(&name))?;
            } else {
                kept.push(name);
            }
        }
        Ok(kept)
    }

    pub(super) fn read_escrows(
        &mut self,
        dir: &str,
    ) -> Result<BTreeMap<u64, SpooledEscrow>, SpoolError> {
        let mut entries = BTreeMap::new();
        for name in self.sweep(&self.dir.join(dir))? {
            let path = self.dir.join(dir).join(&name);
            let number = name.strip_suffix(SEALED).and_then(|n| u64::from_str_radix(n, 16).ok());
            let Some(number) = number else {
                self.damaged.push(DamagedFile { path, damage: Damage::NoEntry });
                continue;
            };
            // Also of one that is damaged: its file must never be overwritten.
            self.next_number = self.next_number.max(number.saturating_add(1));
            let read = self.read_small(&path).map_err(|e| Damage::Unreadable(e.to_string()));
            let entry = read.and_then(|bytes| {
                let entry = SpooledEscrow::decode(number, &bytes, self.device)?;
                Ok((entry, length(&bytes)))
            });
            match entry {
                Ok((entry, length)) => {
                    self.bytes = self.bytes.saturating_add(length);
                    entries.insert(number, entry);
                }
                Err(damage) => self.damaged.push(DamagedFile { path, damage }),
            }
        }
        Ok(entries)
    }

    pub(super) fn read_report(&mut self) -> Result<(), SpoolError> {
        let path = self.dir.join(REPORT_FILE);
        if !self.fs.exists(&path)? {
            return Ok(());
        }
        let read = self.read_small(&path).map_err(|e| Damage::Unreadable(e.to_string()));
        match read.and_then(|bytes| SpooledReport::decode(&bytes, self.device)) {
            Ok(report) => {
                self.next_report = report.number.saturating_add(1);
                self.report = Some(report);
            }
            // The next report takes its place: it is of the same device and newer.
            Err(damage) => self.damaged.push(DamagedFile { path, damage }),
        }
        Ok(())
    }
}
