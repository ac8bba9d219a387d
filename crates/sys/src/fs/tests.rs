#![allow(clippy::unwrap_used)]
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

/// A directory of this test alone, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "tapeline-sys-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn created_files_are_new_and_links_are_not_followed() {
    let scratch = Scratch::new();
    let directory = scratch.open();
    create_at(&directory, "a").unwrap();
    assert_eq!(
        create_at(&directory, "a").unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    symlink("elsewhere", scratch.0.join("planted")).unwrap();
    assert_eq!(
        create_at(&directory, "planted").unwrap_err().kind(),
        io::ErrorKind::AlreadyExists
    );
    assert!(open_at(&directory, "planted").is_err());
    assert!(!scratch.0.join("elsewhere").exists());
    assert!(open_at(&directory, "a").is_ok());
    sync_dir(&directory).unwrap();
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let scratch = Scratch::new();
    let directory = scratch.open();
    for name in ["", ".", "..", "../x", "a/b", "/etc/x", "a\0b", "a\\b"] {
        assert_eq!(
            create_at(&directory, name).unwrap_err().kind(),
            io::ErrorKind::InvalidInput,
            "{name:?}"
        );
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0);
}

#[test]
fn rename_never_replaces() {
    let scratch = Scratch::new();
    let directory = scratch.open();
    for rename in [rename_at, rename_slowly] {
        fs::write(scratch.0.join("a.part"), b"new").unwrap();
        fs::write(scratch.0.join("taken"), b"old").unwrap();
        assert_eq!(
            rename(&directory, "a.part", "taken").unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(scratch.0.join("taken")).unwrap(), b"old");
        rename(&directory, "a.part", "a").unwrap();
        assert_eq!(fs::read(scratch.0.join("a")).unwrap(), b"new");
        assert!(!scratch.0.join("a.part").exists());
        assert_eq!(
            rename(&directory, "a.part", "b").unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        remove_at(&directory, "a").unwrap();
    }
}

fn rename_slowly(directory: &File, from: &str, to: &str) -> io::Result<()> {
    imp::rename_in_two_steps(directory, &component(from)?, &component(to)?)
}

#[test]
fn vectored_writes_are_whole_past_the_limit_of_parts() {
    let scratch = Scratch::new();
    let mut file = create_at(&scratch.open(), "parts").unwrap();
    let bytes: Vec<u8> = (0..10_000_u32).map(|i| i.to_le_bytes()[0]).collect();
    let mut parts: Vec<IoSlice<'_>> = bytes.chunks(3).map(IoSlice::new).collect();
    parts.insert(5, IoSlice::new(&[]));
    parts.push(IoSlice::new(&[]));
    write_vectored_all(&file, &parts).unwrap();
    write_vectored_all(&file, &[]).unwrap();
    let mut read = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
    fdatasync(&file).unwrap();
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
#[test]
fn short_writes_are_continued() {
    // A pipe takes less than it is given when a reader drains it slowly.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let wanted = bytes.clone();
    let thread = std::thread::spawn(move || {
        let parts: Vec<IoSlice<'_>> = bytes.chunks(70_001).map(IoSlice::new).collect();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        write_vectored_all(&file, &parts)
    });
    let mut read = Vec::new();
    reader.read_to_end(&mut read).unwrap();
    thread.join().unwrap().unwrap();
    assert!(read == wanted);
}

#[test]
fn space_is_reported_and_preallocation_keeps_the_size() {
    let scratch = Scratch::new();
    let (free, total) = free_bytes(&scratch.0).unwrap();
    assert!(total > 0 && free <= total);
    assert_eq!(
        free_bytes(&scratch.0.join("none")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    let file = create_at(&scratch.open(), "room").unwrap();
    match preallocate(&file, 1 << 20) {
        Ok(()) => assert_eq!(file.metadata().unwrap().len(), 0),
        Err(error) => assert!(matches!(
            error.kind(),
            io::ErrorKind::Unsupported | io::ErrorKind::StorageFull
        )),
    }
}
