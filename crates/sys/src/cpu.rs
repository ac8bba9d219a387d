//! Which core a thread runs on, and keeping it there.

/// The core this thread runs on now; None where the system does not tell.
pub fn current() -> Option<usize> {
    imp::current()
}

/// Keep this thread on one core. False where the system does not allow it; nothing has changed then.
pub fn stay_on(core: usize) -> bool {
    imp::stay_on(core)
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
