//! Frames from a file or from standard input; the stream ends where they end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::stream::{Arrival, ByteStream, Outcome, Patience, Pump};
use super::{Ended, Stop};
use crate::error::Error;
use crate::receive::Receiver;

/// An open file, or standard input.
pub(crate) struct Reader {
    input: Input,
    pump: Option<Pump>,
}

struct Input(Box<dyn Read + Send>);

impl Reader {
    fn new(input: Box<dyn Read + Send>) -> Self {
        Self {
            input: Input(input),
            pump: None,
        }
    }

    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(Self::new(Box::new(file)))
    }

    pub(crate) fn stdin() -> Self {
        Self::new(Box::new(io::stdin()))
    }

    pub(crate) fn step(&mut self, receiver: &mut Receiver, stop: &Stop) -> Option<Ended> {
        let pump = self
            .pump
            .get_or_insert_with(|| Pump::new(Patience::ENDLESS, receiver));
        Some(
            match pump.step(&mut self.input, receiver, stop, &mut |_| {})? {
                Outcome::Ended(Some(why)) => Err(Error::io_bare("reading", io::Error::other(why))),
                _ => Ok(()),
            },
        )
    }
}

impl ByteStream for Input {
    fn read(&mut self, buf: &mut [u8], draining: bool) -> io::Result<Arrival> {
        // A file has no end of what "had arrived" when the stop came: it stops where it is.
        if draining {
            return Ok(Arrival::Nothing);
        }
        Ok(match self.0.read(buf)? {
            0 => Arrival::End,
            n => Arrival::Bytes(n),
        })
    }
}
