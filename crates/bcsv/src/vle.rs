//! Row-length integers (format 5): the low 3 bits of the first byte hold the number of bytes less one.

/// Ends the rows of a packet.
pub(crate) const TERMINATOR: u64 = 0x3FFF_FFFF;
/// [`TERMINATOR`] as stored.
pub(crate) const TERMINATOR_BYTES: [u8; 5] = [0xfc, 0xff, 0xff, 0xff, 0x01];

/// A decoded length: its value and how many bytes it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vle {
    /// The value.
    pub value: u64,
    /// Bytes it took, 1 to 8.
    pub bytes: usize,
}

/// Bytes that [`encode`] writes for this value.
pub(crate) fn encoded_len(value: u64) -> usize {
    let bits = 64 - value.leading_zeros() as usize + 3;
    bits.div_ceil(8).max(1)
}

/// Append a value, in the fewest bytes. Values up to 2^61 - 1 can be stored; lengths are below 2^30.
#[inline]
pub(crate) fn encode(value: u64, out: &mut Vec<u8>) {
    let bytes = encoded_len(value).min(8);
    let word = (value << 3) | (bytes as u64 - 1);
    out.extend_from_slice(word.to_le_bytes().get(..bytes).unwrap_or_default());
}

/// Read one value; `None` if the bytes end inside it. Longer encodings than needed are accepted.
#[inline]
pub(crate) fn decode(bytes: &[u8]) -> Option<Vle> {
    let n = usize::from(bytes.first()? & 7) + 1;
    let word = match bytes.first_chunk::<8>() {
        Some(eight) => {
            let word = u64::from_le_bytes(*eight);
            if n == 8 {
                word
            } else {
                word & ((1 << (8 * n)) - 1)
            }
        }
        None => {
            let mut word = [0; 8];
            word.get_mut(..n)?.copy_from_slice(bytes.get(..n)?);
            u64::from_le_bytes(word)
        }
    };
    Some(Vle {
        value: word >> 3,
        bytes: n,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn encodes_the_table_of_the_specification() {
        let cases: [(u64, &[u8]); 10] = [
            (0, &[0x00]),
            (1, &[0x08]),
            (5, &[0x28]),
            (16, &[0x80]),
            (31, &[0xf8]),
            (32, &[0x01, 0x01]),
            (8191, &[0xf9, 0xff]),
            (8192, &[0x02, 0x00, 0x01]),
            (2_097_152, &[0x03, 0x00, 0x00, 0x01]),
            (16_777_214, &[0xf3, 0xff, 0xff, 0x07]),
        ];
        for (value, bytes) in cases {
            let mut out = Vec::new();
            encode(value, &mut out);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(
                decode(&out),
                Some(Vle {
                    value,
                    bytes: bytes.len()
                })
            );
            assert_eq!(decode(&out[..out.len() - 1]), None);
        }
        let mut out = Vec::new();
        encode(TERMINATOR, &mut out);
        assert_eq!(out, TERMINATOR_BYTES);
    }

    #[test]
    fn accepts_longer_encodings() {
        assert_eq!(decode(&[0x09, 0x00]), Some(Vle { value: 1, bytes: 2 }));
        assert_eq!(decode(&[0x07, 0, 0, 0, 0, 0, 0, 0]).unwrap().bytes, 8);
    }
}
