//! A battery: clients that send the registers of their racks, and the image that must come of it (requirement P5).
//!
//! Each client has a thread, a connection and a source of its own. Counts, offsets and values follow from the seed
//! alone, so the bytes of a client are the same at any speed and on any transport; the times are, too, if a
//! start is given. The image in the account is kept here, from what was listed, not with the recorder's code.

mod options;
mod rack;

use std::{
    io::{self, IoSlice},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use serde::Serialize;
use tapeline_sys::udp::Message;
use tapeline_wire::register::Kind;
use twox_hash::xxhash3_128::Hasher;

pub use options::BatteryOptions;
use rack::Rack;

use super::{
    options::{Target, TargetKind},
    pace::Pace,
    send::{Piece, Sink, pack},
    threads::{Shared, Threads},
};

/// Bytes of one send, roughly; as much as a socket buffer takes at once.
const BATCH_BYTES: usize = 256 << 10;
/// Packets of one send over UDP: parts of a whole gathering write.
const BATCH_DATAGRAMS: usize = 512;
const NS_PER_US: u64 = 1000;

/// A simulation that runs in threads of its own. Dropping it stops them.
#[derive(Debug)]
pub struct BatterySimulation {
    threads: Threads<Outcome>,
    options: BatteryOptions,
    kind: Kind,
}

/// The result: every client's account, sums, and the image.
#[derive(Clone, Debug, Serialize)]
pub struct BatterySummary {
    /// As given.
    pub seed: u64,
    /// `packet` or `simple`.
    pub wire: &'static str,
    /// From start to the last byte.
    pub elapsed_s: f64,
    /// By client.
    pub clients: Vec<ClientAccount>,
    /// Everything.
    pub total: BatteryTotal,
    /// XXH3-128 of the image after everything, as `tapeline registers image` gives it.
    pub image_digest: String,
    /// The image, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
}

/// Sums over the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatteryTotal {
    /// Packets sent.
    pub packets_sent: u64,
    /// Of these, FULL.
    pub full_packets: u64,
    /// Registers listed in them.
    pub registers_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
}

/// One client.
#[derive(Clone, Debug, Serialize)]
pub struct ClientAccount {
    /// Where it sent to.
    pub url: String,
    /// Type of its source, as a number.
    #[serde(rename = "type")]
    pub source_type: u8,
    /// Number of its source.
    pub src_id: i32,
    /// What it sent.
    #[serde(flatten)]
    pub total: BatteryTotal,
    /// Time of its first packet.
    pub first_timestamp_us: Option<u64>,
    /// Time of its last packet.
    pub last_timestamp_us: Option<u64>,
    /// Why it ended early; the account then says what was made, of which the last part was not sent.
    pub error: Option<String>,
}

/// An image in the form of `tapeline registers image --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Sorted by type and number.
    pub sources: Vec<ImageSource>,
}

/// The known registers of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImageSource {
    /// As a number.
    #[serde(rename = "type")]
    pub source_type: u8,
    /// SBMU, rack or controller.
    pub src_id: i32,
    /// Offset and value, by offset.
    pub registers: Vec<(u16, u16)>,
}

#[derive(Debug)]
struct Outcome {
    account: ClientAccount,
    rack: Rack,
}

impl BatterySimulation {
    /// Starts sending.
    ///
    /// # Errors
    /// One line for options that cannot be; what the system said when asked for a thread.
    pub fn start(options: &BatteryOptions) -> Result<Self, String> {
        let kind = options.check()?;
        let mut threads = Threads::new();
        let files: Vec<Arc<Outlet>> = options.to.iter().map(|_| Arc::default()).collect();
        for (client, (target, file)) in
            (0..options.clients).zip(options.to.iter().zip(&files).cycle())
        {
            let worker = Client {
                options: options.clone(),
                target: target.clone(),
                outlet: match target.kind {
                    TargetKind::File => Arc::clone(file),
                    TargetKind::Tcp | TargetKind::Udp => Arc::default(),
                },
                rack: Rack::new(options, kind, client),
                total: BatteryTotal::default(),
                times: None,
            };
            threads
                .spawn(format!("battery-{client}"), move |shared| {
                    worker.run(shared)
                })
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(Self {
            threads,
            options: options.clone(),
            kind,
        })
    }

    /// Waits until everything is sent, at most `timeout`. True when it is.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        self.threads.wait(timeout)
    }

    /// Asks the threads to end after what they are sending now.
    pub fn stop(&self) {
        self.threads.stop();
    }

    /// URLs of named pipes for which it has begun to wait for a reader, each told once.
    pub fn take_unread(&self) -> Vec<String> {
        self.threads.take_unread()
    }

    /// Bytes given to the system so far.
    pub fn bytes_sent(&self) -> u64 {
        self.threads.sent_bytes()
    }

    /// Waits for the end and gives the account.
    pub fn finish(self) -> BatterySummary {
        let (mut outcomes, elapsed) = self.threads.join();
        let mut total = BatteryTotal::default();
        outcomes
            .iter()
            .for_each(|outcome: &Outcome| total.add(&outcome.account.total));
        let clients = outcomes
            .iter()
            .map(|outcome| outcome.account.clone())
            .collect();
        outcomes.sort_by_key(|outcome| outcome.rack.source);
        let mut hash = Hasher::new();
        for outcome in &outcomes {
            outcome.rack.digest(&mut hash);
        }
        BatterySummary {
            seed: self.options.seed,
            wire: self.kind.name(),
            elapsed_s: elapsed.as_secs_f64(),
            clients,
            total,
            image_digest: format!("{:032x}", hash.finish_128()),
            image: self.options.image.then(|| Image {
                sources: outcomes.iter().filter_map(image_of).collect(),
            }),
        }
    }
}

