//! Row codecs: one row to bytes and back (format 8).
//!
//! Both faces of the crate, rows and columns, meet here: a row is an *image* (see [`crate::schema`]) and its
//! strings. The column face transposes blocks of rows between images and columns, the row face fills one image.
//! So every codec is written once, and the two faces cannot differ.
//!
//! To add a codec: a file here with an encoder and a decoder of the same shape, an arm in each enum below, a
//! line in [`crate::RowCodec::ALL`], vectors.

pub(crate) mod bits;
mod delta;
pub(crate) mod flat;
mod held;
pub(crate) mod tile;
mod zoh;

use std::sync::Arc;

use held::Changes;
use tapeline_sys::vector::{Work, widest};

use crate::batch::StringColumn;
use crate::error::{Error, ErrorKind, Result};
use crate::header::RowCodec;
use crate::schema::Layout;

/// The strings of one row.
pub(crate) trait RowStrings {
    /// String number `i` in layout order.
    fn string(&self, i: usize) -> &[u8];
}

/// Encodes rows; holds what the codec remembers of the rows before.
#[derive(Clone)]
pub(crate) struct RowEncoder {
    layout: Arc<Layout>,
    state: EncoderState,
}

#[derive(Clone)]
enum EncoderState {
    Flat,
    Zoh(zoh::Encoder),
    Delta(delta::Encoder),
}

impl RowEncoder {
    /// An encoder at the start of a packet.
    pub(crate) fn new(codec: RowCodec, layout: Arc<Layout>) -> Self {
        let state = match codec {
            RowCodec::Flat => EncoderState::Flat,
            RowCodec::Zoh => EncoderState::Zoh(zoh::Encoder::new(&layout)),
            RowCodec::Delta => EncoderState::Delta(delta::Encoder::new(&layout)),
        };
        Self { layout, state }
    }

    /// Forget all rows: a new packet starts.
    pub(crate) fn restart(&mut self) {
        match &mut self.state {
            EncoderState::Flat => {}
            EncoderState::Zoh(encoder) => encoder.restart(),
            EncoderState::Delta(encoder) => encoder.restart(&self.layout),
        }
    }

    /// Columns of a row.
    pub(crate) fn columns(&self) -> usize {
        self.layout.columns()
    }

    /// The largest encoded size of a row whose strings have this many bytes in all.
    pub(crate) fn bound(&self, string_bytes: usize) -> usize {
        // Delta has the largest header: at most 4 bits for each column.
        self.layout.columns().div_ceil(2)
            + self.layout.image_bytes
            + 2 * self.layout.strings
            + string_bytes
            + 1
    }

    /// Append a row. `image` has the layout's length; the strings fit the format's limits.
    #[inline]
    pub(crate) fn encode(&mut self, image: &[u8], strings: &impl RowStrings, out: &mut Vec<u8>) {
        match &mut self.state {
            EncoderState::Flat => flat::encode(&self.layout, image, strings, out),
            EncoderState::Zoh(encoder) => encoder.encode(&self.layout, image, strings, out),
            EncoderState::Delta(encoder) => widest(DeltaEncode {
                encoder,
                layout: &self.layout,
                image,
                strings,
                out,
            }),
        }
    }

    /// Take over where a decoder stands, to go on with a stream that it has read.
    pub(crate) fn resume(&mut self, decoder: &RowDecoder, source: &[u8]) {
        let strings: Vec<Vec<u8>> = decoder
            .strings
            .iter()
            .map(|span| span.of(source, &decoder.carried).to_vec())
            .collect();
        match (&mut self.state, &decoder.state) {
            (EncoderState::Zoh(encoder), DecoderState::Zoh) if decoder.rows > 0 => {
                encoder.resume(&decoder.image, strings);
            }
            (EncoderState::Delta(encoder), DecoderState::Delta { gradients })
                if decoder.rows > 0 =>
            {
                encoder.resume(&decoder.image, gradients, strings, decoder.rows);
            }
            _ => {}
        }
    }
}

/// One row of the delta codec, compiled for wide vectors.
struct DeltaEncode<'a, S> {
    encoder: &'a mut delta::Encoder,
    layout: &'a Layout,
    image: &'a [u8],
    strings: &'a S,
    out: &'a mut Vec<u8>,
}

