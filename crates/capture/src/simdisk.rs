//! A disk in memory for tests: it can fail the n-th call, write short, be cut off by a kill or a power cut at any call,
//! and forgets what was not synced.
//!
//! The model of durability is the weakest that POSIX allows with atomic renames: a directory's changes since its last
//! sync survive a power cut in any combination; a file's bytes survive up to its last sync, what follows may be there,
//! be missing, or read as zeros; a sync that failed has lost what it was to write, and a later one that succeeds does not
//! bring it back.

#![cfg_attr(fuzzing, allow(dead_code))]

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tapeline_testkit::Random;

use crate::fs::{Dir, DiskFile};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It fails.
    Io,
    /// It fails for want of space.
    Full,
    /// An append writes half and then fails for want of space; other calls fail.
    Short,
    /// This call and every later one that needs space fails.
    FullFromHere,
}

#[derive(Clone, Debug, Default)]
struct Node {
    data: Vec<u8>,
    durable: Vec<u8>,
    /// A sync failed: nothing of this file becomes durable any more.
    lost: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Debug, Default)]
struct Folder {
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    changes: Vec<Change>,
    /// The folder itself is in its parent for certain.
    kept: bool,
}

/// The state of the disk at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    nodes: Vec<Node>,
    folders: BTreeMap<String, Folder>,
}

#[derive(Default)]
struct State {
    image: Image,
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// Taken before every call that changes something, and half-way through every append.
    images: Option<Vec<Image>>,
    /// Free bytes, and how many of them appends and removals use and give back.
    free: Option<u64>,
    total: u64,
    log: Vec<String>,
    fired: bool,
}

/// The disk; clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<State>>, Arc<(Mutex<bool>, Condvar)>);

