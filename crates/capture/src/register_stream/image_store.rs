//! `image.bin`: written now and then and at the end, loaded at the start and brought up to date from the log.
//!
//! A copy of the image runs ahead of the log it names: what it holds is first made to be in the log, durably, and
//! only then does the file get its name. So the image at a start never knows more than the log.

use std::io::{self, IoSlice};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tapeline_sys::clock;
use tapeline_wire::register::{
    ImageLimits, ImagePosition, Kind, PacketRef, PacketScanner, RegisterImage, decode_image,
    encode_image,
};

use super::shared::RegisterShared;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::manifest::SegmentEntry;

/// The file.
pub(crate) const NAME: &str = "image.bin";
const TEMPORARY: &str = "image.bin.tmp";
/// Largest file that is read: the limits' worst case is about 350 MB.
const MAX_BYTES: u64 = 1 << 30;

/// Write the image every `every`, until `ended` says that the log is complete; then once more.
pub(super) fn keep(
    dir: &Arc<dyn Dir>,
    shared: &RegisterShared,
    every: Duration,
    ended: &Receiver<()>,
) -> Result<()> {
    let mut last = None;
    loop {
        let wait = ended.recv_timeout(every);
        let done = !matches!(wait, Err(RecvTimeoutError::Timeout));
        let written = shared.written.load(Ordering::Acquire);
        if last != Some(written) || (done && last.is_none()) {
            if store(dir, shared)? {
                last = Some(written);
            } else {
                last = None;
            }
        }
        if done {
            return Ok(());
        }
    }
}

/// Write it now; false if the log did not catch up.
fn store(dir: &Arc<dyn Dir>, shared: &RegisterShared) -> Result<bool> {
    if shared.image.sources().is_empty() {
        return Ok(true);
    }
    let position = shared.log.lock().ok().map(|log| {
        // While there are only our own packets, the place is the segment's start: a crash may take them away again.
        log.segments.last().map_or((log.first, 0), |s| {
            let received = s.bytes > s.keyframe_bytes;
            (s.number, if received { s.bytes } else { 0 })
        })
    });
    let Some((segment, offset)) = position else {
        return Ok(false);
    };
    let bytes = encode_image(
        &shared.image,
        ImagePosition {
            segment,
            offset,
            written_ns: clock::realtime_ns(),
        },
    );
    let bound = shared.applied.load(Ordering::Acquire);
    let patience = Instant::now() + Duration::from_secs(10);
    while shared.written.load(Ordering::Acquire) < bound.min(shared.applied.load(Ordering::Acquire))
    {
        if Instant::now() > patience || shared.written_all.load(Ordering::Acquire) {
            // A write failed, or the disk stands still: the last file stays.
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let at = |e| Error::io("writing", &dir.path().join(NAME), e);
    sync_log(shared).map_err(at)?;
    if shared.sync_failed.load(Ordering::Acquire) {
        return Ok(false);
    }
    match dir.remove(TEMPORARY) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(e)),
        _ => {}
    }
    let file = dir.create(TEMPORARY).map_err(at)?;
    file.append(&[IoSlice::new(&bytes)]).map_err(at)?;
    file.sync_data().map_err(at)?;
    dir.rename(TEMPORARY, NAME, true).map_err(at)?;
    dir.sync().map_err(at)?;
    Ok(true)
}

/// Make the segments that are not closed durable; the others were when they were closed.
fn sync_log(shared: &RegisterShared) -> io::Result<()> {
    let unclosed = shared
        .unclosed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    unclosed.iter().try_for_each(|file| file.sync_data())
}