impl<S: RowStrings> Work for DeltaEncode<'_, S> {
    type Output = ();

    const WIDE: bool = true;

    #[inline(always)]
    fn run(self) {
        self.encoder
            .encode(self.layout, self.image, self.strings, self.out);
    }
}

/// The way back.
struct DeltaDecode<'a> {
    layout: &'a Layout,
    row: Row<'a>,
    first: bool,
    image: &'a mut [u8],
    gradients: &'a mut [u8],
    strings: &'a mut [Span],
}

impl Work for DeltaDecode<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn run(self) -> Result<()> {
        delta::decode(
            self.layout,
            &self.row,
            self.first,
            self.image,
            self.gradients,
            self.strings,
        )
    }
}

/// Where a string of the current row lies: in the plaintext being decoded, or carried over from an earlier piece.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub at: u32,
    /// Length; the top bit says that it lies in the carried bytes.
    len: u32,
}

const CARRIED: u32 = 1 << 31;

impl Span {
    /// A string in the plaintext.
    #[inline]
    pub(crate) fn new(at: usize, len: usize) -> Self {
        // Plaintext pieces are below 4 GiB (limits), strings below 64 KiB.
        Self {
            at: u32::try_from(at).unwrap_or(u32::MAX),
            len: u32::try_from(len).unwrap_or(0) & !CARRIED,
        }
    }

    /// The bytes.
    #[inline]
    pub(crate) fn of<'a>(self, plain: &'a [u8], carried: &'a [u8]) -> &'a [u8] {
        let source = if self.len & CARRIED == 0 {
            plain
        } else {
            carried
        };
        let at = self.at as usize;
        source.get(at..at + self.bytes()).unwrap_or_default()
    }

    /// Append the bytes to a column.
    #[inline]
    pub(crate) fn append(self, plain: &[u8], carried: &[u8], text: &mut StringColumn) {
        let source = if self.len & CARRIED == 0 {
            plain
        } else {
            carried
        };
        text.push_from(source, self.at as usize, self.bytes());
    }

    /// Append the bytes so many times.
    #[inline]
    fn append_times(self, plain: &[u8], carried: &[u8], text: &mut StringColumn, times: usize) {
        if let Some(more) = times.checked_sub(1) {
            self.append(plain, carried, text);
            text.repeat_last(self.bytes(), more);
        }
    }

    /// The length.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        (self.len & !CARRIED) as usize
    }
}

/// Decodes rows; holds the row before.
#[derive(Clone)]
pub(crate) struct RowDecoder {
    layout: Arc<Layout>,
    state: DecoderState,
    /// The current row.
    image: Vec<u8>,
    strings: Vec<Span>,
    /// Strings of rows before the plaintext at hand.
    carried: Vec<u8>,
    /// Rows decoded since the start of the packet.
    rows: u64,
}

#[derive(Clone)]
enum DecoderState {
    Flat,
    Zoh,
    Delta { gradients: Vec<u8> },
}

impl RowDecoder {
    /// A decoder at the start of a packet.
    pub(crate) fn new(codec: RowCodec, layout: Arc<Layout>) -> Self {
        let state = match codec {
            RowCodec::Flat => DecoderState::Flat,
            RowCodec::Zoh => DecoderState::Zoh,
            RowCodec::Delta => DecoderState::Delta {
                gradients: vec![0; layout.image_bytes],
            },
        };
        Self {
            state,
            image: vec![0; layout.image_bytes],
            strings: vec![Span::default(); layout.strings],
            carried: Vec::new(),
            rows: 0,
            layout,
        }
    }

    /// Forget all rows: a new packet starts.
    pub(crate) fn restart(&mut self) {
        self.rows = 0;
        self.carried.clear();
        self.image.fill(0);
        self.strings.fill(Span::default());
        if let DecoderState::Delta { gradients } = &mut self.state {
            gradients.fill(0);
        }
    }

