//! `recording.json`: what a recording says of itself (spec/recording.md).
//!
//! Fields this release does not know are kept when the file is rewritten.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tapeline_wire::ledger::Ledger;

use crate::config::LayoutConfig;
use crate::fs::Dir;

/// The manifest's file name.
pub const NAME: &str = "recording.json";

/// The whole file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this structure: 1.
    pub format: u32,
    /// Who wrote it.
    pub tool: String,
    /// On which host.
    pub host: String,
    /// When the first recorder started, RFC 3339, UTC.
    pub started: String,
    /// When the last one stopped; null while one runs, or after a crash.
    pub stopped: Option<String>,
    /// The configuration in force.
    pub config: Value,
    /// The streams by name.
    pub streams: BTreeMap<String, StreamEntry>,
    /// What happened, oldest first.
    #[serde(default)]
    pub events: Vec<Event>,
    /// What other releases wrote.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// One stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamEntry {
    /// The wire.
    pub wire: String,
    /// Directory of its segments below the recording, when it is not the stream's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// The frame layout.
    pub layout: LayoutConfig,
    /// The assembly rule.
    pub assembly: String,
    /// The URLs.
    pub sources: Vec<String>,
    /// Finished segments, oldest first.
    pub segments: Vec<SegmentEntry>,
    /// Segments that retention removed, oldest first; the oldest ones summed up.
    #[serde(default)]
    pub evicted: Vec<EvictedEntry>,
    /// What recovery did.
    #[serde(default)]
    pub recovered: Vec<RecoveredEntry>,
    /// The ledger at the last change, nested as `Ledger` is.
    pub ledger: Value,
    /// What other releases wrote.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Evicted segments that keep an entry of their own. A recorder that evicts for years must not remember, and at every
/// change rewrite, each of them.
const EVICTED_LISTED: usize = if cfg!(test) { 1 } else { 64 };
/// Events that are kept.
const EVENTS_LISTED: usize = 1_024;

impl StreamEntry {
    /// Whether the list of evicted segments is long enough to be shortened by [`Self::sum_up_evicted`].
    #[must_use]
    pub fn many_evicted(&self) -> bool {
        // Twice: shortened once in a while, not each time.
        let sums = self.evicted.iter().filter(|e| e.segments > 1).count();
        self.evicted.len() - sums >= 2 * EVICTED_LISTED
    }

    /// Replace all evicted segments but the last ones by one entry for each reason: how many, frames, bytes and the
    /// range of sequences. Their files must be gone for good, because only single entries are looked for after a crash.
    pub fn sum_up_evicted(&mut self) {
        let listed = self.evicted.len().saturating_sub(EVICTED_LISTED);
        let mut sums: Vec<EvictedEntry> = Vec::new();
        for gone in self.evicted.drain(..listed) {
            let Some(sum) = sums.iter_mut().find(|sum| sum.reason == gone.reason) else {
                sums.push(gone);
                continue;
            };
            sum.segments = sum.segments.saturating_add(gone.segments);
            sum.bytes = sum.bytes.saturating_add(gone.bytes);
            sum.frames = sum.frames.saturating_add(gone.frames);
            sum.first_sequence = sum.first_sequence.min(gone.first_sequence);
            sum.last_sequence = sum.last_sequence.max(gone.last_sequence);
            sum.name = gone.name;
        }
        self.evicted.splice(..0, sums);
    }
}

/// A finished segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// File name of the `.dat`.
    pub name: String,
    /// Number within the stream.
    pub number: u64,
    /// Size.
    pub bytes: u64,
    /// Frames in it.
    pub frames: u64,
    /// Smallest sequence.
    pub first_sequence: u64,
    /// Largest sequence.
    pub last_sequence: u64,
    /// Smallest producer time.
    pub first_timestamp_ns: u64,
    /// Largest producer time.
    pub last_timestamp_ns: u64,
    /// XXH3-128 of the whole file, 32 hexadecimal digits.
    pub xxh3_128: String,
    /// Its index.
    pub index: IndexEntry,
    /// What other releases wrote.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The index of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexEntry {
    /// File name.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// XXH3-128 of the whole file.
    pub xxh3_128: String,
}

/// A segment that is no more, or the sum of several that one rule removed (see [`StreamEntry::evict`]).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvictedEntry {
    /// File name it had; of several, the name of the last.
    pub name: String,
    /// How many segments this stands for.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub segments: u64,
    /// Size.
    pub bytes: u64,
    /// Frames.
    pub frames: u64,
    /// Smallest sequence.
    pub first_sequence: u64,
    /// Largest sequence.
    pub last_sequence: u64,
    /// The rule that removed it.
    pub reason: String,
}

