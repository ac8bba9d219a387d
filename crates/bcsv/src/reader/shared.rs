//! What a reader and its iterators share: the index, renewed while a file is followed, what of it may be read, and the
//! account of damage.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{OnCorrupt, ReadOptions, Selection};
use crate::batch::Batch;
use crate::cursor::{Cursor, FileFacts, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Index, header_agrees, headers_agree, packet_index, read_footer, scan_packets};
use crate::random::Rows;
use crate::row::tile::Gather;
use crate::scan_stream::StreamScan;

pub(super) struct Shared {
    pub facts: Arc<FileFacts>,
    pub options: ReadOptions,
    pub state: Mutex<State>,
    /// Packets of single-row access.
    pub rows: Mutex<Rows>,
}

#[derive(Default)]
pub(super) struct State {
    pub index: Option<Arc<Index>>,
    pub stream: Option<StreamScan>,
    /// Gaps found while reading, besides those of the index.
    pub gaps: Vec<(u64, u64)>,
    /// A packet turned out to be damaged when it was read.
    pub damaged: bool,
}

/// Rows of one unit that are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub unit: usize,
    pub skip: u64,
    pub take: u64,
}

/// What a selection touches.
pub(super) struct Plan {
    pub pieces: Vec<Piece>,
    /// A fault that lies in the range asked for, behind all pieces.
    pub fault: Option<Error>,
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
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index, built when it is first asked for.
    pub(super) fn index(&self) -> Result<Arc<Index>> {
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
    pub(super) fn renew(&self) -> Result<()> {
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
                    Some((before, error)) if *before < known => Some((*before, error.clone())),
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
    pub(super) fn visible(&self, index: &Index) -> (usize, u64) {
        match (&index.fault, self.options.on_corrupt) {
            (Some((units, _)), OnCorrupt::Raise) => {
                let last = index.units.get(..*units).and_then(<[Unit]>::last);
                (*units, last.map_or(0, |unit| unit.first_row + unit.rows))
            }
            _ => (index.units.len(), index.rows),
        }
    }

    pub(super) fn plan(&self, index: &Index, selection: &Selection) -> Plan {
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
            (Some((_, error)), OnCorrupt::Raise) if reaches => Some(error.clone()),
            _ => None,
        };
        Plan { pieces, fault }
    }

    /// Decode a piece; with `Skip`, what is wrong becomes a gap and the good rows before it stay.
    pub(super) fn decode(
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
    pub(super) fn lose(
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
            return Err(super::place(error, piece.unit, unit));
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
