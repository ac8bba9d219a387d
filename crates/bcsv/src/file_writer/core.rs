//! The state of a file being written, behind the lock of its [`FileWriter`](super::FileWriter).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::FileOptions;
use crate::background::{Background, Pace, Ready};
use crate::bulk::{Bulk, ColumnEncoder};
use crate::cursor::FileFacts;
use crate::error::{Error, ErrorKind, Result};
use crate::file::Framer;
use crate::footer::IndexEntry;
use crate::header::{FileCodec, Header};
use crate::index::{Index, packet_index};
use crate::limits::Limits;
use crate::pool;
use crate::scan_stream::StreamScan;
use crate::schema::{Layout, Schema};
use crate::source::ReadAt;
use crate::storage::{Storage, StoredFile, write_fully};
use crate::threads::thread_count;
use crate::value::RowBuffer;
use crate::view::BatchView;
use crate::writer::{RowCoder, WriteOptions};

/// Bytes kept back before they are stored.
const PIECE_BYTES: usize = 64 << 10;

pub(super) struct Core {
    pub storage: Arc<dyn Storage>,
    file: Arc<dyn StoredFile>,
    pub path: PathBuf,
    /// The name until the file takes its own.
    pub temporary: Option<PathBuf>,
    sync_on_replace: bool,
    pub header: Header,
    layout: Arc<Layout>,
    pub coder: RowCoder,
    columns: ColumnEncoder,
    /// For [`FileWriter::write_packed`].
    packed: RowBuffer,
    pub background: Option<Background>,
    /// Rows come faster than they are stored.
    pace: Option<Pace>,
    threads: usize,
    /// Append: the file is to be cut here before anything is stored.
    pub cut_at: Option<u64>,
    /// When the oldest row that is not flushed came.
    pub waiting_since: Option<Instant>,
    /// Rows that a reader of the file would find now.
    rows_stored: u64,
    folder_synced: bool,
    sync_failed: bool,
    /// Appended to or flushed: others may rely on what is there, so giving up does not remove it.
    pub kept: bool,
    pub finished: bool,
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
    pub(super) fn create(
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

    pub(super) fn append(path: &Path, schema: &Schema, file_options: &FileOptions) -> Result<Self> {
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
        core.kept = true;
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
        let mut background = None;
        if header.file_codec() == FileCodec::PacketLz4Batch {
            let packet_bytes = usize::try_from(header.packet_bytes).unwrap_or(usize::MAX);
            let ready = Ready::new(packet_bytes, options.ready);
            let buffer = ready.touched().unwrap_or_else(|| ready.untouched());
            framer = framer.with_buffers(Vec::new(), buffer);
            background = Some(Background::start(
                Arc::clone(&file),
                effort,
                framer.offset,
                framer.rows(),
                ready,
            )?);
        }
        let threads = thread_count(options.threads);
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
            pace: None,
            threads,
            cut_at: None,
            waiting_since: None,
            rows_stored: 0,
            folder_synced: false,
            sync_failed: false,
            kept: false,
            finished: false,
        })
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.finished {
            Err(Error::new(ErrorKind::Closed))
        } else {
            Ok(())
        }
    }

    pub(super) fn rows_stored(&self) -> u64 {
        self.background
            .as_ref()
            .map_or(self.rows_stored, |background| {
                background.collect_rows().max(self.rows_stored)
            })
    }

    #[inline]
    pub(super) fn write_row(&mut self, row: &RowBuffer) -> Result<()> {
        self.make_ready()?;
        self.coder.encode(row)?;
        self.waiting_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    pub(super) fn write_packed(&mut self, rows: &[u8]) -> Result<usize> {
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

    pub(super) fn write_batch(&mut self, batch: &BatchView<'_>) -> Result<()> {
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
            if self.pace.is_some() {
                self.keep_pace();
            }
            return Ok(());
        }
        self.check_open()?;
        self.push()?;
        if self.coder.framer.is_full() {
            self.close_packet()?;
        }
        Ok(())
    }

    /// Slow down a little while the other thread is behind.
    #[cold]
    fn keep_pace(&mut self) {
        let busy = self.background.as_ref().filter(|other| !other.has_room());
        match (busy, &self.pace) {
            (Some(_), Some(pace)) => pace.keep(self.coder.framer.filled()),
            _ => self.pace = None,
        }
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
        self.pace = background.push(full);
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

    pub(super) fn flush(&mut self, sync: bool) -> Result<()> {
        if sync && self.sync_failed {
            return Err(Error::new(ErrorKind::SyncFailed).after_rows(self.rows_stored()));
        }
        self.flush_rows()?;
        if self.temporary.is_some() {
            self.take_name(sync)?;
        }
        self.kept = true;
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

    pub(super) fn finish(&mut self, sync: bool) -> Result<()> {
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
        pool::give(self.coder.framer.buffers().1);
        Ok(())
    }

    /// A flush that does not wait, for the timer: rows go on their way, errors are left to the next call.
    pub(super) fn flush_soon(&mut self) {
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
                self.kept = true;
            }
            return;
        }
        self.kept |= self.flush_rows().is_ok();
    }
}
