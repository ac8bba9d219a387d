//! Frames from a file or from standard input; the stream ends where they end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::stream::{Arrival, ByteStream, Outcome, Patience, pump};
use super::{Ended, Stop};
use crate::error::Error;
use crate::receive::Receiver;

/// An open file, or standard input.
pub(crate) struct Reader(Box<dyn Read + Send>);

impl Reader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(Self(Box::new(file)))
    }

    pub(crate) fn stdin() -> Self {
        Self(Box::new(io::stdin()))
    }

    pub(crate) fn run(mut self, mut receiver: Receiver, stop: &Stop) -> Ended {
        let outcome = pump(
            &mut self,
            &mut receiver,
            stop,
            Patience::ENDLESS,
            &mut |_| {},
        );
        receiver.finish();
        match outcome {
            Outcome::Ended(Some(why)) => Err(Error::io_bare("reading", io::Error::other(why))),
            _ => Ok(()),
        }
    }
}

impl ByteStream for Reader {
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
