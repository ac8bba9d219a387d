//! A file with its whole life: created, replaced or gone on with, flushed, finished.
//!
//! - A row is accepted only after all IO that it makes necessary has succeeded, so a row that raises is not in the
//!   file, and one that did not is never lost by a later error.
//! - Bytes to be stored wait in memory, bounded by 64 KiB and a row (two packets for LZ4 batch). After a failed
//!   write (disk full) they stay, and the next call tries again at the same place.
//! - Replacing: a temporary file beside the old one takes its name at the first flush or at the end, whichever
//!   comes first; until then the old one is untouched.
//! - A failed sync is remembered: no later one can make good for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::background::Background;
use crate::bulk::{Bulk, ColumnEncoder};
use crate::cursor::FileFacts;
use crate::error::{Error, ErrorKind, Result};
use crate::file::Framer;
use crate::footer::IndexEntry;
use crate::header::{FileCodec, Header};
use crate::index::{Index, packet_index};
use crate::limits::Limits;
use crate::scan_stream::StreamScan;
use crate::schema::{Layout, Schema};
use crate::source::ReadAt;
use crate::storage::{Disk, Storage, StoredFile, write_fully};
use crate::value::RowBuffer;
use crate::view::BatchView;
use crate::writer::{RowCoder, WriteOptions};

/// What to do about a file that is there, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WriteMode {
    /// Create a file; one that exists is an error.
    #[default]
    New,
    /// Create a file, in the place of one that exists.
    Replace,
    /// Go on behind the rows of a file that exists, finished or not; its own codecs are kept. Create it otherwise.
    Append,
}

/// How a file is written, besides its format.
#[derive(Clone)]
pub struct FileOptions {
    /// Flush by itself, so that no more than this is lost when the process is killed.
    pub max_loss: Option<Duration>,
    /// Threads for [`FileWriter::write_batch`]; 0 is one per core.
    pub threads: usize,
    /// Sync before a file takes the place of another.
    pub sync_on_replace: bool,
    /// Where the file lives.
    pub storage: Arc<dyn Storage>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            max_loss: None,
            threads: 0,
            sync_on_replace: true,
            storage: Arc::new(Disk),
        }
    }
}

/// See the module. All methods take `&self`; calls from several threads wait for each other.
pub struct FileWriter {
    core: Arc<Mutex<Core>>,
    schema: Schema,
    timer: Option<Timer>,
}

/// Bytes kept back before they are stored.
const PIECE_BYTES: usize = 64 << 10;

struct Core {
    storage: Arc<dyn Storage>,
    file: Arc<dyn StoredFile>,
    path: PathBuf,
    /// The name until the file takes its own.
    temporary: Option<PathBuf>,
    sync_on_replace: bool,
    header: Header,
    layout: Arc<Layout>,
    coder: RowCoder,
    columns: ColumnEncoder,
    /// For [`FileWriter::write_packed`].
    packed: RowBuffer,
    background: Option<Background>,
    threads: usize,
    /// Append: the file is to be cut here before anything is stored.
    cut_at: Option<u64>,
    /// When the oldest row that is not flushed came.
    waiting_since: Option<Instant>,
    /// Rows that a reader of the file would find now.
    rows_stored: u64,
    folder_synced: bool,
    sync_failed: bool,
    finished: bool,
}

