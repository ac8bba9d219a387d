//! The thread that looks after files: closes segments, syncs the open ones, keeps the manifest, makes room.
//!
//! It stands between the write threads and everything slow, so that a rotation or an fsync never holds up a
//! stream until the bounded queue of jobs is full.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tapeline_sys::clock;

use crate::config::{OnLowDisk, RecorderConfig, Sync};
use crate::error::{Error, Result};
use crate::fs::{Dir, DiskFile};
use crate::manifest::{EvictedEntry, Manifest, SegmentEntry, compact_time, rfc3339};
use crate::retention::{self, Scope, start_of};
use crate::sink::Closing;
use crate::source::Stop;
use crate::write::Failure;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// A step of the wall clock against the monotonic one that is worth a note.
const CLOCK_STEP_NS: u64 = 100_000_000;

/// What the keeper is asked to do.
pub(crate) enum Job {
    /// A segment was opened: sync it from time to time.
    Opened(OpenFile),
    /// A segment is full: close it and list it.
    Close {
        output: String,
        segment: Box<dyn Closing>,
    },
    /// List an event.
    Note {
        stream: String,
        kind: &'static str,
        text: String,
    },
    /// Everything is written: finish.
    Finish,
}

/// The data file of an open segment.
pub(crate) struct OpenFile {
    pub(crate) output: String,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
}

/// Gives the ledger of an output, in the manifest's form.
pub(crate) type Ledgers = Box<dyn Fn(&str) -> Option<Value> + Send>;

/// The keeper's own state.
pub(crate) struct Keeper {
    pub(crate) root: Arc<dyn Dir>,
    pub(crate) manifest: Arc<Mutex<Manifest>>,
    /// Durability mode per output's stream.
    pub(crate) interval: Option<Duration>,
    pub(crate) ledgers: Ledgers,
    /// Segments of a stream from this number on are still read by a sink.
    needed_from: Box<dyn Fn(&str) -> u64 + Send>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) stop: Stop,
    open: BTreeMap<String, OpenFile>,
    /// Outputs whose open file failed to sync: what of it is on the disk is unknown, and a later sync that succeeds
    /// would not tell. It keeps its `.part`.
    unsure: BTreeSet<String>,
    /// When this keeper closed a segment.
    closed_at: BTreeMap<(String, String), Instant>,
    started: Instant,
    last_sync: Instant,
    clock_offset: i128,
    /// The floors that were told of, by stream, since free space fell below them.
    low_disk: BTreeSet<Option<String>>,
    scopes: Arc<[Scope]>,
    /// No job was waiting: every segment that is full is closed.
    idle: bool,
}

impl Keeper {
    pub(crate) fn new(
        root: Arc<dyn Dir>,
        manifest: Arc<Mutex<Manifest>>,
        config: &RecorderConfig,
        ledgers: Ledgers,
        needed_from: Box<dyn Fn(&str) -> u64 + Send>,
        failure: Arc<Failure>,
        stop: Stop,
    ) -> Result<Self> {
        let mut interval = None;
        for stream in &config.streams {
            if let Sync::Interval(every) = stream.sync_mode()? {
                interval = Some(interval.map_or(every, |i: Duration| i.min(every)));
            }
        }
        let scopes = retention::scopes(config).into();
        Ok(Self {
            root,
            manifest,
            interval,
            ledgers,
            needed_from,
            failure,
            stop,
            open: BTreeMap::new(),
            unsure: BTreeSet::new(),
            closed_at: BTreeMap::new(),
            started: Instant::now(),
            last_sync: Instant::now(),
            clock_offset: clock_offset(),
            low_disk: BTreeSet::new(),
            scopes,
            idle: false,
        })
    }

