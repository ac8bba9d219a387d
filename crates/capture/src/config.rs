//! What a recorder is told: the structure that Python's `RecorderConfig` hands over as JSON.
//!
//! Python checks values against people's mistakes and names the nearest key; here they are checked once
//! more against what the code relies on.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tapeline_wire::assemble::{AssembleOptions, Rule};
use tapeline_wire::frame::FrameLayout;
use tapeline_wire::register::Kind;

use crate::error::{Error, Result};

/// A whole recording.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderConfig {
    /// The recording's directory; made when it is not there.
    pub out: PathBuf,
    /// Free bytes below which `on_low_disk` acts; None: 1 GiB or 5 % of the disk, whichever is less.
    #[serde(default)]
    pub min_free_bytes: Option<u64>,
    /// What happens at the floor.
    #[serde(default)]
    pub on_low_disk: OnLowDisk,
    /// Keep at most this many bytes of finished segments, all streams together.
    #[serde(default)]
    pub keep_bytes: Option<u64>,
    /// Keep finished segments at most this long after they were closed.
    #[serde(default)]
    pub keep_seconds: Option<f64>,
    /// Keep at most this many finished segments, all streams together.
    #[serde(default)]
    pub keep_segments: Option<u64>,
    /// Stop once this many frames are stored in all streams together.
    #[serde(default)]
    pub count: Option<u64>,
    /// The streams, in the order given.
    pub streams: Vec<StreamConfig>,
}

/// What to do when free disk space falls below the floor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnLowDisk {
    /// Finish every stream and say why.
    #[default]
    Stop,
    /// Remove the oldest finished segments until there is room.
    Evict,
}

/// One stream: where its frames come from and how they are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// `[A-Za-z0-9._-]{1,64}` without a leading dot (spec/recording.md).
    pub name: String,
    /// One source, or two that carry the same frames (real time first, archive second).
    pub sources: Vec<SourceConfig>,
    /// The wire: `frame`, `packet` or `simple`.
    #[serde(default = "default_wire")]
    pub wire: String,
    /// Variant of the frame header.
    #[serde(default)]
    pub layout: LayoutConfig,
    /// `none`, `markers` or `count:N` (spec/frame-stream.md 6).
    #[serde(default = "default_assembly")]
    pub assembly: String,
    /// Open periodics per stream id.
    #[serde(default = "default_max_open")]
    pub max_open: usize,
    /// Bytes of all open periodics.
    #[serde(default = "default_max_periodic_bytes")]
    pub max_periodic_bytes: u64,
    /// Frames that the sequence window looks back.
    #[serde(default = "default_reorder_window")]
    pub reorder_window: u64,
    /// How long a gap holds back the frames behind it.
    #[serde(default = "default_hold_seconds")]
    pub hold_seconds: f64,
    /// Store duplicates too.
    #[serde(default)]
    pub keep_duplicates: bool,
    /// Give each stream id its own set of segments.
    #[serde(default)]
    pub split_by_stream_id: bool,
    /// Capacity of the ring between receiver and writer, per source.
    #[serde(default = "default_ring_bytes")]
    pub ring_bytes: u64,
    /// Socket buffer to ask for.
    #[serde(default = "default_receive_buffer_bytes")]
    pub receive_buffer_bytes: u64,
    /// Let the kernel join UDP datagrams.
    #[serde(default = "yes")]
    pub gro: bool,
    /// A segment is rolled at the first periodic boundary past this size.
    #[serde(default = "default_rotate_bytes")]
    pub rotate_bytes: u64,
    /// ... or past this age.
    #[serde(default)]
    pub rotate_seconds: Option<f64>,
    /// Keep at most this many bytes of the stream's finished segments.
    #[serde(default)]
    pub keep_bytes: Option<u64>,
    /// Keep its finished segments at most this long after they were closed.
    #[serde(default)]
    pub keep_seconds: Option<f64>,
    /// Keep at most this many of its finished segments.
    #[serde(default)]
    pub keep_segments: Option<u64>,
    /// Free bytes below which the stream gives way before others do; None: it has no floor of its own.
    #[serde(default)]
    pub min_free_bytes: Option<u64>,
    /// What happens at that floor; None: as for the recording.
    #[serde(default)]
    pub on_low_disk: Option<OnLowDisk>,
    /// `segment`, `batch` or `interval:SECONDS`.
    #[serde(default = "default_sync")]
    pub sync: String,
    /// Close a connection that sends nothing for so long.
    #[serde(default)]
    pub idle_timeout_seconds: Option<f64>,
    /// First and longest pause between attempts to connect.
    #[serde(default = "default_backoff")]
    pub connect_backoff_seconds: [f64; 2],
    /// Connections that a register server holds at once.
    #[serde(default = "default_max_clients")]
    pub max_clients: usize,
    /// Answers that may wait for one client of a register server, in bytes.
    #[serde(default = "default_max_buffer_bytes")]
    pub max_buffer_bytes: u64,
    /// How often `image.bin` is written.
    #[serde(default = "default_image_seconds")]
    pub image_seconds: f64,
    /// Tables and forwarding beside the log; they are at work outside, and kept for the manifest.
    #[serde(default)]
    pub sinks: serde_json::Value,
}