impl FileWriter {
    /// Create or open a file and be ready for rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]; [`ErrorKind::UnsupportedOption`]; for [`WriteMode::Append`] what is wrong with the file
    /// ([`crate::repair`] it first), [`ErrorKind::AppendMismatch`].
    pub fn open(
        path: impl AsRef<Path>,
        schema: &Schema,
        mode: WriteMode,
        options: &WriteOptions,
        file_options: &FileOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let storage = &file_options.storage;
        let exists = storage.exists(path);
        let core = match mode {
            WriteMode::Append if exists => Core::append(path, schema, file_options)?,
            WriteMode::Replace if exists => {
                let (temporary, file) = create_temporary(&**storage, path)?;
                let created = Core::create(
                    file,
                    path,
                    Some(temporary.clone()),
                    schema,
                    options,
                    file_options,
                );
                if created.is_err() {
                    let _ = storage.remove(&temporary);
                }
                created?
            }
            _ => {
                // The options are checked before anything is created.
                options.header(schema.clone())?;
                let created = Core::create(
                    storage.create_new(path)?,
                    path,
                    None,
                    schema,
                    options,
                    file_options,
                );
                if created.is_err() {
                    let _ = storage.remove(path);
                }
                created?
            }
        };
        let core = Arc::new(Mutex::new(core));
        let timer = file_options
            .max_loss
            .map(|max_loss| Timer::start(&core, max_loss))
            .transpose()?;
        Ok(Self {
            core,
            schema: schema.clone(),
            timer,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row to fill and hand to [`FileWriter::write_row`], as often as wanted.
    #[must_use]
    pub fn row_buffer(&self) -> RowBuffer {
        RowBuffer::new(&self.schema)
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The header of the file (for [`WriteMode::Append`] that of the file found).
    #[must_use]
    pub fn header(&self) -> Header {
        self.lock().header.clone()
    }

    /// Write a row. Constant time: it never compresses a packet, and stores at most 64 KiB.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ColumnCount`], [`ErrorKind::RowTooLong`]; [`ErrorKind::Io`] if rows before this one could not be
    /// stored: they are kept and tried again by the next call, this one is not accepted.
    pub fn write_row(&self, row: &RowBuffer) -> Result<()> {
        self.lock().write_row(row)
    }

    /// Write packed rows: columns in layout order at their native width, little-endian, without padding, a bool as
    /// one byte; schemas without strings. Returns the number of rows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::PackedLength`] and as [`FileWriter::write_row`]; rows before the one that failed are written.
    pub fn write_packed(&self, rows: &[u8]) -> Result<usize> {
        self.lock().write_packed(rows)
    }

    /// Write rows from columns; large batches become packets of their own, encoded in parallel.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ColumnCount`], [`ErrorKind::ColumnLength`], [`ErrorKind::ValueType`],
    /// [`ErrorKind::StringTooLong`]: nothing was written. [`ErrorKind::Io`]: of a large batch nothing was written; of
    /// a small one [`FileWriter::rows_written`] says how much.
    pub fn write_batch(&self, batch: &BatchView<'_>) -> Result<()> {
        batch.check(&self.schema)?;
        self.lock().write_batch(batch)
    }

    /// Everything so far is readable when the process is killed; with `sync`, also after a power cut.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`]: rows are kept and tried again by the next call; `rows_before` of the error says how many
    /// the file has. [`ErrorKind::SyncFailed`] for `sync` after a sync that failed.
    pub fn flush(&self, sync: bool) -> Result<()> {
        let mut core = self.lock();
        core.check_open()?;
        core.flush(sync)
    }

    /// Store everything, write the footer and take the final name. A second call does nothing.
    ///
    /// # Errors
    ///
    /// As [`FileWriter::flush`]; it may be tried again.
    pub fn finish(&self, sync: bool) -> Result<()> {
        let mut core = self.lock();
        if core.finished {
            Ok(())
        } else {
            core.finish(sync)
        }
    }

    /// Give up: a file that was created is removed, one that was to be replaced stays.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn discard(&self) -> Result<()> {
        let mut core = self.lock();
        if core.finished || core.cut_at.is_some() {
            return Ok(());
        }
        core.finished = true;
        core.background = None;
        let path = core.temporary.take().unwrap_or_else(|| core.path.clone());
        Ok(core.storage.remove(&path)?)
    }

    /// Rows accepted, those of the file appended to included.
    #[must_use]
    pub fn rows_written(&self) -> u64 {
        self.lock().coder.framer.rows()
    }

    /// Rows that a reader of the file would find if the process ended now.
    #[must_use]
    pub fn rows_stored(&self) -> u64 {
        self.lock().rows_stored()
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.timer = None;
        let mut core = self.lock();
        if !core.finished {
            // Whoever did not finish gets an unfinished file with all rows; errors have nowhere to go.
            let _ = core.flush(false);
        }
    }
}

/// A new file beside `path`, with a name of its own.
fn create_temporary(storage: &dyn Storage, path: &Path) -> Result<(PathBuf, Arc<dyn StoredFile>)> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}.{number}.tmp", std::process::id()));
        match storage.create_new(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads through a [`StoredFile`].
struct Reading(Arc<dyn StoredFile>);

impl ReadAt for Reading {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buffer)
    }

    fn size(&self) -> std::io::Result<u64> {
        self.0.size()
    }
}

impl Core {
    fn create(
        file: Arc<dyn StoredFile>,
        path: &Path,
        temporary: Option<PathBuf>,
        schema: &Schema,
        options: &WriteOptions,
        file_options: &FileOptions,
    ) -> Result<Self> {
        let header = options.header(schema.clone())?;
        let bytes = header.encode();
        write_fully(&*file, 0, &bytes).1?;
        let framer = Framer::new(&header, bytes.len() as u64, Vec::new(), 0);
        Self::new(file, path, temporary, header, framer, file_options)
    }

