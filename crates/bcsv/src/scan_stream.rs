//! Walking a stream file: there is no index, so rows are found by reading them.
//!
//! The file is cut into pieces of about a megabyte. Where rows build on each other (ZoH, delta, LZ4), what a decoder
//! knows at the start of a piece is kept, so that later reads can start there and pieces can be read in parallel.

use std::sync::Arc;

use crate::cursor::{Checkpoint, Cursor, FileFacts, StreamRow, Unit, stream_row};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{FileCodec, RowCodec};
use crate::index::{Index, Tail};
use crate::limits::MAX_ROW_BYTES;
use crate::resync::{End, SEARCH_BYTES, end_of_row, length_is_damaged, proven_end};
use crate::source::Buffer;

/// Bytes of a piece, unless what must be kept for each is larger.
const PIECE_BYTES: usize = 1 << 20;
/// Most bytes of a piece: no row is longer.
const MOST_BYTES: usize = 2 * MAX_ROW_BYTES;
const DAMAGED_LENGTH: ErrorKind = ErrorKind::Framing {
    what: "a damaged row length",
};

/// Scans on from where it stopped; kept by a reader that follows the file.
pub(crate) struct StreamScan {
    cursor: Cursor,
    /// `None` where rows stand alone.
    checkpoint: Option<Arc<Checkpoint>>,
    buffer: Buffer,
    /// Bytes that may be looked at for the ends of bad rows.
    budget: u64,
}

impl StreamScan {
    pub(crate) fn new(facts: &Arc<FileFacts>) -> Self {
        let alone =
            facts.file_codec() == FileCodec::Stream && facts.header.row_codec() == RowCodec::Flat;
        let start = Checkpoint {
            decoder: facts.decoder(),
            history: Vec::new(),
        };
        Self {
            cursor: Cursor::new(Arc::clone(facts)),
            checkpoint: (!alone).then(|| Arc::new(start)),
            buffer: Buffer::default(),
            budget: SEARCH_BYTES,
        }
    }

    /// Add the rows from `index.end` to `stop`. With `skip`, single bad rows that stand alone become gaps.
    pub(crate) fn scan(
        &mut self,
        facts: &Arc<FileFacts>,
        index: &mut Index,
        stop: u64,
        skip: bool,
    ) -> Result<()> {
        index.tail = None;
        index.complete = None;
        let alone = self.checkpoint.is_none();
        let held = self.checkpoint.as_ref().map_or(0, |checkpoint| {
            checkpoint.decoder.held_bytes() + checkpoint.history.len()
        });
        let mut piece_bytes = PIECE_BYTES.max(4 * held);
        while index.end < stop && (index.fault.is_none() || skip) {
            let room = usize::try_from(stop - index.end)
                .unwrap_or(usize::MAX)
                .min(piece_bytes);
            let bytes = self.buffer.fill(&*facts.source, index.end, room)?;
            let whole = index.end + bytes.len() as u64 == stop;
            let (mut at, mut rows, mut fault) = (0, 0_u64, None);
            // Behind the last row that a hash covers: repeats are not covered.
            let mut solid = (0, 0_u64);
            while at < bytes.len() {
                match stream_row(bytes, at, facts) {
                    Ok(StreamRow::Whole { start, end, next }) => {
                        at = next;
                        rows += 1;
                        if start < end || facts.layout.columns() == 0 {
                            solid = (at, rows);
                        }
                    }
                    Ok(StreamRow::Cut) => {
                        // The file ends here, unless this is a row whose length was damaged.
                        if whole && is_damaged(bytes, solid.0, at, facts, alone) {
                            fault = Some(Error::new(DAMAGED_LENGTH));
                        }
                        break;
                    }
                    Err(error) => {
                        fault = Some(error);
                        break;
                    }
                }
            }
            // Behind a bad row that stands alone the next one may be found. It is looked for with the bad row first in
            // the buffer, so that all of it is there.
            let (mut behind, mut again) = (None, false);
            if fault.is_some() && alone {
                if at > 0 {
                    (fault, again) = (None, true);
                } else if skip {
                    match end_of_row(bytes, at, facts, whole, &mut self.budget) {
                        End::At(end) => behind = Some(end),
                        End::More if piece_bytes < MOST_BYTES => {
                            piece_bytes = (2 * piece_bytes).min(MOST_BYTES);
                            continue;
                        }
                        End::More | End::Unknown => {}
                    }
                }
            }
            if fault.is_some() && behind.is_none() {
                // A length that was flipped to 0 looks like a repeat, and what follows like a fault.
                (at, rows) = solid;
            }
            if at == 0 && fault.is_none() && !whole && piece_bytes < MOST_BYTES {
                // A row longer than the piece.
                piece_bytes = (2 * piece_bytes).min(MOST_BYTES);
                continue;
            }
            let offset = index.end;
            if rows > 0 {
                let unit = Unit {
                    offset,
                    end: offset + at as u64,
                    first_row: index.rows,
                    rows,
                    checkpoint: self.checkpoint.clone(),
                };
                if let Some(error) = self.advance(facts, &unit, index)? {
                    fault = Some(error);
                }
                self.budget = self.budget.saturating_add(at as u64).min(SEARCH_BYTES);
            }
            match (fault, behind) {
                (Some(error), Some(end)) => {
                    index.note(error.at(index.end));
                    index.gaps.push((index.rows, index.rows + 1));
                    index.rows += 1;
                    index.end += end as u64;
                }
                (Some(error), _) => {
                    index.note(error.at(index.end));
                    index.complete = Some(false);
                    return Ok(());
                }
                (None, _) if again => {}
                (None, _) if whole && index.end < stop => {
                    index.tail = Some(Tail {
                        offset: index.end,
                        first_row: index.rows,
                        rows: 0,
                    });
                    break;
                }
                (None, _) if rows == 0 => {
                    index.note(
                        Error::new(ErrorKind::Framing {
                            what: "an impossible row length",
                        })
                        .at(index.end),
                    );
                    break;
                }
                (None, _) => {}
            }
        }
        if index.tail.is_some() || index.fault.is_some() {
            index.complete = Some(false);
        }
        Ok(())
    }

