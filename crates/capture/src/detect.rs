//! The layout of a segment from its bytes alone, for a recording whose manifest is lost.

use std::sync::Arc;

use tapeline_wire::frame::FrameScanner;

use crate::config::LayoutConfig;
use crate::fs::Dir;

/// Payloads up to here are looked for: what bounded them when they were recorded is lost with the manifest.
const MAX_PAYLOAD: u64 = 64 << 20;

/// The layout in which a frame begins at the start of `file`; None when there is none.
pub(crate) fn layout_of(dir: &Arc<dyn Dir>, file: &str) -> Option<LayoutConfig> {
    let file = dir.open(file).ok()?;
    let size = usize::try_from(file.len().ok()?).ok()?;
    let mut bytes = Vec::new();
    // Most frames are small; only a first frame that is not needs more.
    for want in [1 << 20, 64 + (64 << 20)] {
        bytes.resize(size.min(want), 0);
        let got = file.read_at(0, &mut bytes).ok()?;
        bytes.truncate(got);
        if let Some(layout) = variants(&bytes).find(|layout| begins(layout, &bytes)) {
            return Some(layout);
        }
        if size <= want {
            break;
        }
    }
    None
}

/// Every variant with the magic that `bytes` begin with; those with a checksum over the header first.
fn variants(bytes: &[u8]) -> impl Iterator<Item = LayoutConfig> {
    let magic: Option<[u8; 8]> = bytes.first_chunk().copied();
    magic.into_iter().flat_map(|magic| {
        [(true, 4, 4), (true, 2, 4), (true, 4, 8), (true, 2, 8)]
            .into_iter()
            .chain([(false, 4, 4), (false, 2, 4), (false, 4, 8), (false, 2, 8)])
            .map(
                move |(header_crc, version_flags, length_bytes)| LayoutConfig {
                    magic: format!("{:016x}", u64::from_be_bytes(magic)),
                    version_flags,
                    length_bytes,
                    header_crc,
                    max_payload: MAX_PAYLOAD,
                },
            )
    })
}

fn begins(layout: &LayoutConfig, bytes: &[u8]) -> bool {
    let Ok(layout) = layout.layout() else {
        return false;
    };
    let mut frames = Vec::new();
    FrameScanner::new(layout).scan(bytes, false, 1, &mut frames);
    frames.first().is_some_and(|frame| frame.offset == 0)
}
