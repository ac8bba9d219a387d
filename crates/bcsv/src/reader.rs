//! Reading a file: by columns, in parallel by packet, or from any row on.
//!
//! Nothing is decoded before its hash has been checked. Opening reads the header and the footer only; files without
//! a usable footer are walked once, at the first call that needs to know where rows are.

mod batches;
mod shared;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

pub use batches::Batches;
use shared::Shared;

use crate::batch::Batch;
use crate::cursor::{Cursor, FileFacts, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::index::{Index, read_footer};
use crate::limits::Limits;
use crate::row::tile::Gather;
use crate::schema::{Layout, Schema};
use crate::source::{Buffer, ReadAt};
use crate::threads::{in_threads, thread_count};

/// What to do about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnCorrupt {
    /// Give the rows before it, then an error.
    #[default]
    Raise,
    /// Give every row whose checksum holds; [`Reader::gaps`] lists the others.
    Skip,
}

/// How to open a file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// What to do about damage.
    pub on_corrupt: OnCorrupt,
    /// The file may still be written: see [`Reader::poll`].
    pub follow: bool,
    /// What reading may cost.
    pub limits: Limits,
    /// Accept unknown header flags, as the reference does.
    pub any_flags: bool,
}

/// Which rows and columns, and how fast.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Column numbers in the order wanted; all if `None`.
    pub columns: Option<Vec<usize>>,
    /// First row.
    pub start: u64,
    /// Row after the last one; the end if `None`.
    pub stop: Option<u64>,
    /// Threads; 0 is one per core.
    pub threads: usize,
}

/// A packet, or a piece of a stream, as [`Reader::packets`] lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketInfo {
    /// First byte in the file.
    pub offset: u64,
    /// Bytes, header and checksum included.
    pub bytes: u64,
    /// First row.
    pub first_row: u64,
    /// Rows.
    pub rows: u64,
}

/// What [`Reader::poll`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// Rows that were not there before.
    pub new_rows: u64,
    /// The writer has finished the file: no more rows will come.
    pub closed: bool,
}