impl Image {
    /// Contents by path as a process sees them.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for (folder, entry) in &self.folders {
            for (name, node) in &entry.names {
                let path = if folder.is_empty() {
                    name.clone()
                } else {
                    format!("{folder}/{name}")
                };
                all.insert(path, self.nodes[*node].data.clone());
            }
        }
        all
    }

    /// What is certain to survive a power cut: contents by file, whatever name it will have.
    pub(crate) fn durable(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for (folder, entry) in self.folders.iter().filter(|(_, f)| f.kept) {
            for (name, node) in &entry.durable {
                all.insert(
                    format!("{folder}/{name}"),
                    self.nodes[*node].durable.clone(),
                );
            }
        }
        all
    }

    /// The disk after the process was killed: everything passed to the kernel is there.
    pub(crate) fn after_kill(&self) -> SimDisk {
        SimDisk::of(self.clone())
    }

    /// The disk after a power cut: what was synced, and of the rest whatever `seed` says.
    pub(crate) fn after_power_cut(&self, seed: u64) -> SimDisk {
        let mut random = Random::new(seed);
        let mut image = self.clone();
        image
            .folders
            .retain(|name, f| name.is_empty() || f.kept || random.one_in(2));
        for folder in image.folders.values_mut() {
            let mut names = folder.durable.clone();
            for change in &folder.changes {
                if random.one_in(2) {
                    apply(&mut names, change);
                }
            }
            folder.names = names;
        }
        for node in &mut image.nodes {
            if node.data.starts_with(&node.durable) {
                let rest = node.data.len() - node.durable.len();
                let written = node.durable.len() + random.index(rest + 1);
                let size = written + random.index(node.data.len() - written + 1);
                node.data.truncate(written);
                node.data.resize(size, 0);
            } else if random.one_in(2) {
                // Cut since the last sync: the old length or the new one.
                node.data.clone_from(&node.durable);
            }
            node.durable.clone_from(&node.data);
        }
        SimDisk::of(image)
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, node) => {
            names.insert(name.clone(), *node);
        }
        Change::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Change::Remove(name) => {
            names.remove(name);
        }
    }
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        disk.state().image.folders.insert(
            String::new(),
            Folder {
                kept: true,
                ..Folder::default()
            },
        );
        disk
    }

    fn of(mut image: Image) -> Self {
        for folder in image.folders.values_mut() {
            folder.durable.clone_from(&folder.names);
            folder.changes.clear();
            folder.kept = true;
        }
        let disk = Self::default();
        disk.state().image = image;
        disk
    }

    /// Fail call `n` (from 0) with `fault`.
    pub(crate) fn fail(&self, n: u64, fault: Fault) {
        self.state().fault = Some((n, fault));
    }

    /// Keep an image from before every call from now on.
    pub(crate) fn keep_images(&self) {
        self.state().images = Some(Vec::new());
    }

    /// The images kept, the present one last.
    pub(crate) fn images(&self) -> Vec<Image> {
        let mut state = self.state();
        let mut images = state.images.take().unwrap_or_default();
        images.push(state.image.clone());
        images
    }

    /// The state now.
    pub(crate) fn image(&self) -> Image {
        self.state().image.clone()
    }

    /// Calls so far that change something.
    pub(crate) fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Whether the planned fault has happened.
    pub(crate) fn fault_happened(&self) -> bool {
        self.state().fired
    }

    /// What was called, for messages.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    /// Give the disk a size; appends use its free bytes and removals give them back.
    pub(crate) fn set_free(&self, free: u64) {
        let mut state = self.state();
        state.free = Some(free);
        state.total = free;
    }

    /// Put a file there, synced.
    pub(crate) fn put(&self, folder: &str, name: &str, data: &[u8]) {
        let mut state = self.state();
        let node = state.image.nodes.len();
        state.image.nodes.push(Node {
            data: data.to_vec(),
            durable: data.to_vec(),
            lost: false,
        });
        let folder = state.image.folders.entry(folder.to_owned()).or_default();
        folder.kept = true;
        folder.names.insert(name.to_owned(), node);
        folder.durable.insert(name.to_owned(), node);
    }

    /// From now on appends to segments wait, or go on again.
    pub(crate) fn hold(&self, held: bool) {
        *self.1.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.1.1.notify_all();
    }

    /// The top directory.
    pub(crate) fn root(&self) -> Arc<dyn Dir> {
        Arc::new(SimDir {
            disk: self.clone(),
            folder: String::new(),
            path: PathBuf::from("sim"),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Count a call; the fault it is to meet.
    fn call(&mut self, what: impl FnOnce() -> String, needs_space: bool) -> Option<Fault> {
        let n = self.calls;
        self.calls += 1;
        let image = self.image.clone();
        if let Some(images) = &mut self.images {
            images.push(image);
        }
        let fault = match self.fault {
            Some((at, fault)) if at == n => Some(fault),
            Some((at, Fault::FullFromHere)) if n > at && needs_space => Some(Fault::Full),
            _ => None,
        };
        self.fired |= fault.is_some();
        let what = what();
        self.log.push(match fault {
            Some(fault) => format!("{n} {what}: {fault:?}"),
            None => format!("{n} {what}"),
        });
        fault
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Io => io::Error::other("input/output error (simulated)"),
        Fault::Full | Fault::Short | Fault::FullFromHere => {
            io::Error::from(io::ErrorKind::StorageFull)
        }
    }
}

struct SimDir {
    disk: SimDisk,
    folder: String,
    path: PathBuf,
}

impl SimDir {
    fn change(&self, what: &str, needs_space: bool, change: Change) -> io::Result<()> {
        let mut state = self.disk.state();
        let folder = self.folder.clone();
        if let Some(fault) = state.call(|| format!("{what} {folder}/{change:?}"), needs_space) {
            return Err(error(fault));
        }
        let folder = state
            .image
            .folders
            .get_mut(&self.folder)
            .ok_or(io::ErrorKind::NotFound)?;
        apply(&mut folder.names, &change);
        folder.changes.push(change);
        Ok(())
    }

    fn node(&self, name: &str) -> Option<usize> {
        let state = self.disk.state();
        state
            .image
            .folders
            .get(&self.folder)?
            .names
            .get(name)
            .copied()
    }

    fn give_back(&self, node: usize) {
        let mut state = self.disk.state();
        let size = state.image.nodes[node].data.len() as u64;
        state.free = state.free.map(|free| free + size);
    }

    fn file(&self, node: usize, name: &str) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.disk.clone(),
            node,
            name: name.to_owned(),
        })
    }
}

