//! Recovery of one unfinished segment on a disk in memory, for the fuzz target.

use crate::resume::recover_in;
use crate::simdisk::SimDisk;

const NAME: &str = "ch0_000000_20261121T030000.000000Z";

/// What recovery made of it.
#[derive(Debug)]
pub struct Found {
    /// The segment, if there is one.
    pub dat: Option<Vec<u8>>,
    /// What was cut off.
    pub tail: Option<Vec<u8>>,
    /// Frames that the manifest lists.
    pub frames: u64,
    /// Rows of the index.
    pub index_rows: Option<u64>,
    /// A second recovery found nothing to do.
    pub changed_nothing_again: bool,
}

/// Recover `bytes` as a `.dat.part` of the default layout.
///
/// # Panics
/// When recovery fails, or the manifest is not as it must be: a finding.
#[must_use]
pub fn recover_part(bytes: &[u8], assembly: &str) -> Found {
    let disk = SimDisk::new();
    disk.put("ch0", &format!("{NAME}.dat.part"), bytes);
    let listed = format!(
        r#"{{"format": 1, "tool": "", "host": "", "started": "", "stopped": null, "config": null, "streams": {{"ch0": {{
        "wire": "frame", "layout": {{}}, "assembly": "{assembly}", "sources": [], "segments": [], "ledger": null}}}}}}"#
    );
    disk.put("", "recording.json", listed.as_bytes());
    recover_in(&disk.root()).expect("recovery works on a disk that does");
    let files = disk.image().files();
    let changed_nothing_again = recover_in(&disk.root())
        .expect("recovery works on a disk that does")
        .is_clean()
        && disk.image().files() == files;
    let manifest: serde_json::Value =
        serde_json::from_slice(&files["recording.json"]).expect("the manifest is JSON");
    let file = |suffix: &str| files.get(&format!("ch0/{NAME}{suffix}")).cloned();
    let index_rows = file(".idx.bcsv").and_then(|_| {
        let dir = disk.root().subdir("ch0", false).ok()?;
        crate::index::rows(dir.open(&format!("{NAME}.idx.bcsv")).ok()?)
    });
    Found {
        dat: file(".dat"),
        tail: file(".dat.tail"),
        frames: manifest["streams"]["ch0"]["segments"][0]["frames"]
            .as_u64()
            .unwrap_or(0),
        index_rows,
        changed_nothing_again,
    }
}
