//! After a crash: the logs of a register stream are made whole again. The steps are those of `crate::recover`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tapeline_wire::register::{Kind, PacketScanner};

use super::segment::{LogAccount, LogIndex, Row, block_hash, read_rows};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::manifest::{IndexEntry, RecoveredEntry, SegmentEntry};
use crate::recover::{Recovered, Report, copy_tail, index_entry, number_of, open, publish, remove};
use crate::sink::segment::PART;

/// Suffix of an index being rebuilt.
const NEW: &str = ".new";
/// Files beside a log that a kill left unfinished. What they would say is in the log.
const LEFT_OPEN: [&str; 4] = [
    ".idx.bcsv.part",
    ".idx.bcsv.new",
    ".touch.bcsv.part",
    ".doubts.bcsv.part",
];
/// Bytes of a rebuilt index row.
const BLOCK: u64 = 1 << 20;

/// Recover the logs named `{name}_*` in `dir`. `known` is what the manifest lists.
///
/// # Errors
/// Those of the disk; what was done before stays done.
pub(crate) fn recover_log(
    dir: &Arc<dyn Dir>,
    name: &str,
    kind: Kind,
    known: &[SegmentEntry],
    report: &mut Report,
) -> Result<Recovered> {
    let list = || dir.list().map_err(|e| Error::io("listing", dir.path(), e));
    let extension = format!(".{}", kind.extension());
    let part = format!("{extension}{PART}");
    let mut recovered = Vec::new();
    for (file, _) in list()? {
        let Some(stem) = file
            .strip_suffix(part.as_str())
            .filter(|stem| number_of(stem, name).is_some())
        else {
            continue;
        };
        if let Some(entry) = recover_part(dir, stem, kind)? {
            let all = report.recovered.entry(name.to_owned()).or_default();
            all.push(entry.clone());
            recovered.push(entry);
        }
    }
    let files: BTreeMap<String, u64> = list()?.into_iter().collect();
    for file in files.keys() {
        let stem = LEFT_OPEN
            .iter()
            .find_map(|suffix| file.strip_suffix(suffix));
        if stem.is_some_and(|stem| number_of(stem, name).is_some()) {
            remove(dir, file)?;
        }
    }
    let tail = format!("{extension}.tail");
    let (mut segments, mut next_number) = (Vec::new(), 0);
    for (file, bytes) in &files {
        let stem = file
            .strip_suffix(extension.as_str())
            .or_else(|| file.strip_suffix(tail.as_str()));
        let Some((stem, number)) = stem.and_then(|s| Some((s, number_of(s, name)?))) else {
            continue;
        };
        next_number = next_number.max(number + 1);
        if file.ends_with(".tail") {
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
        let there = files.contains_key(&index_name);
        let rows = if there {
            read_rows(open(dir, &index_name)?)
        } else {
            Vec::new()
        };
        let scan = Scan::of(dir, file, kind, &rows)?;
        let index = if there {
            IndexEntry {
                rows: rows.len() as u64,
                ..index_entry(dir, &index_name)?
            }
        } else {
            report.indexes.push(index_name.clone());
            let index = write_index(dir, stem, &scan.rows)?;
            publish(dir, &index_name, false)?;
            index
        };
        if !recovered.iter().any(|r| r.name == *file) {
            report.listed.push(file.clone());
        }
        let entry = scan
            .account
            .entry(number, file.clone(), *bytes, scan.digest, index);
        segments.push(entry);
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

fn recover_part(dir: &Arc<dyn Dir>, stem: &str, kind: Kind) -> Result<Option<RecoveredEntry>> {
    let name = format!("{stem}.{}", kind.extension());
    let part = format!("{name}{PART}");
    let index_name = format!("{stem}.idx.bcsv");
    let index_part = format!("{index_name}{PART}");
    let path = dir.path().join(&part);
    // What is read next must be what a power cut leaves.
    open(dir, &part)?
        .sync_data()
        .map_err(|e| Error::io("syncing", &path, e))?;
    let rows = match dir.open(&index_part).or_else(|_| dir.open(&index_name)) {
        Ok(file) => read_rows(file),
        Err(_) => Vec::new(),
    };
    let scan = Scan::of(dir, &part, kind, &rows)?;
    let ours: u64 = rows
        .iter()
        .take_while(|row| row.keyframe)
        .map(|row| row.length)
        .sum();
    // Nothing received: what may lie there is a repetition of what was known, perhaps cut short.
    if scan.bytes <= ours {
        remove(dir, &part)?;
        remove(dir, &index_part)?;
        return Ok(None);
    }
    // Without all of them the segment would not stand alone.
    let whole = if scan.whole > ours { scan.whole } else { 0 };
    let cut = scan.bytes - whole;
    let tail_name = format!("{name}.tail");
    if cut > 0 {
        remove(dir, &tail_name)?;
        copy_tail(dir, &part, &tail_name, whole)?;
    }
    let tail = match dir.open(&tail_name) {
        Ok(file) => Some(
            file.len()
                .map_err(|e| Error::io("looking at", &dir.path().join(&tail_name), e))?,
        ),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("opening", &dir.path().join(&tail_name), e)),
    };
    if whole > 0 {
        let file = open(dir, &part)?;
        if cut > 0 {
            file.truncate(whole)
                .map_err(|e| Error::io("cutting", &path, e))?;
        }
        write_index(dir, stem, &scan.rows)?;
        file.sync_data()
            .map_err(|e| Error::io("syncing", &path, e))?;
        publish(dir, &index_name, true)?;
        publish(dir, &name, false)?;
    } else {
        remove(dir, &part)?;
        remove(dir, &index_part)?;
        dir.sync()
            .map_err(|e| Error::io("syncing the directory", dir.path(), e))?;
    }
    Ok(Some(RecoveredEntry {
        name,
        bytes_kept: whole,
        bytes_cut: tail.unwrap_or(0),
        tail: tail.map(|_| tail_name),
        frames: if whole > 0 { scan.account.packets } else { 0 },
    }))
}

fn write_index(dir: &Arc<dyn Dir>, stem: &str, rows: &[(Row, u64)]) -> Result<IndexEntry> {
    let name = format!("{stem}.idx.bcsv");
    let (part, new) = (format!("{name}{PART}"), format!("{name}{NEW}"));
    remove(dir, &new)?;
    let at = |e: String| Error::index(&dir.path().join(&part), e);
    let file = dir.create(&new).map_err(|e| at(e.to_string()))?;
    let mut index = LogIndex::new(file).map_err(at)?;
    for (row, _) in rows {
        index.row(row).map_err(at)?;
    }
    let entry = index.finish(name).map_err(at)?;
    // The old one stays until then: it alone tells our packets from received ones.
    dir.rename(&new, &part, true)
        .map_err(|e| at(e.to_string()))?;
    Ok(entry)
}

/// What a log holds from its start.
struct Scan {
    bytes: u64,
    /// Bytes of whole, valid packets with nothing between them.
    whole: u64,
    account: LogAccount,
    /// Index rows for them, with the registers they set.
    rows: Vec<(Row, u64)>,
    digest: String,
}

impl Scan {
    /// `old` is what an index says; its rows are kept as far as they are right.
    fn of(dir: &Arc<dyn Dir>, name: &str, kind: Kind, old: &[Row]) -> Result<Self> {
        let file = open(dir, name)?;
        let at = |e| Error::io("reading", &dir.path().join(name), e);
        let bytes = file.len().map_err(at)?;
        let mut scan = Self {
            bytes,
            whole: 0,
            account: LogAccount::default(),
            rows: Vec::new(),
            digest: digest_of(&*file).map_err(at)?,
        };
        let mut rows = old.iter();
        let mut buf = Vec::new();
        while scan.whole < bytes {
            let row = rows.next();
            let size = row
                .map_or(BLOCK, |r| r.length.min(BLOCK))
                .min(bytes - scan.whole);
            buf.resize(usize::try_from(size).unwrap_or(0), 0);
            let got = file.read_at(scan.whole, &mut buf).map_err(at)?;
            buf.truncate(got);
            let mut found = Row {
                first_us: u64::MAX,
                ..Row::default()
            };
            let (mut next, mut registers) = (0, 0);
            // Only packets without a gap before them count: what lies behind damage is the tail.
            let _ = PacketScanner::new(kind).scan(&buf, false, &mut |packet| {
                if packet.offset == next {
                    next += packet.packet_bytes() as u64;
                    found.packets += 1;
                    found.first_us = found.first_us.min(packet.timestamp_us);
                    found.last_us = found.last_us.max(packet.timestamp_us);
                    if packet.command.sets_registers() {
                        registers += u64::from(packet.count);
                    }
                }
            });
            if next == 0 {
                break;
            }
            found.length = next;
            found.xxh64 = block_hash(
                buf.get(..usize::try_from(next).unwrap_or(0))
                    .unwrap_or_default(),
            );
            match row {
                Some(row) if row.length == next && row.xxh64 == found.xxh64 => {
                    found.keyframe = row.keyframe;
                    found.received_ns = row.received_ns;
                }
                _ => rows = [].iter(),
            }
            scan.account.add(&found, registers);
            scan.rows.push((found, registers));
            scan.whole += next;
        }
        Ok(scan)
    }
}

fn digest_of(file: &dyn DiskFile) -> io::Result<String> {
    let mut digest = Digest::new();
    let mut buf = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let n = file.read_at(offset, &mut buf)?;
        let Some(data) = buf.get(..n).filter(|d| !d.is_empty()) else {
            return Ok(digest.hex());
        };
        digest.update(data);
        offset += n as u64;
    }
}

/// Make a ledger that a crash left behind agree with the files.
pub(crate) fn reconcile(ledger: &mut serde_json::Value, packets: u64, bytes: u64) {
    let serde_json::Value::Object(map) = ledger else {
        return;
    };
    let number = |name: &str| {
        map.get(name)
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(0)
    };
    let (refused, refused_bytes) = (number("packets_refused"), number("bytes_refused"));
    let other = number("bytes_invalid") + number("bytes_discarded");
    for (name, value) in [
        ("packets_stored", packets),
        ("bytes_stored", bytes),
        ("packets_received", packets + refused),
        ("bytes_valid", bytes + refused_bytes),
        ("bytes_received", bytes + refused_bytes + other),
    ] {
        map.insert(name.into(), value.into());
    }
}
