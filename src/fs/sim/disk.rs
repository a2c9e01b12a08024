//! The simulated disk itself: inodes, names, and what of both is durable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::io::Errno;

use super::{SECTOR, Survivors};
use crate::fs::OpenMode;

const ROOT: u64 = 0;

pub(super) fn errno(errno: Errno) -> io::Error {
    errno.into()
}

/// Faults to come.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) power_cut_at: Option<u64>,
    pub(super) capacity: Option<u64>,
    pub(super) fail_sync: Option<u64>,
    pub(super) fail_write: Option<u64>,
    pub(super) tear_write: Option<(u64, usize)>,
    pub(super) lying_sync: bool,
}

/// Counts a fault down; true when it is due.
fn due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            true
        }
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

type Sector = [u8; SECTOR];

#[derive(Debug, Clone, Default)]
struct FileNode {
    /// As a reader sees it.
    live: Vec<u8>,
    /// As it is on the disk for sure.
    durable: Vec<u8>,
    /// Every content that a sector had since the last sync.
    dirty: BTreeMap<usize, Vec<Sector>>,
    /// Every length since the last sync.
    lengths: Vec<usize>,
    /// The handle that holds the lock.
    locked: Option<u64>,
}

/// One un-synced change of names. The name of each change, and the inode that it then stands for.
type Change = Vec<(String, Option<u64>)>;