fn image_of(outcome: &Outcome) -> Option<ImageSource> {
    let registers: Vec<(u16, u16)> = outcome.rack.known().collect();
    (!registers.is_empty()).then_some(ImageSource {
        source_type: outcome.rack.source.kind as u8,
        src_id: outcome.rack.source.id,
        registers,
    })
}

impl BatteryTotal {
    fn add(&mut self, other: &Self) {
        self.packets_sent += other.packets_sent;
        self.full_packets += other.full_packets;
        self.registers_sent += other.registers_sent;
        self.bytes_sent += other.bytes_sent;
        self.datagrams_sent += other.datagrams_sent;
    }
}

/// Where a client sends to: a connection of its own, or a file that all clients of its URL write to in turn, whole
/// packets each.
#[derive(Default)]
struct Outlet(Mutex<Option<io::Result<Sink>>>);

impl Outlet {
    /// Opens it, if nobody has, and lends it; after an error it is closed, because a packet may have been cut.
    fn with<T>(
        &self,
        open: impl FnOnce() -> io::Result<Sink>,
        send: impl FnOnce(&mut Sink) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match place.get_or_insert_with(open) {
            Ok(sink) => send(sink),
            // An error cannot be copied; the system's number can.
            Err(error) => Err(error.raw_os_error().map_or_else(
                || io::Error::new(error.kind(), error.to_string()),
                io::Error::from_raw_os_error,
            )),
        };
        if let Err(error) = &result
            && matches!(*place, Some(Ok(_)))
        {
            *place = Some(Err(io::Error::new(error.kind(), error.to_string())));
        }
        result
    }
}

/// What a client says that was never opened; no client sends before it is.
fn closed() -> io::Result<Sink> {
    Err(io::ErrorKind::NotConnected.into())
}

/// What one thread owns.
struct Client {
    options: BatteryOptions,
    target: Target,
    outlet: Arc<Outlet>,
    rack: Rack,
    total: BatteryTotal,
    /// First and last, in us.
    times: Option<(u64, u64)>,
}

impl Client {
    fn run(mut self, shared: &Shared) -> Outcome {
        let patience =
            Duration::try_from_secs_f64(self.options.connect_timeout_s).unwrap_or(Duration::MAX);
        let opened = self
            .outlet
            .with(|| Sink::open(&self.target, patience, shared), |_| Ok(()));
        let error = opened.and_then(|()| self.send_all(shared)).err();
        let account = ClientAccount {
            url: self.target.url,
            source_type: self.rack.source.kind as u8,
            src_id: self.rack.source.id,
            total: BatteryTotal {
                packets_sent: self.rack.packets(),
                full_packets: self.rack.full_packets,
                registers_sent: self.rack.registers_sent,
                ..self.total
            },
            first_timestamp_us: self.times.map(|times| times.0),
            last_timestamp_us: self.times.map(|times| times.1),
            error: error.map(|error| error.to_string()),
        };
        Outcome {
            account,
            rack: self.rack,
        }
    }

    fn send_all(&mut self, shared: &Shared) -> io::Result<()> {
        let rate_hz = if self.options.delay_s > 0.0 {
            1.0 / self.options.delay_s
        } else {
            0.0
        };
        let start_ns = self
            .options
            .start_us
            .map(|start| start.saturating_mul(NS_PER_US));
        let pace = Pace::new(rate_hz, start_ns);
        let duration = self
            .options
            .duration_s
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let datagrams = self.target.kind == TargetKind::Udp;
        let (mut batch, mut ends, mut messages) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let done = self.rack.packets();
            let left = self.options.packets.map_or(u64::MAX, |all| all - done);
            if left == 0 || shared.stopped() || duration.is_some_and(|all| pace.elapsed() >= all) {
                return Ok(());
            }
            let due = pace.due(done, left);
            if due == 0 {
                continue;
            }
            batch.clear();
            ends.clear();
            let time = pace.times(done);
            for number in done..done.saturating_add(due) {
                if batch.len() >= BATCH_BYTES || (datagrams && ends.len() >= BATCH_DATAGRAMS) {
                    break;
                }
                let time_ns = time(number);
                self.rack.step(time_ns, &mut batch);
                ends.push(batch.len());
                let time_us = time_ns / NS_PER_US;
                self.times = Some((self.times.map_or(time_us, |times| times.0), time_us));
            }
            self.total.datagrams_sent += self.outlet.with(closed, |sink| match sink {
                Sink::Stream(writer) => {
                    Sink::write_all(&mut **writer, &mut [IoSlice::new(&batch)], &shared.stop)?;
                    Ok(0)
                }
                Sink::Datagrams(sender) => {
                    let packets = slices(&batch, &ends);
                    let pieces = packets.iter().map(|packet| Piece {
                        parts: 1,
                        bytes: packet.len(),
                        alone: false,
                    });
                    let limit = self.options.datagram_bytes;
                    let datagrams = pack(pieces, limit, false, &mut messages);
                    let messages: &Vec<Message> = &messages;
                    sender.send_messages(&packets, messages)?;
                    Ok(datagrams)
                }
            })?;
            self.total.bytes_sent += batch.len() as u64;
            shared
                .sent_bytes
                .fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}

/// The packets of a batch, by where each ends.
fn slices<'a>(batch: &'a [u8], ends: &[usize]) -> Vec<IoSlice<'a>> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts
        .zip(ends)
        .map(|(start, &end)| IoSlice::new(batch.get(start..end).unwrap_or_default()))
        .collect()
}

#[cfg(test)]
mod tests;
