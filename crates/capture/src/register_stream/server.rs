//! `tcp://`: one event loop for all clients.
//!
//! A ready client is read once a round, straight into the block of the log behind what others sent, so that nobody
//! waits for anybody. The unfinished packet at the end goes to the client's own small buffer; a large one is
//! completed there and copied once. Answers are sent at once as far as the socket takes them; a client that has
//! answers waiting is not read from, and one that does not read them for a while is closed.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tapeline_sys::poll::{Event, Interest, Poller, raise_open_files};
use tapeline_sys::tcp::set_backlog;
use tapeline_wire::register::{Command, FramingLost, PacketFields, Source, encode_packet};

use super::client::{Client, Closed, SMALL, read_some};
use super::intake::{Answers, Intake, LEAST_READ, READ};
use crate::error::Error;
use crate::receive::{WriterGone, now_ns};
use crate::source::{DRAIN_BYTES, Ended, Stop};

/// How long the loop waits before it looks at the rest of the world.
const WAIT: Duration = Duration::from_millis(10);
/// How often clients are looked at for silence.
const LOOK: Duration = Duration::from_millis(250);
/// Connections accepted in one round.
const ACCEPTS: usize = 64;
/// Connections that may wait to be accepted: a burst of them must not make a good one try again a second later.
const BACKLOG: i32 = 4096;
const LISTENER: u64 = u64::MAX;
/// What a round is to take at most, so that nobody waits for long for an answer.
const ROUND: Duration = Duration::from_millis(1);
/// Lost framings that are told one by one.
const NOTED: u32 = 32;

/// What bounds a server.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(super) max_clients: usize,
    /// Of answers waiting for one client.
    pub(super) max_buffer_bytes: usize,
    pub(super) idle: Option<Duration>,
}

/// A SYNC that waits for the disk.
struct PendingSync {
    client: u64,
    source: Source,
    seq: u8,
    place: u64,
}

/// A bound listener.
pub(crate) struct Server {
    listener: TcpListener,
    limits: Limits,
}

impl Server {
    pub(super) fn bind(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        set_backlog(&listener, BACKLOG)?;
        raise_open_files();
        Ok(Self { listener, limits })
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    pub(super) fn run(self, intake: Intake, stop: &Stop) -> Ended {
        let poller =
            Poller::new().map_err(|e| Error::io_bare("preparing to wait for clients", e))?;
        let mut event_loop = EventLoop {
            listener: self.listener,
            limits: self.limits,
            poller,
            clients: HashMap::new(),
            next: 0,
            intake,
            pending_bytes: 0,
            syncs: Vec::new(),
            noted: 0,
            accept_after: None,
            round_bytes: READ,
        };
        let result = event_loop.run(stop);
        // Of those who are still here the log took no more: what was begun counts as discarded.
        event_loop.close_all();
        event_loop.intake.finish();
        match result {
            Ok(()) | Err(Stopped::WriterGone) => Ok(()),
            Err(Stopped::Io(e)) => Err(Error::io_bare("waiting for clients", e)),
        }
    }
}

enum Stopped {
    WriterGone,
    Io(io::Error),
}

impl From<WriterGone> for Stopped {
    fn from(_: WriterGone) -> Self {
        Self::WriterGone
    }
}

struct EventLoop {
    listener: TcpListener,
    limits: Limits,
    poller: Poller,
    clients: HashMap<u64, Client>,
    next: u64,
    intake: Intake,
    pending_bytes: u64,
    syncs: Vec<PendingSync>,
    /// Lost framings told of.
    noted: u32,
    /// No accepting before: there were no more file descriptors.
    accept_after: Option<Instant>,
    /// Bytes that all clients together may bring in a round.
    round_bytes: usize,
}

impl EventLoop {
    fn run(&mut self, stop: &Stop) -> Result<(), Stopped> {
        self.poller
            .add(&self.listener, LISTENER, Interest::READ)
            .map_err(Stopped::Io)?;
        let mut events: Vec<Event> = Vec::new();
        let mut next_look = Instant::now() + LOOK;
        let mut next_tick = Instant::now() + WAIT;
        while !stop.requested() {
            let wait = if self.syncs.is_empty() {
                WAIT
            } else {
                Duration::from_millis(1)
            };
            self.poller.wait(&mut events, wait).map_err(Stopped::Io)?;
            self.round(&events)?;
            self.answer_syncs();
            let now = Instant::now();
            if now >= next_tick || events.is_empty() {
                next_tick = now + WAIT;
                self.tick()?;
            }
            if now >= next_look {
                next_look = now + LOOK;
                self.look(now);
            }
        }
        self.drain()
    }

