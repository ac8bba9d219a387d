//! The recorder: binds sources, starts the threads, and ends them in one order.
//!
//! Per source a receive thread, per stream a write thread, one keeper, one supervisor that joins them all. A stop
//! goes one way: sources drain and end, rings empty, writers finish assembly and segments, the keeper closes them and
//! writes the manifest. Everything that can be refused is refused by `start`, before a thread runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tapeline_wire::frame::FrameScanner;

use crate::config::{RecorderConfig, StreamConfig, Sync};
use crate::error::{Error, Result};
use crate::fs::{Dir, RealDir};
use crate::keeper::{Job, Keeper};
use crate::manifest::{Event, Manifest, ledger_json, nested_json};
use crate::output::OutputShared;
use crate::receive::Receiver;
use crate::recover::{Report, add_ledgers};
use crate::register_stream::{self, LogPosition, RegisterShared};
use crate::resume::{Past, entry_of, open_recording};
use crate::rings;
use crate::source::{Source, Stop};
use crate::status::StreamShared;
use crate::turns::{Feed, Pair, TurnOptions, Turns};
use crate::write::{Failure, FramesLimit, Outputs, StreamWriter, WriterSettings};

/// For each of a stream's two threads and for who sends to it.
pub(crate) const CORES_OF_A_STREAM: usize = 3;
/// Segments waiting to be closed before a write thread waits for the keeper.
const JOBS: usize = 16;

/// A running, or finished, recording.
pub struct Recorder {
    config: RecorderConfig,
    stop: Stop,
    failure: Arc<Failure>,
    streams: Vec<Arc<StreamShared>>,
    registers: Vec<Arc<RegisterShared>>,
    manifest: Arc<Mutex<Manifest>>,
    finished: Arc<(Mutex<bool>, Condvar)>,
    supervisor: Option<JoinHandle<()>>,
    report: Report,
}

impl Recorder {
    /// Check the configuration, claim the directory, recover what a crash left, bind every source, and run.
    ///
    /// # Errors
    /// `Config` for a bad setting; `Io` with the stream for an address or file, with the path for the directory.
    pub fn start(config: RecorderConfig) -> Result<Self> {
        config.check()?;
        let Some(root) = claim(&config.out)? else {
            return Err(Error::state(format!(
                "{} is being written by another recorder",
                config.out.display()
            )));
        };
        Self::start_in(root, config)
    }

