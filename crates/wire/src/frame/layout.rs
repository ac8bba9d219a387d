//! The variants of the frame header and its encoder (`spec/frame-stream.md 1`).
//!
//! | field | bytes | where |
//! |---|---|---|
//! | magic | 8 | 0 |
//! | version, flags | 1 + 1 | 8 |
//! | `stream_id` | 2 or absent | 10 |
//! | sequence | 8 | next |
//! | `timestamp_ns` | 8 | next |
//! | `payload_length` | 4 or 8 | next |
//! | `header_crc` | 4 or absent | next |
//! | `payload_crc` | 4 | next |

use std::fmt;

/// The version that stands in every header.
pub const VERSION: u8 = 1;
/// Flag: the first frame of a periodic.
pub const PERIOD_START: u8 = 1;
/// Flag: the last frame of a periodic.
pub const PERIOD_END: u8 = 2;
/// The default sync marker.
pub const DEFAULT_MAGIC: [u8; 8] = [0xD1, 0xC6, 0x4F, 0x93, 0xA7, 0xB2, 0x5E, 0x8C];
/// Bytes of the largest header: all optional fields, 8-byte length.
pub const MAX_HEADER_BYTES: usize = 44;
/// The largest `max_payload` a layout may have, so that a frame's size fits 32 bits.
pub const MAX_PAYLOAD_LIMIT: u64 = (u32::MAX as u64) - (MAX_HEADER_BYTES as u64);

const DEFAULT_MAX_PAYLOAD: u32 = 1 << 20;

pub(super) const fn header_bytes(stream_id: bool, wide_length: bool, header_crc: bool) -> usize {
    let mut n = 8 + 2 + 8 + 8 + 4 + 4;
    if stream_id {
        n += 2;
    }
    if wide_length {
        n += 4;
    }
    if header_crc {
        n += 4;
    }
    n
}

/// Where the fields of a header are and what bounds it; every variant a producer may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    magic: [u8; 8],
    stream_id: bool,
    wide_length: bool,
    header_crc: bool,
    max_payload: u32,
}

impl FrameLayout {
    /// Describes a layout.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] when `version_flags` is not 2 or 4, `length_bytes` is not 4 or 8, or
    /// `max_payload` is 0 or above [`MAX_PAYLOAD_LIMIT`].
    pub fn new(
        magic: [u8; 8],
        version_flags: u8,
        length_bytes: u8,
        header_crc: bool,
        max_payload: u64,
    ) -> Result<Self, LayoutError> {
        let stream_id = match version_flags {
            2 => false,
            4 => true,
            found => {
                return Err(LayoutError::VersionFlags {
                    found: found.into(),
                });
            }
        };
        let wide_length = match length_bytes {
            4 => false,
            8 => true,
            found => {
                return Err(LayoutError::LengthBytes {
                    found: found.into(),
                });
            }
        };
        let refused = LayoutError::MaxPayload {
            found: max_payload.into(),
        };
        if max_payload == 0 || max_payload > MAX_PAYLOAD_LIMIT {
            return Err(refused);
        }
        let max_payload = u32::try_from(max_payload).map_err(|_| refused)?;
        Ok(Self {
            magic,
            stream_id,
            wide_length,
            header_crc,
            max_payload,
        })
    }

    /// The sync marker.
    #[must_use]
    pub const fn magic(&self) -> &[u8; 8] {
        &self.magic
    }

    /// Bytes of version, flags and stream id together: 2 (no stream id) or 4.
    #[must_use]
    pub const fn version_flags(&self) -> u8 {
        if self.stream_id { 4 } else { 2 }
    }

    /// Whether the header carries a stream id.
    #[must_use]
    pub const fn has_stream_id(&self) -> bool {
        self.stream_id
    }

    /// Bytes of the payload length: 4 or 8.
    #[must_use]
    pub const fn length_bytes(&self) -> u8 {
        if self.wide_length { 8 } else { 4 }
    }

    /// Whether the header carries a CRC32C of itself.
    #[must_use]
    pub const fn header_crc(&self) -> bool {
        self.header_crc
    }

    /// The largest payload in bytes.
    #[must_use]
    pub const fn max_payload(&self) -> u64 {
        self.max_payload as u64
    }

