//! Any bytes as `image.bin`: refused, or an image that is written again as it was read.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tapeline_fuzz::registers::packets;
use tapeline_fuzz::{Choices, crc32c};
use tapeline_wire::register::{
    ImageLimits, Kind, PacketScanner, RegisterImage, decode_image, encode_image,
};

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    let choice = choices.byte();
    let bytes = if choice & 1 == 0 {
        choices.rest().to_vec()
    } else {
        // the file of a real image, with some bytes changed
        let changes: Vec<(u64, u8)> = (0..choice >> 4)
            .map(|_| (choices.number(3), choices.byte()))
            .collect();
        let mut image = RegisterImage::new(ImageLimits::default());
        let stream = packets(&mut choices, Kind::Packet);
        let _ = PacketScanner::new(Kind::Packet).scan(&stream, true, &mut |packet| {
            image.apply(&packet);
        });
        let mut bytes = encode_image(&image.reader(), Default::default());
        if changes.is_empty() {
            let (read, _) = decode_image(&bytes, ImageLimits::default()).expect("as written");
            assert_eq!(read.digest(), image.digest());
        }
        for (at, bits) in changes {
            let at = at as usize % bytes.len();
            bytes[at] ^= bits;
        }
        bytes
    };
    let bytes = if choice & 2 == 0 {
        bytes
    } else {
        sealed(bytes)
    };
    let limits = if choice & 4 == 0 {
        ImageLimits::default()
    } else {
        ImageLimits {
            max_sources: 2,
            ..ImageLimits::default()
        }
    };
    let Ok((image, position)) = decode_image(&bytes, limits) else {
        return;
    };
    let again = encode_image(&image.reader(), position);
    let (second, place) = decode_image(&again, limits).expect("as written");
    assert_eq!(second.digest(), image.digest());
    assert_eq!(format!("{place:?}"), format!("{position:?}"));
    assert_eq!(
        encode_image(&second.reader(), place),
        again,
        "the second is the first"
    );
    let mut frames = Vec::new();
    image.keyframes(Kind::Packet, &mut frames);
});

/// With magic, version, checksum and length as they must be, so that what lies behind them is met.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut valid = encode_image(
        &RegisterImage::new(ImageLimits::default()).reader(),
        Default::default(),
    );
    let header = valid.len();
    if bytes.len() < header {
        return bytes;
    }
    bytes[..16].copy_from_slice(&valid[..16]);
    let body = (bytes.len() - header) as u64;
    bytes[16..24].copy_from_slice(&body.to_le_bytes());
    let crc = crc32c(&bytes[16..]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    valid.clear();
    bytes
}
