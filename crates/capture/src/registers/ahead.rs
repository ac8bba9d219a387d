//! Parts of logs, read by a thread of its own while the part before is looked at: the disk and the processor both have
//! work all the time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

/// Buffers on their way; a part is about 1 MiB.
const BUFFERS: usize = 4;
/// Fewer parts than this are not worth a thread.
const WORTH_A_THREAD: usize = 3;

/// A part of a log.
pub(super) struct Part<'a, T> {
    pub(super) log: &'a Path,
    pub(super) start: u64,
    pub(super) stop: u64,
    /// What the reader of the bytes wants to know about them.
    pub(super) tag: T,
}

/// Gives the bytes of each part to `take`, in order; fewer where a file ends before. Returns how many there were.
pub(super) fn each<T: Sync>(
    parts: &[Part<'_, T>],
    mut take: impl FnMut(&T, &[u8]),
) -> io::Result<u64> {
    let mut total = 0;
    let mut one = |tag: &T, bytes: &[u8]| {
        total += bytes.len() as u64;
        take(tag, bytes);
    };
    thread::scope(|scope| {
        let (full, arriving) = sync_channel(BUFFERS);
        let (done, empty) = channel();
        for _ in 0..BUFFERS {
            let _ = done.send(Vec::new());
        }
        let ahead = move || {
            let mut files = Files::default();
            for part in parts {
                let Ok(mut bytes) = empty.recv() else { return };
                let read = files.read(part.log, part.start, part.stop, &mut bytes);
                if full.send(read.map(|()| (&part.tag, bytes))).is_err() {
                    return;
                }
            }
        };
        let builder = thread::Builder::new().name("log-read".into());
        if parts.len() >= WORTH_A_THREAD && builder.spawn_scoped(scope, ahead).is_ok() {
            for found in arriving {
                let (tag, bytes) = found?;
                one(tag, &bytes);
                let _ = done.send(bytes);
            }
            return Ok(());
        }
        let (mut files, mut bytes) = (Files::default(), Vec::new());
        for part in parts {
            files.read(part.log, part.start, part.stop, &mut bytes)?;
            one(&part.tag, &bytes);
        }
        Ok::<_, io::Error>(())
    })?;
    Ok(total)
}

/// The file that was read last stays open.
#[derive(Default)]
struct Files<'a> {
    open: Option<(&'a Path, File)>,
}

impl<'a> Files<'a> {
    fn read(
        &mut self,
        path: &'a Path,
        start: u64,
        stop: u64,
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some((open, file)) if open == path => file,
            _ => File::open(path)?,
        };
        file.seek(SeekFrom::Start(start))?;
        // nothing is allocated for bytes that are not there
        let there = file.metadata()?.len().min(stop).saturating_sub(start);
        into.clear();
        into.reserve_exact(usize::try_from(there).unwrap_or(0));
        (&mut file).take(there).read_to_end(into)?;
        self.open = Some((path, file));
        Ok(())
    }
}