    fn round(&mut self, events: &[Event]) -> Result<(), Stopped> {
        let most = match events.len() {
            0 | 1 => READ,
            several => (self.round_bytes / several).clamp(LEAST_READ, READ),
        };
        let (began, before) = (Instant::now(), self.intake.counters.bytes_received);
        for event in events {
            if event.token == LISTENER {
                self.accept();
                continue;
            }
            if event.writable {
                self.send(event.token);
            }
            if event.readable {
                self.read(event.token, most)?;
            }
        }
        let brought = self.intake.counters.bytes_received - before;
        if brought >= self.round_bytes as u64 / 2 {
            self.pace(began.elapsed());
        }
        Ok(())
    }

    /// A full round took so long: the next ones may bring more, or less.
    fn pace(&mut self, took: Duration) {
        let bytes = if took > ROUND {
            self.round_bytes / 4 * 3
        } else {
            self.round_bytes / 4 * 5
        };
        self.round_bytes = bytes.clamp(LEAST_READ, 4 * READ);
    }

    fn tick(&mut self) -> Result<(), Stopped> {
        self.intake.counters.pending_bytes = self.pending_bytes;
        self.intake.counters.clients = self.clients.len() as u64;
        if self.accept_after.is_some_and(|at| Instant::now() >= at) {
            self.accept_after = None;
            let _ = self.poller.add(&self.listener, LISTENER, Interest::READ);
        }
        Ok(self.intake.tick()?)
    }