/// A file open for reading. All methods may be called from several threads.
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// Open a file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`], and what [`Header::parse`] says.
    pub fn open(path: impl AsRef<Path>, options: ReadOptions) -> Result<Self> {
        Self::from_source(Arc::new(File::open(path)?), options)
    }

    /// Open anything that can be read at an offset.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub fn from_source(source: Arc<dyn ReadAt>, options: ReadOptions) -> Result<Self> {
        let (header, body_at) = read_header(&*source, options.any_flags)?;
        let layout = Arc::new(Layout::new(&header.schema));
        let facts = Arc::new(FileFacts {
            source,
            header,
            layout,
            body_at,
            limits: options.limits,
        });
        let (state, rows) = Default::default();
        let reader = Self {
            shared: Arc::new(Shared {
                facts,
                options,
                state,
                rows,
            }),
        };
        // A usable footer makes the index almost free; anything else waits until it is needed.
        if reader.header().file_codec().has_packets()
            && !options.follow
            && options.on_corrupt == OnCorrupt::Raise
        {
            let facts = &reader.shared.facts;
            if read_footer(facts, facts.source.size()?)?
                .is_some_and(|(_, footer)| !footer.entries.is_empty())
            {
                reader.shared.index()?;
            }
        }
        Ok(reader)
    }

    /// Everything in front of the rows.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.shared.facts.header
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.header().schema
    }

    /// Row after the last one that can be read (`Raise`: before the first fault), missing rows included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`] while walking a file without index.
    pub fn num_rows(&self) -> Result<u64> {
        let index = self.shared.index()?;
        Ok(self.shared.visible(&index).1)
    }

    /// `Some(true)`: closed and whole, as far as its footer says and what was read so far (packets are verified when
    /// they are read).
    /// `Some(false)`: cut, unclosed or damaged. `None`: the format cannot tell (streams).
    ///
    /// # Errors
    ///
    /// As [`Reader::num_rows`].
    pub fn complete(&self) -> Result<Option<bool>> {
        let complete = self.shared.index()?.complete;
        let damaged = self.shared.lock().damaged;
        Ok(complete.map(|complete| complete && !damaged))
    }

    /// The packets, or the pieces of a stream, that can be read.
    ///
    /// # Errors
    ///
    /// As [`Reader::num_rows`].
    pub fn packets(&self) -> Result<Vec<PacketInfo>> {
        let index = self.shared.index()?;
        let units = index
            .units
            .get(..self.shared.visible(&index).0)
            .unwrap_or_default();
        let info = |unit: &Unit| PacketInfo {
            offset: unit.offset,
            bytes: unit.end - unit.offset,
            first_row: unit.first_row,
            rows: unit.rows,
        };
        Ok(units.iter().map(info).collect())
    }

    /// The first fault of the index, if there is one. Damage inside packets shows when they are read.
    ///
    /// # Errors
    ///
    /// As [`Reader::num_rows`].
    pub fn fault(&self) -> Result<Option<Error>> {
        Ok(self
            .shared
            .index()?
            .fault
            .as_ref()
            .map(|(_, error)| error.clone()))
    }

    /// Rows known to be unreadable, as half-open ranges in order: those between packets, and those of packets that
    /// turned out bad while reading with [`OnCorrupt::Skip`].
    ///
    /// # Errors
    ///
    /// As [`Reader::num_rows`].
    pub fn gaps(&self) -> Result<Vec<(u64, u64)>> {
        let index = self.shared.index()?;
        let mut gaps = index.gaps.clone();
        gaps.extend_from_slice(&self.shared.lock().gaps);
        gaps.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for gap in gaps {
            match merged.last_mut() {
                Some(last) if gap.0 <= last.1 => last.1 = last.1.max(gap.1),
                _ => merged.push(gap),
            }
        }
        Ok(merged)
    }

    /// Look for rows that have been written since; for files opened with `follow`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Io`].
    pub fn poll(&self) -> Result<Poll> {
        let before = self.num_rows()?;
        self.shared.renew()?;
        let index = self.shared.index()?;
        Ok(Poll {
            new_rows: self.shared.visible(&index).1.saturating_sub(before),
            closed: index.complete == Some(true),
        })
    }

    /// Read rows as one batch per packet, packets in parallel.
    ///
    /// With [`OnCorrupt::Skip`] rows of damaged packets are left out; each batch says where it starts.
    ///
    /// # Errors
    ///
    /// The first fault in the rows asked for, [`ErrorKind::Limit`] for more than `limits.table_bytes`.
    pub fn read(&self, selection: &Selection) -> Result<Vec<Batch>> {
        self.read_as(selection, |batch| batch)
    }

    /// [`Reader::read`], making something of each batch in the thread that has decoded it, where its bytes still are in
    /// the cache.
    ///
    /// # Errors
    ///
    /// As [`Reader::read`].
    pub fn read_as<T: Send>(
        &self,
        selection: &Selection,
        make: impl Fn(Batch) -> T + Sync,
    ) -> Result<Vec<T>> {
        let index = self.shared.index()?;
        let plan = self.shared.plan(&index, selection);
        let facts = &self.shared.facts;
        let gather = || {
            Gather::new(
                &facts.header.schema,
                &facts.layout,
                facts.header.row_codec(),
                selection.columns.as_deref(),
            )
        };
        let rows: u64 = plan.pieces.iter().map(|piece| piece.take).sum();
        let needed = rows.saturating_mul(gather().row_bytes() as u64);
        let limit = self.shared.options.limits.table(facts.source.size()?);
        if needed > limit {
            return Err(Error::new(ErrorKind::Limit {
                what: "the table",
                needed,
                limit,
            }));
        }
        let threads = thread_count(selection.threads)
            .min(plan.pieces.len())
            .max(1);
        let next = AtomicUsize::new(0);
        let first_bad = AtomicUsize::new(usize::MAX);
        let work = || {
            let mut done = Vec::new();
            let mut cursor = Cursor::new(Arc::clone(facts));
            let mut gather = gather();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(piece) = plan
                    .pieces
                    .get(number)
                    .filter(|_| number < first_bad.load(Ordering::Relaxed))
                else {
                    return done;
                };
                let result = self.shared.decode(&index, piece, &mut cursor, &mut gather);
                if result.is_err() {
                    first_bad.fetch_min(number, Ordering::Relaxed);
                }
                // Damage that was passed over can leave a packet without a row.
                let made = result.map(|batch| (batch.rows > 0).then(|| make(batch)));
                done.push((number, made));
            }
        };
        let mut done = in_threads(threads, &work);
        done.sort_unstable_by_key(|(number, _)| *number);
        let mut batches = Vec::with_capacity(done.len());
        for (_, result) in done {
            batches.extend(result?);
        }
        plan.fault.map_or(Ok(batches), Err)
    }

    /// Iterate over rows in batches of at most `batch_rows`; holds one packet at a time.
    ///
    /// Batches end where packets end. After an error there are no more batches.
    ///
    /// # Errors
    ///
    /// As [`Reader::num_rows`]; damage comes as an item.
    pub fn batches(&self, selection: &Selection, batch_rows: usize) -> Result<Batches> {
        let index = self.shared.index()?;
        let plan = self.shared.plan(&index, selection);
        let facts = &self.shared.facts;
        let gather = Gather::new(
            &facts.header.schema,
            &facts.layout,
            facts.header.row_codec(),
            selection.columns.as_deref(),
        );
        let batch_rows = self
            .shared
            .options
            .limits
            .batch_rows(batch_rows, gather.row_bytes());
        Ok(Batches::new(&self.shared, index, plan, gather, batch_rows))
    }

    /// One row as a batch of one row.
    ///
    /// Packets stay in memory, verified, up to [`Limits::cache_bytes`], with places to start decoding from every
    /// thousand rows or less, so that the next row of a packet costs far less than the first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::RowOutOfRange`], [`ErrorKind::RowsMissing`] for a row in a gap, and what is wrong with its packet.
    pub fn row(&self, row: u64) -> Result<Batch> {
        let index = self.shared.index()?;
        let (units, rows) = self.shared.visible(&index);
        if row >= rows {
            return Err(Error::new(ErrorKind::RowOutOfRange { row, rows }));
        }
        let units = index.units.get(..units).unwrap_or_default();
        let number = units
            .partition_point(|unit| unit.first_row <= row)
            .wrapping_sub(1);
        let unit = units
            .get(number)
            .filter(|unit| row < unit.first_row + unit.rows);
        let unit = unit.ok_or_else(|| {
            Error::new(ErrorKind::RowsMissing {
                first: row,
                stop: row + 1,
            })
        })?;
        let facts = &self.shared.facts;
        let rows = || {
            self.shared
                .rows
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        // Not locked while it works, so that several threads can read rows; on an error the packet is dropped.
        let mut kept = rows().take(facts, unit);
        let batch = kept
            .row(unit, row - unit.first_row)
            .map_err(|error| place(error, number, unit))?;
        rows().put(kept, facts.limits.cache_bytes);
        Ok(batch)
    }

    pub(crate) fn facts(&self) -> &Arc<FileFacts> {
        &self.shared.facts
    }

    pub(crate) fn index(&self) -> Result<Arc<Index>> {
        self.shared.index()
    }
}

fn place(error: Error, number: usize, unit: &Unit) -> Error {
    error
        .at(unit.offset)
        .in_packet(number as u64, unit.first_row)
}

/// The header of a source, and where the body begins.
pub(crate) fn read_header(source: &dyn ReadAt, any_flags: bool) -> Result<(Header, u64)> {
    let mut buffer = Buffer::default();
    let mut want = 4096;
    loop {
        let bytes = buffer.fill(source, 0, want)?;
        match Header::parse(bytes, any_flags) {
            Ok((header, body_at)) => return Ok((header, body_at as u64)),
            Err(error) => match error.kind() {
                // The header says how much more it needs; believe it only as far as there are bytes.
                ErrorKind::HeaderCut { needed, .. } if bytes.len() == want => {
                    let there = source.size()?;
                    if *needed > there {
                        return Err(error);
                    }
                    want = usize::try_from(*needed).unwrap_or(usize::MAX).max(want + 1);
                }
                _ => return Err(error),
            },
        }
    }
}