    fn append(path: &Path, schema: &Schema, file_options: &FileOptions) -> Result<Self> {
        let file = file_options.storage.open(path)?;
        let source: Arc<dyn ReadAt> = Arc::new(Reading(Arc::clone(&file)));
        let (header, body_at) = crate::reader::read_header(&*source, false)?;
        if header.schema != *schema {
            return Err(Error::new(ErrorKind::AppendMismatch { what: "schema" }));
        }
        let layout = Arc::new(Layout::new(&header.schema));
        let facts = FileFacts {
            source,
            header: header.clone(),
            layout,
            body_at,
            limits: Limits::default(),
        };
        let facts = Arc::new(facts);
        let mut state = None;
        let index = if header.file_codec().has_packets() {
            packet_index(&facts)?
        } else {
            let mut index = Index {
                end: body_at,
                ..Index::default()
            };
            let mut scan = StreamScan::new(&facts);
            scan.scan(&facts, &mut index, facts.source.size()?, false)?;
            state = scan.state().cloned();
            index
        };
        if let Some((_, error)) = index.fault {
            return Err(error);
        }
        let entries = index.units.iter().map(|unit| IndexEntry {
            offset: unit.offset,
            first_row: unit.first_row,
        });
        let entries = if header.file_codec().has_packets() {
            entries.collect()
        } else {
            Vec::new()
        };
        let framer = Framer::new(&header, index.end, entries, index.rows);
        let mut core = Self::new(file, path, None, header, framer, file_options)?;
        if let Some(state) = state {
            core.coder.encoder.resume(&state.decoder, &[]);
            core.coder.framer.set_history(&state.history);
        }
        core.cut_at = Some(index.end);
        core.rows_stored = index.rows;
        Ok(core)
    }