    /// What had been sent before the stop is still read; new connections only as far as they wait already.
    fn drain(&mut self) -> Result<(), Stopped> {
        let mut rounds = 0;
        while self.accept_after.is_none() && rounds < BACKLOG && self.accept() {
            rounds += 1;
        }
        let _ = self.poller.remove(&self.listener, LISTENER);
        let before = self.intake.counters.bytes_received;
        let mut events = Vec::new();
        // A moment for what is on its way through the loopback: a client that has closed is read to its end.
        let mut quiet = 0;
        while quiet < 2 && self.intake.counters.bytes_received - before < DRAIN_BYTES {
            let seen = self.intake.counters.bytes_received;
            self.poller
                .wait(&mut events, Duration::from_millis(1))
                .map_err(Stopped::Io)?;
            self.round(&events)?;
            quiet = if self.intake.counters.bytes_received == seen {
                quiet + 1
            } else {
                0
            };
        }
        self.tick()?;
        // Those who asked for durability before the stop get their answer, if the disk gives it soon.
        let patience = Instant::now() + Duration::from_secs(5);
        while !self.syncs.is_empty() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(1));
            self.answer_syncs();
            self.intake.tick()?;
        }
        self.close_all();
        self.tick()
    }

    fn close_all(&mut self) {
        let all: Vec<u64> = self.clients.keys().copied().collect();
        for token in all {
            self.close(token, Closed::Stopped);
        }
    }

    /// Takes connections that wait; whether there may be more.
    fn accept(&mut self) -> bool {
        for _ in 0..ACCEPTS {
            let (stream, peer) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // No descriptors left: look again in a moment instead of at once and forever.
                    let _ = self.poller.remove(&self.listener, LISTENER);
                    self.accept_after = Some(Instant::now() + Duration::from_millis(100));
                    return false;
                }
            };
            if self.clients.len() >= self.limits.max_clients && !self.make_room() {
                self.intake.counters.clients_refused += 1;
                continue;
            }
            let token = self.next;
            if stream.set_nonblocking(true).is_err()
                || stream.set_nodelay(true).is_err()
                || self.poller.add(&stream, token, Interest::READ).is_err()
            {
                self.intake.counters.clients_refused += 1;
                continue;
            }
            self.next += 1;
            self.intake.counters.clients_accepted += 1;
            let client = Client::new(stream, peer, self.intake.kind);
            self.clients.insert(token, client);
        }
        true
    }

    /// Close the connection that was opened longest ago and never used, if there is one.
    fn make_room(&mut self) -> bool {
        let unused = self
            .clients
            .iter()
            .filter(|(_, c)| c.unused())
            .min_by_key(|(_, c)| c.connected)
            .map(|(token, _)| *token);
        match unused {
            Some(token) => {
                self.close(token, Closed::Idle);
                true
            }
            None => false,
        }
    }

    fn read(&mut self, token: u64, most: usize) -> Result<(), Stopped> {
        let Some(client) = self.clients.get_mut(&token) else {
            return Ok(());
        };
        let held = client.pending.len();
        let outcome = if client.scanner.needed() > SMALL && held > 0 {
            client.read_large()
        } else {
            let space = self.intake.space(held + 64)?;
            let (head, rest) = space.split_at_mut(held.min(space.len()));
            head.copy_from_slice(client.pending.get(..head.len()).unwrap_or_default());
            let most = rest.len().min(most);
            read_some(&mut client.stream, rest.get_mut(..most).unwrap_or_default())
        };
        match outcome {
            Ok(Some(0)) => self.ended(token),
            Ok(Some(fresh)) => return self.arrived(token, held, fresh),
            Ok(None) => {}
            Err(_) => self.close(token, Closed::Broken),
        }
        Ok(())
    }

    /// `fresh` bytes came behind `held` ones: they are in the intake's space, or in `pending` if there are more than held.
    fn arrived(&mut self, token: u64, mut held: usize, mut fresh: usize) -> Result<(), Stopped> {
        let Some(client) = self.clients.get_mut(&token) else {
            return Ok(());
        };
        let now = Instant::now();
        client.first_byte.get_or_insert(now);
        client.last_byte = now;
        if client.pending.len() > held {
            self.pending_bytes += fresh as u64;
            self.intake.counters.bytes_received += fresh as u64;
            self.intake.counters.pending_bytes = self.pending_bytes;
            if client.pending.len() < client.scanner.needed() {
                return Ok(());
            }
            (held, fresh) = (held + fresh, 0);
            // Whole now: its one copy into the log.
            let space = self.intake.space(client.pending.len())?;
            if let Some(to) = space.get_mut(..client.pending.len()) {
                to.copy_from_slice(&client.pending);
            }
        }
        let mut answers = Answers {
            out: std::mem::take(&mut client.out),
            limit: self.limits.max_buffer_bytes,
            deferred: std::mem::take(&mut client.deferred),
            syncs: Vec::new(),
        };
        let (queued, packets) = (answers.out.len(), self.intake.packets());
        let taken = self.intake.take(
            &mut client.scanner,
            held + fresh,
            fresh,
            false,
            now_ns(),
            Some(&mut answers),
        )?;
        let tail = self.intake.tail(taken.tail);
        self.pending_bytes = self.pending_bytes - held as u64 + tail.len() as u64;
        client.pending.clear();
        client.pending.extend_from_slice(tail);
        if client.pending.is_empty() && client.pending.capacity() > 2 * SMALL {
            client.pending = Vec::new();
        }
        client.packets |= self.intake.packets() > packets;
        let answered = answers.out.len() > queued;
        client.out = answers.out;
        client.deferred = answers.deferred;
        if answered && queued == 0 {
            client.last_sent = now;
        }
        self.intake.counters.pending_bytes = self.pending_bytes;
        let place = self.intake.place();
        self.syncs
            .extend(answers.syncs.into_iter().map(|(source, seq)| PendingSync {
                client: token,
                source,
                seq,
                place,
            }));
        self.intake.after_arrival(taken.syncs > 0)?;
        // What was answered goes out before a framing error ends the connection, as far as it is taken.
        if answered {
            self.send(token);
        }
        if let Some(lost) = taken.lost {
            self.note_lost(token, &lost);
            self.close(token, Closed::Framing);
        }
        Ok(())
    }

    /// Why the framing was lost goes to the manifest; of many only the first, the ledger counts them all.
    fn note_lost(&mut self, token: u64, lost: &FramingLost) {
        let Some(client) = self.clients.get(&token) else {
            return;
        };
        self.noted += 1;
        let further = match self.noted {
            ..NOTED => "",
            NOTED => " (further ones are only counted)",
            _ => return,
        };
        let text = format!("{}: {lost}; the connection is closed{further}", client.peer);
        self.intake.note("framing_lost", text);
    }

    /// It has sent everything. Those who wait for durability still get their answer.
    fn ended(&mut self, token: u64) {
        let waits = self.syncs.iter().any(|sync| sync.client == token);
        let Some(client) = self.clients.get_mut(&token).filter(|_| waits) else {
            self.close(token, Closed::Ended);
            return;
        };
        client.ended = true;
        let interest = Interest {
            readable: false,
            writable: client.writing,
        };
        if self.poller.change(&client.stream, token, interest).is_err() {
            self.close(token, Closed::Broken);
        }
    }

    /// Send what is waiting; stop reading from the client while something is left.
    fn send(&mut self, token: u64) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        let broken = loop {
            let Some(left) = client.out.get(client.sent..).filter(|l| !l.is_empty()) else {
                client.out.clear();
                client.sent = 0;
                if client.deferred.is_empty() {
                    client.out.shrink_to(64 << 10);
                    break false;
                }
                let limit = self.limits.max_buffer_bytes;
                let done = self.intake.answer(&client.deferred, &mut client.out, limit);
                client.deferred.drain(..done);
                continue;
            };
            match client.stream.write(left) {
                Ok(0) => break true,
                Ok(n) => {
                    client.sent += n;
                    client.last_sent = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
        };
        let writing = !client.out.is_empty();
        if broken {
            self.close(token, Closed::Broken);
        } else if client.ended && !writing {
            if !self.syncs.iter().any(|sync| sync.client == token) {
                self.close(token, Closed::Ended);
            }
        } else if writing != client.writing {
            client.writing = writing;
            let interest = Interest {
                readable: !writing && !client.ended,
                writable: writing,
            };
            if self.poller.change(&client.stream, token, interest).is_err() {
                self.close(token, Closed::Broken);
            }
        }
    }

    /// SYNCED for everything that is durable by now.
    fn answer_syncs(&mut self) {
        if self.syncs.is_empty() {
            return;
        }
        let durable = self
            .intake
            .shared
            .durable
            .load(std::sync::atomic::Ordering::Acquire);
        let (done, waiting) = std::mem::take(&mut self.syncs)
            .into_iter()
            .partition(|s| s.place <= durable);
        self.syncs = waiting;
        let done: Vec<PendingSync> = done;
        for sync in &done {
            if let Some(client) = self.clients.get_mut(&sync.client) {
                let fields = PacketFields {
                    timestamp_us: now_ns() / 1000,
                    source: sync.source,
                    command: Command::Synced,
                    seq: sync.seq,
                };
                // The source came in a packet, so that it fits into one.
                let _ = encode_packet(&fields, &[], &mut client.out);
                self.intake.counters.synced += 1;
            }
        }
        for sync in done {
            self.send(sync.client);
        }
    }

    /// Close those who are silent where they should not be.
    fn look(&mut self, now: Instant) {
        let idle = self.limits.idle;
        let overdue = |(token, client): (&u64, &Client)| Some((*token, client.overdue(now, idle)?));
        let gone: Vec<(u64, Closed)> = self.clients.iter().filter_map(overdue).collect();
        for (token, why) in gone {
            self.close(token, why);
        }
    }

    fn close(&mut self, token: u64, why: Closed) {
        let Some(mut client) = self.clients.remove(&token) else {
            return;
        };
        let _ = self.poller.remove(&client.stream, token);
        self.pending_bytes -= client.pending.len() as u64;
        // What was begun and never finished is discarded, and counted.
        if client.scanner.lost().is_none() {
            let _ = client.scanner.scan(&client.pending, true, &mut |_| {});
        }
        let counted = client.scanner.take_counters();
        self.intake.count(&counted);
        let c = &mut self.intake.counters;
        if why == Closed::Stopped {
            c.cut_bytes += client.pending.len() as u64;
            c.cut_packets += u64::from(!client.pending.is_empty());
        }
        *match why {
            Closed::Ended => &mut c.ended,
            Closed::Framing => &mut c.framing,
            Closed::Idle => &mut c.idle,
            Closed::NotReading => &mut c.not_reading,
            Closed::Broken => &mut c.broken,
            Closed::Stopped => &mut c.stopped,
        } += 1;
        c.pending_bytes = self.pending_bytes;
        self.syncs.retain(|sync| sync.client != token);
    }
}
