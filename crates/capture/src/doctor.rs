//! What this machine allows: measured, not guessed. `tapeline doctor` prints it.

use std::{
    fs::File,
    hint::black_box,
    io::{self, Seek, SeekFrom, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use tapeline_sys::{
    fs,
    udp::{UdpOptions, UdpReceiver, UdpSender},
};

/// How long each speed is measured: long enough to leave a slow clock, short enough to wait for.
const MEASURE: Duration = Duration::from_millis(100);
/// Bytes a speed is measured on: a packet of a BCSV file, and within a processor's cache.
const SAMPLE_BYTES: usize = 1 << 20;
/// Bytes of one write, as the recorder's.
const WRITE_BYTES: usize = 1 << 20;
/// Syncs of which the median is given.
const SYNCS: usize = 9;

/// Socket buffers and offloads.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sockets {
    /// The receive buffer asked for.
    pub udp_receive_buffer_asked_bytes: usize,
    /// And granted.
    pub udp_receive_buffer_granted_bytes: usize,
    /// Does the kernel join datagrams?
    pub udp_gro: bool,
    /// Does the kernel cut datagrams?
    pub udp_gso: bool,
}

/// Opens sockets on the loopback interface and asks what they get.
///
/// # Errors
/// What the system says.
pub fn sockets(buffer_bytes: usize) -> io::Result<Sockets> {
    let options = UdpOptions {
        receive_buffer_bytes: buffer_bytes,
        ..UdpOptions::default()
    };
    let receiver = UdpReceiver::bind((Ipv4Addr::LOCALHOST, 0).into(), &options)?;
    let sender = UdpSender::connect(receiver.local_addr()?, 0)?;
    Ok(Sockets {
        udp_receive_buffer_asked_bytes: buffer_bytes,
        udp_receive_buffer_granted_bytes: receiver.receive_buffer_bytes(),
        udp_gro: receiver.gro(),
        udp_gso: sender.gso(),
    })
}

/// Speeds on one core, in bytes of plain data per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Speeds {
    /// Checksum of frames.
    pub crc32c_bytes_per_s: f64,
    /// Digest of segments.
    pub xxh3_128_bytes_per_s: f64,
    /// Checksum of BCSV packets.
    pub xxh64_bytes_per_s: f64,
    /// Fast compression of telemetry-like data.
    pub lz4_compress_bytes_per_s: f64,
    /// And back.
    pub lz4_decompress_bytes_per_s: f64,
    /// Plain size divided by compressed size of that data.
    pub lz4_ratio: f64,
}

/// Measures checksums and compression.
#[allow(clippy::cast_precision_loss)] // sizes of a megabyte
pub fn speeds() -> Speeds {
    let sample = sample();
    let mut compressor = tapeline_lz4::Compressor::new();
    let mut block = Vec::with_capacity(tapeline_lz4::bound(sample.len()));
    let fast = tapeline_lz4::Effort::Fast { acceleration: 1 };
    compressor.compress(&sample, fast, &mut block);
    let lz4_ratio = sample.len() as f64 / block.len().max(1) as f64;
    let compressed = block.clone();
    let mut plain = Vec::with_capacity(sample.len());
    Speeds {
        crc32c_bytes_per_s: rate(&sample, |bytes| {
            black_box(tapeline_crc::crc32c(bytes));
        }),
        xxh3_128_bytes_per_s: rate(&sample, |bytes| {
            black_box(twox_hash::xxhash3_128::Hasher::oneshot(bytes));
        }),
        xxh64_bytes_per_s: rate(&sample, |bytes| {
            black_box(tapeline_bcsv::xxh64(bytes));
        }),
        lz4_compress_bytes_per_s: rate(&sample, |bytes| {
            block.clear();
            black_box(compressor.compress(bytes, fast, &mut block));
        }),
        lz4_decompress_bytes_per_s: rate(&sample, |bytes| {
            plain.clear();
            let _ = black_box(tapeline_lz4::decompress(
                &compressed,
                bytes.len(),
                &mut plain,
            ));
        }),
        lz4_ratio,
    }
}

