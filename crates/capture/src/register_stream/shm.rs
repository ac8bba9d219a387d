//! `shm://`: a ring that a producer on this host writes without ever waiting (spec/register-packets.md 6).
//!
//! A record is a data packet without its length, which is put in front of it in the log. Records are copied into the
//! block of the log as long as there is room, and scanned together. Nobody wakes a reader, so it looks, in pauses
//! that grow while nothing comes. The recorder may be there before the ring; a producer that closes it or dies is
//! waited for again, and so is a file of that name when this one was removed.

use std::path::Path;
use std::time::{Duration, Instant};

use tapeline_ring::shared_memory::{
    Backoff, Counters, Error as RingError, Progress, Reader, Start,
};
use tapeline_wire::register::{InvalidCounters, PacketCounters, PacketScanner};

use super::batch::BLOCK;
use super::intake::Intake;
use crate::error::Error;
use crate::receive::{WriterGone, now_ns};
use crate::source::{DRAIN_BYTES, Ended, Stop, WAIT};

/// How often a ring that is not there, or cannot be read, is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long a file may be no ring yet: a producer needs microseconds to make one of it.
const MAKING: Duration = Duration::from_secs(3);
/// Between two looks at the world while records come without end.
const TICK: Duration = Duration::from_millis(10);
/// What no data packet is shorter or longer than, without its length (spec/register-packets.md 2).
const PAYLOAD: std::ops::RangeInclusive<usize> = 17..=17 + 4 * 65_536;
const LENGTH: usize = 4;

/// Reads the ring until asked to stop.
pub(super) fn run(path: &Path, mut intake: Intake, stop: &Stop) -> Ended {
    let mut start = Start::Oldest;
    let mut no_ring_since = None;
    while !stop.requested() {
        match Reader::open(path, start) {
            Ok(reader) => {
                no_ring_since = None;
                let mut ring = Ring {
                    reader,
                    scanner: PacketScanner::new(intake.kind),
                    intake: &mut intake,
                    counted: Counters::default(),
                    producer: false,
                };
                match ring.read_all(stop) {
                    Ok(End::Removed) => start = Start::Oldest,
                    // What it still holds may be what was read already.
                    Ok(End::Damaged) => start = Start::Newest,
                    Ok(End::Stopped) | Err(WriterGone) => break,
                }
            }
            Err(RingError::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                no_ring_since = None;
            }
            Err(RingError::Io(e)) => {
                intake.finish();
                return Err(Error::io("opening", path, e));
            }
            // Being made, or no ring at all.
            Err(e) => {
                let since = no_ring_since.get_or_insert_with(Instant::now);
                if since.elapsed() > MAKING {
                    intake.finish();
                    return Err(Error::state(format!("{}: {e}", path.display())));
                }
            }
        }
        if intake.tick().is_err() {
            break;
        }
        std::thread::sleep(RETRY);
    }
    intake.finish();
    Ok(())
}

enum End {
    Stopped,
    /// The file has another name now, or none.
    Removed,
    Damaged,
}

/// An open ring.
struct Ring<'a> {
    reader: Reader,
    scanner: PacketScanner,
    intake: &'a mut Intake,
    /// What of the reader's counters is in the ledger.
    counted: Counters,
    /// A producer has it, as far as is known.
    producer: bool,
}

