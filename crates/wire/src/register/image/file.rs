//! `image.bin`: a register image as a file (`spec/register-packets.md 4`).
//!
//! ```text
//! header   0 magic "TPLIMAGE" | 8 version u32 = 1 | 12 crc32c u32 of everything from byte 16 on
//!         16 body_bytes u64 (after the header) | 24 sources u32 | 28 flags u32 = 0
//!         32 segment u64 | 40 byte offset in that segment u64 | 48 written_ns u64 | 56 reserved u64
//! source   0 type u8 | 1 seq u8 | 2 whether there is a seq u8 | 3 reserved u8 | 4 src_id i32 | 8 last_us u64
//!         16 unknown_since_us u64 (2^64 - 1: never) | 24 pages u64: bit n, page n follows
//! page       known 16 x u64 | doubted 16 x u64 | values 1024 x u16 | changed_us 1024 x u64
//! ```
//!
//! Sources are sorted by type and number. All numbers are little-endian. `segment` and `offset` say
//! up to where the log is surely contained; what comes after may be contained in places, and applying
//! it again makes the image exact (see `image/mod.rs`).

use std::fmt;
use std::sync::atomic::Ordering::Acquire;

use tapeline_crc::crc32c;

use super::super::packet::{Source, SourceType};
use super::page::{PAGE_REGISTERS, PAGE_WORDS, Page};
use super::source::{PAGES, Restored};
use super::{ImageLimits, ImageReader, RegisterImage};

const MAGIC: [u8; 8] = *b"TPLIMAGE";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const PAGE_BYTES: usize = 2 * 8 * PAGE_WORDS + 10 * PAGE_REGISTERS;
/// What the checksum covers starts here.
const COVERED_FROM: usize = 16;

/// Up to where the log is contained in an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImagePosition {
    /// Number of the segment.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
    /// When the image was taken, in nanoseconds since the UNIX epoch.
    pub written_ns: u64,
}

/// Why bytes are no image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageFileError {
    /// Too short, or too long, or another magic.
    NotAnImage,
    /// Written by a version we do not know.
    Version {
        /// Which.
        found: u32,
    },
    /// The checksum is wrong.
    Checksum {
        /// As stored.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// The structure contradicts itself.
    Structure {
        /// At which byte.
        offset: usize,
    },
    /// More sources or pages than the limits allow.
    Limits,
}

impl fmt::Display for ImageFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnImage => write!(f, "not a register image"),
            Self::Version { found } => {
                write!(f, "register image of version {found}; known is {VERSION}")
            }
            Self::Checksum { stored, computed } => write!(
                f,
                "register image: checksum is {stored:08x}, the bytes give {computed:08x}"
            ),
            Self::Structure { offset } => {
                write!(f, "register image: structure broken at byte {offset}")
            }
            Self::Limits => write!(
                f,
                "register image: more sources or pages than the limits allow"
            ),
        }
    }
}

impl std::error::Error for ImageFileError {}

/// The file for an image as it is now; another thread may go on writing it.
#[must_use]
pub fn encode_image(image: &ImageReader, position: ImagePosition) -> Vec<u8> {
    let mut out = vec![0; HEADER_BYTES];
    let mut sources = 0_u32;
    for source in image.sources() {
        sources += 1;
        let head = out.len();
        out.push(source.source().kind as u8);
        let seq = source.last_seq();
        out.extend_from_slice(&[seq.unwrap_or(0), u8::from(seq.is_some()), 0]);
        out.extend_from_slice(&source.source().id.to_le_bytes());
        out.extend_from_slice(&source.last_us().to_le_bytes());
        let since = source.unknown_since_us().unwrap_or(u64::MAX);
        out.extend_from_slice(&since.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        let mut pages = 0_u64;
        for number in 0..PAGES {
            let Some(page) = source.page(number) else {
                continue;
            };
            pages |= 1 << number;
            let known = page.known.iter().map(|word| word.load(Acquire));
            put(&mut out, known);
            put(&mut out, source.doubted_now(page).into_iter());
            put(&mut out, page.values.iter().map(|word| word.load(Acquire)));
            put(
                &mut out,
                (0..PAGE_REGISTERS).map(|slot| page.changed_us(slot)),
            );
        }
        if let Some(field) = out.get_mut(head + 24..head + 32) {
            field.copy_from_slice(&pages.to_le_bytes());
        }
    }
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&((out.len() - HEADER_BYTES) as u64).to_le_bytes());
    header.extend_from_slice(&sources.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&position.segment.to_le_bytes());
    header.extend_from_slice(&position.offset.to_le_bytes());
    header.extend_from_slice(&position.written_ns.to_le_bytes());
    header.extend_from_slice(&[0; 8]);
    set(&mut out, COVERED_FROM, &header);
    let crc = crc32c(out.get(COVERED_FROM..).unwrap_or_default());
    set(&mut out, 0, &MAGIC);
    set(&mut out, 8, &VERSION.to_le_bytes());
    set(&mut out, 12, &crc.to_le_bytes());
    out
}

