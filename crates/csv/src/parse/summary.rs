//! Records summed up: which types their cells ask for, without storing any.

use super::walk::Walk;
use super::{Counts, Plan, check_utf8};
use crate::error::Result;
use crate::infer::Summary;

/// Sum up the cells of whole records, one summary per target; returns the rows too.
pub(crate) fn summarise(
    plan: &Plan,
    bytes: &[u8],
    first_line: u64,
) -> Result<(Vec<Summary>, u64, Counts)> {
    check_utf8(bytes, first_line)?;
    let slots = plan.slots();
    let mut seen = vec![Summary::default(); plan.targets.len()];
    let mut walk = Walk::new(plan, bytes, first_line);
    let (mut rows, mut at) = (0, 0);
    while at < bytes.len() {
        let (next, is_row) = walk.record(at)?;
        at = next;
        if !is_row {
            continue;
        }
        rows += 1;
        for (text, slot) in walk.cells.iter().zip(&slots) {
            if let Some(seen) = slot.and_then(|number| seen.get_mut(number)) {
                seen.see(text, &plan.types);
            }
        }
    }
    Ok((seen, rows, walk.counts))
}