    /// Decode the row at `start..end` of `plain`; bytes behind `end` are looked at but never believed.
    /// An empty row (`start == end`) is a repeat where the codec has such a thing.
    #[inline]
    pub(crate) fn decode(&mut self, plain: &[u8], start: usize, end: usize) -> Result<()> {
        let row = Row { plain, start, end };
        if start == end && self.layout.columns() > 0 {
            return match self.state {
                DecoderState::Zoh if self.rows > 0 => {
                    self.rows += 1;
                    Ok(())
                }
                DecoderState::Zoh => Err(bad("a packet starts with a repeat")),
                _ => Err(bad("an empty row")),
            };
        }
        let first = self.rows == 0;
        match &mut self.state {
            DecoderState::Flat => {
                flat::decode(&self.layout, &row, &mut self.image, &mut self.strings)?
            }
            DecoderState::Zoh => zoh::decode(
                &self.layout,
                &row,
                first,
                &mut self.image,
                &mut self.strings,
            )?,
            DecoderState::Delta { gradients } => {
                widest(DeltaDecode {
                    layout: &self.layout,
                    row,
                    first,
                    image: &mut self.image,
                    gradients,
                    strings: &mut self.strings,
                })?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Note what the row at `start..end` of `plain` changes, for zero-order hold; numbers and strings of the current row
    /// stay as they are.
    #[inline]
    fn note(&mut self, plain: &[u8], start: usize, end: usize, notes: &mut Changes) -> Result<()> {
        let first = self.rows == 0;
        if start < end || self.layout.columns() == 0 {
            let row = Row { plain, start, end };
            zoh::changes(&self.layout, &row, first, &mut self.image, notes)?;
        } else if first {
            return Err(bad("a packet starts with a repeat"));
        }
        self.rows += 1;
        Ok(())
    }

    /// The current row without its strings.
    #[inline]
    pub(crate) fn image(&self) -> &[u8] {
        &self.image
    }

    /// The strings of the current row.
    #[inline]
    pub(crate) fn strings(&self) -> &[Span] {
        &self.strings
    }

    /// Strings carried over from earlier plaintext, for [`Span::of`].
    #[inline]
    pub(crate) fn carried(&self) -> &[u8] {
        &self.carried
    }

    /// Keep the current strings: the plaintext they lie in goes away.
    pub(crate) fn carry(&mut self, plain: &[u8]) {
        if matches!(self.state, DecoderState::Flat) || self.strings.is_empty() {
            return;
        }
        let mut kept = Vec::with_capacity(self.strings.iter().map(|span| span.bytes()).sum());
        for span in &mut self.strings {
            let at = kept.len();
            kept.extend_from_slice(span.of(plain, &self.carried));
            let moved = Span::new(at, span.bytes());
            *span = Span {
                at: moved.at,
                len: moved.len | CARRIED,
            };
        }
        self.carried = kept;
    }

    /// Bytes held, for the reader's accounts.
    pub(crate) fn held_bytes(&self) -> usize {
        2 * self.image.len() + self.carried.len() + 8 * self.strings.len()
    }
}

/// A row inside its plaintext.
pub(crate) struct Row<'a> {
    plain: &'a [u8],
    start: usize,
    end: usize,
}

impl Row<'_> {
    /// Eight bytes at an offset in the row, as a little-endian number; zeros behind the plaintext.
    #[inline]
    fn load(&self, at: usize) -> u64 {
        bits::load(self.plain, self.start + at)
    }

    /// Read strings (u16 length, bytes) from `at` on, for the flagged columns, and demand that the row ends there.
    /// `flags` gives as many flags as asked for, from a column on.
    #[inline]
    fn strings(
        &self,
        mut at: usize,
        strings: &mut [Span],
        flags: impl Fn(usize, u32) -> u64,
        first: bool,
    ) -> Result<()> {
        for (block, spans) in strings.chunks_mut(32).enumerate() {
            #[allow(clippy::cast_possible_truncation)] // at most 32
            let mut changed = flags(32 * block, spans.len() as u32);
            if first && changed.count_ones() as usize != spans.len() {
                return Err(bad("the first row of a packet lacks a string"));
            }
            while changed != 0 {
                let len = (self.load(at) & 0xFFFF) as usize;
                let place = changed.trailing_zeros() as usize;
                if let Some(span) = spans.get_mut(place) {
                    *span = Span::new(self.start + at + 2, len);
                }
                at += 2 + len;
                if self.start + at > self.end {
                    return Err(bad("a string reaches beyond the row"));
                }
                changed &= changed - 1;
            }
        }
        if self.start + at != self.end {
            return Err(bad("its length contradicts its content"));
        }
        Ok(())
    }
}

#[cold]
fn bad(what: &'static str) -> Error {
    Error::new(ErrorKind::Row { what })
}
