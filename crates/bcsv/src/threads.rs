//! How many threads work, and the same work in several of them.

use std::thread::{Builder, Scope};

/// Nobody gets more unless the machine has more cores: what is beyond those gains nothing, and each thread has buffers.
const MOST_THREADS: usize = 64;

/// How many threads work where `wanted` were asked for; 0 asks for one per core.
pub fn thread_count(wanted: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match wanted {
        0 => cores,
        wanted => wanted.min(cores.max(MOST_THREADS)),
    }
}

/// Lets `count` more threads do `work`, which shares out what is to be done; fewer, if the system gives no more.
pub fn spawn_helpers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    work: impl Fn() + Copy + Send + 'scope,
) {
    for _ in 0..count {
        if Builder::new().spawn_scoped(scope, work).is_err() {
            return;
        }
    }
}

/// What each of at most `threads` threads found, this one among them.
pub(crate) fn in_threads<T: Send>(threads: usize, work: &(impl Fn() -> Vec<T> + Sync)) -> Vec<T> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        // The others do the work of a thread that the system does not give.
        let helpers: Vec<_> = (1..threads)
            .map_while(|_| Builder::new().spawn_scoped(scope, work).ok())
            .collect();
        let mut done = work();
        for helper in helpers {
            // A panic in a helper would be a bug here; it must not pass as packets that are missing.
            match helper.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::{MOST_THREADS, thread_count};

    #[test]
    fn no_number_of_threads_is_absurd() {
        let cores = thread_count(0);
        assert!(cores >= 1);
        assert_eq!((thread_count(1), thread_count(3)), (1, 3));
        assert_eq!(thread_count(usize::MAX), cores.max(MOST_THREADS));
    }
}
