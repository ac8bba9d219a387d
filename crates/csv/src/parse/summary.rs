//! Records summed up: which types their cells ask for, without storing any.

use std::borrow::Cow;

use super::{Counts, Plan, Ragged, check_utf8, column_of, line_of};
use crate::error::{Error, ErrorKind, Result};
use crate::infer::Summary;
use crate::records::{self, Next};

/// Sum up the cells of whole records, one summary per target; returns the rows too.
pub(crate) fn summarise(
    plan: &Plan,
    bytes: &[u8],
    first_line: u64,
) -> Result<(Vec<Summary>, u64, Counts)> {
    check_utf8(bytes, first_line)?;
    let slots = plan.slots();
    let mut seen = vec![Summary::default(); plan.targets.len()];
    let (mut rows, mut counts, mut at) = (0, Counts::default(), 0);
    let mut ends: Vec<Cow<'_, [u8]>> = Vec::with_capacity(slots.len());
    while at < bytes.len() {
        if slots.len() > 1 {
            let blank = records::blank(bytes, at);
            if blank > 0 {
                counts.blank += 1;
                at += blank;
                continue;
            }
        }
        let start = at;
        ends.clear();
        loop {
            let (text, end) = records::cell(bytes, at, plan.dialect.delimiter).map_err(|kind| {
                Error::at(
                    kind,
                    line_of(bytes, first_line, at),
                    column_of(plan, ends.len()),
                )
            })?;
            ends.push(text);
            match records::next(bytes, end, plan.dialect.delimiter) {
                Next::Cell(next) => at = next,
                Next::Record(next) => {
                    at = next;
                    break;
                }
            }
        }
        if ends.len() != slots.len() {
            match plan.ragged {
                Ragged::Skip => {
                    counts.skipped += 1;
                    continue;
                }
                Ragged::Pad if ends.len() < slots.len() => {
                    counts.padded += 1;
                    ends.resize(slots.len(), Cow::Borrowed(b""));
                }
                _ => {
                    let kind = ErrorKind::Ragged {
                        expected: slots.len(),
                        found: ends.len(),
                    };
                    return Err(Error::at(kind, line_of(bytes, first_line, start), None));
                }
            }
        }
        rows += 1;
        for (text, slot) in ends.iter().zip(&slots) {
            if let Some(seen) = slot.and_then(|number| seen.get_mut(number)) {
                seen.see(text, &plan.types);
            }
        }
    }
    Ok((seen, rows, counts))
}
