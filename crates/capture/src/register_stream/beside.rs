//! What the readers of a finished segment would else have to gather by reading it: which block touches which registers,
//! and that no register is in doubt at its end. The receiving thread has it at hand.
//!
//! Nothing here is needed to read the log. What is left out is made from the log by the follower that builds what is
//! missing.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use tapeline_wire::register::{Source, TouchedGroups};

use crate::fs::Dir;
use crate::registers::doubts;
use crate::registers::touch::{Groups, SourceKey, TouchWriter};
use crate::sink::segment::PART;

/// Rows kept until the segment ends, of 0.5 KiB each. A log with more of them is read for its touch index.
const MAX_ROWS: usize = 16 << 10;

/// What the packets of an index row touch.
#[derive(Default)]
pub(super) struct Touched {
    sources: BTreeMap<SourceKey, Box<Groups>>,
    /// And something that is not known.
    more: bool,
}

impl Touched {
    /// Adds what the packets of a block touch.
    pub(super) fn add(&mut self, sources: &[(Source, Box<TouchedGroups>)], more: bool) {
        self.more |= more;
        for (source, groups) in sources {
            let key = (source.kind as u8, source.id);
            let all = self.sources.entry(key).or_insert_with(|| Box::new([0; _]));
            for (all, groups) in all.iter_mut().zip(groups.iter()) {
                *all |= groups;
            }
        }
    }
}

/// A row of the touch index to be.
struct Row {
    offset: u64,
    length: u64,
    sources: BTreeMap<SourceKey, Box<Groups>>,
}

/// Of one segment.
#[derive(Default)]
pub(super) struct Beside {
    /// No register is in doubt at the end.
    pub(super) certain: bool,
    rows: Vec<Row>,
    /// Rows of the file, a source each.
    count: usize,
    too_many: bool,
}

impl Beside {
    /// An index row was written.
    pub(super) fn row(&mut self, offset: u64, length: u64, touched: Touched) {
        // A block without a row is read by whoever looks for a register.
        if touched.more || self.too_many {
            return;
        }
        self.count += touched.sources.len().max(1);
        if self.count > MAX_ROWS {
            self.too_many = true;
            self.rows = Vec::new();
            return;
        }
        self.rows.push(Row {
            offset,
            length,
            sources: touched.sources,
        });
    }

    /// Writes what is known.
    ///
    /// # Errors
    /// As the operating system gave them.
    pub(super) fn leave(&self, dir: &dyn Dir, stem: &str) -> io::Result<()> {
        if self.certain {
            let bytes = doubts::encode(Vec::new(), std::iter::empty())?;
            leave_file(dir, &format!("{stem}.doubts.bcsv"), &bytes)?;
        }
        if !self.too_many {
            leave_file(dir, &format!("{stem}.touch.bcsv"), &self.touch_index()?)?;
        }
        Ok(())
    }

    fn touch_index(&self) -> io::Result<Vec<u8>> {
        let mut writer = TouchWriter::new(Vec::new())?;
        for row in &self.rows {
            writer.block(row.offset, row.length, &row.sources)?;
        }
        writer.finish()
    }
}

fn leave_file(dir: &dyn Dir, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = format!("{name}{PART}");
    let file = dir.create(&part)?;
    file.append(&[IoSlice::new(bytes)])?;
    file.sync_data()?;
    dir.rename(&part, name, true)
}
