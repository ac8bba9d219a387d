//! A ring in arbitrary memory that changes while it is read: the reader ends, goes forward, stays inside, and gives
//! nothing whose checksum is wrong.

#![no_main]

use std::cell::{Cell, RefCell};
use std::io;

use libfuzzer_sys::fuzz_target;
use tapeline_fuzz::{Choices, crc32c};
use tapeline_ring::shared_memory::{HEADER_BYTES, Memory, Progress, Reader, Start};

const CAPACITY: u64 = 4096;

/// Memory in which a script goes on writing: some accesses are preceded by a change.
struct Changing {
    bytes: RefCell<Vec<u8>>,
    script: RefCell<std::vec::IntoIter<[u8; 11]>>,
    producer: bool,
    accesses: Cell<u64>,
}

impl Changing {
    fn step(&self) {
        self.accesses.set(self.accesses.get() + 1);
        let Some([when, low, high, value @ ..]) = self.script.borrow_mut().next() else {
            return;
        };
        if when & 1 == 0 {
            return;
        }
        let mut bytes = self.bytes.borrow_mut();
        if when & 2 != 0 {
            // the file is cut
            let length = usize::from(u16::from_le_bytes([low, high]));
            bytes.truncate(length.max(64));
            return;
        }
        // a position, or any place
        let at = match low % 8 {
            place @ 0..3 => 128 * (usize::from(place) + 1),
            _ => usize::from(u16::from_le_bytes([low, high])),
        };
        for (n, byte) in value.iter().enumerate() {
            if let Some(slot) = bytes.get_mut(at + n) {
                *slot = *byte;
            }
        }
    }
}

impl Memory for &Changing {
    fn copy(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.step();
        let bytes = self.bytes.borrow();
        let start = usize::try_from(offset).expect("an offset in memory");
        assert!(
            offset + out.len() as u64 <= HEADER_BYTES + CAPACITY,
            "outside of the ring"
        );
        let from = bytes.get(start..start + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.borrow().len() as u64)
    }

    fn has_producer(&self) -> bool {
        self.producer
    }

    fn is_unlinked(&self) -> bool {
        false
    }
}

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let choice = choices.byte();
    let steps = usize::from(choices.byte() % 32);
    let mut script = Vec::new();
    for _ in 0..steps {
        let mut step = [0; 11];
        let taken = choices.take(11);
        step[..taken.len()].copy_from_slice(taken);
        script.push(step);
    }
    let mut bytes = vec![0; (HEADER_BYTES + CAPACITY) as usize];
    if choice & 1 == 0 {
        bytes[..8].copy_from_slice(b"TPLRING1");
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&CAPACITY.to_le_bytes());
        bytes[28] = choice >> 7;
        for place in [128, 256, 384] {
            let position = choices.number(2 + usize::from(choice & 2) * 3);
            bytes[place..place + 8].copy_from_slice(&position.to_le_bytes());
        }
        records(&mut choices, &mut bytes, choice & 4 == 0);
    }
    for (slot, byte) in bytes
        .iter_mut()
        .zip(if choice & 1 == 0 { &[] } else { choices.rest() })
    {
        *slot = *byte;
    }
    let memory = Changing {
        bytes: RefCell::new(bytes),
        script: RefCell::new(script.into_iter()),
        producer: choice & 8 != 0,
        accesses: Cell::new(0),
    };
    let start = [Start::Oldest, Start::Newest][usize::from(choice >> 4 & 1)];
    let Ok(mut reader) = Reader::over(&memory, start) else {
        return;
    };
    if reader.capacity() != CAPACITY {
        return;
    }
    let mut most = usize::from(choice >> 5 & 1) * 3 + 1;
    for round in 0u64.. {
        // a lap has at most 256 records, and the script at most 31 changes: beyond that it goes in circles
        assert!(round < 4096, "it does not come to an end");
        let before = (reader.position(), *reader.counters());
        let accesses = memory.accesses.get();
        let result = reader.read(|record| {
            assert!(record.payload.len() as u64 <= CAPACITY / 2);
            // the copy is the reader's own, so it holds whatever the memory does now
            assert!(crc32c(record.payload) == stored(&memory, record.position) || steps > 0);
            most = most.saturating_sub(1);
            most > 0
        });
        assert!(
            memory.accesses.get() - accesses < 64,
            "too many looks in one read"
        );
        assert!(reader.position() >= before.0, "it went back");
        let c = *reader.counters();
        assert!(c.records >= before.1.records && c.corrupt_bytes >= before.1.corrupt_bytes);
        most = 4;
        match result {
            Ok(Progress::More) => {
                let moved = reader.position() > before.0 || c != before.1;
                assert!(
                    moved || memory.script.borrow().len() > 0 || accesses < 64,
                    "no progress"
                );
            }
            Ok(Progress::Idle | Progress::Closed | Progress::Abandoned) | Err(_) => break,
        }
    }
});

fn stored(memory: &Changing, position: u64) -> u32 {
    let at = (HEADER_BYTES + (position & (CAPACITY - 1))) as usize + 12;
    let bytes = memory.bytes.borrow();
    let field = bytes.get(at..at + 4).unwrap_or(&[0; 4]);
    u32::from_le_bytes(field.try_into().unwrap_or_default())
}

/// Records from the start of the ring on, as far as the input reaches; sealed ones have a true checksum.
fn records(choices: &mut Choices<'_>, bytes: &mut [u8], sealed: bool) {
    let mut at = HEADER_BYTES as usize;
    while !choices.is_empty() {
        let what = choices.byte();
        let length = usize::from(choices.byte());
        let payload = choices.take(length);
        let Some(room) = bytes.get_mut(at..at + 16 + payload.len()) else {
            return;
        };
        let size = match what {
            0..4 => u32::MAX,
            4..8 => choices.number(4) as u32,
            _ => payload.len() as u32,
        };
        let crc = if sealed || what % 2 == 0 {
            crc32c(payload)
        } else {
            u32::from(what)
        };
        room[8..12].copy_from_slice(&size.to_le_bytes());
        room[12..16].copy_from_slice(&crc.to_le_bytes());
        room[16..].copy_from_slice(payload);
        at += (16 + payload.len()).next_multiple_of(8);
    }
}
