//! Packets that readers of the image see together.

use super::super::packet::{PacketRef, Source};
use super::{Applied, RegisterImage, TouchedGroups};

/// Applies packets one after the other; what they change reaches the readers when it is asked for or the batch ends, or
/// before.
#[derive(Debug)]
pub struct ImageBatch<'a>(&'a mut RegisterImage);

impl<'a> ImageBatch<'a> {
    pub(super) const fn new(image: &'a mut RegisterImage) -> Self {
        Self(image)
    }

    /// Applies a packet; anything but DIFF and FULL changes nothing.
    #[inline]
    pub fn apply(&mut self, packet: &PacketRef<'_>) -> Applied {
        self.0.apply_ahead(packet)
    }

    /// See [`RegisterImage::take_touched`].
    pub fn take_touched(&mut self) -> Vec<(Source, Box<TouchedGroups>)> {
        self.0.take_touched()
    }

    /// The image with everything applied so far.
    pub fn settled(&mut self) -> &mut RegisterImage {
        self.0.settle();
        self.0
    }
}

impl Drop for ImageBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.0.unsettled.is_empty() {
            self.0.settle();
        }
    }
}
