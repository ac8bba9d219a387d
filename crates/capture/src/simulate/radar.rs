//! Threads of the simulation: one for each destination.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde::Serialize;
use tapeline_sys::udp::Message;
use tapeline_wire::frame::FrameLayout;

use super::{
    account::Account,
    batch::Batch,
    options::{RadarOptions, Target},
    pace::Pace,
    pool::Pool,
    send::{Piece, Sink, pack},
    stream::Generator,
    threads::{Shared, Threads},
};

/// Frames of one send at most, with two parts each: a whole gathering write.
const BATCH_FRAMES: usize = 512;
/// Bytes of one send at most; more than a socket buffer takes at once gains nothing.
const BATCH_BYTES: usize = 1 << 20;

/// A simulation that runs in threads of its own. Dropping it stops them.
#[derive(Debug)]
pub struct RadarSimulation {
    threads: Threads<Outcome>,
    seed: u64,
}

/// The result: every stream's account, and sums.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// As given.
    pub seed: u64,
    /// From start to the last byte.
    pub elapsed_s: f64,
    /// By stream, in order of stream id.
    pub streams: Vec<StreamAccount>,
    /// By destination, in the order given: what one receiver there sees.
    pub destinations: Vec<DestinationAccount>,
    /// Everything.
    pub total: Account,
}

/// One stream.
#[derive(Clone, Debug, Serialize)]
pub struct StreamAccount {
    /// `ch0`, `ch1`, ...
    pub name: String,
    /// In the frames.
    pub stream_id: u16,
    /// Where it went.
    pub url: String,
    /// What happened.
    #[serde(flatten)]
    pub account: Account,
}

/// One destination.
#[derive(Clone, Debug, Serialize)]
pub struct DestinationAccount {
    /// As given.
    pub url: String,
    /// Datagrams sent; 0 over TCP and to files.
    pub datagrams_sent: u64,
    /// Times the other machine said that nobody listens (UDP).
    pub datagrams_refused: u64,
    /// Time it was busy sending.
    pub elapsed_s: f64,
    /// Why it ended early; the account then says what was made, of which the last part was not sent.
    pub error: Option<String>,
    /// Sum over its streams.
    #[serde(flatten)]
    pub account: Account,
}

#[derive(Debug)]
struct Outcome {
    streams: Vec<StreamAccount>,
    destination: DestinationAccount,
}

