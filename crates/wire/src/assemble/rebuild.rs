//! The index of a `.dat` from its frames alone (`spec/frame-stream.md` 7).

use std::collections::HashMap;

use super::writer::Writer;
use super::{Arrival, IndexRow, MAX_LANES, MAX_PERIODIC_BYTES, Rule, Step};

/// Further back than this the producer restarted (`spec/frame-stream.md` 3, the default window).
const REORDER_WINDOW: u64 = 65_536;

struct FileLane {
    index: usize,
    epoch: u64,
    highest: u64,
}

/// The index rows of frames in file order.
///
/// They equal the rows that the [`Assembler`](super::Assembler) gave with the frames, except where the
/// file cannot tell (see the module's head): runs of rule `none` may be cut elsewhere, neighbouring rows
/// of late frames of one periodic are one, and an epoch begins only where `restart` says so or the
/// sequence goes back by more than the default reorder window. Receive times are taken from the
/// arrivals; what reads a file has none and gives 0.
pub fn rebuild(frames: impl Iterator<Item = Arrival>, rule: Rule) -> Vec<IndexRow> {
    let mut writer = Writer::new(rule, MAX_PERIODIC_BYTES);
    let mut lanes: HashMap<u16, FileLane> = HashMap::new();
    let mut steps: Vec<Step<()>> = Vec::new();
    for arrival in frames {
        let added = lanes.len();
        let lane = if added < MAX_LANES || lanes.contains_key(&arrival.stream_id) {
            Some(lanes.entry(arrival.stream_id).or_insert_with(|| {
                writer.add_lane();
                FileLane {
                    index: added,
                    epoch: 0,
                    highest: 0,
                }
            }))
        } else {
            None
        };
        let Some(lane) = lane else {
            writer.begin_late(None, &arrival, 0, &mut steps);
            writer.extend(&arrival, &mut steps);
            continue;
        };
        if arrival.restart || arrival.sequence.saturating_add(REORDER_WINDOW) < lane.highest {
            lane.epoch += 1;
            lane.highest = 0;
        }
        lane.highest = lane.highest.max(arrival.sequence);
        if writer.is_late(lane.index, lane.epoch, arrival.sequence) {
            // Late frames are written between periodics only, so the one before had been closed.
            if writer.head().is_some() {
                writer.close(&mut steps);
            }
            writer.begin_late(Some(lane.index), &arrival, 0, &mut steps);
        } else {
            if writer.head().is_some_and(|head| head != lane.index) {
                writer.close(&mut steps);
            }
            writer.begin(lane.index, lane.epoch, &arrival, 0, &mut steps);
        }
        writer.extend(&arrival, &mut steps);
    }
    writer.close(&mut steps);
    let rows = steps.into_iter();
    rows.filter_map(|step| {
        if let Step::Row(row) = step {
            Some(row)
        } else {
            None
        }
    })
    .collect()
}