impl Dir for SimDir {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.node(name).is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = {
            let mut state = self.disk.state();
            state.image.nodes.push(Node::default());
            state.image.nodes.len() - 1
        };
        self.change("create", true, Change::Create(name.to_owned(), node))?;
        Ok(self.file(node, name))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let node = self.node(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.file(node, name))
    }
    fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        if self.node(from).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let replaced = self.node(to);
        if !replace && replaced.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change("rename", false, Change::Rename(from.into(), to.into()))?;
        if let Some(node) = replaced {
            self.give_back(node);
        }
        Ok(())
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        let node = self.node(name).ok_or(io::ErrorKind::NotFound)?;
        self.change("remove", false, Change::Remove(name.into()))?;
        self.give_back(node);
        Ok(())
    }
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.disk.state();
        let folder = state
            .image
            .folders
            .get(&self.folder)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(folder
            .names
            .iter()
            .map(|(name, node)| (name.clone(), state.image.nodes[*node].data.len() as u64))
            .collect())
    }
    fn list_dirs(&self) -> io::Result<Vec<String>> {
        let state = self.disk.state();
        Ok(state
            .image
            .folders
            .keys()
            .filter(|name| self.folder.is_empty() && !name.is_empty())
            .cloned()
            .collect())
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let name = self.folder.clone();
        if let Some(fault) = state.call(|| format!("sync {name}/"), false) {
            return Err(error(fault));
        }
        for (other, folder) in &mut state.image.folders {
            // A directory's entries are its files and, for the top, the directories below.
            folder.kept |= self.folder.is_empty();
            if *other == self.folder {
                folder.durable.clone_from(&folder.names);
                folder.changes.clear();
            }
        }
        Ok(())
    }
    fn subdir(&self, name: &str, create: bool) -> io::Result<Arc<dyn Dir>> {
        let mut state = self.disk.state();
        if !state.image.folders.contains_key(name) {
            if !create {
                return Err(io::ErrorKind::NotFound.into());
            }
            if let Some(fault) = state.call(|| format!("mkdir {name}"), true) {
                return Err(error(fault));
            }
            state
                .image
                .folders
                .insert(name.to_owned(), Folder::default());
        }
        Ok(Arc::new(Self {
            disk: self.disk.clone(),
            folder: name.to_owned(),
            path: self.path.join(name),
        }))
    }
    fn free_bytes(&self) -> io::Result<(u64, u64)> {
        let state = self.disk.state();
        Ok(match state.free {
            Some(free) => (free, state.total),
            None => (1 << 40, 1 << 41),
        })
    }
    fn path(&self) -> &Path {
        &self.path
    }
}

struct SimFile {
    disk: SimDisk,
    node: usize,
    name: String,
}

impl DiskFile for SimFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        if self.name.ends_with(".dat.part") {
            let (held, changed) = &*self.disk.1;
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            drop(
                changed
                    .wait_while(held, |held| *held)
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
        let mut state = self.disk.state();
        let fault = state.call(|| format!("append {} {}", self.name, bytes.len()), true);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        match fault {
            Some(Fault::Short) => {
                state.image.nodes[self.node].data.extend_from_slice(first);
                return Err(error(Fault::Full));
            }
            Some(fault) => return Err(error(fault)),
            None => {}
        }
        if let Some(free) = state.free {
            let Some(left) = free.checked_sub(bytes.len() as u64) else {
                return Err(error(Fault::Full));
            };
            state.free = Some(left);
        }
        state.image.nodes[self.node].data.extend_from_slice(first);
        let image = state.image.clone();
        if let Some(images) = &mut state.images {
            images.push(image);
        }
        state.image.nodes[self.node].data.extend_from_slice(second);
        Ok(())
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let data = &state.image.nodes[self.node].data;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let n = buf.len().min(data.len() - from);
        buf[..n].copy_from_slice(&data[from..from + n]);
        Ok(n)
    }
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.call(|| format!("fdatasync {}", self.name), false);
        let node = &mut state.image.nodes[self.node];
        if let Some(fault) = fault {
            node.lost = true;
            return Err(error(fault));
        }
        if !node.lost {
            node.durable.clone_from(&node.data);
        }
        Ok(())
    }
    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Some(fault) = state.call(|| format!("truncate {} {bytes}", self.name), false) {
            return Err(error(fault));
        }
        let size = usize::try_from(bytes).unwrap_or(usize::MAX);
        state.image.nodes[self.node].data.resize(size, 0);
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        Ok(state.image.nodes[self.node].data.len() as u64)
    }
}
