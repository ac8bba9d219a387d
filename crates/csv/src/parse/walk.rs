//! Records one by one and cell by cell: for what is not stored column by column, and to sum up.

use std::borrow::Cow;

use super::{Counts, Plan, Ragged, column_of, line_of};
use crate::error::{Error, ErrorKind, Result};
use crate::records::{self, Next};

/// A record at a time of whole records.
pub(super) struct Walk<'a> {
    plan: &'a Plan,
    bytes: &'a [u8],
    first_line: u64,
    /// The cells of the record, as many as there are fields.
    pub cells: Vec<Cow<'a, [u8]>>,
    /// Where they start.
    pub places: Vec<usize>,
    pub counts: Counts,
}

impl<'a> Walk<'a> {
    pub(super) fn new(plan: &'a Plan, bytes: &'a [u8], first_line: u64) -> Self {
        Self {
            plan,
            bytes,
            first_line,
            cells: Vec::with_capacity(plan.fields.len()),
            places: Vec::with_capacity(plan.fields.len()),
            counts: Counts::default(),
        }
    }

    /// Look at the record at `at`; returns where the next one starts, and whether this one is a row.
    pub(super) fn record(&mut self, at: usize) -> Result<(usize, bool)> {
        let fields = self.plan.fields.len();
        self.cells.clear();
        self.places.clear();
        if fields > 1 {
            let blank = records::blank(self.bytes, at);
            if blank > 0 {
                self.counts.blank += 1;
                return Ok((at + blank, false));
            }
        }
        let delimiter = self.plan.dialect.delimiter;
        let mut cell_at = at;
        let next = loop {
            let (text, end) = records::cell(self.bytes, cell_at, delimiter)
                .map_err(|kind| self.error(kind, cell_at, self.cells.len()))?;
            self.cells.push(text);
            self.places.push(cell_at);
            match records::next(self.bytes, end, delimiter) {
                Next::Cell(next) => cell_at = next,
                Next::Record(next) => break next,
            }
        };
        let found = self.cells.len();
        if found == fields {
            return Ok((next, true));
        }
        match self.plan.ragged {
            Ragged::Skip => {
                self.counts.skipped += 1;
                Ok((next, false))
            }
            Ragged::Pad if found < fields => {
                self.counts.padded += 1;
                self.cells.resize(fields, Cow::Borrowed(b""));
                self.places.resize(fields, at);
                Ok((next, true))
            }
            _ => {
                let expected = fields;
                Err(self.error(ErrorKind::Ragged { expected, found }, at, usize::MAX))
            }
        }
    }

    /// An error with its place: the line of a byte, and the column of a field if there is one.
    pub(super) fn error(&self, kind: ErrorKind, at: usize, field: usize) -> Error {
        let line = line_of(self.bytes, self.first_line, at);
        Error::at(kind, line, column_of(self.plan, field))
    }
}
