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
    /// Segments that retention removed.
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

/// A segment that is no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EvictedEntry {
    /// File name it had.
    pub name: String,
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

    /// Note something that happened.
    pub fn event(&mut self, time_ns: u64, kind: &str, stream: Option<&str>, text: String) {
        self.events.push(Event {
            time: rfc3339(time_ns),
            kind: kind.into(),
            stream: stream.map(Into::into),
            text,
        });
    }
}

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
    let mut map = Map::new();
    for (name, value) in ledger.fields() {
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
    use super::*;

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