    /// Take a piece into the index, decoding it if later pieces build on it. A row whose bytes are wrong in
    /// spite of a good hash (rows were taken out before it) ends the piece; the error is returned.
    fn advance(
        &mut self,
        facts: &FileFacts,
        unit: &Unit,
        index: &mut Index,
    ) -> Result<Option<Error>> {
        if self.checkpoint.is_none() {
            index.rows += unit.rows;
            index.end = unit.end;
            index.units.push(unit.clone());
            return Ok(None);
        }
        let decoded = self
            .cursor
            .open(unit)
            .and_then(|()| self.cursor.check(unit.rows));
        if let Err(error) = decoded {
            if error.io_error().is_some() {
                return Err(error);
            }
            let good = self.good_part(facts, unit, self.cursor.done());
            if good.rows > 0 && good.rows < unit.rows {
                self.advance(facts, &good, index)?;
            }
            return Ok(Some(error));
        }
        index.rows += unit.rows;
        index.end = unit.end;
        index.units.push(unit.clone());
        self.checkpoint = Some(Arc::new(self.cursor.checkpoint()));
        Ok(None)
    }

    /// The first `rows` rows of the piece that was scanned last.
    fn good_part(&self, facts: &FileFacts, unit: &Unit, rows: u64) -> Unit {
        let bytes = self.buffer.bytes();
        let (mut at, mut found) = (0, 0);
        while found < rows {
            let Ok(StreamRow::Whole { next, .. }) = stream_row(bytes, at, facts) else {
                break;
            };
            at = next;
            found += 1;
        }
        Unit {
            end: unit.offset + at as u64,
            rows: found,
            ..unit.clone()
        }
    }

    /// What a decoder knows behind the last piece.
    pub(crate) fn state(&self) -> Option<&Arc<Checkpoint>> {
        self.checkpoint.as_ref()
    }
}

/// Whether damage, not the end of the file, is why `bytes` seem to end inside the row at `at`; from `repeats` to there are
/// only repeats.
fn is_damaged(bytes: &[u8], repeats: usize, at: usize, facts: &FileFacts, alone: bool) -> bool {
    if !alone {
        return length_is_damaged(bytes, repeats, at);
    }
    let mut budget = SEARCH_BYTES;
    matches!(
        proven_end(bytes, at, &facts.layout, &mut budget),
        End::At(_)
    )
}
