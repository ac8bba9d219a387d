//! Streams as files: clean, with counted faults, or hostile.

use super::Plan;
use std::fs::File;
use std::io::{BufWriter, Write};
use tapeline_rivals::frame::{HEADER_BYTES, MAGIC, MAX_PAYLOAD, Random, push_frame};

/// Different payloads in one file; past the first ones they repeat.
const PAYLOADS: usize = 64;

/// Writes `plan.frames` frames to a file and returns, as JSON, what a receiver must count.
///
/// Faults have the probability `fault` each: a frame dropped, sent twice, swapped with the next, one byte of its payload
/// changed, garbage before it. The first and the last frames stay whole so that every loss lies between two frames.
pub fn build(path: &str, plan: &Plan, fault: f64, seed: u64) -> String {
    let mut random = Random::new(seed);
    let payloads: Vec<Vec<u8>> = (0..PAYLOADS)
        .map(|_| random.bytes(plan.payload_bytes))
        .collect();
    let mut out = BufWriter::with_capacity(4 << 20, File::create(path).expect("create"));
    let mut counts = Counts::default();
    let mut held: Option<Vec<u8>> = None;
    let mut frame = Vec::new();
    for sequence in 0..plan.frames {
        frame.clear();
        push_frame(
            &mut frame,
            sequence,
            0,
            &payloads[sequence as usize % PAYLOADS],
        );
        let edge = sequence < 2 || sequence + 2 >= plan.frames;
        if fault > 0.0 && !edge && held.is_none() {
            if random.chance(fault) {
                counts.dropped += 1;
                continue;
            }
            if random.chance(fault) {
                let at = HEADER_BYTES + random.next_u64() as usize % plan.payload_bytes;
                frame[at] ^= 1 << (random.next_u64() % 8);
                counts.corrupt += 1;
                counts.corrupt_bytes += frame.len() as u64;
                counts.bytes += frame.len() as u64;
                out.write_all(&frame).expect("write");
                continue;
            }
            if random.chance(fault) {
                held = Some(frame.clone());
                continue;
            }
        }
        if fault > 0.0 && !edge && random.chance(fault) {
            let length = 1 + random.next_u64() as usize % 64;
            // Zeros cannot be mistaken for the beginning of a magic.
            out.write_all(&vec![0; length]).expect("write");
            counts.garbage_bytes += length as u64;
            counts.bytes += length as u64;
        }
        counts.put(&mut out, &frame);
        counts.valid += 1;
        if let Some(late) = held.take() {
            counts.put(&mut out, &late);
            counts.valid += 1;
            counts.reordered += 1;
        } else if fault > 0.0 && !edge && random.chance(fault) {
            counts.put(&mut out, &frame);
            counts.duplicate += 1;
        }
    }
    out.flush().expect("flush");
    let Counts {
        valid,
        duplicate,
        reordered,
        dropped,
        corrupt,
        corrupt_bytes,
        garbage_bytes,
        bytes,
    } = counts;
    format!(
        "{{\"valid\": {valid}, \"duplicate\": {duplicate}, \"reordered\": {reordered}, \"dropped\": {dropped}, \
         \"corrupt\": {corrupt}, \"corrupt_bytes\": {corrupt_bytes}, \"garbage_bytes\": {garbage_bytes}, \
         \"bytes\": {bytes}, \"frame_bytes\": {}}}",
        HEADER_BYTES + plan.payload_bytes
    )
}

/// Writes what costs a decoder most between two valid frames: noise, magics one after the other, or valid headers that
/// claim the largest payload. Returns its account as JSON.
pub fn build_hostile(path: &str, plan: &Plan, kind: &str, bytes: usize, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut header = Vec::new();
    push_frame(&mut header, 5, 0, &random.bytes(MAX_PAYLOAD));
    header.truncate(HEADER_BYTES);
    // Not the CRC of what follows.
    header[HEADER_BYTES - 1] ^= 1;
    let filler = match kind {
        "noise" => random.bytes(1 << 20),
        "magics" => MAGIC.repeat((1 << 20) / MAGIC.len()),
        "claims" => header.repeat((1 << 20) / HEADER_BYTES),
        other => panic!("--hostile noise, magics or claims, not {other}"),
    };
    let mut out = BufWriter::with_capacity(4 << 20, File::create(path).expect("create"));
    let payload = random.bytes(plan.payload_bytes);
    let mut frame = Vec::new();
    push_frame(&mut frame, 0, 0, &payload);
    out.write_all(&frame).expect("write");
    let mut discarded = 0;
    while discarded < bytes {
        out.write_all(&filler).expect("write");
        discarded += filler.len();
    }
    frame.clear();
    push_frame(&mut frame, 1, 0, &payload);
    out.write_all(&frame).expect("write");
    out.flush().expect("flush");
    format!(
        "{{\"valid\": 2, \"discarded\": {discarded}, \"bytes\": {}}}",
        discarded + 2 * frame.len()
    )
}

/// What was written.
#[derive(Default)]
struct Counts {
    valid: u64,
    duplicate: u64,
    reordered: u64,
    dropped: u64,
    corrupt: u64,
    corrupt_bytes: u64,
    garbage_bytes: u64,
    bytes: u64,
}

impl Counts {
    fn put(&mut self, out: &mut impl Write, frame: &[u8]) {
        out.write_all(frame).expect("write");
        self.bytes += frame.len() as u64;
    }
}
