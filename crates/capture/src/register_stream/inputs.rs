//! Sources with one path in: `file://`, standard input, `tcp+connect://`, `udp://`. Queries are not answered there.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tapeline_sys::tcp::TcpReceiver;
use tapeline_sys::udp::{UdpOptions, UdpReceiver};
use tapeline_wire::register::PacketScanner;

use super::intake::{Intake, READ};
use crate::config::StreamConfig;
use crate::error::Error;
use crate::receive::{WriterGone, now_ns};
use crate::source::file::Input;
use crate::source::{DRAIN_BYTES, Ended, Stop, WAIT};

/// Largest datagram.
const DATAGRAM: usize = 65_536;

/// Fills a buffer, told whether only what is there already is wanted: `Some(0)` is the end, `None` nothing yet.
type Reading<'a> = &'a mut dyn FnMut(&mut [u8], bool) -> io::Result<Option<usize>>;

/// How a byte stream came to its end.
enum End {
    /// The input ended, or broke.
    Input(Option<io::Error>),
    Framing(String),
    Stopped,
    WriterGone,
}

pub(super) fn run_file(mut input: Input, mut intake: Intake, stop: &Stop) -> Ended {
    let end = pump(&mut intake, stop, &mut |buf, draining| {
        input.read(buf, draining)
    });
    intake.finish();
    match end {
        End::Input(Some(e)) => Err(Error::io_bare("reading", e)),
        End::Framing(why) => Err(Error::state(why)),
        _ => Ok(()),
    }
}

/// Dial a producer that listens, and again when the connection ends.
pub(super) fn run_connect(
    address: SocketAddr,
    stream: &StreamConfig,
    mut intake: Intake,
    stop: &Stop,
) -> Ended {
    let [first, longest] = stream
        .connect_backoff_seconds
        .map(|s| Duration::try_from_secs_f64(s).unwrap_or(Duration::from_secs(1)));
    let mut pause = first;
    while !stop.requested() {
        if let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            intake.counters.clients_accepted += 1;
            intake.counters.clients = 1;
            let before = intake.packets();
            let mut receiver = TcpReceiver::new(connection);
            let end = pump(&mut intake, stop, &mut |buf, draining| {
                let timeout = if draining {
                    Duration::from_millis(1)
                } else {
                    WAIT
                };
                receiver.receive(buf, timeout)
            });
            intake.counters.clients = 0;
            let c = &mut intake.counters;
            match end {
                End::Input(None) => c.ended += 1,
                End::Input(Some(_)) => c.broken += 1,
                End::Framing(why) => {
                    c.framing += 1;
                    intake.note(
                        "framing_lost",
                        format!("{address}: {why}; the connection is closed"),
                    );
                }
                End::Stopped => c.stopped += 1,
                End::WriterGone => break,
            }
            if intake.packets() > before {
                pause = first;
            }
        }
        if intake.tick().is_err() {
            break;
        }
        let until = Instant::now() + pause;
        while !stop.requested() && Instant::now() < until {
            std::thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
        }
        pause = (pause * 2).min(longest).max(first);
    }
    intake.finish();
    Ok(())
}

/// Datagrams of whole packets.
pub(super) fn bind_udp(address: SocketAddr, stream: &StreamConfig) -> io::Result<UdpReceiver> {
    let options = UdpOptions {
        receive_buffer_bytes: usize::try_from(stream.receive_buffer_bytes).unwrap_or(usize::MAX),
        gro: stream.gro,
        timestamps: false,
        reuse_port: false,
        multicast: None,
        multicast_v6: None,
    };
    UdpReceiver::bind(address, &options)
}

