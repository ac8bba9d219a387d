//! Sinks: where a stream's frames end.

pub(crate) mod segment;

/// A segment that is full: the keeper closes it.
pub(crate) trait Closing: Send {
    /// Finish the index, sync both files, give them their names, sync the directory.
    fn close(self: Box<Self>) -> crate::error::Result<crate::manifest::SegmentEntry>;
}
