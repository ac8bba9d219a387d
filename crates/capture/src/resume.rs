//! What earlier sessions left in a recording's directory: the manifest loaded or begun, every stream recovered, its
//! ledger and segment numbers carried on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use tapeline_sys::clock;
use tapeline_wire::register::{Kind, RegisterLedger};

use crate::config::{RecorderConfig, StreamConfig, check_stream_name};
use crate::error::{Error, Result};
use crate::fs::{Dir, RealDir};
use crate::index::Periodics;
use crate::manifest::{
    Loaded, Manifest, SegmentEntry, StreamEntry, ledger_json, nested_json, rfc3339,
};
use crate::recover::{Report, reconcile, recover_stream};
use crate::register_stream;
use crate::register_stream::recover::recover_log;

/// What an earlier session of a stream left: its ledger and the next segment number.
#[derive(Clone, Default)]
pub(crate) struct Past {
    pub(crate) ledger: Value,
    pub(crate) next_number: u64,
}

/// Load or begin the manifest, and recover every stream that the configuration names or the manifest lists.
pub(crate) fn open_recording(
    root: &Arc<dyn Dir>,
    config: &RecorderConfig,
) -> Result<(Manifest, BTreeMap<String, Past>, Report)> {
    let now = clock::realtime_ns();
    let path = config.out.join(crate::manifest::NAME);
    let loaded =
        Manifest::load(&**root).map_err(|e| Error::io("reading the manifest", &path, e))?;
    let resumed = !matches!(loaded, Loaded::Missing);
    let mut manifest = match loaded {
        Loaded::Manifest(m) => *m,
        Loaded::Missing => begin(now),
        Loaded::Unreadable(why) => {
            let aside = format!("{}.unreadable-{now}", crate::manifest::NAME);
            root.rename(crate::manifest::NAME, &aside, false)
                .map_err(|e| Error::io("setting the manifest aside", &path, e))?;
            let mut m = begin(now);
            m.event(
                now,
                "error",
                None,
                format!("the manifest could not be read ({why}); it is now {aside}"),
            );
            m
        }
    };
    manifest.tool = tool();
    let closed = manifest.stopped.take().is_some();
    manifest.config = serde_json::to_value(config).unwrap_or(Value::Null);
    if resumed {
        manifest.event(
            now,
            "restart",
            None,
            "recording goes on in a directory that has one".into(),
        );
    }
    for stream in &config.streams {
        let entry = manifest
            .streams
            .entry(stream.name.clone())
            .or_insert_with(|| entry_of(stream, None));
        entry.layout = stream.layout.clone();
        entry.assembly.clone_from(&stream.assembly);
        entry.sources = stream.sources.iter().map(|s| s.url.clone()).collect();
        root.subdir(&stream.name, true).map_err(|e| {
            Error::io(
                "making the stream's directory",
                &config.out.join(&stream.name),
                e,
            )
        })?;
    }
    let (pasts, report) = recover_all(root, &mut manifest, now, closed)?;
    manifest
        .store(&**root)
        .map_err(|e| Error::io("writing the manifest", &path, e))?;
    Ok((manifest, pasts, report))
}

/// Files of a stream, or of the parts of one.
#[derive(Clone, Copy, Default)]
struct Files {
    frames: u64,
    bytes: u64,
    /// None where not all are known.
    periodics: Option<Periodics>,
}

impl Files {
    /// Sums of what was there before, if anything was, and of `more`.
    fn and(before: Option<Self>, more: Self) -> Self {
        let Some(before) = before else { return more };
        let both = before.periodics.zip(more.periodics);
        Self {
            frames: before.frames + more.frames,
            bytes: before.bytes + more.bytes,
            periodics: both.map(|(a, b)| a.and(b)),
        }
    }

    fn reconcile(&self, ledger: &mut Value, keeps_duplicates: bool) {
        reconcile(ledger, self.frames, self.bytes, keeps_duplicates);
        if let (Some(found), Value::Object(map)) = (self.periodics, ledger) {
            map.insert("periodics_complete".into(), found.complete.into());
            map.insert("periodics_incomplete".into(), found.incomplete.into());
            map.insert("frames_late".into(), found.frames_late.into());
        }
    }
}

/// What the indexes of a stream's segments say; None if one of them says nothing.
fn periodics_of(dir: &Arc<dyn Dir>, segments: &[SegmentEntry]) -> Option<Periodics> {
    segments.iter().try_fold(Periodics::default(), |sum, one| {
        Some(sum.and(crate::index::periodics(dir.open(&one.index.name).ok()?)?))
    })
}

