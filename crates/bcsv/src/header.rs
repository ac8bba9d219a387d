//! The file header (format 2 to 4): a long form of 24 bytes, a short one of 16 (format 1.3), then types and names.
//!
//! The two forms are told apart by the rule of format 2.4, which rests on byte 12: it is the major version in the
//! long form and the lowest byte of a packet size, always a multiple of 1,024, in the short one.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MAX_PACKET_BYTES, MIN_PACKET_BYTES};
use crate::schema::{ColumnSpec, ColumnType, Schema};
use crate::writer::WriteOptions;

const MAGIC: [u8; 4] = *b"BCSV";
const SHORT_BYTES: usize = 16;
const LONG_BYTES: usize = 24;

const FLAG_ZOH: u16 = 1;
const FLAG_NO_INDEX: u16 = 2;
const FLAG_STREAM: u16 = 4;
const FLAG_BATCH: u16 = 8;
const FLAG_DELTA: u16 = 16;
const KNOWN_FLAGS: u16 = 31;
/// A later minor version may code rows in a way we do not know (format 2.4).
const NEWEST_MINOR: u8 = 5;

/// How rows become bytes (format 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowCodec {
    /// Every value of every row.
    Flat,
    /// Only what changed since the row before.
    Zoh,
    /// Differences, with linear prediction.
    Delta,
}

impl RowCodec {
    /// The registry: every row codec.
    pub const ALL: [Self; 3] = [Self::Flat, Self::Zoh, Self::Delta];

    /// The name, as in the Python API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::Zoh => "zoh",
            Self::Delta => "delta",
        }
    }

    /// The codec of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// How rows are framed and compressed (format 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileCodec {
    /// Rows one after the other, each with its hash; no packets, no footer.
    Stream,
    /// The same, each row an LZ4 block.
    StreamLz4,
    /// Packets of rows.
    Packet,
    /// Packets in which each row is an LZ4 block.
    PacketLz4,
    /// Packets compressed as a whole.
    PacketLz4Batch,
}

impl FileCodec {
    /// The registry: every file codec.
    pub const ALL: [Self; 5] = [
        Self::Stream,
        Self::StreamLz4,
        Self::Packet,
        Self::PacketLz4,
        Self::PacketLz4Batch,
    ];

    /// The name, as in the Python API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::StreamLz4 => "stream-lz4",
            Self::Packet => "packet",
            Self::PacketLz4 => "packet-lz4",
            Self::PacketLz4Batch => "packet-lz4-batch",
        }
    }

    /// The codec of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Whether it has packets (and so a footer).
    #[must_use]
    pub fn has_packets(self) -> bool {
        !matches!(self, Self::Stream | Self::StreamLz4)
    }

    /// Whether anything is compressed.
    #[must_use]
    pub fn is_compressed(self) -> bool {
        !matches!(self, Self::Stream | Self::Packet)
    }
}

/// Header layout to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FormatVersion {
    /// 24 bytes, stamped 1.5.0: readable by every 1.5 reader.
    #[default]
    V1_5,
    /// 24 bytes, stamped 1.4.0: readable from library tag v1.3.0 on.
    V1_4,
    /// 16 bytes, stamped 1.3.0: flat or ZoH, no LZ4 batch (format 2.5).
    V1_3,
}

/// Everything in front of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Major, minor, patch of the format.
    pub version: [u8; 3],
    /// Creation time in seconds since 1970 UTC; 0 if unknown, `None` if the header has no such field.
    pub created_s: Option<u64>,
    /// 0 (nothing compressed) to 9.
    pub compression_level: u8,
    /// As stored.
    pub flags: u16,
    /// Packet size field.
    pub packet_bytes: u32,
    /// The columns.
    pub schema: Schema,
}

/// What the fixed part says.
struct Fixed {
    version: [u8; 3],
    created_s: Option<u64>,
    level: u8,
    flags: u16,
    columns: u16,
    packet_bytes: u32,
    bytes: usize,
}