fn one() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_one(n: &u64) -> bool {
    *n == 1
}

/// A `.part` file that was made whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveredEntry {
    /// Final name of the `.dat`.
    pub name: String,
    /// Bytes of whole frames.
    pub bytes_kept: u64,
    /// Bytes moved to the tail file.
    pub bytes_cut: u64,
    /// Name of the tail file.
    pub tail: Option<String>,
    /// Frames kept.
    pub frames: u64,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// When, RFC 3339, UTC.
    pub time: String,
    /// A word: `clock_step`, `low_disk`, `recovered`, `error`, ...
    pub kind: String,
    /// The stream concerned.
    #[serde(default)]
    pub stream: Option<String>,
    /// A sentence.
    pub text: String,
}

impl SegmentEntry {
    /// Of a register log: bytes of the recorder's own packets at its start.
    #[must_use]
    pub fn keyframe_bytes(&self) -> u64 {
        self.extra
            .get("keyframe_bytes")
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }
}

impl Manifest {
    /// Read the manifest of a recording; None when there is none, or it cannot be parsed (then `text` says why).
    ///
    /// # Errors
    /// Those of the disk but `NotFound`.
    pub fn load(dir: &dyn Dir) -> io::Result<Loaded> {
        let file = match dir.open(NAME) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Missing),
            Err(e) => return Err(e),
        };
        let size = usize::try_from(file.len()?).unwrap_or(usize::MAX);
        // A manifest of 10^6 segments is about 500 MB; anything larger is not one.
        if size > 1 << 30 {
            return Ok(Loaded::Unreadable(format!("{size} bytes are too many")));
        }
        let mut text = vec![0; size];
        let got = file.read_at(0, &mut text)?;
        text.truncate(got);
        Ok(match serde_json::from_slice::<Self>(&text) {
            Ok(manifest) if manifest.format == 1 => Loaded::Manifest(Box::new(manifest)),
            Ok(manifest) => Loaded::Unreadable(format!(
                "format {} is newer than this release",
                manifest.format
            )),
            Err(e) => Loaded::Unreadable(e.to_string()),
        })
    }

    /// Replace the manifest: temporary file, sync, rename, sync of the directory.
    ///
    /// # Errors
    /// Those of the disk; the old manifest is then still there.
    pub fn store(&self, dir: &dyn Dir) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        let temporary = "recording.json.tmp";
        match dir.remove(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = dir.create(temporary)?;
        file.append(&[IoSlice::new(&text)])?;
        file.sync_data()?;
        dir.rename(temporary, NAME, true)?;
        dir.sync()
    }

    /// Note something that happened. Of a list that grew too long the older half becomes one event, with how many
    /// there were of each kind.
    pub fn event(&mut self, time_ns: u64, kind: &str, stream: Option<&str>, text: String) {
        if self.events.len() >= EVENTS_LISTED {
            self.sum_up_events();
        }
        self.events.push(Event {
            time: rfc3339(time_ns),
            kind: kind.into(),
            stream: stream.map(Into::into),
            text,
        });
    }

    fn sum_up_events(&mut self) {
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut time = String::new();
        for event in self.events.drain(..EVENTS_LISTED / 2) {
            time = event.time;
            let Some(earlier) = event
                .text
                .strip_prefix(EARLIER)
                .filter(|_| event.kind == "earlier")
            else {
                *kinds.entry(event.kind).or_default() += 1;
                continue;
            };
            for part in earlier.split(", ") {
                if let Some((kind, count)) = part.rsplit_once(' ') {
                    *kinds.entry(kind.into()).or_default() += count.parse::<u64>().unwrap_or(0);
                }
            }
        }
        let counts: Vec<String> = kinds
            .iter()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        let event = Event {
            time,
            kind: "earlier".into(),
            stream: None,
            text: format!("{EARLIER}{}", counts.join(", ")),
        };
        self.events.insert(0, event);
    }
}

/// How the text of an event begins that stands for many.
const EARLIER: &str = "until then: ";

/// What was found where a manifest should be.
#[derive(Debug)]
pub enum Loaded {
    /// It.
    Manifest(Box<Manifest>),
    /// Nothing.
    Missing,
    /// Something else; why.
    Unreadable(String),
}

/// A ledger as nested JSON: `frames_corrupt` holds its reasons.
#[must_use]
pub fn ledger_json(ledger: &Ledger) -> Value {
    nested_json(ledger.fields())
}