    pub(crate) fn run(mut self, jobs: &Receiver<Job>) {
        let tick = self.interval.map_or(TICK, |i| i.min(TICK));
        loop {
            let job = jobs.recv_timeout(tick);
            self.idle = matches!(job, Err(RecvTimeoutError::Timeout));
            let result = match job {
                Ok(Job::Opened(file)) => {
                    self.open.insert(file.output.clone(), file);
                    Ok(())
                }
                Ok(Job::Close { output, segment }) => self.close(&output, segment),
                Ok(Job::Note { stream, kind, text }) => {
                    self.note(kind, Some(&stream), text);
                    Ok(())
                }
                Ok(Job::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => Ok(()),
            };
            if let Err(e) = result.and_then(|()| self.tick()) {
                self.fail(e);
            }
        }
        let stopped = rfc3339(clock::realtime_ns());
        self.change(|m| m.stopped = Some(stopped));
        if let Err(e) = self.store() {
            self.fail(e);
        }
    }

    fn close(&mut self, output: &str, segment: Box<dyn Closing>) -> Result<()> {
        self.open.remove(output);
        if self.unsure.remove(output) {
            return Ok(());
        }
        let entry = segment.close().map_err(|e| e.of_stream(output))?;
        self.closed_at
            .insert((output.to_owned(), entry.name.clone()), Instant::now());
        self.change(|m| {
            if let Some(stream) = m.streams.get_mut(output) {
                stream.segments.push(entry);
            }
        });
        self.retain()?;
        self.store()
    }

    fn tick(&mut self) -> Result<()> {
        if self
            .interval
            .is_some_and(|every| self.last_sync.elapsed() >= every)
        {
            self.last_sync = Instant::now();
            let mut failed = None;
            self.open.retain(|output, open| {
                let Err(e) = open.file.sync_data() else {
                    return true;
                };
                self.unsure.insert(output.clone());
                failed.get_or_insert(Error::io("syncing", &open.path, e).of_stream(output));
                false
            });
            if let Some(e) = failed {
                return Err(e);
            }
        }
        self.watch_clock();
        self.retain_all()?;
        self.watch_disk()
    }

    /// Apply `keep_*` of the recording and of every stream: segments grow old, and sinks let go of them, also while none
    /// is closed.
    pub(crate) fn retain_all(&mut self) -> Result<()> {
        if self.retain()? { self.store() } else { Ok(()) }
    }

    /// Apply `keep_*`; true when something was removed.
    fn retain(&mut self) -> Result<bool> {
        let mut changed = false;
        for scope in Arc::clone(&self.scopes).iter().filter(|s| s.has_limits()) {
            while let Some((output, reason)) = self.surplus(scope) {
                if !self.evict(&output, reason)? {
                    break;
                }
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Which output must give up its oldest segment, and why.
    fn surplus(&self, scope: &Scope) -> Option<(String, &'static str)> {
        let manifest = self.manifest.lock().ok()?;
        scope.surplus(
            &manifest,
            |output, oldest| (self.needed_from)(output) > oldest.number,
            |output, oldest, next, keep| self.is_old(output, oldest, next, keep),
        )
    }

    fn is_old(
        &self,
        output: &str,
        oldest: &SegmentEntry,
        next: Option<&SegmentEntry>,
        keep: f64,
    ) -> bool {
        let closed_at = self
            .closed_at
            .get(&(output.to_owned(), oldest.name.clone()));
        match (closed_at, next) {
            (Some(at), _) => at.elapsed().as_secs_f64() > keep,
            // By an earlier recorder, and not after the next one was begun.
            (None, Some(next)) => start_of(&next.name) < before_now(keep).as_str(),
            (None, None) => self.started.elapsed().as_secs_f64() > keep,
        }
    }

    /// Remove the oldest finished segment of an output; false when there is none.
    fn evict(&mut self, output: &str, reason: &str) -> Result<bool> {
        let Some((directory, many)) = self.manifest.lock().ok().and_then(|manifest| {
            let stream = manifest.streams.get(output)?;
            let directory = stream
                .directory
                .clone()
                .unwrap_or_else(|| output.to_owned());
            (!stream.segments.is_empty()).then(|| (directory, stream.many_evicted()))
        }) else {
            return Ok(false);
        };
        let dir = self
            .root
            .subdir(&directory, false)
            .map_err(|e| Error::io("opening", self.root.path(), e))?;
        if many {
            // What is summed up cannot be removed again, should it come back with a power cut.
            dir.sync()
                .map_err(|e| Error::io("syncing", dir.path(), e))?;
        }
        let entry = {
            let Ok(mut manifest) = self.manifest.lock() else {
                return Ok(false);
            };
            let Some(stream) = manifest.streams.get_mut(output) else {
                return Ok(false);
            };
            if many {
                stream.sum_up_evicted();
            }
            let entry = stream.segments.remove(0);
            stream.evicted.push(EvictedEntry {
                name: entry.name.clone(),
                segments: 1,
                // Of a register log without our own packets, so that what is evicted still adds up with the ledger.
                bytes: entry.bytes - entry.keyframe_bytes().min(entry.bytes),
                frames: entry.frames,
                first_sequence: entry.first_sequence,
                last_sequence: entry.last_sequence,
                reason: reason.into(),
            });
            entry
        };
        self.closed_at
            .remove(&(output.to_owned(), entry.name.clone()));
        // The manifest first says that they go, then they go: a crash between leaves files that are not listed, never
        // a list of files that are not there.
        self.store()?;
        for name in [&entry.name, &entry.index.name] {
            match dir.remove(name) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("removing", &dir.path().join(name), e));
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Free space: act at the floors of the streams, then at the recording's.
    fn watch_disk(&mut self) -> Result<()> {
        for scope in Arc::clone(&self.scopes).iter() {
            self.watch_floor(scope)?;
        }
        Ok(())
    }

    /// Free space: act at one floor, once per fall below it.
    fn watch_floor(&mut self, scope: &Scope) -> Result<()> {
        if scope.stream.is_some() && scope.min_free_bytes.is_none() {
            return Ok(());
        }
        let Ok((free, total)) = self.root.free_bytes() else {
            return Ok(());
        };
        let floor = scope
            .min_free_bytes
            .unwrap_or_else(|| (1 << 30).min(total / 20));
        if free >= floor {
            self.low_disk.remove(&scope.stream);
            return Ok(());
        }
        let stream = scope.stream.as_deref();
        if scope.on_low_disk == OnLowDisk::Evict {
            let mut evicted = 0;
            while self.root.free_bytes().is_ok_and(|(free, _)| free < floor) {
                let oldest = {
                    let manifest = self.manifest.lock().ok();
                    manifest.and_then(|m| scope.oldest(&m, |_, _| true))
                };
                let Some(output) = oldest else { break };
                if !self.evict(&output, "min_free_bytes")? {
                    break;
                }
                evicted += 1;
            }
            if evicted > 0 {
                self.note("low_disk", stream, format!("{free} bytes were free, the floor is {floor}: removed {evicted} of the oldest segments"));
                self.store()?;
            }
            if self.root.free_bytes().is_ok_and(|(free, _)| free >= floor) {
                return Ok(());
            }
            // Full segments wait to be closed; once they are, they can go. And a stream that gives way has given all it
            // had: what fills the disk is another's, and the floor of the recording is watched too.
            if !self.idle || stream.is_some() {
                return Ok(());
            }
        }
        if self.low_disk.insert(scope.stream.clone()) {
            let text = format!(
                "{free} bytes are free in {}, the floor min_free_bytes is {floor}: recording stops",
                self.root.path().display()
            );
            self.note("low_disk", stream, text.clone());
            let error = Error::state(text);
            self.failure.set(match stream {
                Some(name) => error.of_stream(name),
                None => error,
            });
            self.stop.request();
        }
        Ok(())
    }

    fn watch_clock(&mut self) {
        let now = clock_offset();
        let step = now - self.clock_offset;
        if step.unsigned_abs() > u128::from(CLOCK_STEP_NS) {
            #[allow(clippy::cast_precision_loss)]
            let seconds = step as f64 / 1e9;
            self.note(
                "clock_step",
                None,
                format!("the host's clock stepped by {seconds:+.3} s"),
            );
            self.clock_offset = now;
        }
    }

    fn note(&self, kind: &str, stream: Option<&str>, text: String) {
        self.change(|m| m.event(clock::realtime_ns(), kind, stream, text));
    }

    fn fail(&self, error: Error) {
        self.note("error", error.stream(), error.to_string());
        self.failure.set(error);
        self.stop.request();
    }

    fn change(&self, change: impl FnOnce(&mut Manifest)) {
        if let Ok(mut manifest) = self.manifest.lock() {
            change(&mut manifest);
        }
    }

    /// Rewrite the manifest, ledgers included.
    fn store(&self) -> Result<()> {
        let Ok(mut manifest) = self.manifest.lock() else {
            return Ok(());
        };
        for (name, stream) in &mut manifest.streams {
            if let Some(ledger) = (self.ledgers)(name) {
                stream.ledger = ledger;
            }
        }
        let copy = manifest.clone();
        drop(manifest);
        copy.store(&*self.root)
            .map_err(|e| Error::io("writing", &self.root.path().join(crate::manifest::NAME), e))
    }
}

/// The moment so many seconds ago, as it is in names.
fn before_now(seconds: f64) -> String {
    let span = Duration::try_from_secs_f64(seconds).map_or(u128::MAX, |d| d.as_nanos());
    compact_time(clock::realtime_ns().saturating_sub(u64::try_from(span).unwrap_or(u64::MAX)))
}

fn clock_offset() -> i128 {
    i128::from(clock::realtime_ns()) - i128::from(clock::monotonic_ns())
}