/// Bytes per second of `work` on `sample`.
#[allow(clippy::cast_precision_loss)] // megabytes in a tenth of a second
fn rate(sample: &[u8], mut work: impl FnMut(&[u8])) -> f64 {
    work(black_box(sample));
    let start = Instant::now();
    let mut bytes = 0;
    loop {
        work(black_box(sample));
        bytes += sample.len();
        let elapsed = start.elapsed();
        if elapsed >= MEASURE {
            return bytes as f64 / elapsed.as_secs_f64();
        }
    }
}

/// Slowly varying 16-bit values with two noisy low bits, as a sampled sensor gives.
fn sample() -> Vec<u8> {
    let mut noise = 1_u32;
    let mut level = 0x2000_u16;
    let mut bytes = Vec::with_capacity(SAMPLE_BYTES);
    while bytes.len() < SAMPLE_BYTES {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [.., low, high] = noise.to_le_bytes();
        level = level.wrapping_add(u16::from(low > 250));
        bytes.extend_from_slice(&(level ^ u16::from(high & 3)).to_le_bytes());
    }
    bytes
}

/// A directory as a place to record to.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Disk {
    /// Free for this user.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
    /// Bytes written to measure.
    pub written_bytes: u64,
    /// Speed of writing, as far as the kernel's memory takes it.
    pub write_bytes_per_s: f64,
    /// Speed until all of it was durable.
    pub durable_bytes_per_s: f64,
    /// Median time to make 4 KiB more durable.
    pub sync_s: f64,
    /// Can space be reserved for a file?
    pub preallocates: bool,
}

/// Writes a file of `bytes` bytes (less where it would fill the disk) into `directory`, times it and removes it.
///
/// # Errors
/// What the system says, such as a directory that cannot be written.
#[allow(clippy::cast_precision_loss)] // bytes per second of at most petabytes
pub fn disk(directory: &Path, bytes: u64) -> io::Result<Disk> {
    let (free_bytes, total_bytes) = fs::free_bytes(directory)?;
    let chunk = sample();
    let chunks = (bytes.min(free_bytes / 4) / WRITE_BYTES as u64).max(1);
    let mut file = Scratch::create(directory)?;
    let preallocates = fs::preallocate(&file.file, chunks * WRITE_BYTES as u64).is_ok();
    let start = Instant::now();
    for _ in 0..chunks {
        file.file
            .write_all(chunk.get(..WRITE_BYTES).unwrap_or(&chunk))?;
    }
    let written = start.elapsed();
    fs::fdatasync(&file.file)?;
    let durable = start.elapsed();
    let mut syncs = Vec::with_capacity(SYNCS);
    for place in 0..SYNCS as u64 {
        file.file
            .seek(SeekFrom::Start(place * WRITE_BYTES as u64))?;
        file.file.write_all(chunk.get(..4096).unwrap_or(&chunk))?;
        let start = Instant::now();
        fs::fdatasync(&file.file)?;
        syncs.push(start.elapsed());
    }
    syncs.sort();
    let written_bytes = chunks * WRITE_BYTES as u64;
    let rate = |time: Duration| written_bytes as f64 / time.as_secs_f64().max(1e-9);
    Ok(Disk {
        free_bytes,
        total_bytes,
        written_bytes,
        write_bytes_per_s: rate(written),
        durable_bytes_per_s: rate(durable),
        sync_s: syncs.get(SYNCS / 2).map_or(0.0, Duration::as_secs_f64),
        preallocates,
    })
}

/// A file that is removed whatever happens.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(directory: &Path) -> io::Result<Self> {
        let path = directory.join(format!(".tapeline-doctor-{}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn everything_is_measured_and_nothing_is_left() {
        let directory =
            std::env::temp_dir().join(format!("tapeline-doctor-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let found = disk(&directory, 3 << 20).unwrap();
        assert_eq!(found.written_bytes, 3 << 20);
        assert!(
            found.write_bytes_per_s >= found.durable_bytes_per_s && found.durable_bytes_per_s > 0.0
        );
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        std::fs::remove_dir(&directory).unwrap();
        assert_eq!(
            disk(&directory, 1).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );

        let speeds = speeds();
        assert!(speeds.crc32c_bytes_per_s > 0.0 && speeds.lz4_decompress_bytes_per_s > 0.0);
        assert!(speeds.lz4_ratio > 1.0, "the sample can be compressed");
        assert_eq!(
            sockets(1 << 20).unwrap().udp_receive_buffer_asked_bytes,
            1 << 20
        );
    }
}