    fn new(
        file: Arc<dyn StoredFile>,
        path: &Path,
        temporary: Option<PathBuf>,
        header: Header,
        framer: Framer,
        options: &FileOptions,
    ) -> Result<Self> {
        let layout = Arc::new(Layout::new(&header.schema));
        let effort = crate::file::effort(header.file_codec(), header.compression_level);
        let mut framer = framer;
        let background = if header.file_codec() == FileCodec::PacketLz4Batch {
            Some(Background::start(
                Arc::clone(&file),
                effort,
                framer.offset,
                framer.rows(),
                usize::try_from(header.packet_bytes).unwrap_or(usize::MAX),
            )?)
        } else {
            None
        };
        if let Some(background) = &background {
            framer = framer.with_buffers(Vec::new(), background.buffer());
        }
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        Ok(Self {
            storage: Arc::clone(&options.storage),
            file,
            path: path.to_owned(),
            temporary,
            sync_on_replace: options.sync_on_replace,
            columns: ColumnEncoder::new(&header, &layout),
            packed: RowBuffer::new(&header.schema),
            coder: RowCoder::new(&header, framer),
            header,
            layout,
            background,
            threads,
            cut_at: None,
            waiting_since: None,
            rows_stored: 0,
            folder_synced: false,
            sync_failed: false,
            finished: false,
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.finished {
            Err(Error::new(ErrorKind::Closed))
        } else {
            Ok(())
        }
    }

    fn rows_stored(&self) -> u64 {
        self.background
            .as_ref()
            .map_or(self.rows_stored, |background| {
                background.collect_rows().max(self.rows_stored)
            })
    }

    #[inline]
    fn write_row(&mut self, row: &RowBuffer) -> Result<()> {
        self.make_ready()?;
        self.coder.encode(row)?;
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn write_packed(&mut self, rows: &[u8]) -> Result<usize> {
        let row_bytes = self.packed.packed_bytes().unwrap_or(0);
        if row_bytes == 0 || !rows.len().is_multiple_of(row_bytes) {
            return Err(Error::new(ErrorKind::PackedLength {
                bytes: rows.len(),
                row_bytes,
            }));
        }
        let as_it_is = self.packed.packed_is_image();
        for row in rows.chunks_exact(row_bytes) {
            self.make_ready()?;
            if as_it_is {
                self.coder.encode_image(row, &self.packed, 0)?;
            } else {
                self.packed.fill_packed(row)?;
                self.coder.encode(&self.packed)?;
            }
        }
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(rows.len() / row_bytes)
    }

    fn write_batch(&mut self, batch: &BatchView<'_>) -> Result<()> {
        self.check_open()?;
        let bulk = self.header.file_codec().has_packets();
        let large = |core: &Self| {
            let (header, layout) = (&core.header, &core.layout);
            Bulk {
                header,
                layout,
                batch,
                file: &*core.file,
                first_row: 0,
                offset: 0,
                threads: 1,
            }
            .is_large()
        };
        if bulk && large(self) {
            return self.write_large(batch);
        }
        let mut done = 0;
        while done < batch.rows {
            self.make_ready()?;
            // Small steps, so that what waits to be stored stays small.
            let step =
                (batch.rows - done).min((4 * PIECE_BYTES / self.layout.image_bytes.max(1)).max(1));
            let (columns, coder) = (&mut self.columns, &mut self.coder);
            columns.swap_encoder(&mut coder.encoder);
            let written = columns.append(&mut coder.framer, batch, done, step);
            columns.swap_encoder(&mut coder.encoder);
            done += written?;
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn write_large(&mut self, batch: &BatchView<'_>) -> Result<()> {
        self.flush_rows()?;
        self.cut()?;
        let framer = &self.coder.framer;
        let (first_row, offset) = (framer.rows(), framer.offset);
        let (header, layout) = (&self.header, &self.layout);
        let bulk = Bulk {
            header,
            layout,
            batch,
            file: &*self.file,
            first_row,
            offset,
            threads: self.threads,
        };
        match bulk.write() {
            Ok(stored) => {
                let rows = first_row + batch.rows as u64;
                self.coder.framer.extend(rows, &stored.entries, stored.end);
                if let Some(background) = &self.background {
                    background.advance(stored.end, rows);
                }
                self.rows_stored = rows;
                Ok(())
            }
            Err(error) => {
                // What was stored of it must not be found by a reader; if it cannot be cut, it will be overwritten.
                let _ = self.file.set_len(offset);
                Err(error.after_rows(self.rows_stored))
            }
        }
    }

    /// After this a row can be accepted without any more IO.
    #[inline]
    fn make_ready(&mut self) -> Result<()> {
        if self.coder.framer.out.len() < PIECE_BYTES
            && !self.coder.framer.is_full()
            && !self.finished
        {
            return Ok(());
        }
        self.check_open()?;
        self.push()?;
        if self.coder.framer.is_full() {
            self.close_packet()?;
        }
        Ok(())
    }

    /// Close the open packet. Batch packets go to the other thread.
    fn close_packet(&mut self) -> Result<()> {
        let Some(background) = &self.background else {
            let _ = self.coder.framer.close_packet(Vec::new());
            return Ok(());
        };
        let room = background.make_room();
        room.map_err(|error| Error::from(error).after_rows(background.collect_rows()))?;
        let Some(full) = self.coder.framer.close_packet(background.buffer()) else {
            return Ok(());
        };
        // The file is cut before the thread stores behind it.
        if let Some(at) = self.cut_at {
            self.file.set_len(at)?;
            self.cut_at = None;
        }
        background.push(full);
        Ok(())
    }

    /// Append: what lies behind the rows that were there goes away before anything new is stored.
    fn cut(&mut self) -> Result<()> {
        if let Some(at) = self.cut_at {
            self.file.set_len(at)?;
            self.cut_at = None;
        }
        Ok(())
    }

    /// Store the bytes that wait.
    fn push(&mut self) -> Result<()> {
        if self.coder.framer.out.is_empty() {
            return Ok(());
        }
        self.cut()?;
        let framer = &mut self.coder.framer;
        let (written, result) = write_fully(&*self.file, framer.offset, &framer.out);
        framer.stored(written);
        result.map_err(|error| Error::from(error).after_rows(self.rows_stored))
    }

    /// Store all rows: closes the open packet.
    fn flush_rows(&mut self) -> Result<()> {
        // What failed before is tried first, so that no more than a packet is ever closed on top of it.
        self.push()?;
        if let Some(background) = &self.background {
            let drained = background.drain();
            drained.map_err(|error| Error::from(error).after_rows(background.collect_rows()))?;
        }
        self.close_packet()?;
        self.push()?;
        if let Some(background) = &self.background {
            let drained = background.drain();
            drained.map_err(|error| Error::from(error).after_rows(background.collect_rows()))?;
            let (entries, offset, _) = background.collect();
            let rows = self.coder.framer.rows();
            self.coder.framer.extend(rows, &entries, offset);
        }
        self.rows_stored = self.coder.framer.rows();
        self.waiting_since = None;
        Ok(())
    }

    fn flush(&mut self, sync: bool) -> Result<()> {
        if sync && self.sync_failed {
            return Err(Error::new(ErrorKind::SyncFailed).after_rows(self.rows_stored()));
        }
        self.flush_rows()?;
        if self.temporary.is_some() {
            self.take_name(sync)?;
        }
        if sync { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        if self.sync_failed {
            return Err(Error::new(ErrorKind::SyncFailed).after_rows(self.rows_stored));
        }
        let synced = self.file.sync().and_then(|()| {
            if self.folder_synced {
                Ok(())
            } else {
                self.storage.sync_folder(&self.path)
            }
        });
        match synced {
            Ok(()) => {
                self.folder_synced = true;
                Ok(())
            }
            Err(error) => {
                self.sync_failed = true;
                Err(error.into())
            }
        }
    }

    /// The temporary file takes its name.
    fn take_name(&mut self, synced: bool) -> Result<()> {
        let Some(temporary) = self.temporary.clone() else {
            return Ok(());
        };
        if self.sync_on_replace && !synced {
            if let Err(error) = self.file.sync() {
                self.sync_failed = true;
                return Err(error.into());
            }
        } else if synced {
            self.sync()?;
        }
        self.storage.rename(&temporary, &self.path)?;
        self.temporary = None;
        self.folder_synced = false;
        Ok(())
    }

    fn finish(&mut self, sync: bool) -> Result<()> {
        if sync && self.sync_failed {
            return Err(Error::new(ErrorKind::SyncFailed).after_rows(self.rows_stored()));
        }
        self.flush_rows()?;
        // The footer is not part of what waits: if it cannot be stored, rows may still follow in its place.
        let footer = self.coder.framer.footer();
        if self.cut_at.is_none() || !footer.is_empty() {
            let end = self.coder.framer.offset;
            let (_, result) = write_fully(&*self.file, end, &footer);
            result.map_err(|error| Error::from(error).after_rows(self.rows_stored))?;
            let bytes = end + footer.len() as u64;
            if self.file.size()? != bytes {
                self.file.set_len(bytes)?;
            }
        }
        if self.temporary.is_some() {
            self.take_name(sync)?;
        }
        if sync {
            self.sync()?;
        }
        self.finished = true;
        self.background = None;
        Ok(())
    }

    /// A flush that does not wait, for the timer: rows go on their way, errors are left to the next call.
    fn flush_soon(&mut self) {
        if self.finished || self.temporary.is_some() {
            let _ = if self.finished {
                Ok(())
            } else {
                self.flush(false)
            };
            return;
        }
        if let Some(background) = &self.background {
            if background.has_room() && self.close_packet().is_ok() {
                self.waiting_since = None;
            }
            return;
        }
        let _ = self.flush_rows();
    }
}

/// Flushes when rows have waited long enough.
struct Timer {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Timer {
    fn start(core: &Arc<Mutex<Core>>, max_loss: Duration) -> Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, core) = (Arc::clone(&stop), Arc::downgrade(core));
        // Looked at twice per interval, flushed from half an interval on: a row waits at most one.
        let step = (max_loss / 2).max(Duration::from_millis(1));
        let run = move || {
            let (stop, changed) = &*theirs;
            let mut stopped = stop.lock().unwrap_or_else(PoisonError::into_inner);
            while !*stopped {
                stopped = changed
                    .wait_timeout(stopped, step)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                let Some(core) = core.upgrade().filter(|_| !*stopped) else {
                    return;
                };
                drop(stopped);
                let mut core = core.lock().unwrap_or_else(PoisonError::into_inner);
                if core
                    .waiting_since
                    .is_some_and(|since| since.elapsed() >= step / 2)
                {
                    core.flush_soon();
                }
                drop(core);
                stopped = stop.lock().unwrap_or_else(PoisonError::into_inner);
            }
        };
        let thread = std::thread::Builder::new()
            .name("bcsv-flush".into())
            .spawn(run)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only ends; a panic there would have been a bug, and dropping must go on.
            let _ = thread.join();
        }
    }
}
