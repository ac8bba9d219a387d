//! The upper face: owns the bytes that are not decided yet; feed and finish.

use super::counters::PacketCounters;
use super::packet::{Kind, PacketRef};
use super::scanner::{FramingLost, PacketScanner};

/// Turns bytes in any chunking into packets. Holds at most one unfinished packet.
///
/// ```
/// use tapeline_wire::register::{Kind, PacketDecoder, PacketFields, encode_packet};
///
/// let mut stream = Vec::new();
/// encode_packet(&PacketFields::default(), &[(7, 1), (9, 2)], &mut stream)?;
/// let mut decoder = PacketDecoder::new(Kind::Packet);
/// let mut seen = Vec::new();
/// for byte in stream.chunks(1) {
///     decoder.feed(byte, &mut |packet| seen.extend(packet.registers()))?;
/// }
/// decoder.finish();
/// assert_eq!(seen, [(7, 1), (9, 2)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PacketDecoder {
    scanner: PacketScanner,
    buffer: Vec<u8>,
    bytes_received: u64,
}

impl PacketDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub const fn new(kind: Kind) -> Self {
        Self {
            scanner: PacketScanner::new(kind),
            buffer: Vec::new(),
            bytes_received: 0,
        }
    }

    /// Takes the next bytes of the stream and lends out every packet that is complete; offsets are
    /// those in the stream.
    ///
    /// # Errors
    ///
    /// The framing is lost, now or before: all since then is discarded and counted, until `finish`.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        emit: &mut impl FnMut(PacketRef<'_>),
    ) -> Result<(), FramingLost> {
        self.bytes_received += chunk.len() as u64;
        let mut rest = chunk;
        while !self.buffer.is_empty() {
            let missing = self.scanner.needed().saturating_sub(self.buffer.len());
            let (part, after) = rest.split_at(missing.min(rest.len()));
            self.buffer.extend_from_slice(part);
            rest = after;
            if part.len() < missing {
                return Ok(());
            }
            let base = self.scanner.consumed();
            let done = self.scanner.scan(&self.buffer, false, &mut |packet| {
                emit(at(packet, base));
            });
            // Either nothing is decided and more is needed, or the packet was all there was.
            match done {
                Ok(0) => {}
                Ok(done) => {
                    self.buffer.drain(..done);
                }
                Err(lost) => {
                    self.buffer.clear();
                    self.scanner.scan(rest, false, &mut |_| {}).ok();
                    return Err(lost);
                }
            }
        }
        let base = self.scanner.consumed();
        let done = self
            .scanner
            .scan(rest, false, &mut |packet| emit(at(packet, base)))?;
        self.buffer
            .extend_from_slice(rest.get(done..).unwrap_or_default());
        Ok(())
    }

    /// Says that the stream has ended: an unfinished packet is counted as truncated. The decoder is
    /// then ready for a new stream; counters and offsets go on.
    pub fn finish(&mut self) {
        self.scanner.scan(&self.buffer, true, &mut |_| {}).ok();
        self.buffer.clear();
        self.buffer.shrink_to(64 << 10);
    }

    /// Totals so far.
    #[must_use]
    pub const fn counters(&self) -> &PacketCounters {
        self.scanner.counters()
    }

    /// Bytes fed.
    #[must_use]
    pub const fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Bytes fed that are not decided yet.
    #[must_use]
    pub const fn pending_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Why the framing is lost, if it is.
    #[must_use]
    pub const fn lost(&self) -> Option<FramingLost> {
        self.scanner.lost()
    }

    /// The wire.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.scanner.kind()
    }
}

fn at(mut packet: PacketRef<'_>, base: u64) -> PacketRef<'_> {
    packet.offset += base;
    packet
}