/// The image that a log leaves: the file, and what the log has beyond it; without a usable file, the newest segment
/// that has received packets, which begins with all that was known. Also whether it knows what is in doubt: keyframes
/// do not tell.
pub(super) fn load(
    dir: &Arc<dyn Dir>,
    kind: Kind,
    segments: &[SegmentEntry],
    limits: ImageLimits,
) -> Result<(RegisterImage, bool)> {
    let usable = |from: &ImagePosition| {
        // Between it and the oldest segment something may have been evicted.
        let there = segments.iter().any(|s| s.number == from.segment);
        there || segments.iter().all(|s| s.number < from.segment)
    };
    let loaded = read_file(dir, limits).filter(|(_, from)| usable(from));
    let certain = loaded.is_some() || segments.is_empty();
    let (mut image, from) = loaded.unwrap_or_else(|| {
        // One with nothing but keyframes may lack some: a kill came between them.
        let whole = segments.iter().rev().find(|s| s.frames > 0);
        let from = ImagePosition {
            segment: whole.or(segments.last()).map_or(0, |s| s.number),
            ..ImagePosition::default()
        };
        (RegisterImage::new(limits), from)
    });
    for segment in segments.iter().filter(|s| s.number >= from.segment) {
        let begin = if segment.number == from.segment {
            from.offset
        } else {
            0
        };
        let path = dir.path().join(&segment.name);
        let at = |e| Error::io("reading", &path, e);
        let file = dir.open(&segment.name).map_err(at)?;
        apply(&mut image, kind, &*file, begin, segment.keyframe_bytes()).map_err(at)?;
    }
    image.begin_session();
    Ok((image, certain))
}

fn read_file(dir: &Arc<dyn Dir>, limits: ImageLimits) -> Option<(RegisterImage, ImagePosition)> {
    let file = dir.open(NAME).ok()?;
    let size = file.len().ok().filter(|&size| size <= MAX_BYTES)?;
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let got = file.read_at(0, &mut bytes).ok()?;
    bytes.truncate(got);
    decode_image(&bytes, limits).ok()
}

/// Applies a log from `offset` on.
fn apply(
    image: &mut RegisterImage,
    kind: Kind,
    file: &dyn DiskFile,
    mut offset: u64,
    keyframe_bytes: u64,
) -> io::Result<()> {
    let mut buf = vec![0; 1 << 20];
    loop {
        let got = file.read_at(offset, &mut buf)?;
        let mut scanner = PacketScanner::new(kind);
        let done = scanner.scan(buf.get(..got).unwrap_or_default(), false, &mut |packet| {
            // A keyframe says something new only where the end of the segment before it is lost; else it would
            // clear doubts that stand.
            if offset + packet.offset >= keyframe_bytes || !says(image, &packet) {
                image.apply(&packet);
            }
        });
        match done {
            Ok(done) if done > 0 => offset += done as u64,
            // The end, or damage that verify tells of.
            _ => return Ok(()),
        }
    }
}

/// Whether the image has just what a keyframe has.
fn says(image: &RegisterImage, keyframe: &PacketRef<'_>) -> bool {
    image
        .source(keyframe.source)
        .is_some_and(|source| source.registers().into_iter().eq(keyframe.registers()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::segment::LogSegment;
    use super::*;
    use crate::config::RecorderConfig;
    use crate::simdisk::{Fault, SimDisk};
    use crate::sink::Closing;

    fn begun(disk: &SimDisk) -> (Arc<RegisterShared>, LogSegment) {
        let config = r#"{"out": "sim", "streams": [{"name": "rack", "wire": "packet",
            "sources": [{"kind": "file", "url": "file://in", "path": "in"}]}]}"#;
        let config = RecorderConfig::from_json(config).unwrap();
        let dir = disk.root().subdir("rack", true).unwrap();
        let image = RegisterImage::default().reader();
        let shared = RegisterShared::new(&config.streams[0], Kind::Packet, Vec::new(), image, 0);
        let mut segment = LogSegment::create(&dir, 0, &shared).unwrap();
        segment.append(&[IoSlice::new(b"packets")], 7).unwrap();
        (shared, segment)
    }

    #[test]
    fn a_sync_that_failed_for_the_image_stops_the_writer_and_the_closing() {
        let disk = SimDisk::new();
        let (shared, segment) = begun(&disk);
        disk.fail(disk.calls(), Fault::Io);
        assert!(sync_log(&shared).is_err());
        // The disk would let these pass, without the bytes that the first one lost.
        assert!(segment.sync().is_err());
        assert!(Box::new(segment).close().is_err());
        let files = disk.image().files();
        assert!(files.keys().any(|name| name.ends_with(".pkt.part")));
        assert!(!files.keys().any(|name| name.ends_with(".pkt")));
    }

    #[test]
    fn a_closed_segment_is_not_synced_again() {
        let disk = SimDisk::new();
        let (shared, segment) = begun(&disk);
        sync_log(&shared).unwrap();
        Box::new(segment).close().unwrap();
        let calls = disk.calls();
        sync_log(&shared).unwrap();
        assert_eq!(disk.calls(), calls);
    }
}