impl Fixed {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let short: &[u8; SHORT_BYTES] = match bytes.first_chunk() {
            Some(short) if short.starts_with(&MAGIC) => short,
            _ if bytes.len() < SHORT_BYTES && bytes.starts_with(&MAGIC) => {
                return Err(cut(SHORT_BYTES, bytes.len()));
            }
            _ => return Err(Error::new(ErrorKind::NotBcsv).at(0)),
        };
        let long: Option<&[u8; LONG_BYTES]> = bytes.first_chunk();
        let long = long.filter(|b| b[12] == 1 && b[13] >= 4 && b[15] <= 9);
        let is_short = short[4] == 1 && short[5] == 3 && short[7] <= 9 && short[12] == 0;
        match long {
            Some(b) if !is_short => Ok(Self {
                version: [b[12], b[13], b[14]],
                created_s: Some(u64::from_le_bytes([
                    b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                ])),
                level: b[15],
                flags: u16::from_le_bytes([b[16], b[17]]),
                columns: u16::from_le_bytes([b[18], b[19]]),
                packet_bytes: u32::from_le_bytes([b[20], b[21], b[22], b[23]]),
                bytes: LONG_BYTES,
            }),
            None if is_short => Ok(Self {
                version: [short[4], short[5], short[6]],
                created_s: None,
                level: short[7],
                flags: u16::from_le_bytes([short[8], short[9]]),
                columns: u16::from_le_bytes([short[10], short[11]]),
                packet_bytes: u32::from_le_bytes([short[12], short[13], short[14], short[15]]),
                bytes: SHORT_BYTES,
            }),
            _ if short[12] == 1 && short[13] >= 4 && short[15] <= 9 && bytes.len() < LONG_BYTES => {
                Err(cut(LONG_BYTES, bytes.len()))
            }
            _ => {
                // Name the version that the longer form would have; it is what current tools write.
                let found = [short[12], short[13], short[14]];
                Err(Error::new(ErrorKind::UnsupportedVersion { found }).at(12))
            }
        }
    }
}

fn cut(needed: usize, found: usize) -> Error {
    Error::new(ErrorKind::HeaderCut {
        needed: needed as u64,
        found: found as u64,
    })
    .at(found as u64)
}

impl Header {
    /// Decode a header. Returns it with its length, at which the body starts.
    ///
    /// `bytes` is the start of the file; when it ends inside the header, the error's `needed` says how many bytes
    /// to come back with (it grows at most three times).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotBcsv`], [`ErrorKind::HeaderCut`], [`ErrorKind::UnsupportedVersion`],
    /// [`ErrorKind::UnknownFlags`] (unless `any_flags`), [`ErrorKind::ColumnTypeCode`], [`ErrorKind::HeaderField`].
    pub fn parse(bytes: &[u8], any_flags: bool) -> Result<(Self, usize)> {
        let fixed = Fixed::parse(bytes)?;
        if fixed.version[1] > NEWEST_MINOR {
            let found = fixed.version;
            return Err(Error::new(ErrorKind::UnsupportedVersion { found }));
        }
        if fixed.packet_bytes > MAX_PACKET_BYTES {
            let (found, limit) = (u64::from(fixed.packet_bytes), u64::from(MAX_PACKET_BYTES));
            return Err(Error::new(ErrorKind::HeaderField {
                field: "packet size",
                found,
                limit,
            })
            .at(fixed.bytes as u64 - 4));
        }
        let unknown = fixed.flags & !KNOWN_FLAGS;
        if unknown != 0 && !any_flags {
            return Err(Error::new(ErrorKind::UnknownFlags { bits: unknown }));
        }
        let columns = usize::from(fixed.columns);
        let names_at = fixed.bytes + 3 * columns;
        let tables = bytes
            .get(fixed.bytes..names_at)
            .ok_or_else(|| cut(names_at, bytes.len()))?;
        let (codes, lengths) = tables
            .split_at_checked(columns)
            .ok_or_else(|| cut(names_at, bytes.len()))?;
        let mut specs = Vec::with_capacity(columns);
        let mut at = names_at;
        let lengths: Vec<usize> = lengths
            .chunks_exact(2)
            .map(|pair| {
                pair.first_chunk()
                    .map_or(0, |pair| u16::from_le_bytes(*pair).into())
            })
            .collect();
        let total: usize = lengths.iter().sum();
        for (column, code) in codes.iter().enumerate() {
            if ColumnType::from_code(*code).is_none() {
                let offset = (fixed.bytes + column) as u64;
                return Err(Error::new(ErrorKind::ColumnTypeCode {
                    column,
                    code: *code,
                })
                .at(offset));
            }
        }
        if bytes.len() < names_at + total {
            return Err(cut(names_at + total, bytes.len()));
        }
        for (column, (code, length)) in codes.iter().zip(lengths).enumerate() {
            let name = bytes.get(at..at + length).unwrap_or_default().to_vec();
            at += length;
            let kind = ColumnType::from_code(*code).ok_or_else(|| {
                Error::new(ErrorKind::ColumnTypeCode {
                    column,
                    code: *code,
                })
            })?;
            specs.push(ColumnSpec { name, kind });
        }
        let header = Self {
            version: fixed.version,
            created_s: fixed.created_s,
            compression_level: fixed.level,
            flags: fixed.flags,
            packet_bytes: fixed.packet_bytes,
            schema: Schema::stored(specs)?,
        };
        Ok((header, at))
    }

