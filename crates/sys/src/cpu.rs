//! Which core a thread runs on, and keeping it there.

/// The core this thread runs on now; None where the system does not tell.
pub fn current() -> Option<usize> {
    imp::current()
}

/// Keep this thread on one core. False where the system does not allow it; nothing has changed then.
pub fn stay_on(core: usize) -> bool {
    imp::stay_on(core)
}

/// Move this thread to another core if it is on this one, and leave it free to come back. False if it stays: it was not
/// there, or has no other core.
pub fn leave(core: usize) -> bool {
    current() == Some(core) && imp::leave(core)
}

/// Let this thread wait for its turn when it wakes, instead of taking the core from another one that is working: for
/// work that is not urgent. It gets the same share of time. False where the system has no such thing.
pub fn give_way() -> bool {
    imp::give_way()
}

#[cfg(all(target_os = "linux", not(tapeline_portable)))]
mod imp {
    pub(super) fn give_way() -> bool {
        // SAFETY: an all-zero `sched_param` is the one priority that this policy has.
        let none: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: pid 0 is this thread; the parameter is ours.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) == 0 }
    }

    pub(super) fn leave(core: usize) -> bool {
        if core >= 8 * size_of::<libc::cpu_set_t>() {
            return false;
        }
        let bytes = size_of::<libc::cpu_set_t>();
        // SAFETY: an all-zero `cpu_set_t` is the empty set.
        let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: pid 0 is this thread; the set is ours and has this size.
        if unsafe { libc::sched_getaffinity(0, bytes, &raw mut all) } != 0 {
            return false;
        }
        let mut others = all;
        // SAFETY: the set is ours and `core` is inside it.
        unsafe { libc::CPU_CLR(core, &mut others) };
        // An empty set is refused. SAFETY: as above; the sets are only read.
        let left = unsafe { libc::sched_setaffinity(0, bytes, &raw const others) == 0 };
        // SAFETY: as above.
        left && unsafe { libc::sched_setaffinity(0, bytes, &raw const all) == 0 }
    }

    pub(super) fn current() -> Option<usize> {
        // SAFETY: takes no argument and touches no memory of ours.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }

    pub(super) fn stay_on(core: usize) -> bool {
        // SAFETY: an all-zero `cpu_set_t` is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        if core >= 8 * size_of::<libc::cpu_set_t>() {
            return false;
        }
        // SAFETY: the set is ours and `core` is inside it.
        unsafe { libc::CPU_SET(core, &mut set) };
        // SAFETY: pid 0 is this thread; the set is valid for its size.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0 }
    }
}

#[cfg(any(not(target_os = "linux"), tapeline_portable))]
mod imp {
    pub(super) fn leave(_: usize) -> bool {
        false
    }

    pub(super) fn give_way() -> bool {
        false
    }

    pub(super) fn current() -> Option<usize> {
        None
    }

    pub(super) fn stay_on(_: usize) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way() {
        let gave = std::thread::spawn(give_way).join().ok();
        let none = cfg!(any(not(target_os = "linux"), tapeline_portable));
        assert_eq!(gave, Some(!none));
    }

    #[test]
    fn a_thread_leaves_a_core_if_there_is_another() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let left = std::thread::spawn(|| {
            let core = current()?;
            Some((core, leave(core), current()))
        });
        if let Some((core, true, after)) = left.join().ok().flatten() {
            assert!(
                cores > 1 && after.is_some_and(|after| after < 1 << 16),
                "{core}"
            );
        }
        assert!(!leave(usize::MAX), "no such core");
    }

    #[test]
    fn a_thread_stays_where_it_was_put() {
        let stayed = std::thread::spawn(|| {
            let core = current()?;
            stay_on(core).then(|| (core, current()))
        });
        let pinned = stayed.join().ok().flatten();
        assert!(pinned.is_some() || cfg!(any(not(target_os = "linux"), tapeline_portable)));
        assert!(pinned.is_none_or(|(core, after)| after == Some(core)));
    }
}
