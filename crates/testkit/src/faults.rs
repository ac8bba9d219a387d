//! Frame streams with faults of every kind, and what was done to them.

use tapeline_wire::frame::{FrameFields, FrameLayout};

use crate::Random;

/// What was sent and broken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Sequence numbers used, whatever became of them.
    pub frames: u64,
    /// Frames left out.
    pub dropped: u64,
    /// Frames sent a second time.
    pub duplicated: u64,
    /// Frames with a flipped bit.
    pub flipped: u64,
    /// Frames cut short.
    pub truncated: u64,
    /// Bytes between frames that belong to none.
    pub garbage_bytes: u64,
    /// Headers that are good in themselves and claim a payload that is not there.
    pub claims: u64,
}

/// Encodes `frames` frames with payloads of 1 to `largest` bytes, one in `one_in` of them with a
/// fault: dropped, sent twice, swapped with the one before, a bit flipped, cut short, garbage,
/// part of a magic or another header before it, a magic or a whole frame inside.
#[must_use]
pub fn faulty_stream(
    layout: &FrameLayout,
    frames: u64,
    largest: usize,
    one_in: u64,
    random: &mut Random,
) -> (Vec<u8>, Sent) {
    let mut sent = Sent {
        frames,
        ..Sent::default()
    };
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for sequence in 0..frames {
        let mut payload = vec![0; 1 + random.index(largest)];
        let noise = random.bytes(payload.len());
        payload.copy_from_slice(&noise);
        let fields = FrameFields {
            sequence,
            timestamp_ns: sequence * 1000,
            ..FrameFields::default()
        };
        let frame = |payload: &[u8]| {
            let mut frame = Vec::new();
            // A payload over the limit gives nothing: then this frame counts as dropped.
            let _ = layout.encode_frame(&fields, payload, &mut frame);
            frame
        };
        if !random.one_in(one_in) {
            pieces.push(frame(&payload));
            continue;
        }
        match random.below(9) {
            0 => sent.dropped += 1,
            1 => {
                sent.duplicated += 1;
                pieces.push(frame(&payload).repeat(2));
            }
            2 => {
                let before = pieces.pop().unwrap_or_default();
                pieces.extend([frame(&payload), before]);
            }
            3 => {
                let mut broken = frame(&payload);
                let at = random.index(broken.len());
                if let Some(byte) = broken.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
                sent.flipped += 1;
                pieces.push(broken);
            }
            4 => {
                let mut broken = frame(&payload);
                broken.truncate(random.index(broken.len()));
                sent.truncated += 1;
                pieces.push(broken);
            }
            5 => {
                let length = random.index(100);
                let garbage = random.bytes(length);
                sent.garbage_bytes += garbage.len() as u64;
                pieces.extend([garbage, frame(&payload)]);
            }
            6 => {
                let part = layout
                    .magic()
                    .get(..1 + random.index(7))
                    .unwrap_or_default()
                    .to_vec();
                sent.garbage_bytes += part.len() as u64;
                pieces.extend([part, frame(&payload)]);
            }
            7 => {
                let mut header = [0; 44];
                let claimed = 1 + random.index(4 * largest);
                let n = layout
                    .write_header(&fields, claimed, 1, &mut header)
                    .unwrap_or(0);
                sent.claims += 1;
                pieces.extend([
                    header.get(..n).unwrap_or_default().to_vec(),
                    frame(&payload),
                ]);
            }
            _ => {
                let mut inner = layout.magic().to_vec();
                inner.extend(frame(&payload));
                pieces.push(frame(&inner));
            }
        }
    }
    (pieces.concat(), sent)
}
