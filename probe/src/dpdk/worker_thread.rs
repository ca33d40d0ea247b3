//! Threads of ours as DPDK sees them.
//!
//! In: a core. Out: [`WorkerThread`], the proof that this thread is pinned and registered.
//! Invariants: cannot leave its thread, because unregistering has to happen there.
//! Source: DPDK 22.11, `rte_lcore.h` (`rte_thread_register`): a registered thread has an lcore
//! id, and with it a cache in each mempool.

use std::ffi::c_int;
use std::marker::PhantomData;
use std::sync::Arc;

use super::eal::{Eal, EalInner, error_text};
use super::error::EalError;
use crate::cores;

/// This thread, pinned to its core and known to DPDK until dropped.
#[derive(Debug)]
pub struct WorkerThread {
    _eal: Arc<EalInner>,
    _stays: PhantomData<*const ()>,
}

impl WorkerThread {
    /// Pins the calling thread to `core` and registers it.
    ///
    /// # Errors
    /// [`EalError::Pin`], [`EalError::Register`].
    pub fn register(eal: &Eal, core: u16) -> Result<Self, EalError> {
        // First the core: DPDK reads the thread's NUMA node from it.
        pin_thread(core)?;
        // SAFETY: EAL has started, as `eal` proves, and is kept by the clone below.
        let result: c_int = unsafe { dpdk_sys::rte_thread_register() };
        if result != 0 {
            return Err(EalError::Register { reason: error_text(-super::eal::last_errno()) });
        }
        Ok(Self { _eal: eal.inner(), _stays: PhantomData })
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        // SAFETY: this is the thread that registered, since the type is not `Send`.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

/// Pins the calling thread to `core`.
///
/// # Errors
/// [`EalError::Pin`] where the core does not exist or is not allowed.
pub fn pin_thread(core: u16) -> Result<(), EalError> {
    cores::stay_on(&[core]).map_err(|error| EalError::Pin { core, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_pinned_and_only_to_what_exists() {
        let allowed = cores::allowed();
        let &last = allowed.last().expect("at least one core");
        std::thread::spawn(move || {
            pin_thread(last).expect("allowed");
            assert_eq!(cores::allowed(), [last]);
            assert!(matches!(pin_thread(u16::MAX), Err(EalError::Pin { core: u16::MAX, .. })));
            assert!(pin_thread(1000).is_err());
        })
        .join()
        .expect("the thread ends");
        assert_eq!(cores::allowed(), allowed);
    }
}