fn default_wire() -> String {
    "frame".into()
}
fn default_assembly() -> String {
    "none".into()
}
fn default_max_open() -> usize {
    4
}
fn default_max_periodic_bytes() -> u64 {
    64 << 20
}
fn default_reorder_window() -> u64 {
    65_536
}
fn default_hold_seconds() -> f64 {
    1.0
}
fn default_ring_bytes() -> u64 {
    64 << 20
}
fn default_receive_buffer_bytes() -> u64 {
    32 << 20
}
fn yes() -> bool {
    true
}
fn default_rotate_bytes() -> u64 {
    256 << 20
}
fn default_sync() -> String {
    "interval:1".into()
}
fn default_max_clients() -> usize {
    1024
}
fn default_max_buffer_bytes() -> u64 {
    4 << 20
}
fn default_image_seconds() -> f64 {
    10.0
}
fn default_backoff() -> [f64; 2] {
    [0.1, 5.0]
}

/// Where bytes of a stream enter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The scheme.
    pub kind: SourceKind,
    /// As the user gave it.
    pub url: String,
    /// Numeric address for sockets.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// File to read.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Multicast group to join.
    #[serde(default)]
    pub group: Option<IpAddr>,
    /// Interface to join it on.
    #[serde(default)]
    pub interface: Option<IpAddr>,
}

/// The schemes of source URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    /// Datagrams of whole frames.
    #[serde(rename = "udp")]
    Udp,
    /// Listen for connections, one at a time.
    #[serde(rename = "tcp")]
    Tcp,
    /// Connect, and again when the connection ends.
    #[serde(rename = "tcp+connect")]
    TcpConnect,
    /// A file of frames.
    #[serde(rename = "file")]
    File,
    /// Standard input.
    #[serde(rename = "stdin")]
    Stdin,
    /// A ring in shared memory; `path` is its name.
    #[serde(rename = "shm")]
    Shm,
}

/// A frame layout as configured; `magic` is hexadecimal.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LayoutConfig {
    /// 16 hexadecimal digits.
    pub magic: String,
    /// 4 with a stream id in the header, 2 without.
    pub version_flags: u8,
    /// Width of the length field, 4 or 8.
    pub length_bytes: u8,
    /// Whether the header has a CRC of its own.
    pub header_crc: bool,
    /// Largest payload accepted.
    pub max_payload: u64,
}

impl Default for LayoutConfig {
    fn default() -> Self {
        Self {
            magic: "d1c64f93a7b25e8c".into(),
            version_flags: 4,
            length_bytes: 4,
            header_crc: true,
            max_payload: 1 << 20,
        }
    }
}

impl LayoutConfig {
    /// The layout itself.
    ///
    /// # Errors
    /// `Config` when a field is out of range.
    pub fn layout(&self) -> Result<FrameLayout> {
        let bad = |why: String| Error::config(format!("layout: {why}"));
        if self.magic.len() != 16 || !self.magic.is_ascii() {
            return Err(bad(format!(
                "magic is 16 hexadecimal digits, got {:?}",
                self.magic
            )));
        }
        let number = u64::from_str_radix(&self.magic, 16)
            .map_err(|e| bad(format!("magic {:?}: {e}", self.magic)))?;
        FrameLayout::new(
            number.to_be_bytes(),
            self.version_flags,
            self.length_bytes,
            self.header_crc,
            self.max_payload,
        )
        .map_err(|e| bad(e.to_string()))
    }
}