#[derive(Debug, Clone, Default)]
struct DirNode {
    live: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// See [`super::SimFs`].
#[derive(Debug, Clone)]
pub(super) struct Disk {
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    next_handle: u64,
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) syncs: u64,
    pub(super) failed_syncs: u64,
    pub(super) torn: bool,
    pub(super) dead: bool,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: 1,
            next_handle: 0,
            faults: Faults::default(),
            operations: 0,
            syncs: 0,
            failed_syncs: 0,
            torn: false,
            dead: false,
        }
    }
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

    fn write(&mut self, buf: &[u8], offset: usize) {
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

    fn resize(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.lengths.push(len);
    }

    /// Only what is dirty reaches the disk: what a failed sync lost stays lost.
    fn synced(&mut self) {
        let newest = |versions: &Vec<Sector>| versions.last().copied();
        let before = std::mem::take(&mut self.durable);
        self.durable = Self::outcome(before, self.lengths.last(), &self.dirty, newest);
        self.forget();
    }

    fn forget(&mut self) {
        self.dirty.clear();
        self.lengths.clear();
    }

    fn after_crash(&self, survivors: Survivors, dice: &mut StdRng) -> Self {
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
    fn change(&mut self, change: Change) {
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

    fn after_crash(&self, survivors: Survivors, dice: &mut StdRng) -> Self {
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

impl Disk {
    pub(super) fn crash(&self, survivors: Survivors) -> Self {
        let seed = if let Survivors::Random(seed) = survivors { seed } else { 0 };
        let mut dice = StdRng::seed_from_u64(seed);
        let reborn = |node: &Node, dice: &mut StdRng| match node {
            Node::File(file) => Node::File(file.after_crash(survivors, dice)),
            Node::Dir(dir) => Node::Dir(dir.after_crash(survivors, dice)),
        };
        let nodes = self.nodes.iter().map(|(id, node)| (*id, reborn(node, &mut dice))).collect();
        let mut disk = Self {
            nodes,
            next_node: self.next_node,
            faults: Faults { capacity: self.faults.capacity, ..Faults::default() },
            ..Self::default()
        };
        disk.drop_unnamed();
        disk
    }

    pub(super) fn restart(&self) -> Self {
        let mut disk = Self {
            nodes: self.nodes.clone(),
            next_node: self.next_node,
            faults: Faults { capacity: self.faults.capacity, ..Faults::default() },
            ..Self::default()
        };
        for node in disk.nodes.values_mut() {
            if let Node::File(file) = node {
                file.locked = None;
            }
        }
        disk
    }

    /// Frees what no name leads to any more. Only after a crash: an open file outlives its name.
    fn drop_unnamed(&mut self) {
        let mut reached = BTreeMap::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            let Some(node) = self.nodes.remove(&id) else { continue };
            if let Node::Dir(dir) = &node {
                todo.extend(dir.live.values());
            }
            reached.insert(id, node);
        }
        self.nodes = reached;
    }

    pub(super) fn used(&self) -> u64 {
        let mut todo = vec![ROOT];
        let mut used = 0;
        while let Some(id) = todo.pop() {
            match self.nodes.get(&id) {
                Some(Node::File(file)) => used += file.live.len() as u64,
                Some(Node::Dir(dir)) => todo.extend(dir.live.values()),
                None => {}
            }
        }
        used
    }

    pub(super) fn available(&self) -> io::Result<u64> {
        self.alive()?;
        Ok(self.faults.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used())))
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }

    fn mutate(&mut self) -> io::Result<()> {
        if self.faults.power_cut_at.is_some_and(|n| self.operations >= n) {
            self.dead = true;
        }
        self.alive()?;
        self.operations += 1;
        Ok(())
    }

    fn names(path: &Path) -> impl Iterator<Item = String> + '_ {
        path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
    }

    fn find(&self, path: &Path) -> Option<u64> {
        Self::names(path).try_fold(ROOT, |id, name| match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => dir.live.get(&name).copied(),
            _ => None,
        })
    }

    fn find_or_err(&self, path: &Path) -> io::Result<u64> {
        self.find(path).ok_or_else(|| errno(Errno::NOENT))
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut DirNode> {
        let id = self.find_or_err(path)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(errno(Errno::NOTDIR)),
        }
    }

    fn file(&self, id: u64) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    fn file_mut(&mut self, id: u64) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(errno(Errno::ISDIR)),
        }
    }

    fn split(path: &Path) -> io::Result<(&Path, String)> {
        let name = Self::names(path).last().ok_or_else(|| errno(Errno::INVAL))?;
        Ok((path.parent().unwrap_or(Path::new("")), name))
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let (parent, name) = Self::split(path)?;
        let id = self.next_node;
        self.dir_mut(parent)?.change(vec![(name, Some(id))]);
        self.nodes.insert(id, node);
        self.next_node += 1;
        Ok(id)
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<(u64, u64)> {
        self.alive()?;
        let node = match (self.find(path), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(errno(Errno::EXIST)),
            (Some(node), _) => node,
            (None, OpenMode::CreateNew) => {
                self.mutate()?;
                self.add(path, Node::File(FileNode::default()))?
            }
            (None, _) => return Err(errno(Errno::NOENT)),
        };
        self.file(node)?;
        self.next_handle += 1;
        Ok((node, self.next_handle))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.alive()?;
        for part in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if self.find(part).is_none() {
                self.mutate()?;
                self.add(part, Node::Dir(DirNode::default()))?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, directory: bool) -> io::Result<()> {
        self.mutate()?;
        let id = self.find_or_err(path)?;
        match (self.nodes.get(&id), directory) {
            (Some(Node::Dir(_)), false) => return Err(errno(Errno::ISDIR)),
            (Some(Node::File(_)), true) => return Err(errno(Errno::NOTDIR)),
            _ => {}
        }
        let (parent, name) = Self::split(path)?;
        self.dir_mut(parent)?.change(vec![(name, None)]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.mutate()?;
        let id = self.find_or_err(from)?;
        let ((old_parent, old), (new_parent, new)) = (Self::split(from)?, Self::split(to)?);
        if self.find_or_err(old_parent)? == self.find_or_err(new_parent)? {
            self.dir_mut(old_parent)?.change(vec![(old, None), (new, Some(id))]);
        } else {
            self.dir_mut(new_parent)?.change(vec![(new, Some(id))]);
            self.dir_mut(old_parent)?.change(vec![(old, None)]);
        }
        Ok(())
    }

    /// Counts a sync; whether it is to do its work, and whether it fails.
    fn sync(&mut self) -> io::Result<(bool, bool)> {
        self.mutate()?;
        self.syncs += 1;
        let fails = due(&mut self.faults.fail_sync);
        self.failed_syncs += u64::from(fails);
        Ok((!self.faults.lying_sync, fails))
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let (honest, fails) = self.sync()?;
        let dir = self.dir_mut(path)?;
        if fails {
            dir.pending.clear();
            return Err(errno(Errno::IO));
        }
        if honest {
            dir.durable.clone_from(&dir.live);
            dir.pending.clear();
        }
        Ok(())
    }

    pub(super) fn sync_file(&mut self, id: u64) -> io::Result<()> {
        let (honest, fails) = self.sync()?;
        let file = self.file_mut(id)?;
        if fails {
            file.forget();
            return Err(errno(Errno::IO));
        }
        if honest {
            file.synced();
        }
        Ok(())
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<String>> {
        self.alive()?;
        Ok(self.dir_mut(path)?.live.keys().cloned().collect())
    }

    pub(super) fn exists(&self, path: &Path) -> io::Result<bool> {
        self.alive()?;
        Ok(self.find(path).is_some())
    }

    pub(super) fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.len_of(self.find_or_err(path)?)
    }

    pub(super) fn len_of(&self, id: u64) -> io::Result<u64> {
        self.alive()?;
        Ok(self.file(id)?.live.len() as u64)
    }

    pub(super) fn read(&self, id: u64, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.alive()?;
        let live = &self.file(id)?.live;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let bytes = live.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    /// Fails with ENOSPC if the file can't get as long as `len`.
    fn room_for(&self, id: u64, len: u64) -> io::Result<usize> {
        let longer = len.saturating_sub(self.file(id)?.live.len() as u64);
        if longer > 0 && longer > self.available()? {
            return Err(errno(Errno::NOSPC));
        }
        usize::try_from(len).map_err(|_| errno(Errno::FBIG))
    }

    pub(super) fn write(&mut self, id: u64, buf: &[u8], offset: u64) -> io::Result<()> {
        self.mutate()?;
        if due(&mut self.faults.fail_write) {
            return Err(errno(Errno::IO));
        }
        let end = self.room_for(id, offset.saturating_add(buf.len() as u64))?;
        let start = end - buf.len();
        let mut tear = self.faults.tear_write.map(|(n, _)| n);
        if due(&mut tear) {
            let kept = self.faults.tear_write.take().map_or(0, |(_, bytes)| bytes);
            self.file_mut(id)?.write(buf.get(..kept).unwrap_or(buf), start);
            self.torn = true;
            self.dead = true;
            return self.alive();
        }
        self.faults.tear_write = self.faults.tear_write.and_then(|(_, b)| Some((tear?, b)));
        self.file_mut(id)?.write(buf, start);
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: u64, len: u64) -> io::Result<()> {
        self.mutate()?;
        let len = self.room_for(id, len)?;
        self.file_mut(id)?.resize(len);
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: u64, len: u64) -> io::Result<()> {
        if self.len_of(id)? < len { self.set_len(id, len) } else { self.mutate() }
    }

    pub(super) fn lock(&mut self, id: u64, handle: u64) -> io::Result<bool> {
        self.alive()?;
        let file = self.file_mut(id)?;
        Ok(*file.locked.get_or_insert(handle) == handle)
    }

    pub(super) fn unlock(&mut self, id: u64, handle: u64) {
        if let Ok(file) = self.file_mut(id)
            && file.locked == Some(handle)
        {
            file.locked = None;
        }
    }

    pub(super) fn flip_bit(&mut self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let id = self.find_or_err(path)?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let file = self.file_mut(id)?;
        let places = [file.live.get_mut(at), file.durable.get_mut(at)];
        for byte in places.into_iter().flatten() {
            *byte ^= 1 << (bit % 8);
        }
        if at < file.live.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
