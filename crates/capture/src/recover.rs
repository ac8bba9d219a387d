//! After a crash: what a recording's directory holds is made whole again, and the manifest made to say so.
//!
//! - `.dat.part`: the whole frames from its start are kept, the rest moves to `.dat.tail`, never thrown away; the index
//!   is rebuilt from the frames, and the file gets its final name.
//! - `.dat` without an index, or not listed in the manifest: the index is rebuilt, the segment listed.
//! - Nothing that has a final name is changed.
//!
//! Every step leaves a state from which recovery can be run again: the tail is written and synced before the `.part` is
//! cut, the index has its name before the `.dat` gets its own.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use tapeline_wire::assemble::{Arrival, Rule, rebuild};
use tapeline_wire::frame::{FrameLayout, FrameRef, FrameScanner};

use crate::config::LayoutConfig;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::index::IndexWriter;
use crate::manifest::{IndexEntry, RecoveredEntry, SegmentEntry};
use crate::sink::segment::{Account, PART};

/// What was found and done.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// `.part` files made whole, by stream.
    pub recovered: BTreeMap<String, Vec<RecoveredEntry>>,
    /// Segments that the manifest did not list.
    pub listed: Vec<String>,
    /// Listed segments whose files are gone.
    pub missing: Vec<String>,
    /// Indexes that were rebuilt.
    pub indexes: Vec<String>,
    /// Streams whose ledger did not agree with their files, and now does.
    pub ledgers: Vec<String>,
    /// What could not be done, and why.
    pub problems: Vec<String>,
}

impl Report {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.recovered.is_empty()
            && self.listed.is_empty()
            && self.missing.is_empty()
            && self.indexes.is_empty()
            && self.ledgers.is_empty()
            && self.problems.is_empty()
    }
}

/// What the segments of one stream directory are, after recovery.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<SegmentEntry>,
    pub(crate) recovered: Vec<RecoveredEntry>,
    pub(crate) next_number: u64,
}

/// Recover the segments named `{name}_*` in `dir`. `known` is what the manifest lists.
///
/// # Errors
/// Those of the disk; what was done before stays done.
pub(crate) fn recover_stream(
    dir: &Arc<dyn Dir>,
    name: &str,
    layout: &LayoutConfig,
    assembly: Rule,
    known: &[SegmentEntry],
    report: &mut Report,
) -> Result<Recovered> {
    let frame_layout = layout.layout()?;
    let list = || dir.list().map_err(|e| Error::io("listing", dir.path(), e));
    let mut recovered = Vec::new();
    for (file, _) in list()? {
        let Some(stem) = file
            .strip_suffix(".dat.part")
            .filter(|s| number_of(s, name).is_some())
        else {
            continue;
        };
        if let Some(entry) = recover_part(dir, stem, &frame_layout, assembly)? {
            report
                .recovered
                .entry(name.to_owned())
                .or_default()
                .push(entry.clone());
            recovered.push(entry);
        }
    }
    let files: BTreeMap<String, u64> = list()?.into_iter().collect();
    // An index without its data, left by a crash between two steps.
    for file in files.keys() {
        if let Some(stem) = file
            .strip_suffix(".idx.bcsv.part")
            .filter(|s| number_of(s, name).is_some())
        {
            remove(dir, &format!("{stem}.idx.bcsv{PART}"))?;
        }
    }
    let mut segments = Vec::new();
    let mut next_number = 0;
    for (file, bytes) in &files {
        let Some(stem) = [".dat", ".dat.tail"]
            .iter()
            .find_map(|s| file.strip_suffix(s))
        else {
            continue;
        };
        let Some(number) = number_of(stem, name) else {
            continue;
        };
        next_number = next_number.max(number + 1);
        if !file.ends_with(".dat") {
            continue;
        }
        let index_name = format!("{stem}.idx.bcsv");
        let listed = known.iter().find(|s| s.name == *file && s.bytes == *bytes);
        if let (Some(entry), Some(index_bytes)) = (listed, files.get(&index_name))
            && entry.index.bytes == *index_bytes
        {
            segments.push(entry.clone());
            continue;
        }
        let scan = Scan::of(dir, file, &frame_layout)?;
        let (account, index) = if files.contains_key(&index_name) {
            (
                account_of(dir, file, &frame_layout, assembly, scan.whole)?,
                index_entry(dir, &index_name)?,
            )
        } else {
            report.indexes.push(index_name.clone());
            let account = write_index(dir, stem, file, &frame_layout, assembly, scan.whole)?;
            publish(dir, &index_name, false)?;
            (account, index_entry(dir, &index_name)?)
        };
        if !recovered.iter().any(|r| r.name == *file) {
            report.listed.push(file.clone());
        }
        // An index that was written live may part runs elsewhere than a rebuilt one.
        let index = IndexEntry {
            rows: rows_of(dir, &index_name).unwrap_or(account.rows),
            ..index
        };
        segments.push(account.entry(number, file.clone(), *bytes, scan.file_digest, index));
    }
    for entry in known {
        if !files.contains_key(&entry.name) {
            report.missing.push(entry.name.clone());
        }
    }
    segments.sort_by_key(|s| s.number);
    Ok(Recovered {
        segments,
        recovered,
        next_number,
    })
}

