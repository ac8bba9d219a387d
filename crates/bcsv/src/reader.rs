//! Reading a file: by columns, in parallel by packet, or from any row on.
//!
//! Nothing is decoded before its hash has been checked. Opening reads the header and the footer only; files without
//! a usable footer are walked once, at the first call that needs to know where rows are.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::cursor::{Cursor, FileFacts, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::index::{Index, header_agrees, headers_agree, packet_index, read_footer, scan_packets};
use crate::limits::Limits;
use crate::random::Rows;
use crate::row::tile::Gather;
use crate::scan_stream::StreamScan;
use crate::schema::{Layout, Schema};
use crate::source::{Buffer, ReadAt};

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

struct Shared {
    facts: Arc<FileFacts>,
    options: ReadOptions,
    state: Mutex<State>,
    /// Packets of single-row access.
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct State {
    index: Option<Arc<Index>>,
    stream: Option<StreamScan>,
    /// Gaps found while reading, besides those of the index.
    gaps: Vec<(u64, u64)>,
    /// A packet turned out to be damaged when it was read.
    damaged: bool,
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
            .map(|(_, error)| error.duplicate()))
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
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if selection.threads == 0 {
            cores()
        } else {
            selection.threads
        }
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
                done.push((number, result));
            }
        };
        let mut done = if threads == 1 {
            work()
        } else {
            std::thread::scope(|scope| {
                let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
                let mut done = work();
                for helper in helpers {
                    // A panic in a helper would be a bug here; it must not pass as missing rows.
                    match helper.join() {
                        Ok(more) => done.extend(more),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
                done
            })
        };
        done.sort_unstable_by_key(|(number, _)| *number);
        let mut batches = Vec::with_capacity(done.len());
        for (_, result) in done {
            let batch = result?;
            if batch.rows > 0 {
                batches.push(batch);
            }
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
        Ok(Batches {
            cursor: Cursor::new(Arc::clone(facts)),
            shared: Arc::clone(&self.shared),
            index,
            pieces: plan.pieces.into_iter(),
            fault: plan.fault,
            current: None,
            gather,
            batch_rows,
        })
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

/// Rows of one unit that are asked for.
#[derive(Debug, Clone, Copy)]
struct Piece {
    unit: usize,
    skip: u64,
    take: u64,
}

/// What a selection touches.
struct Plan {
    pieces: Vec<Piece>,
    /// A fault that lies in the range asked for, behind all pieces.
    fault: Option<Error>,
}

impl Cursor {
    fn read(&mut self, unit: &Unit, piece: &Piece, gather: &mut Gather) -> Result<Batch> {
        self.open(unit)?;
        self.skip(piece.skip)?;
        let take = usize::try_from(piece.take).unwrap_or(usize::MAX);
        gather.begin(take);
        let taken = self.take(take, gather)?;
        if taken < take {
            let (first, stop) = (
                unit.first_row + piece.skip + taken as u64,
                unit.first_row + piece.skip + piece.take,
            );
            return Err(Error::new(ErrorKind::RowsMissing { first, stop }));
        }
        if piece.skip + piece.take == unit.rows {
            self.expect_end()?;
        }
        Ok(gather.finish(unit.first_row + piece.skip))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, built when it is first asked for.
    fn index(&self) -> Result<Arc<Index>> {
        let mut state = self.lock();
        if let Some(index) = &state.index {
            return Ok(Arc::clone(index));
        }
        let skip = self.options.on_corrupt == OnCorrupt::Skip;
        let index = if self.facts.file_codec().has_packets() {
            let index = packet_index(&self.facts)?;
            if skip && index.complete == Some(true) && !headers_agree(&self.facts, &index)? {
                self.salvage(&index)?
            } else {
                index
            }
        } else {
            let mut index = Index {
                end: self.facts.body_at,
                ..Index::default()
            };
            let mut scan = StreamScan::new(&self.facts);
            scan.scan(&self.facts, &mut index, self.facts.source.size()?, skip)?;
            if self.options.follow {
                state.stream = Some(scan);
            }
            index
        };
        let index = Arc::new(index);
        state.index = Some(Arc::clone(&index));
        Ok(index)
    }

    /// The footer is right, but not all packets are where it says: keep those that are. A scan could meet a packet
    /// that was moved (two blocks swapped) first and would then lose those between; it is for a footer that fits nowhere.
    fn salvage(&self, indexed: &Index) -> Result<Index> {
        let mut index = Index {
            end: self.facts.body_at,
            footer: true,
            complete: Some(false),
            ..Index::default()
        };
        for unit in &indexed.units {
            if header_agrees(&self.facts, unit)? {
                index.units.push(unit.clone());
            } else if unit.rows > 0 {
                index
                    .gaps
                    .push((unit.first_row, unit.first_row + unit.rows));
            }
        }
        if !index.units.is_empty() {
            index.rows = indexed.rows;
            index.end = indexed.end;
            return Ok(index);
        }
        index.gaps.clear();
        scan_packets(&self.facts, &mut index, indexed.end)?;
        if indexed.rows > index.rows {
            index.gaps.push((index.rows, indexed.rows));
            index.rows = indexed.rows;
        }
        Ok(index)
    }

    /// Follow mode: go on where the last scan stopped.
    fn renew(&self) -> Result<()> {
        if !self.options.follow {
            return Ok(());
        }
        let mut state = self.lock();
        let Some(old) = state.index.clone() else {
            return Ok(());
        };
        if old.complete == Some(true) {
            return Ok(());
        }
        let size = self.facts.source.size()?;
        if size <= old.end {
            return Ok(());
        }
        let mut index = Index {
            units: old.units.clone(),
            rows: old.rows,
            complete: old.complete,
            gaps: old.gaps.clone(),
            end: old.end,
            ..Index::default()
        };
        if self.facts.file_codec().has_packets() {
            if read_footer(&self.facts, size)?.is_some() {
                // Closed: nothing is being written any more, damage is damage.
                index = packet_index(&self.facts)?;
            } else {
                scan_packets(&self.facts, &mut index, size)?;
                // A packet that is just being written may look damaged; it is looked at again next time. One that
                // others follow is damaged for good, also when it was found before.
                let (known, units) = (old.units.len(), index.units.len());
                index.fault = match &old.fault {
                    Some((before, error)) if *before < known => Some((*before, error.duplicate())),
                    _ => index.fault.take().filter(|(before, _)| *before < units),
                };
            }
        } else {
            let skip = self.options.on_corrupt == OnCorrupt::Skip;
            let mut scan = state
                .stream
                .take()
                .unwrap_or_else(|| StreamScan::new(&self.facts));
            let scanned = scan.scan(&self.facts, &mut index, size, skip);
            state.stream = Some(scan);
            scanned?;
        }
        state.index = Some(Arc::new(index));
        Ok(())
    }

    /// Units that may be read, and the row after them.
    fn visible(&self, index: &Index) -> (usize, u64) {
        match (&index.fault, self.options.on_corrupt) {
            (Some((units, _)), OnCorrupt::Raise) => {
                let last = index.units.get(..*units).and_then(<[Unit]>::last);
                (*units, last.map_or(0, |unit| unit.first_row + unit.rows))
            }
            _ => (index.units.len(), index.rows),
        }
    }

    fn plan(&self, index: &Index, selection: &Selection) -> Plan {
        let (units, rows) = self.visible(index);
        let stop = selection.stop.unwrap_or(u64::MAX);
        let mut pieces = Vec::new();
        let units = index.units.get(..units).unwrap_or_default();
        let first = units.partition_point(|unit| unit.first_row + unit.rows <= selection.start);
        for (number, unit) in units.iter().enumerate().skip(first) {
            let from = selection.start.max(unit.first_row);
            let to = stop.min(unit.first_row + unit.rows);
            if unit.first_row >= stop {
                break;
            }
            if from < to {
                pieces.push(Piece {
                    unit: number,
                    skip: from - unit.first_row,
                    take: to - from,
                });
            }
        }
        let reaches = stop > rows;
        let fault = match (&index.fault, self.options.on_corrupt) {
            (Some((_, error)), OnCorrupt::Raise) if reaches => Some(error.duplicate()),
            _ => None,
        };
        Plan { pieces, fault }
    }

    /// Decode a piece; with `Skip`, what is wrong becomes a gap and the good rows before it stay.
    fn decode(
        &self,
        index: &Index,
        piece: &Piece,
        cursor: &mut Cursor,
        gather: &mut Gather,
    ) -> Result<Batch> {
        let Some(unit) = index.units.get(piece.unit) else {
            return Ok(Batch::default());
        };
        cursor
            .read(unit, piece, gather)
            .or_else(|error| self.lose(error, unit, piece, gather, 0))
    }

    /// Account for a fault in a unit: an error, or a gap behind the `given` rows handed out and those in `gather`.
    fn lose(
        &self,
        error: Error,
        unit: &Unit,
        piece: &Piece,
        gather: &mut Gather,
        given: u64,
    ) -> Result<Batch> {
        let system = error.io_error().is_some() || matches!(error.kind(), ErrorKind::Limit { .. });
        if !system {
            self.lock().damaged = true;
        }
        if self.options.on_corrupt == OnCorrupt::Raise || system {
            return Err(place(error, piece.unit, unit));
        }
        let first = unit.first_row + piece.skip + given;
        let batch = gather.finish(first);
        let lost = (first + batch.rows as u64, unit.first_row + unit.rows);
        // Nothing was collected: the whole unit is bad, also the rows that were not asked for.
        let lost = if given == 0 && batch.rows == 0 {
            (unit.first_row, lost.1)
        } else {
            lost
        };
        if lost.0 < lost.1 {
            self.lock().gaps.push(lost);
        }
        Ok(batch)
    }
}

/// Batches in row order; see [`Reader::batches`].
pub struct Batches {
    shared: Arc<Shared>,
    index: Arc<Index>,
    pieces: std::vec::IntoIter<Piece>,
    fault: Option<Error>,
    /// The piece being read, and rows given from it.
    current: Option<(Piece, u64)>,
    cursor: Cursor,
    gather: Gather,
    batch_rows: usize,
}

impl Batches {
    /// The next batch of the open piece; `None` when it is used up.
    fn go_on(&mut self) -> Option<Result<Batch>> {
        let (piece, given) = self.current?;
        let unit = self.index.units.get(piece.unit)?;
        let left = piece.take - given;
        if left == 0 {
            self.current = None;
            if piece.skip + piece.take < unit.rows {
                return None;
            }
            let error = self.cursor.expect_end().err()?;
            self.gather.begin(0);
            return Some(
                self.shared
                    .lose(error, unit, &piece, &mut self.gather, given),
            );
        }
        let wanted = self
            .batch_rows
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        self.gather.begin(wanted);
        let taken = self
            .cursor
            .take(wanted, &mut self.gather)
            .and_then(|taken| {
                if taken == wanted {
                    return Ok(taken);
                }
                let first = unit.first_row + piece.skip + given + taken as u64;
                Err(Error::new(ErrorKind::RowsMissing {
                    first,
                    stop: unit.first_row + piece.skip + piece.take,
                }))
            });
        match taken {
            Ok(taken) => {
                self.current = Some((piece, given + taken as u64));
                Some(Ok(self.gather.finish(unit.first_row + piece.skip + given)))
            }
            Err(error) => {
                self.current = None;
                Some(
                    self.shared
                        .lose(error, unit, &piece, &mut self.gather, given),
                )
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.go_on() {
                Some(Ok(batch)) if batch.rows == 0 => continue,
                Some(Err(error)) => {
                    self.pieces = Vec::new().into_iter();
                    self.fault = None;
                    return Some(Err(error));
                }
                Some(batch) => return Some(batch),
                None => {}
            }
            let Some(piece) = self.pieces.next() else {
                return self.fault.take().map(Err);
            };
            let Some(unit) = self.index.units.get(piece.unit) else {
                continue;
            };
            match self
                .cursor
                .open(unit)
                .and_then(|()| self.cursor.skip(piece.skip))
            {
                Ok(_) => self.current = Some((piece, 0)),
                Err(error) => {
                    self.gather.begin(0);
                    if let Err(error) = self.shared.lose(error, unit, &piece, &mut self.gather, 0) {
                        self.pieces = Vec::new().into_iter();
                        self.fault = None;
                        return Some(Err(error));
                    }
                }
            }
        }
    }
}