pub(super) fn run_udp(mut socket: UdpReceiver, mut intake: Intake, stop: &Stop) -> Ended {
    intake.counters.receive_buffer = socket.receive_buffer_bytes() as u64;
    let mut buf = vec![0; 16 * DATAGRAM];
    let mut drained = 0;
    let mut looked = Instant::now();
    let result = loop {
        let draining = stop.requested();
        let wait = if draining { Duration::ZERO } else { WAIT };
        match socket.receive(&mut buf, wait) {
            Ok([]) => {
                if intake.tick().is_err() || draining {
                    break Ok(());
                }
            }
            Ok(runs) => {
                let runs: Vec<_> = runs.to_vec();
                let now = now_ns();
                let mut gone = false;
                for run in runs {
                    for range in run.segments() {
                        let datagram = buf.get(range).unwrap_or_default();
                        drained += if draining { datagram.len() as u64 } else { 0 };
                        intake.counters.datagrams += 1;
                        gone |= datagram_in(&mut intake, datagram, now).is_err();
                    }
                }
                intake.counters.datagrams_dropped = socket.kernel_drops();
                gone |= look(&mut intake, &mut looked).is_err();
                if gone || drained > DRAIN_BYTES {
                    break Ok(());
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => break Err(Error::io_bare("receiving", e)),
        }
    };
    intake.counters.datagrams_dropped = socket.kernel_drops();
    intake.finish();
    result
}

/// In the midst of arrivals: what is due by time is not put off until there is a pause.
fn look(intake: &mut Intake, looked: &mut Instant) -> Result<(), WriterGone> {
    if looked.elapsed() >= WAIT {
        *looked = Instant::now();
        intake.tick()?;
    }
    Ok(())
}

fn datagram_in(intake: &mut Intake, datagram: &[u8], now: u64) -> Result<(), WriterGone> {
    let space = intake.space(datagram.len())?;
    if let Some(to) = space.get_mut(..datagram.len()) {
        to.copy_from_slice(datagram);
    }
    let mut scanner = PacketScanner::new(intake.kind);
    let n = datagram.len();
    intake.take(&mut scanner, n, n, true, now, None)?;
    intake.after_arrival(false)
}

/// Reads a byte stream to its end: `Some(0)`, or nothing while draining.
fn pump(intake: &mut Intake, stop: &Stop, read: Reading<'_>) -> End {
    let mut scanner = PacketScanner::new(intake.kind);
    let mut pending: Vec<u8> = Vec::new();
    let mut drained = 0;
    let mut looked = Instant::now();
    let end = loop {
        let draining = stop.requested();
        let held = pending.len();
        let Ok(space) = intake.space(scanner.needed().max(held) + 64) else {
            break End::WriterGone;
        };
        let (head, rest) = space.split_at_mut(held.min(space.len()));
        head.copy_from_slice(pending.get(..head.len()).unwrap_or_default());
        let most = rest.len().min(READ.max(scanner.needed()));
        let fresh = match read(rest.get_mut(..most).unwrap_or_default(), draining) {
            Ok(Some(0)) => break End::Input(None),
            Ok(Some(fresh)) => fresh,
            Ok(None) if draining => break End::Stopped,
            Ok(None) => 0,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => break End::Input(Some(e)),
        };
        if fresh == 0 {
            intake.counters.pending_bytes = held as u64;
            if intake.tick().is_err() {
                break End::WriterGone;
            }
            continue;
        }
        if draining {
            drained += fresh as u64;
        }
        let Ok(taken) = intake.take(&mut scanner, held + fresh, fresh, false, now_ns(), None)
        else {
            break End::WriterGone;
        };
        pending.clear();
        pending.extend_from_slice(intake.tail(taken.tail));
        intake.counters.pending_bytes = pending.len() as u64;
        if let Some(lost) = taken.lost {
            break End::Framing(lost.to_string());
        }
        if intake.after_arrival(false).is_err() || look(intake, &mut looked).is_err() {
            break End::WriterGone;
        }
        if drained > DRAIN_BYTES {
            break End::Stopped;
        }
    };
    if matches!(end, End::Stopped) {
        intake.counters.cut_bytes += pending.len() as u64;
        intake.counters.cut_packets += u64::from(!pending.is_empty());
    }
    if scanner.lost().is_none() {
        let _ = scanner.scan(&pending, true, &mut |_| {});
    }
    let counted = scanner.take_counters();
    intake.count(&counted);
    intake.counters.pending_bytes = 0;
    let _ = intake.tick();
    end
}
