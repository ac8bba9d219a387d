//! What can go wrong in a recorder.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, with the stream and path concerned where they are known.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    stream: Option<String>,
    path: Option<PathBuf>,
}

/// What failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong; the text names it.
    Config(String),
    /// The operating system refused `doing`.
    Io {
        /// What was being done.
        doing: &'static str,
        /// As the system gave it.
        source: io::Error,
    },
    /// The recording or its state does not allow it.
    State(String),
    /// An index file could not be written.
    Index(String),
}

impl Error {
    /// A wrong setting.
    #[must_use]
    pub fn config(text: String) -> Self {
        Self {
            kind: ErrorKind::Config(text),
            stream: None,
            path: None,
        }
    }

    /// A state that does not allow it.
    #[must_use]
    pub fn state(text: String) -> Self {
        Self {
            kind: ErrorKind::State(text),
            stream: None,
            path: None,
        }
    }

    /// A failed system call on a path.
    #[must_use]
    pub fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io { doing, source },
            stream: None,
            path: Some(path.to_owned()),
        }
    }

    /// A failed system call that has no path.
    #[must_use]
    pub fn io_bare(doing: &'static str, source: io::Error) -> Self {
        Self {
            kind: ErrorKind::Io { doing, source },
            stream: None,
            path: None,
        }
    }

    /// A failed index writer.
    #[must_use]
    pub fn index(path: &Path, text: String) -> Self {
        Self {
            kind: ErrorKind::Index(text),
            stream: None,
            path: Some(path.to_owned()),
        }
    }

    /// The same, for a stream.
    #[must_use]
    pub fn of_stream(mut self, name: &str) -> Self {
        self.stream.get_or_insert_with(|| name.to_owned());
        self
    }

    /// What failed.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The stream concerned.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    /// The path concerned.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The operating system's error, when it was one.
    #[must_use]
    pub fn os(&self) -> Option<&io::Error> {
        match &self.kind {
            ErrorKind::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(stream), false) = (&self.stream, matches!(self.kind, ErrorKind::Config(_))) {
            write!(f, "stream {stream}: ")?;
        }
        match &self.kind {
            ErrorKind::Config(text) | ErrorKind::State(text) => f.write_str(text)?,
            ErrorKind::Io { doing, source } => write!(f, "{doing}: {source}")?,
            ErrorKind::Index(text) => write!(f, "writing the index: {text}")?,
        }
        if let Some(path) = &self.path {
            write!(f, " ({})", path.display())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.os().map(|e| e as _)
    }
}
