//! Blocks of literals only: valid LZ4 that costs a copy, for bytes that do not compress.
//!
//! Layout: token `0xF0` (or `n << 4` below 15), the rest of the length in bytes of 255 and a last one, the bytes.

/// Append a block that stores `input` as it is.
pub fn literal_block(input: &[u8], out: &mut Vec<u8>) {
    out.reserve(crate::bound(input.len()));
    literal_prefix(input.len(), out);
    out.extend_from_slice(input);
}

/// Append what stands in front of the `bytes` bytes of a block that stores them as they are.
pub fn literal_prefix(bytes: usize, out: &mut Vec<u8>) {
    match u8::try_from(bytes) {
        Ok(short) if short < 15 => out.push(short << 4),
        _ => {
            let rest = bytes - 15;
            out.push(0xF0);
            out.resize(out.len() + rest / 255, 255);
            out.push(u8::try_from(rest % 255).unwrap_or(0));
        }
    }
}

/// The bytes in a block that is literals only, without decoding it; `None` for any other block.
#[must_use]
pub fn literals_of(block: &[u8]) -> Option<&[u8]> {
    let (token, rest) = block.split_first()?;
    if token & 15 != 0 {
        return None;
    }
    let mut bytes = usize::from(token >> 4);
    let mut at = 0;
    if bytes == 15 {
        loop {
            let more = *rest.get(at)?;
            at += 1;
            bytes += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    rest.get(at..).filter(|literals| literals.len() == bytes)
}
