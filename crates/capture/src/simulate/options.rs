//! What to send, where to, and what to break.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;
use tapeline_sys::udp::MAX_PAYLOAD_BYTES;
use tapeline_wire::frame::FrameLayout;

/// Everything a radar simulation can be told; `python/tapeline/simulate` fills it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RadarOptions {
    /// Destinations; stream `i` goes to destination `i` modulo their number.
    pub to: Vec<Target>,
    /// Number of streams; stream `i` has the stream id `i`.
    pub streams: u16,
    /// Frames of each stream; `None`: until stopped or `duration_s` has passed.
    pub frames: Option<u64>,
    /// Stop after this time.
    pub duration_s: Option<f64>,
    /// Payload of every frame.
    pub payload_bytes: usize,
    /// Frames per second of each stream; 0: as fast as the destination takes them.
    pub rate_hz: f64,
    /// Frames of a periodic, marked in the flags; 0: no marks.
    pub periodic: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// Decides about payloads and faults.
    pub seed: u64,
    /// Number of the first frame.
    pub first_sequence: u64,
    /// Time of the first frame, the others following at `rate_hz` (or 1 MHz); `None`: by the clock.
    pub start_ns: Option<u64>,
    /// Most bytes of a datagram; at least one frame goes into each. `None`: one frame.
    pub datagram_bytes: Option<usize>,
    /// Let the kernel cut datagrams out of larger messages. Cheaper, but a receiver that joins them again (GRO)
    /// learns of drops by the run, not by the datagram.
    pub gso: bool,
    /// How long to try to connect.
    pub connect_timeout_s: f64,
}

/// One destination.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What it is.
    pub kind: TargetKind,
    /// As the user wrote it, for messages.
    pub url: String,
    /// Address of a network destination.
    pub address: Option<SocketAddr>,
    /// Path of a file; `-` is standard output.
    pub path: Option<PathBuf>,
}

/// Kinds of destinations.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TargetKind {
    /// Datagrams of whole frames.
    Udp,
    /// A connection to whoever listens.
    Tcp,
    /// A file, or standard output.
    File,
}

/// Probabilities of faults, each from 0 to 1. A frame has at most one of the first four.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// The frame is not sent.
    pub drop: f64,
    /// A bit of the frame is flipped.
    pub corrupt: f64,
    /// The frame is sent twice.
    pub duplicate: f64,
    /// The frame is sent up to eight frames late.
    pub reorder: f64,
    /// Bytes that are no frame are sent before it.
    pub garbage: f64,
}

impl Faults {
    fn all(&self) -> [(&'static str, f64); 5] {
        [
            ("drop", self.drop),
            ("corrupt", self.corrupt),
            ("duplicate", self.duplicate),
            ("reorder", self.reorder),
            ("garbage", self.garbage),
        ]
    }
}

impl RadarOptions {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// One line that names the option, its value and what is allowed.
    pub fn check(&self, layout: &FrameLayout) -> Result<(), String> {
        let streams = usize::from(self.streams);
        if self.to.is_empty() || streams < self.to.len() {
            return Err(format!(
                "streams is {streams}; it must be at least the number of destinations, {}",
                self.to.len()
            ));
        }
        if self.payload_bytes == 0 || self.payload_bytes as u64 > layout.max_payload() {
            return Err(format!(
                "payload_bytes is {}; allowed are 1 to {}",
                self.payload_bytes,
                layout.max_payload()
            ));
        }
        for (name, probability) in self.faults.all() {
            if !(0.0..=1.0).contains(&probability) {
                return Err(format!(
                    "{name} is {probability}; it is a probability, from 0 to 1"
                ));
            }
        }
        for (name, value) in [
            ("rate_hz", self.rate_hz),
            ("connect_timeout_s", self.connect_timeout_s),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("{name} is {value}; it must be 0 or more"));
            }
        }
        if self
            .duration_s
            .is_some_and(|seconds| !(seconds >= 0.0 && seconds.is_finite()))
        {
            return Err("duration_s must be 0 seconds or more".to_owned());
        }
        let udp = self.to.iter().any(|target| target.kind == TargetKind::Udp);
        let frame_bytes = layout.header_bytes() + self.payload_bytes;
        let limit = self.datagram_bytes.unwrap_or(MAX_PAYLOAD_BYTES);
        if udp && (frame_bytes > limit || limit > MAX_PAYLOAD_BYTES) {
            return Err(format!(
                "datagram_bytes is {limit}: a datagram must hold a frame ({frame_bytes} bytes) and not exceed {MAX_PAYLOAD_BYTES}"
            ));
        }
        Ok(())
    }
}
