//! Waiting for many sockets at once: epoll where there is one, else poll, else looking every few milliseconds.
//!
//! Level-triggered: what is ready is reported until it is used up, so that nothing is lost by taking only a part.

use std::{io, time::Duration};

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Bytes to read, a connection to accept, or the end.
    pub readable: bool,
    /// Room to send.
    pub writable: bool,
}

impl Interest {
    /// Reading only.
    pub const READ: Self = Self {
        readable: true,
        writable: false,
    };
    /// Writing only.
    pub const WRITE: Self = Self {
        readable: false,
        writable: true,
    };
}

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// As given to [`Poller::add`].
    pub token: u64,
    /// Reading makes sense: there are bytes, or the end, or an error to be told.
    pub readable: bool,
    /// Sending makes sense.
    pub writable: bool,
}

/// A set of sockets to wait for.
///
/// A socket must be removed before it is closed.
#[derive(Debug)]
pub struct Poller(imp::Poller);

/// What can be waited for.
#[cfg(unix)]
pub trait Pollable: std::os::fd::AsRawFd {}
#[cfg(unix)]
impl<T: std::os::fd::AsRawFd> Pollable for T {}
/// What can be waited for.
#[cfg(not(unix))]
pub trait Pollable {}
#[cfg(not(unix))]
impl<T> Pollable for T {}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// What the system says, such as too many open files.
    pub fn new() -> io::Result<Self> {
        imp::Poller::new().map(Self)
    }

    /// Adds a socket, which should be non-blocking.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(
        &mut self,
        socket: &impl Pollable,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.add(socket, token, interest)
    }

    /// Changes what a socket of the set is waited for.
    ///
    /// # Errors
    /// What the system says.
    pub fn change(
        &mut self,
        socket: &impl Pollable,
        token: u64,
        interest: Interest,
    ) -> io::Result<()> {
        self.0.change(socket, token, interest)
    }

    /// Takes a socket out of the set.
    ///
    /// # Errors
    /// What the system says.
    pub fn remove(&mut self, socket: &impl Pollable, token: u64) -> io::Result<()> {
        self.0.remove(socket, token)
    }

    /// Fills `events` with what is ready, after at most `timeout`; a signal counts as the timeout.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, events: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
        events.clear();
        self.0.wait(events, timeout)
    }
}

/// Lets this process open as many files as the system allows it; how many that is, 0 if it does not tell.
pub fn raise_open_files() -> u64 {
    imp::raise_open_files()
}

/// Milliseconds, rounded up so that a short timeout does not spin.
#[cfg(unix)]
fn millis(timeout: Duration) -> libc::c_int {
    libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX)
}

#[cfg(unix)]
fn open_files() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is ours and lives through the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return 0;
    }
    if limit.rlim_cur < limit.rlim_max {
        let wanted = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        // SAFETY: as above; the kernel only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const wanted) } == 0 {
            limit = wanted;
        }
    }
    #[allow(clippy::useless_conversion)] // the type differs between systems
    u64::try_from(limit.rlim_cur).unwrap_or(u64::MAX)
}

#[cfg(target_os = "linux")]
mod imp {
    use std::{
        io,
        os::fd::{AsRawFd, FromRawFd, OwnedFd},
        time::Duration,
    };

    use super::{Event, Interest, Pollable, millis};

    /// Events taken from the kernel at once.
    const BATCH: usize = 256;

    #[derive(Debug)]
    pub(super) struct Poller {
        epoll: OwnedFd,
    }

    impl Poller {
        pub(super) fn new() -> io::Result<Self> {
            // SAFETY: takes a flag and touches no memory of ours.
            let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the descriptor is new and nobody else's.
            let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
            Ok(Self { epoll })
        }

