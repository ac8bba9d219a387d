//! A file with its whole life: created, replaced or gone on with, flushed, finished.
//!
//! - A row is accepted only after all IO that it makes necessary has succeeded, so a row that raises is not in the
//!   file, and one that did not is never lost by a later error.
//! - Bytes to be stored wait in memory, bounded by 64 KiB and a row (two packets for LZ4 batch). After a failed
//!   write (disk full) they stay, and the next call tries again at the same place.
//! - Replacing: a temporary file beside the old one takes its name at the first flush or at the end, whichever
//!   comes first; until then the old one is untouched.
//! - A failed sync is remembered: no later one can make good for it.

mod core;
mod timer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::core::Core;
use self::timer::Timer;
use crate::error::Result;
use crate::header::Header;
use crate::schema::Schema;
use crate::storage::{Disk, Storage, StoredFile};
use crate::value::RowBuffer;
use crate::view::BatchView;
use crate::writer::WriteOptions;

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
    /// Have the memory for the packets of single rows at once, so that no row waits for the system to give it (LZ4
    /// batch: two packets, three when rows come fast).
    pub ready: bool,
    /// Where the file lives.
    pub storage: Arc<dyn Storage>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self {
            max_loss: None,
            threads: 0,
            sync_on_replace: true,
            ready: false,
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
        let exists = storage.exists(path)?;
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

    /// Give up. A file that was to be replaced stays, and a new one is removed; but one that was appended to, or flushed
    /// under its name, stays, with the rows accepted so far and without a footer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn discard(&self) -> Result<()> {
        let mut core = self.lock();
        if core.finished {
            return Ok(());
        }
        if core.kept && core.temporary.is_none() {
            let stored = core.flush(false);
            core.finished = true;
            core.background = None;
            return stored;
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