impl Ring<'_> {
    fn read_all(&mut self, stop: &Stop) -> Result<End, WriterGone> {
        let mut backoff = Backoff::default();
        let mut next_tick = Instant::now();
        let mut draining_from = None;
        loop {
            let received = self.intake.counters.bytes_received;
            if stop.requested() {
                draining_from.get_or_insert(received);
            }
            let enough = draining_from.is_some_and(|from| received - from > DRAIN_BYTES);
            let progress = self.read_some()?;
            self.account(progress.as_ref().ok());
            match progress {
                Ok(Progress::More) if !enough => {
                    backoff.reset();
                    if Instant::now() >= next_tick {
                        next_tick = Instant::now() + TICK;
                        self.intake.tick()?;
                    }
                    continue;
                }
                Ok(_) => {}
                Err(_) => {
                    self.intake.counters.broken += 1;
                    return Ok(End::Damaged);
                }
            }
            self.intake.tick()?;
            if draining_from.is_some() {
                self.intake.counters.stopped += u64::from(self.producer);
                return Ok(End::Stopped);
            }
            if self.reader.is_unlinked() {
                return Ok(End::Removed);
            }
            backoff.pause(WAIT);
        }
    }

    /// Takes one run of records.
    fn read_some(&mut self) -> Result<Result<Progress, RingError>, WriterGone> {
        let Self {
            reader,
            scanner,
            intake,
            ..
        } = self;
        let (mut filled, mut room, mut gone) = (0, 0, None);
        let progress = reader.read(|record| {
            if !PAYLOAD.contains(&record.payload.len()) {
                count_impossible(intake, record.payload.len());
                return true;
            }
            let taken = put(intake, scanner, record.payload, &mut filled, &mut room);
            gone = taken.err();
            gone.is_none()
        });
        if let Some(gone) = gone {
            return Err(gone);
        }
        take(intake, scanner, filled)?;
        Ok(progress)
    }

    /// Brings the ledger up to what the reader saw.
    fn account(&mut self, progress: Option<&Progress>) {
        let seen = *self.reader.counters();
        let (before, to) = (&self.counted, &mut self.intake.counters);
        to.shm_overtakes += seen.overtakes - before.overtakes;
        to.shm_overtaken_bytes += seen.overtaken_bytes - before.overtaken_bytes;
        to.shm_records_corrupt += seen.corrupt_records - before.corrupt_records;
        to.shm_bytes_corrupt += seen.corrupt_bytes - before.corrupt_bytes;
        let (was, fresh) = (self.producer, seen.records > before.records);
        self.counted = seen;
        // A producer counts as a client, also one that was gone before its records were read.
        if !was && (fresh || progress == Some(&Progress::Idle)) {
            to.clients_accepted += 1;
            self.producer = true;
        }
        match progress {
            Some(Progress::Closed) if self.producer => to.ended += 1,
            Some(Progress::Abandoned) | None if self.producer => to.broken += 1,
            _ => {
                to.clients = u64::from(self.producer);
                return;
            }
        }
        self.producer = false;
        to.clients = 0;
    }
}

/// Copies a record behind those that wait in the block, which are taken first if it does not fit behind them.
fn put(
    intake: &mut Intake,
    scanner: &mut PacketScanner,
    payload: &[u8],
    filled: &mut usize,
    room: &mut usize,
) -> Result<(), WriterGone> {
    let bytes = LENGTH + payload.len();
    if *filled + bytes > *room {
        take(intake, scanner, std::mem::take(filled))?;
        *room = intake.space(bytes)?.len();
    }
    // The room was asked for: this is the same place.
    let space = intake.space((*filled + bytes).min(BLOCK))?;
    let Some((length, to)) = space
        .get_mut(*filled..*filled + bytes)
        .and_then(|to| to.split_first_chunk_mut::<LENGTH>())
    else {
        return Err(WriterGone);
    };
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    *length = size.to_le_bytes();
    to.copy_from_slice(payload);
    *filled += bytes;
    Ok(())
}

/// Hands over the bytes that were copied.
fn take(intake: &mut Intake, scanner: &mut PacketScanner, bytes: usize) -> Result<(), WriterGone> {
    if bytes == 0 {
        return Ok(());
    }
    intake.take(scanner, bytes, bytes, true, now_ns(), None)?;
    intake.after_arrival(false)
}

/// A record whose size no packet has.
fn count_impossible(intake: &mut Intake, payload_bytes: usize) {
    let bytes = (LENGTH + payload_bytes) as u64;
    intake.counters.bytes_received += bytes;
    intake.count(&PacketCounters {
        bytes_invalid: bytes,
        invalid: InvalidCounters {
            length_mismatch: 1,
            ..InvalidCounters::default()
        },
        ..PacketCounters::default()
    });
}
