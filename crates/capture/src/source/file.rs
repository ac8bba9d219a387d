//! Frames from a file or from standard input; the stream ends where they end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use tapeline_sys::fs::open_input;
use tapeline_sys::poll::{Interest, Poller};

use super::stream::{Arrival, ByteStream, Outcome, Patience, Pump};
use super::{Ended, Stop, WAIT};
use crate::error::Error;
use crate::receive::Receiver;

/// A file, a pipe, or standard input.
pub(crate) struct Input {
    reader: Box<dyn Read + Send>,
    /// Of a pipe or a terminal: it is read when there is something, so that a stop need not wait for its end.
    pipe: Option<Poller>,
}

impl Input {
    /// Opens a file or a named pipe; neither this nor a stop waits for a pipe's other end.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::of(open_input(path)?)
    }

    #[cfg(unix)]
    pub(crate) fn stdin() -> io::Result<Self> {
        use std::os::fd::AsFd;
        Self::of(File::from(io::stdin().as_fd().try_clone_to_owned()?))
    }

    #[cfg(not(unix))]
    pub(crate) fn stdin() -> io::Result<Self> {
        Ok(Self {
            reader: Box::new(io::stdin()),
            pipe: None,
        })
    }

    fn of(file: File) -> io::Result<Self> {
        let mut poller = Poller::new()?;
        // A file cannot be waited for, or is always ready.
        let waits = !file.metadata()?.is_file() && poller.add(&file, 0, Interest::READ).is_ok();
        Ok(Self {
            reader: Box::new(file),
            pipe: waits.then_some(poller),
        })
    }

    /// Reads what is there, waiting a moment for it unless `draining`: `Some(0)` is the end, `None` nothing yet.
    pub(crate) fn read(&mut self, buf: &mut [u8], draining: bool) -> io::Result<Option<usize>> {
        match &mut self.pipe {
            Some(poller) => {
                let wait = if draining {
                    Duration::from_millis(1)
                } else {
                    WAIT
                };
                let mut ready = Vec::new();
                poller.wait(&mut ready, wait)?;
                if ready.is_empty() {
                    return Ok(None);
                }
            }
            // A file has no end of what had come when the stop came: it stops where it is.
            None if draining => return Ok(None),
            None => {}
        }
        match self.reader.read(buf) {
            // Another reader of the pipe was faster.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        }
    }
}

impl ByteStream for Input {
    fn read(&mut self, buf: &mut [u8], draining: bool) -> io::Result<Arrival> {
        Ok(match Self::read(self, buf, draining)? {
            Some(0) => Arrival::End,
            Some(n) => Arrival::Bytes(n),
            None => Arrival::Nothing,
        })
    }
}

/// An input that is read into the ring.
pub(crate) struct Reader {
    input: Input,
    pump: Option<Pump>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            input: Input::open(path)?,
            pump: None,
        })
    }

    pub(crate) fn stdin() -> io::Result<Self> {
        Ok(Self {
            input: Input::stdin()?,
            pump: None,
        })
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
