//! The simulated disk itself: what is asked of it, and the faults that it answers with.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rustix::io::Errno;

use super::Survivors;
use super::nodes::{DirNode, FileNode, Node};
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