impl RadarSimulation {
    /// Starts sending.
    ///
    /// # Errors
    /// One line for options that cannot be; what the system said when asked for a thread.
    pub fn start(options: &RadarOptions) -> Result<Self, String> {
        let layout = FrameLayout::default();
        options.check(&layout)?;
        let pool = Arc::new(Pool::new(
            options.payload_bytes,
            *layout.magic(),
            options.seed,
        ));
        let mut threads = Threads::new();
        for (index, target) in options.to.iter().enumerate() {
            let generators: Vec<Generator> = (0..options.streams)
                .filter(|id| usize::from(*id) % options.to.len() == index)
                .map(|id| Generator::new(options, layout, id))
                .collect();
            let worker = Worker {
                options: options.clone(),
                target: target.clone(),
                pool: Arc::clone(&pool),
                generators,
                datagrams_sent: 0,
                datagrams_refused: 0,
            };
            threads
                .spawn(format!("radar-{index}"), move |shared| worker.run(shared))
                .map_err(|error| format!("cannot start a thread: {error}"))?;
        }
        Ok(Self {
            threads,
            seed: options.seed,
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
    pub fn finish(self) -> Summary {
        let (outcomes, elapsed) = self.threads.join();
        let (mut streams, mut destinations) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            streams.extend(outcome.streams);
            destinations.push(outcome.destination);
        }
        streams.sort_by_key(|stream: &StreamAccount| stream.stream_id);
        let mut total = Account::default();
        destinations
            .iter()
            .for_each(|destination: &DestinationAccount| total.add(&destination.account));
        Summary {
            seed: self.seed,
            elapsed_s: elapsed.as_secs_f64(),
            streams,
            destinations,
            total,
        }
    }
}

/// What one thread owns.
struct Worker {
    options: RadarOptions,
    target: Target,
    pool: Arc<Pool>,
    generators: Vec<Generator>,
    datagrams_sent: u64,
    datagrams_refused: u64,
}

impl Worker {
    fn run(mut self, shared: &Shared) -> Outcome {
        let patience =
            Duration::try_from_secs_f64(self.options.connect_timeout_s).unwrap_or(Duration::MAX);
        let mut elapsed = Duration::ZERO;
        let error = Sink::open(&self.target, patience, shared)
            .and_then(|mut sink| {
                let pace = Pace::new(self.options.rate_hz, self.options.start_ns);
                let sent = self.send_all(&mut sink, &pace, shared);
                elapsed = pace.elapsed();
                sent
            })
            .err();
        let mut account = Account::default();
        let streams: Vec<StreamAccount> = self
            .generators
            .iter()
            .map(|generator| {
                account.add(generator.account());
                StreamAccount {
                    name: format!("ch{}", generator.stream_id()),
                    stream_id: generator.stream_id(),
                    url: self.target.url.clone(),
                    account: *generator.account(),
                }
            })
            .collect();
        let destination = DestinationAccount {
            url: self.target.url,
            datagrams_sent: self.datagrams_sent,
            datagrams_refused: self.datagrams_refused,
            elapsed_s: elapsed.as_secs_f64(),
            error: error.map(|error| error.to_string()),
            account,
        };
        Outcome {
            streams,
            destination,
        }
    }

    fn send_all(&mut self, sink: &mut Sink, pace: &Pace, shared: &Shared) -> io::Result<()> {
        let duration = self
            .options
            .duration_s
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let frame_bytes = FrameLayout::default().header_bytes() + self.pool.payload_bytes();
        let frames = BATCH_FRAMES.min(BATCH_BYTES / frame_bytes);
        // A round is one frame of every stream.
        let most = (frames / self.generators.len().max(1)).max(1) as u64;
        let mut batch = Batch::default();
        let mut messages = Vec::new();
        let mut done = 0;
        loop {
            let left = self.options.frames.map_or(u64::MAX, |frames| frames - done);
            let over = duration.is_some_and(|duration| pace.elapsed() >= duration);
            if left == 0 || over || shared.stopped() {
                break;
            }
            let rounds = pace.due(done, most.min(left));
            if rounds == 0 {
                continue;
            }
            batch.clear();
            let time = pace.times(done);
            for number in done..done + rounds {
                for generator in &mut self.generators {
                    generator.step(time(number), &self.pool, &mut batch);
                }
            }
            done += rounds;
            self.send(sink, &batch, &mut messages, shared)?;
        }
        batch.clear();
        for generator in &mut self.generators {
            generator.finish(&self.pool, &mut batch);
        }
        self.send(sink, &batch, &mut messages, shared)?;
        if let Sink::Stream(writer) = sink {
            writer.flush()?;
        }
        Ok(())
    }

    fn send(
        &mut self,
        sink: &mut Sink,
        batch: &Batch,
        messages: &mut Vec<Message>,
        shared: &Shared,
    ) -> io::Result<()> {
        let mut slices = batch.slices(&self.pool);
        match sink {
            Sink::Stream(writer) => Sink::write_all(&mut **writer, &mut slices, &shared.stop)?,
            Sink::Datagrams(sender) => {
                let pieces = batch.units().iter().map(|unit| Piece {
                    parts: unit.parts,
                    bytes: unit.bytes,
                    alone: unit.alone,
                });
                let gso = self.options.gso && sender.gso();
                let datagrams = pack(pieces, self.options.datagram_bytes, gso, messages);
                sender.send_messages(&slices, messages)?;
                self.datagrams_sent += datagrams;
                self.datagrams_refused = sender.refused();
            }
        }
        let bytes: usize = batch.units().iter().map(|unit| unit.bytes).sum();
        shared.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}