        fn control(
            &self,
            operation: libc::c_int,
            socket: &impl Pollable,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            let mut flags = 0;
            if interest.readable {
                flags |= libc::EPOLLIN | libc::EPOLLRDHUP;
            }
            if interest.writable {
                flags |= libc::EPOLLOUT;
            }
            let mut event = libc::epoll_event {
                events: flags.cast_unsigned(),
                u64: token,
            };
            // SAFETY: the event is ours and lives through the call; wrong descriptors are an error, not undefined.
            let result = unsafe {
                libc::epoll_ctl(
                    self.epoll.as_raw_fd(),
                    operation,
                    socket.as_raw_fd(),
                    &raw mut event,
                )
            };
            if result < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        }

        pub(super) fn add(
            &mut self,
            socket: &impl Pollable,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_ADD, socket, token, interest)
        }

        pub(super) fn change(
            &mut self,
            socket: &impl Pollable,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_MOD, socket, token, interest)
        }

        pub(super) fn remove(&mut self, socket: &impl Pollable, token: u64) -> io::Result<()> {
            self.control(libc::EPOLL_CTL_DEL, socket, token, Interest::READ)
        }

        pub(super) fn wait(&mut self, out: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
            let mut events = [libc::epoll_event { events: 0, u64: 0 }; BATCH];
            let room = libc::c_int::try_from(BATCH).unwrap_or(libc::c_int::MAX);
            // SAFETY: the kernel writes at most `room` events into the array, which has as many.
            let ready = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    room,
                    millis(timeout),
                )
            };
            let Ok(ready) = usize::try_from(ready) else {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::Interrupted {
                    Ok(())
                } else {
                    Err(error)
                };
            };
            for event in events.iter().take(ready) {
                // A copy: the kernel's struct is packed.
                let (flags, token) = (event.events.cast_signed(), event.u64);
                let broken = flags & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
                out.push(Event {
                    token,
                    readable: broken || flags & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0,
                    writable: broken || flags & libc::EPOLLOUT != 0,
                });
            }
            Ok(())
        }
    }

    pub(super) fn raise_open_files() -> u64 {
        super::open_files()
    }
}

/// Compiled for tests on every Unix, so that it stays right where it is not used.
#[cfg(all(unix, any(test, not(target_os = "linux"))))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod portable {
    use std::{io, time::Duration};

    use super::{Event, Interest, Pollable, millis};

    #[derive(Debug)]
    pub(super) struct Poller {
        waited: Vec<libc::pollfd>,
        tokens: Vec<u64>,
    }

    impl Poller {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self {
                waited: Vec::new(),
                tokens: Vec::new(),
            })
        }

        pub(super) fn add(
            &mut self,
            socket: &impl Pollable,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            self.waited.push(libc::pollfd {
                fd: socket.as_raw_fd(),
                events: flags(interest),
                revents: 0,
            });
            self.tokens.push(token);
            Ok(())
        }

        fn place(&self, token: u64) -> io::Result<usize> {
            let place = self.tokens.iter().position(|t| *t == token);
            place.ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        pub(super) fn change(
            &mut self,
            _: &impl Pollable,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            let place = self.place(token)?;
            if let Some(waited) = self.waited.get_mut(place) {
                waited.events = flags(interest);
            }
            Ok(())
        }

        pub(super) fn remove(&mut self, _: &impl Pollable, token: u64) -> io::Result<()> {
            let place = self.place(token)?;
            self.waited.swap_remove(place);
            self.tokens.swap_remove(place);
            Ok(())
        }

        pub(super) fn wait(&mut self, out: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
            let count = libc::nfds_t::try_from(self.waited.len()).unwrap_or(libc::nfds_t::MAX);
            // SAFETY: the kernel reads and writes the `count` entries of the vector.
            let ready = unsafe { libc::poll(self.waited.as_mut_ptr(), count, millis(timeout)) };
            if ready < 0 {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::Interrupted {
                    Ok(())
                } else {
                    Err(error)
                };
            }
            for (waited, token) in self.waited.iter().zip(&self.tokens) {
                let broken = waited.revents & (libc::POLLERR | libc::POLLHUP) != 0;
                if waited.revents != 0 {
                    out.push(Event {
                        token: *token,
                        readable: broken || waited.revents & libc::POLLIN != 0,
                        writable: broken || waited.revents & libc::POLLOUT != 0,
                    });
                }
            }
            Ok(())
        }
    }

    fn flags(interest: Interest) -> libc::c_short {
        let mut flags = 0;
        if interest.readable {
            flags |= libc::POLLIN;
        }
        if interest.writable {
            flags |= libc::POLLOUT;
        }
        flags
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn raise_open_files() -> u64 {
        super::open_files()
    }
}