/// When written bytes are made to survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sync {
    /// When a segment is closed.
    Segment,
    /// After every batch that is written.
    Batch,
    /// At least this often.
    Interval(Duration),
}

impl StreamConfig {
    /// The assembly rule and bounds.
    ///
    /// # Errors
    /// `Config` when `assembly` is not one of the rules.
    pub fn assemble_options(&self) -> Result<AssembleOptions> {
        let rule = match self.assembly.as_str() {
            "none" => Rule::None {
                max_frames: 4096,
                max_bytes: 1 << 20,
            },
            "markers" => Rule::Markers,
            other => match other.strip_prefix("count:").and_then(|n| n.parse().ok()) {
                Some(n) if (1..=u64::from(u32::MAX)).contains(&n) => Rule::Count(n),
                _ => {
                    return Err(self.bad(format!(
                        "assembly is none, markers or count:N, got {other:?}"
                    )));
                }
            },
        };
        Ok(AssembleOptions {
            rule,
            max_open: self.max_open,
            // What the one path lost, the other may bring much later.
            gap_bytes: if self.sources.len() > 1 {
                u64::MAX
            } else {
                AssembleOptions::default().gap_bytes
            },
            max_periodic_bytes: self.max_periodic_bytes,
            hold_ns: nanoseconds(self.hold_seconds),
            run_ns: 50_000_000,
        })
    }

    /// The durability mode.
    ///
    /// # Errors
    /// `Config` when `sync` is not one of the modes.
    pub fn sync_mode(&self) -> Result<Sync> {
        match self.sync.as_str() {
            "segment" => Ok(Sync::Segment),
            "batch" => Ok(Sync::Batch),
            other => match other
                .strip_prefix("interval:")
                .and_then(|s| s.parse::<f64>().ok())
            {
                Some(s) if s.is_finite() && (0.001..=86_400.0).contains(&s) => {
                    Ok(Sync::Interval(Duration::from_secs_f64(s)))
                }
                _ => Err(self.bad(format!(
                    "sync is segment, batch or interval:SECONDS, got {other:?}"
                ))),
            },
        }
    }

    /// Size and number of the ring's blocks: a block holds the largest frame twice, so that a frame cut by the
    /// end of a block always fits into the next one whole.
    ///
    /// # Errors
    /// `Config` when the ring is too small for the layout.
    pub fn ring_blocks(&self, layout: &FrameLayout) -> Result<(usize, usize)> {
        let frame = self
            .layout
            .max_payload
            .saturating_add(layout.header_bytes() as u64);
        let block = (frame + (1 << 20)).next_multiple_of(1 << 16).max(1 << 20);
        let blocks = self.ring_bytes / block;
        if blocks < 4 {
            return Err(self.bad(format!(
                "ring_bytes = {} is too small: {} bytes hold four blocks of the largest frame",
                self.ring_bytes,
                block * 4
            )));
        }
        match (usize::try_from(block), usize::try_from(blocks)) {
            (Ok(block), Ok(blocks)) if block <= u32::MAX as usize => Ok((block, blocks)),
            _ => Err(self.bad("ring_bytes or max_payload is too large for this machine".into())),
        }
    }

    /// Which register wire it carries; None for frames.
    #[must_use]
    pub fn register_kind(&self) -> Option<Kind> {
        Kind::from_name(&self.wire)
    }

    pub(crate) fn bad(&self, why: String) -> Error {
        Error::config(format!("stream {}: {why}", self.name))
    }
}

impl RecorderConfig {
    /// Parse and check.
    ///
    /// # Errors
    /// `Config` that names what is wrong.
    pub fn from_json(text: &str) -> Result<Self> {
        let config: Self =
            serde_json::from_str(text).map_err(|e| Error::config(format!("configuration: {e}")))?;
        config.check()?;
        Ok(config)
    }