/// Recover every stream of a manifest; its entries then say what is there, and its ledgers too: after a power cut an open
/// file may be gone without a trace but in them. The ledger of a session that ended by itself (`closed`) counted what is
/// in the indexes.
fn recover_all(
    root: &Arc<dyn Dir>,
    manifest: &mut Manifest,
    now: u64,
    closed: bool,
) -> Result<(BTreeMap<String, Past>, Report)> {
    let mut report = Report::default();
    let mut pasts = BTreeMap::new();
    let ledgers: BTreeMap<String, Value> = manifest
        .streams
        .iter()
        .map(|(name, entry)| (name.clone(), entry.ledger.clone()))
        .collect();
    for name in root
        .list_dirs()
        .map_err(|e| Error::io("listing", root.path(), e))?
    {
        if check_stream_name(&name).is_ok() {
            adopt(root, manifest, &name)?;
        }
    }
    let mut notes = Vec::new();
    // Of streams that share a directory, for the ledger of the whole.
    let mut parts: BTreeMap<String, Files> = BTreeMap::new();
    let keepers = duplicate_keepers(&manifest.config);
    for (name, entry) in &mut manifest.streams {
        let directory = entry.directory.clone().unwrap_or_else(|| name.clone());
        let Ok(dir) = root.subdir(&directory, false) else {
            // One that was never made durable, before anything was in it, is no loss.
            if !entry.segments.is_empty() {
                report
                    .problems
                    .push(format!("the directory of stream {name} is missing"));
            }
            continue;
        };
        // An eviction that a crash cut short: the manifest says that they are gone.
        for gone in &entry.evicted {
            let stem = gone
                .name
                .rsplit_once('.')
                .map_or(gone.name.as_str(), |(stem, _)| stem);
            let index = format!("{stem}.idx.bcsv");
            for file in [&gone.name, &index] {
                match dir.remove(file) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("removing", &dir.path().join(file), e));
                    }
                    _ => {}
                }
            }
        }
        let rule = rule_of(&entry.assembly);
        let kind = Kind::from_name(&entry.wire);
        let found = match kind {
            Some(kind) => recover_log(&dir, name, kind, &entry.segments, &mut report),
            None => recover_stream(
                &dir,
                name,
                &entry.layout,
                rule,
                &entry.segments,
                &mut report,
            ),
        }
        .map_err(|e| e.of_stream(name))?;
        let kept = |f: fn(&crate::manifest::SegmentEntry) -> u64| {
            found.segments.iter().map(f).sum::<u64>()
        };
        let evicted =
            |f: fn(&crate::manifest::EvictedEntry) -> u64| entry.evicted.iter().map(f).sum::<u64>();
        // Where runs that a crash cut were joined again in a new index, or segments are gone, the count is the
        // recorder's.
        let as_written = found.recovered.is_empty() && entry.recovered.is_empty();
        let countable = !closed && kind.is_none() && as_written && entry.evicted.is_empty();
        let files = Files {
            frames: kept(|s| s.frames) + evicted(|s| s.frames),
            bytes: kept(|s| s.bytes - s.keyframe_bytes().min(s.bytes)) + evicted(|s| s.bytes),
            periodics: countable
                .then(|| periodics_of(&dir, &found.segments))
                .flatten(),
        };
        for r in &found.recovered {
            let tail = r.tail.as_ref().map_or_else(String::new, |t| {
                format!(", {} bytes moved to {t}", r.bytes_cut)
            });
            notes.push((
                name.clone(),
                format!(
                    "{}: {} frames in {} bytes were whole{tail}",
                    r.name, r.frames, r.bytes_kept
                ),
            ));
        }
        // Numbers are never used again, not even those of segments that are gone.
        let next_number = entry
            .segments
            .iter()
            .map(|s| s.number)
            .chain(
                entry
                    .evicted
                    .iter()
                    .filter_map(|e| crate::recover::number_of(&e.name, name)),
            )
            .map(|n| n + 1)
            .fold(found.next_number, u64::max);
        entry.segments = found.segments;
        entry.recovered.extend(found.recovered);
        if entry.ledger.is_null() {
            entry.ledger = match kind {
                Some(_) => nested_json(RegisterLedger::default().fields()),
                None => ledger_json(&tapeline_wire::ledger::Ledger::default()),
            };
        }
        let place = if entry.directory.is_some() {
            let keeps = keepers.contains(&directory_of(name, entry));
            files.reconcile(&mut entry.ledger, keeps);
            directory
        } else {
            name.clone()
        };
        let whole = Files::and(parts.remove(&place), files);
        parts.insert(place, whole);
        pasts.insert(
            name.clone(),
            Past {
                ledger: Value::Null,
                next_number,
            },
        );
    }
    for (name, past) in &mut pasts {
        if let Some(entry) = manifest.streams.get_mut(name) {
            if let (None, Some(files)) = (&entry.directory, parts.get(name)) {
                if Kind::from_name(&entry.wire).is_some() {
                    register_stream::recover::reconcile(
                        &mut entry.ledger,
                        files.frames,
                        files.bytes,
                    );
                    past.ledger = entry.ledger.clone();
                    continue;
                }
                files.reconcile(&mut entry.ledger, keepers.contains(name));
            }
            past.ledger = entry.ledger.clone();
        }
    }
    for (name, before) in ledgers.iter().filter(|(_, ledger)| !ledger.is_null()) {
        let after = manifest.streams.get(name).map(|entry| &entry.ledger);
        if after != Some(before) {
            report.ledgers.push(name.clone());
            let text = "the ledger did not agree with the files; now it does";
            notes.push((name.clone(), text.into()));
        }
    }
    for (name, text) in notes {
        manifest.event(now, "recovered", Some(&name), text);
    }
    for name in &report.missing {
        manifest.event(now, "error", None, format!("{name} was listed and is gone"));
    }
    Ok((pasts, report))
}

