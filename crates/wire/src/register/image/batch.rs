//! Packets that readers of the image see together.

use super::super::packet::{PacketRef, Source};
use super::waiting::Waiting;
use super::{RegisterImage, TouchedGroups};

/// Applies packets one after the other; what they change reaches the readers when it is asked for or the batch ends, or
/// before. The packets stay where they are until then.
#[derive(Debug)]
pub struct ImageBatch<'i, 'b> {
    image: &'i mut RegisterImage,
    waiting: Waiting<'b>,
}

impl<'i, 'b> ImageBatch<'i, 'b> {
    pub(super) const fn new(image: &'i mut RegisterImage) -> Self {
        Self {
            image,
            waiting: Waiting::new(),
        }
    }

    /// Applies a packet; anything but DIFF and FULL changes nothing. How many of its registers found no place within
    /// the limits.
    #[inline]
    pub fn apply(&mut self, packet: &PacketRef<'b>) -> u32 {
        self.image
            .apply_ahead(packet, Some(&mut self.waiting))
            .refused
    }

    /// See [`RegisterImage::take_touched`].
    pub fn take_touched(&mut self) -> Vec<(Source, Box<TouchedGroups>)> {
        self.image.take_touched()
    }

    /// The image with everything applied so far.
    pub fn settled(&mut self) -> &mut RegisterImage {
        self.image.settle(&mut self.waiting);
        self.image
    }
}

impl Drop for ImageBatch<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if !self.waiting.is_empty() || !self.image.unsettled.is_empty() {
            self.image.settle(&mut self.waiting);
        }
    }
}