/// The number in `{name}_{number}_{time}`.
pub(crate) fn number_of(stem: &str, name: &str) -> Option<u64> {
    let (number, _time) = stem
        .strip_prefix(name)?
        .strip_prefix('_')?
        .split_once('_')?;
    number.parse().ok()
}

fn recover_part(
    dir: &Arc<dyn Dir>,
    stem: &str,
    layout: &FrameLayout,
    assembly: Rule,
) -> Result<Option<RecoveredEntry>> {
    let part = format!("{stem}.dat{PART}");
    let path = dir.path().join(&part);
    // What is read next must be what a power cut leaves: after one, a shorter prefix would be found, and the tail saved
    // now would be taken for one that holds no more than the new one.
    open(dir, &part)?
        .sync_data()
        .map_err(|e| Error::io("syncing", &path, e))?;
    let scan = Scan::of(dir, &part, layout)?;
    if scan.bytes == 0 {
        remove(dir, &part)?;
        remove(dir, &format!("{stem}.idx.bcsv{PART}"))?;
        return Ok(None);
    }
    let cut = scan.bytes - scan.whole;
    let name = format!("{stem}.dat.tail");
    if cut > 0 {
        // One from an earlier attempt holds no more than this one.
        remove(dir, &name)?;
        copy_tail(dir, &part, &name, scan.whole)?;
    }
    // An attempt that was interrupted may have cut the file already.
    let tail = match dir.open(&name) {
        Ok(file) => Some(
            file.len()
                .map_err(|e| Error::io("looking at", &dir.path().join(&name), e))?,
        ),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("opening", &dir.path().join(&name), e)),
    };
    if scan.frames > 0 {
        let file = open(dir, &part)?;
        if cut > 0 {
            file.truncate(scan.whole)
                .map_err(|e| Error::io("cutting", &path, e))?;
        }
        write_index(dir, stem, &part, layout, assembly, scan.whole)?;
        file.sync_data()
            .map_err(|e| Error::io("syncing", &path, e))?;
        // A crash between these two names leaves an index that may be replaced: the `.dat` is not finished yet.
        publish(dir, &format!("{stem}.idx.bcsv"), true)?;
        publish(dir, &format!("{stem}.dat"), false)?;
    } else {
        remove(dir, &part)?;
        remove(dir, &format!("{stem}.idx.bcsv{PART}"))?;
        dir.sync()
            .map_err(|e| Error::io("syncing the directory", dir.path(), e))?;
    }
    Ok(Some(RecoveredEntry {
        name: format!("{stem}.dat"),
        bytes_kept: scan.whole,
        bytes_cut: tail.unwrap_or(0),
        tail: tail.map(|_| name),
        frames: scan.frames,
    }))
}

/// Give a synced `.part` its final name.
pub(crate) fn publish(dir: &Arc<dyn Dir>, name: &str, replace: bool) -> Result<()> {
    let from = format!("{name}{PART}");
    dir.rename(&from, name, replace)
        .map_err(|e| Error::io("renaming", &dir.path().join(&from), e))?;
    dir.sync()
        .map_err(|e| Error::io("syncing the directory", dir.path(), e))
}

pub(crate) fn remove(dir: &Arc<dyn Dir>, name: &str) -> Result<()> {
    match dir.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("removing", &dir.path().join(name), e))
        }
        _ => Ok(()),
    }
}

pub(crate) fn open(dir: &Arc<dyn Dir>, name: &str) -> Result<Arc<dyn DiskFile>> {
    dir.open(name)
        .map_err(|e| Error::io("opening", &dir.path().join(name), e))
}

pub(crate) fn copy_tail(dir: &Arc<dyn Dir>, part: &str, tail: &str, from: u64) -> Result<()> {
    let at = |e| Error::io("saving the tail", &dir.path().join(tail), e);
    let source = open(dir, part)?;
    let target = dir.create(tail).map_err(at)?;
    let mut buf = vec![0; 1 << 20];
    let mut offset = from;
    loop {
        let n = source.read_at(offset, &mut buf).map_err(at)?;
        let Some(data) = buf.get(..n).filter(|d| !d.is_empty()) else {
            break;
        };
        target.append(&[IoSlice::new(data)]).map_err(at)?;
        offset += n as u64;
    }
    target.sync_data().map_err(at)?;
    dir.sync().map_err(at)
}