    /// Check what the recorder relies on.
    ///
    /// # Errors
    /// `Config` that names what is wrong.
    pub fn check(&self) -> Result<()> {
        if self.streams.is_empty() {
            return Err(Error::config("no streams: give at least one".into()));
        }
        for (i, s) in self.streams.iter().enumerate() {
            check_stream_name(&s.name)?;
            if self
                .streams
                .iter()
                .take(i)
                .any(|other| other.name.eq_ignore_ascii_case(&s.name))
            {
                return Err(Error::config(format!("stream {} is there twice", s.name)));
            }
            if s.wire != "frame" && s.register_kind().is_none() {
                return Err(s.bad(format!("wire is frame, packet or simple, got {:?}", s.wire)));
            }
            let layout = s.layout.layout()?;
            s.assemble_options()?;
            s.sync_mode()?;
            s.ring_blocks(&layout)?;
            match s.sources.as_slice() {
                [_] => {}
                [_, _] if s.register_kind().is_none() => {}
                _ if s.register_kind().is_some() => {
                    return Err(s.bad("a register stream has one source".into()));
                }
                _ => return Err(s.bad(format!("one source or two, got {}", s.sources.len()))),
            }
            for source in &s.sources {
                let missing = match source.kind {
                    SourceKind::Udp | SourceKind::Tcp | SourceKind::TcpConnect => {
                        source.address.is_none()
                    }
                    SourceKind::File | SourceKind::Shm => source.path.is_none(),
                    SourceKind::Stdin => false,
                };
                if source.kind == SourceKind::Shm && s.register_kind() != Some(Kind::Packet) {
                    return Err(s.bad(format!("{}: a ring carries data packets", source.url)));
                }
                if missing {
                    return Err(s.bad(format!("{}: the address or path is missing", source.url)));
                }
            }
            if s.rotate_bytes == 0 || s.max_open == 0 || s.reorder_window == 0 {
                return Err(
                    s.bad("rotate_bytes, max_open and reorder_window are at least 1".into())
                );
            }
        }
        Ok(())
    }
}

/// The allow-list of stream names (spec/recording.md; design/reliability.md N7).
///
/// # Errors
/// `Config` for any other name.
pub fn check_stream_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_uppercase();
    let reserved = matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || (stem.len() == 4
            && (stem.starts_with("COM") || stem.starts_with("LPT"))
            && stem.ends_with(|c: char| c.is_ascii_digit()))
        || name.eq_ignore_ascii_case("recording.json");
    if (1..=64).contains(&name.len())
        && name.chars().all(allowed)
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !reserved
    {
        Ok(())
    } else {
        Err(Error::config(format!(
            "stream name {name:?}: 1 to 64 of A-Z a-z 0-9 . _ - without a leading or trailing dot, and no reserved name"
        )))
    }
}

/// Seconds as nanoseconds, clamped to what a `u64` holds.
pub(crate) fn nanoseconds(seconds: f64) -> u64 {
    u64::try_from(
        Duration::try_from_secs_f64(seconds.max(0.0))
            .unwrap_or(Duration::MAX)
            .as_nanos(),
    )
    .unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(stream: &str) -> Result<RecorderConfig> {
        RecorderConfig::from_json(&format!(
            r#"{{"out": "x", "streams": [{{"name": "ch0", "sources": [{{"kind": "udp", "url": "udp://127.0.0.1:0", "address": "127.0.0.1:0"}}]{stream}}}]}}"#
        ))
    }

    #[test]
    fn defaults_are_those_of_the_specification() {
        let c = config("").unwrap();
        let s = &c.streams[0];
        assert_eq!(
            (s.ring_bytes, s.rotate_bytes, s.reorder_window, s.max_open),
            (64 << 20, 256 << 20, 65_536, 4)
        );
        assert_eq!(
            s.sync_mode().unwrap(),
            Sync::Interval(Duration::from_secs(1))
        );
        assert_eq!(s.layout.layout().unwrap().header_bytes(), 40);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            (r#", "assembly": "count:0""#, "assembly"),
            (r#", "sync": "sometimes""#, "sync"),
            (r#", "ring_bytes": 100"#, "ring_bytes"),
            (r#", "layout": {"magic": "zz"}"#, "magic"),
            (r#", "wire": "radar""#, "wire"),
            (r#", "rotat": 1"#, "rotat"),
        ] {
            let error = config(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn nasty_stream_names_are_refused() {
        let long = "x".repeat(65);
        for name in [
            "",
            ".",
            "..",
            ".a",
            "a.",
            "a/b",
            "a\0b",
            "../x",
            "CON",
            "nul.txt",
            "com1",
            "a b",
            "é",
            "recording.json",
            &long,
        ] {
            assert!(check_stream_name(name).is_err(), "{name:?}");
        }
        for name in ["ch0", "a.b-c_D", "9", "console"] {
            assert!(check_stream_name(name).is_ok(), "{name:?}");
        }
    }
}
