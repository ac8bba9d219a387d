//! Batches in row order, one packet in memory at a time.

use std::sync::Arc;

use super::shared::{Piece, Plan, Shared};
use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::error::{Error, ErrorKind, Result};
use crate::index::Index;
use crate::row::tile::Gather;

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
    pub(super) fn new(
        shared: &Arc<Shared>,
        index: Arc<Index>,
        plan: Plan,
        gather: Gather,
        batch_rows: usize,
    ) -> Self {
        Self {
            cursor: Cursor::new(Arc::clone(&shared.facts)),
            shared: Arc::clone(shared),
            index,
            pieces: plan.pieces.into_iter(),
            fault: plan.fault,
            current: None,
            gather,
            batch_rows,
        }
    }

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