    /// As `start`, in a directory that is claimed already: it is let go when everything is written.
    pub(crate) fn start_in(root: Arc<dyn Dir>, config: RecorderConfig) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::start_on(cores, TurnOptions::default(), root, config)
    }

    /// As `start_in`, and as if the machine had so many cores.
    pub(crate) fn start_on(
        cores: usize,
        turns: TurnOptions,
        root: Arc<dyn Dir>,
        config: RecorderConfig,
    ) -> Result<Self> {
        config.check()?;
        let rings = rings::make(&config.streams)?;
        let mut sources = Vec::new();
        let mut bound = Vec::new();
        for stream in &config.streams {
            if stream.register_kind().is_some() {
                bound.push(Some(register_stream::Bound::open(stream)?));
                sources.push(Vec::new());
                continue;
            }
            bound.push(None);
            let opened: Result<Vec<Source>> = stream
                .sources
                .iter()
                .map(|s| Source::open(s, stream))
                .collect();
            sources.push(opened?);
        }
        let dir = Arc::clone(&root);
        let (manifest, pasts, report) = open_recording(&dir, &config)?;
        let manifest = Arc::new(Mutex::new(manifest));
        let stop = Stop::default();
        let failure = Arc::new(Failure::default());
        let (keeper_jobs, jobs) = sync_channel(JOBS);
        let limit = config.count.map(|limit| {
            Arc::new(FramesLimit {
                stored: AtomicU64::new(0),
                limit,
                stop: stop.clone(),
            })
        });

        // A stream's two threads pass every byte from one to the other. With a core for each thread and one for the
        // producer they work side by side; with fewer they only take the producer's core away and move every byte
        // between caches. There the receiving thread writes too (`turns`), if its sender waits anyway. The datagrams of
        // one that does not are received meanwhile: the writer follows the receiver to its core and they take turns
        // there, unless there are more streams than cores, where whoever yields lets some other stream go first.
        let tight = cores < CORES_OF_A_STREAM * config.streams.len();
        let crowded = cores < config.streams.len();
        let share_core = tight && !crowded;

        let mut streams = Vec::new();
        let mut registers = Vec::new();
        let mut workers: Vec<JoinHandle<()>> = Vec::new();
        let mut starts: Vec<Box<dyn FnOnce() -> Result<JoinHandle<()>> + Send>> = Vec::new();
        let opened = sources.into_iter().zip(rings).zip(bound);
        for (stream, ((opened, rings), bound)) in config.streams.iter().zip(opened) {
            if let (Some(kind), Some(bound)) = (stream.register_kind(), bound) {
                let at = |e| {
                    let path = root.path().join(&stream.name);
                    Error::io("opening the stream's directory", &path, e)
                };
                let directory = dir.subdir(&stream.name, true).map_err(at)?;
                let segments = manifest.lock().map_or_else(
                    |_| Vec::new(),
                    |m| {
                        m.streams
                            .get(&stream.name)
                            .map_or_else(Vec::new, |s| s.segments.clone())
                    },
                );
                let next = pasts.get(&stream.name).map_or(0, |p| p.next_number);
                let started = register_stream::start(
                    bound,
                    stream,
                    kind,
                    &directory,
                    &segments,
                    next,
                    keeper_jobs.clone(),
                    limit.clone(),
                    &failure,
                    &stop,
                    share_core,
                )?;
                registers.push(started.shared);
                starts.extend(started.threads);
                continue;
            }
            let urls = opened
                .iter()
                .zip(&stream.sources)
                .map(|(s, c)| s.url(c))
                .collect();
            let shared = Arc::new(StreamShared::new(stream, urls, opened.len()));
            let layout = stream.layout.layout()?;
            let (block_bytes, blocks) = stream.ring_blocks(&layout)?;
            let by_turns = tight && stream.sync_mode()? != Sync::Batch && waited_for(&opened);
            let (producers, consumers): (Vec<_>, Vec<_>) = rings.into_iter().unzip();
            let settings = WriterSettings {
                assemble: stream.assemble_options()?,
                sync: stream.sync_mode()?,
                rotate_bytes: stream.rotate_bytes,
                rotate_after: stream
                    .rotate_seconds
                    .and_then(|s| Duration::try_from_secs_f64(s).ok()),
                keep_duplicates: stream.keep_duplicates,
                split: stream.split_by_stream_id,
                window: stream.reorder_window,
                max_held_blocks: blocks / 4,
                frames_limit: limit.clone(),
            };
            let opener = Opener {
                root: Arc::clone(&dir),
                stream: stream.clone(),
                shared: Arc::clone(&shared),
                manifest: Arc::clone(&manifest),
                pasts: pasts.clone(),
            };
            let writer =
                StreamWriter::new(settings, consumers, Box::new(opener), keeper_jobs.clone())?;
            let failed = {
                let (stop, failure, name) =
                    (stop.clone(), Arc::clone(&failure), stream.name.clone());
                move |e: Error| {
                    failure.set(e.of_stream(&name));
                    stop.request();
                }
            };
            let pair = by_turns.then(Arc::<Pair>::default);
            let mut feeds =
                opened
                    .into_iter()
                    .zip(producers)
                    .enumerate()
                    .map(|(i, (source, producer))| {
                        let source_shared =
                            shared.sources.get(i).map(Arc::clone).unwrap_or_default();
                        let receiver = Receiver::new(
                            producer,
                            FrameScanner::new(layout),
                            source_shared,
                            block_bytes,
                            // Who writes here may go where it likes: there is nobody to follow it.
                            share_core && !by_turns,
                            crowded,
                            pair.as_ref().map(|p| (turns, Arc::clone(p))),
                        );
                        Feed::new(source, receiver)
                    });
            let (receiving, writing) = (
                format!("recv-{}", stream.name),
                format!("write-{}", stream.name),
            );
            if let Some(pair) = &pair {
                if let Some(feed) = feeds.next() {
                    let turns =
                        Turns::new(turns, stop.clone(), feed, writer, Arc::clone(pair), failed);
                    let standing_by = Arc::clone(&turns);
                    starts.push(Box::new(move || {
                        thread(&writing, move || standing_by.write_first())
                    }));
                    starts.push(Box::new(move || {
                        thread(&receiving, move || turns.receive_first())
                    }));
                }
            } else {
                let receiving_failed = failed.clone();
                starts.push(Box::new(move || {
                    thread(&writing, move || writer.run().unwrap_or_else(failed))
                }));
                for feed in feeds {
                    let (stop, failed, name) =
                        (stop.clone(), receiving_failed.clone(), receiving.clone());
                    starts.push(Box::new(move || {
                        thread(&name, move || feed.run(&stop).unwrap_or_else(failed))
                    }));
                }
            }
            streams.push(shared);
        }
        let ledgers = {
            let streams = streams.clone();
            let registers = registers.clone();
            let bases = pasts.clone();
            Box::new(move |name: &str| {
                if let Some(stream) = registers
                    .iter()
                    .find(|r: &&Arc<RegisterShared>| r.name == name)
                {
                    let base = bases.get(name).map_or(&Value::Null, |p| &p.ledger);
                    return Some(add_ledgers(base, &nested_json(stream.ledger().fields())));
                }
                let session = streams.iter().find_map(|s| s.ledger_of(name))?;
                let base = bases.get(name).map_or(&Value::Null, |p| &p.ledger);
                Some(add_ledgers(base, &ledger_json(&session)))
            })
        };
        let keeper = Keeper::new(
            Arc::clone(&dir),
            Arc::clone(&manifest),
            &config,
            ledgers,
            needed_from(&registers),
            Arc::clone(&failure),
            stop.clone(),
        )?;
        let keeper = thread("keeper", move || keeper.run(&jobs))?;
        for start in starts {
            workers.push(start()?);
        }
        let finished = Arc::new((Mutex::new(false), Condvar::new()));
        let supervisor = {
            let finished = Arc::clone(&finished);
            thread("supervisor", move || {
                supervise(workers, &keeper_jobs, keeper);
                // The claim on the directory ends with its last handle.
                drop(root);
                if let Ok(mut done) = finished.0.lock() {
                    *done = true;
                }
                finished.1.notify_all();
            })?
        };
        Ok(Self {
            config,
            stop,
            failure,
            streams,
            registers,
            manifest,
            finished,
            supervisor: Some(supervisor),
            report,
        })
    }

    /// Ask for the end; what has arrived is still recorded. Returns at once.
    pub fn stop(&self) {
        self.stop.request();
    }

    /// Close every open segment at its next boundary and go on in a new one.
    pub fn rotate(&self) {
        for stream in &self.streams {
            stream.rotate();
        }
        for stream in &self.registers {
            stream.rotate();
        }
    }

    /// Wait for the end at most `timeout`; true when everything is written and closed.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let Ok(done) = self.finished.0.lock() else {
            return true;
        };
        self.finished
            .1
            .wait_timeout_while(done, timeout, |done| !*done)
            .map_or(true, |(done, _)| *done)
    }

    /// What failed, once.
    #[must_use]
    pub fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    /// What recovery found at the start.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The state now, as JSON (`_native.Recorder.status`).
    #[must_use]
    pub fn status(&self) -> Value {
        let mut streams = Map::new();
        for stream in &self.streams {
            let mut entry = stream.status();
            if let (Value::Object(map), Some(error)) = (&mut entry, self.failure.text()) {
                map.insert("error".into(), error.into());
            }
            streams.insert(stream.name.clone(), entry);
        }
        for stream in &self.registers {
            let mut entry = stream.status();
            if let (Value::Object(map), Some(error)) = (&mut entry, self.failure.text()) {
                map.insert("error".into(), error.into());
            }
            streams.insert(stream.name.clone(), entry);
        }
        json!({"finished": self.wait(Duration::ZERO), "streams": streams, "events": self.events()})
    }

    /// What was recorded, as JSON (`_native.Recorder.summary`).
    #[must_use]
    pub fn summary(&self) -> Value {
        let mut streams = Map::new();
        let mut lost = false;
        for stream in &self.streams {
            for (name, ledger) in stream.ledgers() {
                lost |= ledger.frames_lost > 0
                    || ledger.bytes_discarded > 0
                    || ledger.datagrams_dropped_by_kernel > 0
                    || ledger.frames_stored
                        + if stream.keeps_duplicates(&self.config) {
                            0
                        } else {
                            ledger.frames_duplicate
                        }
                        != ledger.frames_received;
                let files = self.files_of(&name);
                streams.insert(name, json!({"ledger": ledger_json(&ledger), "files": files, "error": self.failure.text()}));
            }
        }
        for stream in &self.registers {
            lost |= stream.lost_anything();
            let ledger = nested_json(stream.ledger().fields());
            let files = self.files_of(&stream.name);
            streams.insert(
                stream.name.clone(),
                json!({"ledger": ledger, "files": files, "error": self.failure.text()}),
            );
        }
        json!({"streams": streams, "out": self.config.out, "lost_anything": lost, "events": self.events()})
    }

    /// How far the log of a register stream is written: `after` names a segment and a place in it, and is waited for at
    /// most `timeout`; None names the first segment of this recorder. None is returned for an unknown stream.
    #[must_use]
    pub fn log_position(
        &self,
        stream: &str,
        after: Option<(u64, u64)>,
        timeout: Duration,
    ) -> Option<LogPosition> {
        let stream = self.registers.iter().find(|r| r.name == stream)?;
        Some(stream.log_position(after, timeout))
    }

    /// A sink is done with all segments below `segment`: retention may remove them.
    pub fn sink_progress(&self, stream: &str, sink: &str, segment: u64) {
        if let Some(stream) = self.registers.iter().find(|r| r.name == stream) {
            stream.sink_progress(sink, segment);
        }
    }

    /// Apply `keep_*` once more to an ended recording whose sinks have let go of the last segments. Does nothing while
    /// it runs, or when another recorder has the directory by now.
    ///
    /// # Errors
    /// `Io` for a file that cannot be removed, or the manifest.
    pub fn retain(&self) -> Result<()> {
        if self.registers.is_empty() || !self.wait(Duration::ZERO) {
            return Ok(());
        }
        let Some(root) = claim(&self.config.out)? else {
            return Ok(());
        };
        Keeper::new(
            root,
            Arc::clone(&self.manifest),
            &self.config,
            Box::new(|_| None),
            needed_from(&self.registers),
            Arc::clone(&self.failure),
            self.stop.clone(),
        )?
        .retain_all()
    }

    fn events(&self) -> Vec<Event> {
        self.manifest
            .lock()
            .map(|m| m.events.clone())
            .unwrap_or_default()
    }

    fn files_of(&self, name: &str) -> Vec<String> {
        let Ok(manifest) = self.manifest.lock() else {
            return Vec::new();
        };
        manifest.streams.get(name).map_or_else(Vec::new, |s| {
            let out =
                std::path::absolute(&self.config.out).unwrap_or_else(|_| self.config.out.clone());
            let directory = out.join(s.directory.as_deref().unwrap_or(name));
            s.segments
                .iter()
                .flat_map(|e| [&e.name, &e.index.name])
                .map(|file| directory.join(file).display().to_string())
                .collect()
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop.request();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

pub(crate) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new()
        .name(name.chars().take(15).collect())
        .spawn(run)
        .map_err(|e| Error::io_bare("starting a thread", e))
}

/// Whether a stream has one source, whose sender waits until it is read.
fn waited_for(sources: &[Source]) -> bool {
    matches!(sources, [source] if !matches!(source, Source::Udp(_)))
}

/// Opens a recording's directory for writing; None when another recorder has it.
fn claim(out: &Path) -> Result<Option<Arc<dyn Dir>>> {
    let root = RealDir::open(out, true).map_err(|e| Error::io("opening the recording", out, e))?;
    match root.lock() {
        Ok(()) => Ok(Some(Arc::new(root))),
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => Ok(None),
        Err(e) => Err(Error::io("locking the recording", out, e)),
    }
}

/// Tells of a stream from which segment on its sinks still read.
fn needed_from(registers: &[Arc<RegisterShared>]) -> Box<dyn Fn(&str) -> u64 + Send> {
    let registers = registers.to_vec();
    Box::new(move |name: &str| {
        let stream = registers.iter().find(|r| r.name == name);
        stream.map_or(u64::MAX, |r| r.needed_from.load(Ordering::Acquire))
    })
}

fn supervise(workers: Vec<JoinHandle<()>>, jobs: &SyncSender<Job>, keeper: JoinHandle<()>) {
    for worker in workers {
        let _ = worker.join();
    }
    let _ = jobs.send(Job::Finish);
    let _ = keeper.join();
}

/// Gives a write thread its outputs.
struct Opener {
    root: Arc<dyn Dir>,
    stream: StreamConfig,
    shared: Arc<StreamShared>,
    manifest: Arc<Mutex<Manifest>>,
    pasts: BTreeMap<String, Past>,
}

impl Outputs for Opener {
    fn open(&mut self, stream_id: Option<u16>) -> Result<(Arc<dyn Dir>, u64, Arc<OutputShared>)> {
        let directory = self.stream.name.clone();
        let name = stream_id.map_or_else(|| directory.clone(), |id| format!("{directory}.{id}"));
        let dir = self.root.subdir(&directory, true).map_err(|e| {
            Error::io(
                "making the stream's directory",
                &self.root.path().join(&directory),
                e,
            )
        })?;
        if stream_id.is_some()
            && let Ok(mut manifest) = self.manifest.lock()
        {
            manifest
                .streams
                .entry(name.clone())
                .or_insert_with(|| entry_of(&self.stream, Some(directory.clone())));
        }
        let next = self.pasts.get(&name).map_or(0, |p| p.next_number);
        Ok((dir, next, self.shared.output(name)))
    }
}