/// Size and digest of an index file.
pub(crate) fn index_entry(dir: &Arc<dyn Dir>, name: &str) -> Result<IndexEntry> {
    let file = open(dir, name)?;
    let mut digest = Digest::new();
    let mut buf = vec![0; 1 << 18];
    let mut offset = 0;
    loop {
        let n = file
            .read_at(offset, &mut buf)
            .map_err(|e| Error::io("reading", &dir.path().join(name), e))?;
        let Some(data) = buf.get(..n).filter(|d| !d.is_empty()) else {
            break;
        };
        digest.update(data);
        offset += n as u64;
    }
    Ok(IndexEntry {
        name: name.to_owned(),
        bytes: offset,
        rows: 0,
        xxh3_128: digest.hex(),
    })
}

/// Rows of an index file; None when it cannot be read.
fn rows_of(dir: &Arc<dyn Dir>, name: &str) -> Option<u64> {
    crate::index::rows(dir.open(name).ok()?)
}

fn write_index(
    dir: &Arc<dyn Dir>,
    stem: &str,
    dat: &str,
    layout: &FrameLayout,
    rule: Rule,
    whole: u64,
) -> Result<Account> {
    let name = format!("{stem}.idx.bcsv{PART}");
    remove(dir, &name)?;
    let at = |e: String| Error::index(&dir.path().join(&name), e);
    let file = dir.create(&name).map_err(|e| at(e.to_string()))?;
    let mut index = IndexWriter::new(file).map_err(at)?;
    let mut account = Account::default();
    let frames = Frames::new(open(dir, dat)?, *layout, whole);
    for row in rebuild(frames, rule) {
        index.row(&row, account.row_bytes).map_err(at)?;
        account.add(&row);
    }
    if account.row_bytes != whole {
        return Err(at(format!(
            "{dat} could be read up to byte {} of {whole} only",
            account.row_bytes
        )));
    }
    index.finish(format!("{stem}.idx.bcsv")).map_err(at)?;
    Ok(account)
}

fn account_of(
    dir: &Arc<dyn Dir>,
    dat: &str,
    layout: &FrameLayout,
    rule: Rule,
    whole: u64,
) -> Result<Account> {
    let mut account = Account::default();
    for row in rebuild(Frames::new(open(dir, dat)?, *layout, whole), rule) {
        account.add(&row);
    }
    Ok(account)
}

/// What a `.dat` holds from its start.
struct Scan {
    bytes: u64,
    /// Bytes of whole, valid frames with nothing between them.
    whole: u64,
    frames: u64,
    file_digest: String,
}

impl Scan {
    fn of(dir: &Arc<dyn Dir>, name: &str, layout: &FrameLayout) -> Result<Self> {
        let file = open(dir, name)?;
        let at = |e| Error::io("reading", &dir.path().join(name), e);
        let bytes = file.len().map_err(at)?;
        let mut frames = Frames::new(Arc::clone(&file), *layout, bytes);
        let mut count = 0;
        for _ in frames.by_ref() {
            count += 1;
        }
        if let Some(e) = frames.error.take() {
            return Err(at(e));
        }
        let whole = frames.offset;
        let mut digest = Digest::new();
        let mut buf = vec![0; 1 << 20];
        let mut offset = 0;
        loop {
            let n = file.read_at(offset, &mut buf).map_err(at)?;
            let Some(data) = buf.get(..n).filter(|d| !d.is_empty()) else {
                break;
            };
            digest.update(data);
            offset += n as u64;
        }
        Ok(Self {
            bytes,
            whole,
            frames: count,
            file_digest: digest.hex(),
        })
    }
}

/// The frames at the start of a file, as long as one follows another; memory is one frame and one buffer.
struct Frames {
    file: Arc<dyn DiskFile>,
    layout: FrameLayout,
    end: u64,
    /// Bytes of the frames given so far.
    offset: u64,
    buf: Vec<u8>,
    /// Frames found in `buf` and not given yet, last first.
    found: Vec<FrameRef>,
    error: Option<io::Error>,
    ended: bool,
}

impl Frames {
    fn new(file: Arc<dyn DiskFile>, layout: FrameLayout, end: u64) -> Self {
        Self {
            file,
            layout,
            end,
            offset: 0,
            buf: Vec::new(),
            found: Vec::new(),
            error: None,
            ended: false,
        }
    }