/// The image of a file, and up to where the log is contained in it. Allocates no more than the bytes
/// that are there.
///
/// # Errors
///
/// [`ImageFileError`]: the bytes are something else, or damaged, or beyond `limits`.
pub fn decode_image(
    bytes: &[u8],
    limits: ImageLimits,
) -> Result<(RegisterImage, ImagePosition), ImageFileError> {
    let mut input = Input { bytes, at: 0 };
    let magic: [u8; 8] = input.take().map_err(|_| ImageFileError::NotAnImage)?;
    if magic != MAGIC || bytes.len() < HEADER_BYTES {
        return Err(ImageFileError::NotAnImage);
    }
    let found = input.u32()?;
    if found != VERSION {
        return Err(ImageFileError::Version { found });
    }
    let stored = input.u32()?;
    let computed = crc32c(bytes.get(COVERED_FROM..).unwrap_or_default());
    if stored != computed {
        return Err(ImageFileError::Checksum { stored, computed });
    }
    if input.u64()? != (bytes.len() - HEADER_BYTES) as u64 {
        return input.broken();
    }
    let sources = input.u32()?;
    input.u32()?;
    let position = ImagePosition {
        segment: input.u64()?,
        offset: input.u64()?,
        written_ns: input.u64()?,
    };
    input.u64()?;
    let mut image = RegisterImage::new(limits);
    let mut last = None;
    for _ in 0..sources {
        let restored = source(&mut input)?;
        if last >= Some(restored.source) {
            return input.broken();
        }
        last = Some(restored.source);
        if !image.restore(restored) {
            return Err(ImageFileError::Limits);
        }
    }
    if input.at != bytes.len() {
        return input.broken();
    }
    Ok((image, position))
}

fn source(input: &mut Input<'_>) -> Result<Restored, ImageFileError> {
    let [kind, seq, has_seq, _] = input.take::<4>()?;
    let Some(kind) = SourceType::from_u8(kind) else {
        return input.broken();
    };
    let id = input.u32()?.cast_signed();
    let last_us = input.u64()?;
    let unknown_since_us = Some(input.u64()?).filter(|&us| us != u64::MAX);
    let present = input.u64()?;
    if (input.bytes.len() - input.at) / PAGE_BYTES < present.count_ones() as usize {
        return input.broken();
    }
    let mut pages = Vec::new();
    for number in (0..PAGES).filter(|n| present >> n & 1 != 0) {
        let known = input.words::<PAGE_WORDS>()?;
        let doubted = input.words::<PAGE_WORDS>()?;
        let values = input.words::<{ PAGE_REGISTERS / 4 }>()?;
        let changed = input.words::<PAGE_REGISTERS>()?;
        pages.push((number, Page::restored(known, doubted, values, changed)));
    }
    Ok(Restored {
        source: Source { kind, id },
        last_us,
        last_seq: (has_seq == 1).then_some(seq),
        unknown_since_us,
        pages,
    })
}

fn put(out: &mut Vec<u8>, words: impl Iterator<Item = u64>) {
    out.extend(words.flat_map(u64::to_le_bytes));
}

fn set(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = out.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

/// What is left to read.
struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ImageFileError> {
        match self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk())
        {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => self.broken(),
        }
    }

    fn words<const N: usize>(
        &mut self,
    ) -> Result<impl Iterator<Item = u64> + use<'a, N>, ImageFileError> {
        let bytes: &'a [u8] = self.bytes;
        let Some(words) = bytes.get(self.at..self.at + 8 * N) else {
            return self.broken();
        };
        self.at += 8 * N;
        Ok(words
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| u64::from_le_bytes(*b)))
    }

    fn u32(&mut self) -> Result<u32, ImageFileError> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, ImageFileError> {
        self.take().map(u64::from_le_bytes)
    }

    fn broken<T>(&self) -> Result<T, ImageFileError> {
        Err(ImageFileError::Structure { offset: self.at })
    }
}
