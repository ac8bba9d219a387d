//! The frames of a stream's segments, one file after the other, in file order.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    ops::Range,
    path::PathBuf,
};

use tapeline_wire::frame::{FrameLayout, FrameRef, FrameScanner};

/// Bytes read at once: enough for long writes, little enough to stay in the processor's cache until they are sent.
const CHUNK_BYTES: usize = 1 << 20;

/// Reads frames ahead, a chunk at a time.
#[derive(Debug)]
pub(super) struct FrameReader {
    files: VecDeque<PathBuf>,
    file: Option<File>,
    scanner: FrameScanner,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that hold something.
    filled: usize,
    /// Bytes of `buffer` that the scanner is done with.
    consumed: usize,
    found: Vec<FrameRef>,
    next: usize,
}

impl FrameReader {
    pub(super) fn new(files: Vec<PathBuf>, layout: FrameLayout) -> Self {
        Self {
            files: files.into(),
            file: None,
            scanner: FrameScanner::new(layout),
            // The scanner looks past a frame for the next magic, hence the 8 bytes.
            buffer: vec![0; layout.max_frame_bytes() + 8 + CHUNK_BYTES],
            filled: 0,
            consumed: 0,
            found: Vec::new(),
            next: 0,
        }
    }

    /// The next frame of those read ahead.
    pub(super) fn peek(&self) -> Option<&FrameRef> {
        self.found.get(self.next)
    }

    /// Passes the next frame and says where its bytes are until the next `refill`.
    pub(super) fn pass(&mut self) -> Option<Range<usize>> {
        let range = self.found.get(self.next)?.range();
        self.next += 1;
        Some(range)
    }

    /// The bytes of a range given by `pass`.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.buffer.get(range).unwrap_or_default()
    }

    /// Bytes so far that belong to no frame.
    pub(super) fn skipped_bytes(&self) -> u64 {
        self.scanner.counters().bytes_discarded
    }

    /// Reads on once everything read ahead is passed; false at the end of the last file.
    ///
    /// # Errors
    /// What the system says, with the file's name.
    pub(super) fn refill(&mut self) -> io::Result<bool> {
        while self.peek().is_none() {
            self.found.clear();
            self.next = 0;
            self.buffer.copy_within(self.consumed..self.filled, 0);
            self.filled -= self.consumed;
            self.consumed = 0;
            let Some(mut file) = self.file.take() else {
                let Some(path) = self.files.pop_front() else {
                    return Ok(false);
                };
                let opened = File::open(&path);
                self.file =
                    Some(opened.map_err(|e| {
                        io::Error::new(e.kind(), format!("{}: {e}", path.display()))
                    })?);
                continue;
            };
            let mut end = false;
            // The scanner needs at most a frame and 8 bytes, so there is always room for a chunk.
            while self.filled < self.scanner.needed().max(CHUNK_BYTES) {
                match file.read(self.buffer.get_mut(self.filled..).unwrap_or_default()) {
                    Ok(0) => {
                        end = true;
                        break;
                    }
                    Ok(bytes) => self.filled += bytes,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let unread = self.buffer.get(..self.filled).unwrap_or_default();
            self.consumed = self.scanner.scan(unread, end, usize::MAX, &mut self.found);
            if !end {
                self.file = Some(file);
            }
        }
        Ok(true)
    }
}
