//! What can go wrong with a ring in a file.

use std::{fmt, io};

/// Why a ring cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// What the system said.
    Io(io::Error),
    /// The file is no ring, or one of another version.
    NotARing(&'static str),
    /// What the file says contradicts itself or what it said before.
    Corrupt(&'static str),
    /// The file became shorter than the ring.
    Truncated,
    /// Another producer has the ring.
    Busy,
    /// The ring exists with another capacity.
    OtherCapacity {
        /// In the file.
        found: u64,
        /// Asked for.
        asked: u64,
    },
    /// Not a power of two between the smallest and the largest capacity.
    Capacity(u64),
    /// A payload larger than half the ring.
    TooLarge {
        /// Of the payload.
        bytes: u64,
        /// Most for this ring.
        limit: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::NotARing(what) => write!(f, "not a ring: {what}"),
            Self::Corrupt(what) => write!(f, "the ring is damaged: {what}"),
            Self::Truncated => write!(f, "the file became shorter than its ring"),
            Self::Busy => write!(f, "another producer writes to this ring"),
            Self::OtherCapacity { found, asked } => write!(
                f,
                "the ring exists with a capacity of {found} bytes, not {asked}; remove it first"
            ),
            Self::Capacity(capacity) => write!(
                f,
                "a capacity of {capacity} bytes; it must be a power of two from {} to {}",
                super::layout::MIN_CAPACITY,
                super::layout::MAX_CAPACITY
            ),
            Self::TooLarge { bytes, limit } => {
                write!(f, "a payload of {bytes} bytes; this ring takes {limit}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Io(error),
        }
    }
}
