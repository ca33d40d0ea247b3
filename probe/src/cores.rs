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

#[cfg(test)]
mod tests {
    use super::*;

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