    /// Look at the bytes from `offset` on; false when no frame starts there.
    fn refill(&mut self) -> bool {
        let largest = self.layout.max_frame_bytes();
        let want = u64::max(1 << 20, largest as u64).min(self.end - self.offset);
        let Ok(want) = usize::try_from(want) else {
            return false;
        };
        self.buf.resize(want, 0);
        match self.file.read_at(self.offset, &mut self.buf) {
            Ok(n) => self.buf.truncate(n),
            Err(e) => {
                self.error = Some(e);
                return false;
            }
        }
        let mut scanner = FrameScanner::new(self.layout);
        scanner.scan(&self.buf, false, usize::MAX, &mut self.found);
        // Only frames without a gap before them count: what lies behind damage is the tail.
        let mut expected = 0;
        let whole = self.found.iter().take_while(|f| {
            let follows = f.offset == expected;
            expected = f.offset + f.frame_bytes as usize;
            follows
        });
        let count = whole.count();
        self.found.truncate(count);
        self.found.reverse();
        count > 0
    }
}

impl Iterator for Frames {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        if self.found.is_empty() && (self.ended || self.offset >= self.end || !self.refill()) {
            self.ended = true;
            return None;
        }
        let frame = self.found.pop()?;
        self.offset += u64::from(frame.frame_bytes);
        Some(Arrival {
            stream_id: frame.stream_id,
            flags: frame.flags,
            frame_bytes: frame.frame_bytes,
            sequence: frame.sequence,
            timestamp_ns: frame.timestamp_ns,
            received_ns: 0,
            restart: false,
        })
    }
}

/// Add what a session counted to what earlier sessions of the same directory did.
pub(crate) fn add_ledgers(base: &Value, session: &Value) -> Value {
    match (base, session) {
        (Value::Object(base), Value::Object(session)) => {
            let mut sum = Map::new();
            for (name, value) in session {
                let before = base.get(name).unwrap_or(&Value::Null);
                let both = if name == "ring_high_water_bytes" {
                    Value::from(
                        before
                            .as_u64()
                            .unwrap_or(0)
                            .max(value.as_u64().unwrap_or(0)),
                    )
                } else {
                    add_ledgers(before, value)
                };
                sum.insert(name.clone(), both);
            }
            Value::Object(sum)
        }
        (base, Value::Number(n)) => Value::from(
            base.as_u64()
                .unwrap_or(0)
                .saturating_add(n.as_u64().unwrap_or(0)),
        ),
        (_, session) => session.clone(),
    }
}

/// Make a ledger that a crash left behind agree with the files: frames that were on their way when the process died are
/// neither received nor stored; frames in files that it had not counted yet are.
pub(crate) fn reconcile(
    ledger: &mut Value,
    frames_in_files: u64,
    bytes_in_files: u64,
    keeps_duplicates: bool,
) {
    let Value::Object(map) = ledger else { return };
    let number =
        |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_u64).unwrap_or(0);
    let dropped = if keeps_duplicates {
        0
    } else {
        number(map, "frames_duplicate")
    };
    let stored = (number(map, "frames_stored"), number(map, "bytes_stored"));
    let not_frames = number(map, "bytes_discarded");
    let received = (
        number(map, "frames_received"),
        number(map, "bytes_received"),
    );
    let other_bytes = received.1.saturating_sub(not_frames + stored.1);
    let agrees = stored == (frames_in_files, bytes_in_files)
        && received.0 == stored.0 + dropped
        && received.1 >= not_frames + stored.1;
    if agrees && (dropped > 0 || other_bytes == 0) {
        return;
    }
    // The rest of the bytes received were duplicates, frames in flight or the start of a frame; which, is not known any
    // more. Without duplicates there is nothing of it that counts.
    let duplicate_bytes = if dropped == 0 { 0 } else { other_bytes };
    for (name, value) in [
        ("frames_stored", frames_in_files),
        ("bytes_stored", bytes_in_files),
        ("frames_received", frames_in_files + dropped),
        (
            "bytes_received",
            bytes_in_files + not_frames + duplicate_bytes,
        ),
    ] {
        map.insert(name.into(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_ledger_agrees_with_the_files_after_recovery() {
        let ledger = |received: u64, stored: u64, duplicate: u64, bytes: u64| {
            json!({
                "frames_received": received, "bytes_received": bytes, "bytes_discarded": 7,
                "frames_stored": stored, "bytes_stored": stored * 10, "frames_duplicate": duplicate,
            })
        };
        let agrees = ledger(5, 5, 0, 57);
        for mut killed in [
            agrees.clone(),
            // frames on their way; files ahead of the account; the account of what came in behind that of what was stored
            ledger(6, 5, 0, 67),
            ledger(3, 3, 0, 37),
            ledger(3, 5, 0, 37),
            ledger(5, 5, 0, 61),
        ] {
            reconcile(&mut killed, 5, 50, false);
            assert_eq!(killed, agrees);
        }
        let agrees = ledger(6, 5, 1, 67);
        for mut killed in [agrees.clone(), ledger(7, 5, 1, 67), ledger(5, 5, 1, 67)] {
            reconcile(&mut killed, 5, 50, false);
            assert_eq!(killed, agrees);
        }
    }
}
