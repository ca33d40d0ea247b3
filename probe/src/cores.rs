//! The cores of the machine that this process may use.
//!
//! In: the system's own account. Out: cores as numbers; threads kept on some of them.
//! Source: `sched_getaffinity`(2).

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that the calling thread may use, in order; none where the system does not say.
pub fn allowed() -> Vec<u16> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .filter_map(|core| u16::try_from(core).ok())
        .collect()
}

/// Keeps the calling thread on these cores.
///
/// # Errors
/// The system's, where one of them does not exist or none may be used.
pub fn stay_on(cores: &[u16]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        if usize::from(core) >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such core"));
        }
        set.set(core.into());
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The calling thread, and what it starts meanwhile, off some cores; where it was before when
/// dropped.
#[derive(Debug)]
#[must_use = "dropped, the thread may go back"]
pub struct KeptOff {
    before: Vec<u16>,
}

/// Keeps the calling thread off `taken`; `None` where no other core is left, or the system refuses.
pub fn keep_off(taken: &[u16]) -> Option<KeptOff> {
    let before = allowed();
    let rest: Vec<u16> = before.iter().filter(|core| !taken.contains(core)).copied().collect();
    (!rest.is_empty() && stay_on(&rest).is_ok()).then_some(KeptOff { before })
}

impl Drop for KeptOff {
    fn drop(&mut self) {
        // It was allowed; where that has changed meanwhile, the thread stays where it is.
        let _ = stay_on(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_off_cores_for_a_while() {
        let before = allowed();
        assert!(keep_off(&before).is_none(), "there must be a core to run on");
        if let [first, rest @ ..] = before.as_slice()
            && !rest.is_empty()
        {
            let kept = keep_off(&[*first]).expect("others are left");
            assert_eq!(allowed(), rest);
            assert_eq!(std::thread::spawn(allowed).join().expect("ends well"), rest);
            drop(kept);
        }
        assert_eq!(allowed(), before);
    }

    #[test]
    fn a_thread_stays_where_it_is_put() {
        let before = allowed();
        let last = before.last().copied().expect("at least one core");
        std::thread::spawn(move || {
            assert!(stay_on(&[last]).is_ok());
            assert_eq!(allowed(), [last]);
            assert!(stay_on(&[]).is_err() && stay_on(&[u16::MAX]).is_err());
        })
        .join()
        .expect("the thread ends well");
        assert_eq!(allowed(), before);
    }
}