/// Names of the configured streams that store duplicates too.
fn duplicate_keepers(config: &Value) -> Vec<String> {
    let streams = config.get("streams").and_then(Value::as_array);
    let keeps = |s: &&Value| s.get("keep_duplicates").and_then(Value::as_bool) == Some(true);
    let name = |s: &Value| s.get("name").and_then(Value::as_str).map(str::to_owned);
    streams.map_or_else(Vec::new, |all| {
        all.iter().filter(keeps).filter_map(name).collect()
    })
}

/// The stream directory of an entry: its name, unless stream ids are split.
fn directory_of(name: &str, entry: &StreamEntry) -> String {
    entry.directory.clone().unwrap_or_else(|| name.to_owned())
}

/// Segments of streams that no manifest lists: a directory becomes a stream of the layout that its bytes show, and
/// `{directory}.{stream id}` in it a part of that stream.
fn adopt(root: &Arc<dyn Dir>, manifest: &mut Manifest, directory: &str) -> Result<()> {
    let dir = root
        .subdir(directory, false)
        .map_err(|e| Error::io("opening", root.path(), e))?;
    let files = dir
        .list()
        .map_err(|e| Error::io("listing", dir.path(), e))?;
    for (file, _) in &files {
        // An index that a crash left without its data belongs to nothing; what recovery cut off has no index.
        if let Some(stem) = file.strip_suffix(".idx.bcsv.part")
            && !files.iter().any(|(f, _)| {
                f.strip_prefix(stem)
                    .is_some_and(|s| DATA.iter().any(|d| s.starts_with(d)) && !s.ends_with(".tail"))
            })
        {
            dir.remove(file)
                .map_err(|e| Error::io("removing", &dir.path().join(file), e))?;
            continue;
        }
        if let Some(kind) = log_kind(file, directory) {
            manifest
                .streams
                .entry(directory.to_owned())
                .or_insert_with(|| StreamEntry {
                    wire: kind.name().into(),
                    ..unknown_stream(None)
                });
            continue;
        }
        let name = match file.strip_prefix(directory).and_then(|rest| {
            rest.strip_suffix(".dat")
                .or_else(|| rest.strip_suffix(".dat.part"))
        }) {
            Some(rest) if rest.starts_with('_') => directory.to_owned(),
            Some(rest) => match rest
                .strip_prefix('.')
                .and_then(|rest| rest.split_once('_'))
                .and_then(|(id, _)| id.parse::<u16>().ok())
            {
                Some(id) => format!("{directory}.{id}"),
                None => continue,
            },
            None => continue,
        };
        if manifest.streams.contains_key(&name) {
            continue;
        }
        let mut entry = manifest.streams.get(directory).map_or_else(
            || unknown_stream(crate::detect::layout_of(&dir, file)),
            |whole| StreamEntry {
                segments: Vec::new(),
                evicted: Vec::new(),
                recovered: Vec::new(),
                ledger: Value::Null,
                ..whole.clone()
            },
        );
        if name != directory {
            entry.directory = Some(directory.to_owned());
        }
        manifest.streams.insert(name, entry);
    }
    Ok(())
}