    /// A header to write. The packet size is clamped and rounded as the format demands (format 10).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnsupportedOption`] for codecs that format 1.3 does not have.
    pub fn new(schema: Schema, options: &WriteOptions, created_s: u64) -> Result<Self> {
        let WriteOptions {
            row_codec,
            file_codec,
            compression_level,
            packet_bytes,
            index,
            version,
            ..
        } = *options;
        let mut flags = match row_codec {
            RowCodec::Flat => 0,
            RowCodec::Zoh => FLAG_ZOH,
            RowCodec::Delta => FLAG_DELTA,
        };
        flags |= match file_codec {
            FileCodec::Stream | FileCodec::StreamLz4 => FLAG_STREAM,
            FileCodec::PacketLz4Batch => FLAG_BATCH,
            FileCodec::Packet | FileCodec::PacketLz4 => 0,
        };
        if !index && file_codec.has_packets() {
            flags |= FLAG_NO_INDEX;
        }
        let (version, created_s) = match version {
            FormatVersion::V1_5 => ([1, 5, 0], Some(created_s)),
            FormatVersion::V1_4 => ([1, 4, 0], Some(created_s)),
            FormatVersion::V1_3 => ([1, 3, 0], None),
        };
        if created_s.is_none() && row_codec == RowCodec::Delta {
            return Err(Error::new(ErrorKind::UnsupportedOption {
                what: "row codec delta",
            }));
        }
        if created_s.is_none() && file_codec == FileCodec::PacketLz4Batch {
            return Err(Error::new(ErrorKind::UnsupportedOption {
                what: "file codec packet-lz4-batch",
            }));
        }
        Ok(Self {
            version,
            created_s,
            compression_level: if file_codec.is_compressed() {
                compression_level.clamp(1, 9)
            } else {
                0
            },
            flags,
            packet_bytes: packet_bytes.clamp(MIN_PACKET_BYTES, MAX_PACKET_BYTES) / 1024 * 1024,
            schema,
        })
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        if let Some(created_s) = self.created_s {
            out.extend_from_slice(&created_s.to_le_bytes());
        }
        out.extend_from_slice(&self.version);
        out.push(self.compression_level);
        out.extend_from_slice(&self.flags.to_le_bytes());
        // `Schema` holds at most 65,535 columns and names of at most 65,535 bytes.
        let short = |n: usize| u16::try_from(n).unwrap_or(u16::MAX).to_le_bytes();
        out.extend_from_slice(&short(self.schema.len()));
        out.extend_from_slice(&self.packet_bytes.to_le_bytes());
        out.extend(self.schema.columns().iter().map(|spec| spec.kind.code()));
        for spec in self.schema.columns() {
            out.extend_from_slice(&short(spec.name.len()));
        }
        for spec in self.schema.columns() {
            out.extend_from_slice(&spec.name);
        }
        out
    }

    /// The row codec (format 4).
    #[must_use]
    pub fn row_codec(&self) -> RowCodec {
        if self.flags & FLAG_DELTA != 0 {
            RowCodec::Delta
        } else if self.flags & FLAG_ZOH != 0 {
            RowCodec::Zoh
        } else {
            RowCodec::Flat
        }
    }

    /// The file codec (format 4).
    #[must_use]
    pub fn file_codec(&self) -> FileCodec {
        match (self.flags & FLAG_STREAM != 0, self.compression_level) {
            (true, 0) => FileCodec::Stream,
            (true, _) => FileCodec::StreamLz4,
            (false, 0) => FileCodec::Packet,
            (false, _) if self.flags & FLAG_BATCH != 0 => FileCodec::PacketLz4Batch,
            (false, _) => FileCodec::PacketLz4,
        }
    }

    /// Whether the footer lists the packets.
    #[must_use]
    pub fn has_index(&self) -> bool {
        self.file_codec().has_packets() && self.flags & FLAG_NO_INDEX == 0
    }
}
