//! Files and directories of the simulated disk: what a reader sees, and what of it survives a crash.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::{SECTOR, Survivors};

type Sector = [u8; SECTOR];

#[derive(Debug, Clone, Default)]
pub(super) struct FileNode {
    /// As a reader sees it.
    pub(super) live: Vec<u8>,
    /// As it is on the disk for sure.
    pub(super) durable: Vec<u8>,
    /// Every content that a sector had since the last sync.
    dirty: BTreeMap<usize, Vec<Sector>>,
    /// Every length since the last sync.
    lengths: Vec<usize>,
    /// The handle that holds the lock.
    pub(super) locked: Option<u64>,
}

/// One un-synced change of names. The name of each change, and the inode that it then stands for.
pub(super) type Change = Vec<(String, Option<u64>)>;

#[derive(Debug, Clone, Default)]
pub(super) struct DirNode {
    pub(super) live: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    pub(super) pending: Vec<Change>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

impl FileNode {
    fn sector(bytes: &[u8], sector: usize) -> Sector {
        let mut content = [0; SECTOR];
        let start = (sector * SECTOR).min(bytes.len());
        let end = (start + SECTOR).min(bytes.len());
        if let (Some(to), Some(from)) = (content.get_mut(..end - start), bytes.get(start..end)) {
            to.copy_from_slice(from);
        }
        content
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: usize) {
        let end = offset + buf.len();
        if end > self.live.len() {
            self.resize(end);
        }
        if let Some(range) = self.live.get_mut(offset..end) {
            range.copy_from_slice(buf);
        }
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let content = Self::sector(&self.live, sector);
            self.dirty.entry(sector).or_default().push(content);
        }
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.lengths.push(len);
    }

    /// Only what is dirty reaches the disk: what a failed sync lost stays lost.
    pub(super) fn synced(&mut self) {
        let newest = |versions: &Vec<Sector>| versions.last().copied();
        let before = std::mem::take(&mut self.durable);
        self.durable = Self::outcome(before, self.lengths.last(), &self.dirty, newest);
        self.forget();
    }

    pub(super) fn forget(&mut self) {
        self.dirty.clear();
        self.lengths.clear();
    }

    pub(super) fn after_crash(&self, survivors: Survivors, dice: &mut StdRng) -> Self {
        let mut choose = |versions: usize| match survivors {
            Survivors::None => None,
            Survivors::All => versions.checked_sub(1),
            Survivors::Random(_) => dice.random_range(0..=versions).checked_sub(1),
        };
        let length = choose(self.lengths.len()).and_then(|n| self.lengths.get(n));
        let content = Self::outcome(self.durable.clone(), length, &self.dirty, |versions| {
            choose(versions.len()).and_then(|n| versions.get(n)).copied()
        });
        Self { live: content.clone(), durable: content, ..Self::default() }
    }

    /// The durable `content`, with another length and a version of each dirty sector, where one is chosen.
    fn outcome(
        mut content: Vec<u8>,
        length: Option<&usize>,
        dirty: &BTreeMap<usize, Vec<Sector>>,
        mut choose: impl FnMut(&Vec<Sector>) -> Option<Sector>,
    ) -> Vec<u8> {
        if let Some(len) = length {
            content.resize(*len, 0);
        }
        for (sector, versions) in dirty {
            let Some(version) = choose(versions) else { continue };
            let start = (sector * SECTOR).min(content.len());
            let end = (start + SECTOR).min(content.len());
            let places = (content.get_mut(start..end), version.get(..end - start));
            if let (Some(to), Some(from)) = places {
                to.copy_from_slice(from);
            }
        }
        content
    }
}

impl DirNode {
    pub(super) fn change(&mut self, change: Change) {
        Self::apply(&mut self.live, &change);
        self.pending.push(change);
    }

    fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
        for (name, node) in change {
            match node {
                Some(node) => names.insert(name.clone(), *node),
                None => names.remove(name),
            };
        }
    }

    pub(super) fn after_crash(&self, survivors: Survivors, dice: &mut StdRng) -> Self {
        let mut names = self.durable.clone();
        for change in &self.pending {
            let survives = match survivors {
                Survivors::None => false,
                Survivors::All => true,
                Survivors::Random(_) => dice.random_bool(0.5),
            };
            if survives {
                Self::apply(&mut names, change);
            }
        }
        Self { live: names.clone(), durable: names, pending: Vec::new() }
    }
}