    /// Bytes of the header: 34 to 44, by default 40.
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        header_bytes(self.stream_id, self.wide_length, self.header_crc)
    }

    /// Bytes of the largest frame, header included.
    #[must_use]
    pub const fn max_frame_bytes(&self) -> usize {
        self.header_bytes() + self.max_payload as usize
    }

    /// Appends the header that makes `payload` a frame; the payload itself is not copied.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] when the payload is empty or over the limit, or when a stream id is given
    /// that the layout cannot carry. `out` is untouched then.
    pub fn encode_header(
        &self,
        fields: &FrameFields,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.check(fields, payload.len())?;
        let mut header = [0_u8; MAX_HEADER_BYTES];
        let n = self.write_header(
            fields,
            payload.len(),
            tapeline_crc::crc32c(payload),
            &mut header,
        )?;
        out.extend_from_slice(header.get(..n).unwrap_or_default());
        Ok(())
    }

    /// Appends a whole frame.
    ///
    /// # Errors
    ///
    /// As [`Self::encode_header`].
    pub fn encode_frame(
        &self,
        fields: &FrameFields,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.encode_header(fields, payload, out)?;
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Writes the header for a payload whose length and CRC32C are known; gives its size.
    ///
    /// # Errors
    ///
    /// As [`Self::encode_header`]; also when `out` is shorter than [`Self::header_bytes`].
    pub fn write_header(
        &self,
        fields: &FrameFields,
        payload_bytes: usize,
        payload_crc: u32,
        out: &mut [u8],
    ) -> Result<usize, EncodeError> {
        let length = self.check(fields, payload_bytes)?;
        let size = self.header_bytes();
        let found = out.len();
        let Some(out) = out.get_mut(..size) else {
            return Err(EncodeError::BufferTooShort {
                found,
                needed: size,
            });
        };
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(slot) = out.get_mut(at..at + field.len()) {
                slot.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&self.magic);
        put(&[VERSION, fields.flags]);
        if self.stream_id {
            put(&fields.stream_id.to_be_bytes());
        }
        put(&fields.sequence.to_be_bytes());
        put(&fields.timestamp_ns.to_be_bytes());
        if self.wide_length {
            put(&u64::from(length).to_be_bytes());
        } else {
            put(&length.to_be_bytes());
        }
        if self.header_crc {
            let crc = tapeline_crc::crc32c(out.get(..size - 8).unwrap_or_default());
            if let Some(slot) = out.get_mut(size - 8..size - 4) {
                slot.copy_from_slice(&crc.to_be_bytes());
            }
        }
        if let Some(slot) = out.get_mut(size - 4..) {
            slot.copy_from_slice(&payload_crc.to_be_bytes());
        }
        Ok(size)
    }

    fn check(&self, fields: &FrameFields, payload_bytes: usize) -> Result<u32, EncodeError> {
        if fields.stream_id != 0 && !self.stream_id {
            return Err(EncodeError::NoStreamId {
                found: fields.stream_id,
            });
        }
        match u32::try_from(payload_bytes) {
            Ok(0) => Err(EncodeError::EmptyPayload),
            Ok(n) if n <= self.max_payload => Ok(n),
            _ => Err(EncodeError::PayloadTooLong {
                found: payload_bytes,
                limit: self.max_payload(),
            }),
        }
    }
}

impl Default for FrameLayout {
    fn default() -> Self {
        Self {
            magic: DEFAULT_MAGIC,
            stream_id: true,
            wide_length: false,
            header_crc: true,
            max_payload: DEFAULT_MAX_PAYLOAD,
        }
    }
}

/// What a producer says about a frame, apart from its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFields {
    /// [`PERIOD_START`], [`PERIOD_END`]; a producer leaves the other bits 0. They are carried as
    /// given, so that a received frame can be encoded again bit for bit.
    pub flags: u8,
    /// Which stream; must be 0 in a layout without the field.
    pub stream_id: u16,
    /// Number of the frame in its stream.
    pub sequence: u64,
    /// Nanoseconds since the UNIX epoch.
    pub timestamp_ns: u64,
}

/// Why a layout cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// `version_flags` is neither 2 nor 4.
    VersionFlags {
        /// What was given.
        found: i128,
    },
    /// `length_bytes` is neither 4 nor 8.
    LengthBytes {
        /// What was given.
        found: i128,
    },
    /// `max_payload` is 0 or above [`MAX_PAYLOAD_LIMIT`].
    MaxPayload {
        /// What was given.
        found: i128,
    },
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VersionFlags { found } => {
                write!(
                    f,
                    "version_flags is {found}; it must be 2 (no stream_id) or 4"
                )
            }
            Self::LengthBytes { found } => write!(f, "length_bytes is {found}; it must be 4 or 8"),
            Self::MaxPayload { found } => {
                write!(
                    f,
                    "max_payload is {found}; it must be 1 to {MAX_PAYLOAD_LIMIT} bytes"
                )
            }
        }
    }
}

impl std::error::Error for LayoutError {}

/// Why a frame cannot be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A frame has at least one byte of payload.
    EmptyPayload,
    /// The payload is longer than the layout allows.
    PayloadTooLong {
        /// Its size in bytes.
        found: usize,
        /// The layout's `max_payload`.
        limit: u64,
    },
    /// The layout has no field for the stream id.
    NoStreamId {
        /// The stream id given.
        found: u16,
    },
    /// The header does not fit the buffer.
    BufferTooShort {
        /// Size of the buffer in bytes.
        found: usize,
        /// Bytes of the header.
        needed: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPayload => write!(f, "payload is empty; a frame carries at least 1 byte"),
            Self::PayloadTooLong { found, limit } => {
                write!(f, "payload has {found} bytes; the layout allows {limit}")
            }
            Self::NoStreamId { found } => {
                write!(
                    f,
                    "stream_id is {found}; a layout with version_flags=2 carries none, so it must be 0"
                )
            }
            Self::BufferTooShort { found, needed } => {
                write!(f, "buffer has {found} bytes; the header needs {needed}")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
