//! What may be kept: which finished segment goes next (spec/recording.md, retention).
//!
//! Limits are set for the whole recording, for one stream, or both; each counts all segments of its own scope. Nothing
//! is removed here: the keeper asks until no limit is exceeded.

use crate::config::{OnLowDisk, RecorderConfig, StreamConfig};
use crate::manifest::{Manifest, SegmentEntry, StreamEntry};

/// Limits, and the segments they are for.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The stream; None for the whole recording.
    pub(crate) stream: Option<String>,
    pub(crate) keep_bytes: Option<u64>,
    pub(crate) keep_seconds: Option<f64>,
    pub(crate) keep_segments: Option<u64>,
    /// None: for the recording the default floor, for a stream none of its own.
    pub(crate) min_free_bytes: Option<u64>,
    pub(crate) on_low_disk: OnLowDisk,
}

/// The scopes of a configuration: streams first, so that what a stream removes for itself counts for the recording.
pub(crate) fn scopes(config: &RecorderConfig) -> Vec<Scope> {
    let of_stream = |s: &StreamConfig| Scope {
        stream: Some(s.name.clone()),
        keep_bytes: s.keep_bytes,
        keep_seconds: s.keep_seconds,
        keep_segments: s.keep_segments,
        min_free_bytes: s.min_free_bytes,
        on_low_disk: s.on_low_disk.unwrap_or(config.on_low_disk),
    };
    let whole = Scope {
        stream: None,
        keep_bytes: config.keep_bytes,
        keep_seconds: config.keep_seconds,
        keep_segments: config.keep_segments,
        min_free_bytes: config.min_free_bytes,
        on_low_disk: config.on_low_disk,
    };
    config
        .streams
        .iter()
        .map(of_stream)
        .chain([whole])
        .collect()
}

impl Scope {
    /// Whether it limits what is kept, apart from free space.
    pub(crate) fn has_limits(&self) -> bool {
        self.keep_bytes.is_some() || self.keep_seconds.is_some() || self.keep_segments.is_some()
    }

    /// The output whose oldest segment exceeds a limit, and which limit.
    ///
    /// A segment that is not `free` stays and counts; others go in its stead. `old` tells whether the first segment of
    /// an output is older than so many seconds, given the one after it.
    pub(crate) fn surplus(
        &self,
        manifest: &Manifest,
        free: impl Fn(&str, &SegmentEntry) -> bool,
        old: impl Fn(&str, &SegmentEntry, Option<&SegmentEntry>, f64) -> bool,
    ) -> Option<(String, &'static str)> {
        if let Some(keep) = self.keep_segments {
            let count: usize = self.outputs(manifest).map(|(_, s)| s.segments.len()).sum();
            if count as u64 > keep {
                let oldest = self.oldest(manifest, &free);
                if let Some(output) = oldest {
                    return Some((output, "keep_segments"));
                }
            }
        }
        if let Some(keep) = self.keep_bytes {
            let segments = self.outputs(manifest).flat_map(|(_, s)| &s.segments);
            if segments.map(|s| s.bytes).fold(0, u64::saturating_add) > keep {
                let oldest = self.oldest(manifest, &free);
                if let Some(output) = oldest {
                    return Some((output, "keep_bytes"));
                }
            }
        }
        let keep = self.keep_seconds?;
        let expired = self.outputs(manifest).find(|(output, s)| {
            s.segments.first().is_some_and(|oldest| {
                free(output, oldest) && old(output, oldest, s.segments.get(1), keep)
            })
        });
        expired.map(|(output, _)| (output.to_owned(), "keep_seconds"))
    }

    /// The output with the oldest finished segment that is `free`.
    pub(crate) fn oldest(
        &self,
        manifest: &Manifest,
        free: impl Fn(&str, &SegmentEntry) -> bool,
    ) -> Option<String> {
        self.outputs(manifest)
            .filter_map(|(output, s)| Some((output, s.segments.first()?)))
            .filter(|(output, oldest)| free(output, oldest))
            .min_by_key(|(output, oldest)| (start_of(&oldest.name), *output))
            .map(|(output, _)| output.to_owned())
    }

    /// Its outputs: with `split_by_stream_id` a stream has several.
    fn outputs<'a>(
        &'a self,
        manifest: &'a Manifest,
    ) -> impl Iterator<Item = (&'a str, &'a StreamEntry)> {
        let of =
            |output: &'a str, entry: &'a StreamEntry| entry.directory.as_deref().unwrap_or(output);
        manifest
            .streams
            .iter()
            .map(|(output, entry)| (output.as_str(), entry))
            .filter(move |(output, entry)| {
                self.stream
                    .as_deref()
                    .is_none_or(|name| of(output, entry) == name)
            })
    }
}

/// The time in the name of a segment, and what follows it.
pub(crate) fn start_of(name: &str) -> &str {
    name.rsplit('_').next().unwrap_or_default()
}