/// Names with a dot become objects.
pub(crate) fn nested_json(fields: Vec<(&'static str, u64)>) -> Value {
    let mut map = Map::new();
    for (name, value) in fields {
        match name.split_once('.') {
            Some((group, field)) => {
                if let Value::Object(inner) = map
                    .entry(group)
                    .or_insert_with(|| Value::Object(Map::new()))
                {
                    inner.insert(field.into(), value.into());
                }
            }
            None => {
                map.insert(name.into(), value.into());
            }
        }
    }
    Value::Object(map)
}

/// `2026-11-21T03:00:00.000000Z` of nanoseconds since 1970.
#[must_use]
pub fn rfc3339(ns: u64) -> String {
    let (y, mo, d, h, mi, s, us) = civil(ns);
    format!("{y:04}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{us:06}Z")
}

/// `20261121T030000.000000Z`, the form in segment names.
#[must_use]
pub fn compact_time(ns: u64) -> String {
    let (y, mo, d, h, mi, s, us) = civil(ns);
    format!("{y:04}{mo:02}{d:02}T{h:02}{mi:02}{s:02}.{us:06}Z")
}

/// Date and time of day in UTC. Days to date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(ns: u64) -> (u64, u64, u64, u64, u64, u64, u64) {
    let (seconds, us) = (ns / 1_000_000_000, ns % 1_000_000_000 / 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (
        year,
        month,
        day,
        second / 3600,
        second % 3600 / 60,
        second % 60,
        us,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_evicted_long_ago_is_summed_up_by_reason() {
        let gone = |n: u64| EvictedEntry {
            name: format!("ch0_{n:06}_x.dat"),
            segments: 1,
            bytes: 10 + n,
            frames: 2,
            first_sequence: 2 * n,
            last_sequence: 2 * n + 1,
            reason: ["keep_bytes", "min_free_bytes"][usize::from(n % 5 == 1)].into(),
        };
        let text = r#"{"wire": "radar", "layout": {}, "assembly": "none", "sources": [], "segments": [], "ledger": null}"#;
        let mut stream: StreamEntry = serde_json::from_str(text).unwrap();
        for n in 0..1_000 {
            stream.evicted.push(gone(n));
            if stream.many_evicted() {
                stream.sum_up_evicted();
            }
            assert!(stream.evicted.len() < 2 * EVICTED_LISTED + 2);
        }
        let sum = |f: fn(&EvictedEntry) -> u64| stream.evicted.iter().map(f).sum::<u64>();
        assert_eq!(sum(|e| e.segments), 1_000);
        assert_eq!(
            (sum(|e| e.bytes), sum(|e| e.frames)),
            ((10..1_010).sum(), 2_000)
        );
        let last = stream.evicted.last().unwrap();
        assert_eq!((last.name.as_str(), last.segments), ("ch0_000999_x.dat", 1));
        let firsts: Vec<_> = stream
            .evicted
            .iter()
            .take(2)
            .map(|e| (e.reason.as_str(), e.first_sequence))
            .collect();
        assert_eq!(firsts, [("keep_bytes", 0), ("min_free_bytes", 2)]);
    }

    #[test]
    fn events_of_years_are_counted_by_kind() {
        let text = r#"{"format": 1, "tool": "t", "host": "h", "started": "s", "stopped": null, "config": {}, "streams": {}}"#;
        let mut manifest: Manifest = serde_json::from_str(text).unwrap();
        for n in 0..5_000 {
            manifest.event(
                n,
                if n % 4 == 0 { "clock_step" } else { "low_disk" },
                None,
                n.to_string(),
            );
            assert!(manifest.events.len() <= EVENTS_LISTED);
        }
        let left = |kind: &str| manifest.events.iter().filter(|e| e.kind == kind).count();
        let (steps, low) = (1_250 - left("clock_step"), 3_750 - left("low_disk"));
        assert_eq!(
            manifest.events[0].text,
            format!("{EARLIER}clock_step {steps}, low_disk {low}")
        );
        assert_eq!(manifest.events.last().unwrap().text, "4999");
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(
            rfc3339(951_782_400_000_000_000),
            "2000-02-29T00:00:00.000000Z"
        );
        assert_eq!(
            compact_time(1_795_230_312_481_223_999),
            "20261121T030512.481223Z"
        );
        assert_eq!(
            rfc3339(4_102_444_799_999_999_999),
            "2099-12-31T23:59:59.999999Z"
        );
    }
}