#[cfg(all(unix, not(target_os = "linux")))]
use portable as imp;

#[cfg(not(unix))]
mod imp {
    use std::{io, thread, time::Duration};

    use super::{Event, Interest};

    /// Without a wait for many, all of them are looked at every few milliseconds; the sockets do not block.
    #[derive(Debug)]
    pub(super) struct Poller(Vec<(u64, Interest)>);

    impl Poller {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(Vec::new()))
        }

        pub(super) fn add<T>(&mut self, _: &T, token: u64, interest: Interest) -> io::Result<()> {
            self.0.push((token, interest));
            Ok(())
        }

        pub(super) fn change<T>(
            &mut self,
            socket: &T,
            token: u64,
            interest: Interest,
        ) -> io::Result<()> {
            self.remove(socket, token)?;
            self.add(socket, token, interest)
        }

        pub(super) fn remove<T>(&mut self, _: &T, token: u64) -> io::Result<()> {
            self.0.retain(|entry| entry.0 != token);
            Ok(())
        }

        pub(super) fn wait(&mut self, out: &mut Vec<Event>, timeout: Duration) -> io::Result<()> {
            thread::sleep(timeout.min(Duration::from_millis(2)));
            out.extend(self.0.iter().map(|(token, interest)| Event {
                token: *token,
                readable: interest.readable,
                writable: interest.writable,
            }));
            Ok(())
        }
    }

    pub(super) fn raise_open_files() -> u64 {
        0
    }
}

#[cfg(all(test, unix))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{io::Write, os::unix::net::UnixStream, time::Duration};

    use super::*;

    macro_rules! contract {
        ($name:ident, $poller:ty) => {
            #[test]
            fn $name() {
                let (mut a, b) = UnixStream::pair().unwrap();
                let (c, d) = UnixStream::pair().unwrap();
                let mut poller = <$poller>::new().unwrap();
                poller.add(&b, 7, Interest::READ).unwrap();
                poller.add(&d, 9, Interest::READ).unwrap();
                let mut events = Vec::new();
                poller.wait(&mut events, Duration::ZERO).unwrap();
                assert_eq!(events, []);
                a.write_all(b"x").unwrap();
                let ready = |token, readable, writable| Event {
                    token,
                    readable,
                    writable,
                };
                // Level-triggered: told again as long as nobody reads.
                for _ in 0..2 {
                    events.clear();
                    poller.wait(&mut events, Duration::from_secs(10)).unwrap();
                    assert_eq!(events, [ready(7, true, false)]);
                }
                let both = Interest {
                    readable: true,
                    writable: true,
                };
                poller.change(&b, 7, both).unwrap();
                events.clear();
                poller.wait(&mut events, Duration::from_secs(10)).unwrap();
                assert_eq!(events, [ready(7, true, true)]);
                poller.remove(&b, 7).unwrap();
                drop(c);
                events.clear();
                poller.wait(&mut events, Duration::from_secs(10)).unwrap();
                assert!(matches!(
                    events[..],
                    [Event {
                        token: 9,
                        readable: true,
                        ..
                    }]
                ));
            }
        };
    }

    contract!(poller, Poller);
    contract!(portable_poller, super::portable::Poller);
}