/// What the names of data files end in.
const DATA: [&str; 3] = [".dat", ".pkt", ".spkt"];

/// The wire of a register log of this stream, by its name.
fn log_kind(file: &str, stream: &str) -> Option<Kind> {
    let stem = file
        .strip_suffix(crate::sink::segment::PART)
        .unwrap_or(file);
    let (stem, extension) = stem.rsplit_once('.')?;
    crate::recover::number_of(stem, stream)?;
    [Kind::Packet, Kind::Simple]
        .into_iter()
        .find(|kind| kind.extension() == extension)
}

fn unknown_stream(layout: Option<crate::config::LayoutConfig>) -> StreamEntry {
    StreamEntry {
        wire: "frame".into(),
        directory: None,
        layout: layout.unwrap_or_default(),
        assembly: "none".into(),
        sources: Vec::new(),
        segments: Vec::new(),
        evicted: Vec::new(),
        recovered: Vec::new(),
        ledger: Value::Null,
        extra: Map::new(),
    }
}

/// Recover a recording that no recorder is writing, without starting one.
///
/// # Errors
/// As `Recorder::start` for the directory; nothing is bound.
pub fn recover_directory(path: &Path) -> Result<Report> {
    let root =
        RealDir::open(path, false).map_err(|e| Error::io("opening the recording", path, e))?;
    root.lock().map_err(|e| match e.kind() {
        std::io::ErrorKind::ResourceBusy => {
            Error::state(format!("{} is being written by a recorder", path.display()))
        }
        _ => Error::io("locking the recording", path, e),
    })?;
    recover_in(&(Arc::new(root) as Arc<dyn Dir>))
}

/// As `recover_directory`, in a directory that is claimed already.
pub(crate) fn recover_in(root: &Arc<dyn Dir>) -> Result<Report> {
    let path = root.path();
    let now = clock::realtime_ns();
    let at = |e| Error::io("reading the manifest", &path.join(crate::manifest::NAME), e);
    let mut manifest = match Manifest::load(&**root).map_err(at)? {
        Loaded::Manifest(m) => *m,
        Loaded::Missing => begin(now),
        Loaded::Unreadable(why) => {
            return Err(Error::state(format!(
                "the manifest of {} cannot be read: {why}",
                path.display()
            )));
        }
    };
    let closed = manifest.stopped.is_some();
    let (_, report) = recover_all(root, &mut manifest, now, closed)?;
    if manifest.streams.is_empty() {
        return Err(Error::state(format!(
            "{} is not a recording: no manifest and no segments",
            path.display()
        )));
    }
    if !report.is_clean() || manifest.stopped.is_none() {
        manifest.stopped.get_or_insert_with(|| rfc3339(now));
        manifest
            .store(&**root)
            .map_err(|e| Error::io("writing the manifest", path, e))?;
    }
    Ok(report)
}

fn begin(now: u64) -> Manifest {
    Manifest {
        format: 1,
        tool: tool(),
        host: std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_or_else(|_| "unknown".into(), |h| h.trim().to_owned()),
        started: rfc3339(now),
        stopped: None,
        config: Value::Null,
        streams: BTreeMap::new(),
        events: Vec::new(),
        extra: Map::new(),
    }
}

fn tool() -> String {
    format!("tapeline {}", env!("CARGO_PKG_VERSION"))
}

pub(crate) fn entry_of(stream: &StreamConfig, directory: Option<String>) -> StreamEntry {
    StreamEntry {
        wire: stream.wire.clone(),
        directory,
        layout: stream.layout.clone(),
        assembly: stream.assembly.clone(),
        sources: stream.sources.iter().map(|s| s.url.clone()).collect(),
        segments: Vec::new(),
        evicted: Vec::new(),
        recovered: Vec::new(),
        ledger: Value::Null,
        extra: Map::new(),
    }
}

fn rule_of(assembly: &str) -> tapeline_wire::assemble::Rule {
    use tapeline_wire::assemble::Rule;
    match assembly {
        "markers" => Rule::Markers,
        other => other
            .strip_prefix("count:")
            .and_then(|n| n.parse().ok())
            .map_or_else(Rule::default, Rule::Count),
    }
}
