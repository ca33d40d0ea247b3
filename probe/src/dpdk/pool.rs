//! Packet buffers of one port.
//!
//! In: how many, how large, which NUMA node. Out: [`Pool`].
//! Invariants: freed only after the port that fills its buffers has been closed and every burst
//! taken from it is back, because a burst borrows its queue, the queue holds the port and the port
//! holds the pool.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::eal::{EalInner, error_text, last_errno};

/// Buffers that a thread keeps at hand; two thirds of what the library then may hold back.
const CACHE_MBUFS: u32 = 256;

/// Names must differ, also from pools of ports closed before.
static MADE: AtomicU32 = AtomicU32::new(0);

/// A mempool of mbufs.
#[derive(Debug)]
pub(super) struct Pool {
    pool: NonNull<dpdk_sys::rte_mempool>,
    _eal: Arc<EalInner>,
}

// SAFETY: a mempool is made for use by several threads (multi-producer, multi-consumer ring and
// caches by lcore).
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// Makes a pool on NUMA node `node` (negative: any). The error is the system's reason.
    pub(super) fn new(
        eal: Arc<EalInner>,
        mbufs: u32,
        room_octets: u16,
        node: c_int,
    ) -> Result<Self, String> {
        let name = format!("vmprobe{}\0", MADE.fetch_add(1, Ordering::Relaxed));
        let buffer =
            room_octets.saturating_add(u16::try_from(dpdk_sys::RTE_PKTMBUF_HEADROOM).unwrap_or(0));
        // SAFETY: the name ends with a zero octet and is copied; EAL runs, as `eal` proves.
        let pool = unsafe {
            dpdk_sys::rte_pktmbuf_pool_create(
                name.as_ptr().cast(),
                mbufs,
                CACHE_MBUFS.min(mbufs / 2),
                0,
                buffer,
                node,
            )
        };
        NonNull::new(pool)
            .map(|pool| Self { pool, _eal: eal })
            .ok_or_else(|| error_text(last_errno()))
    }

    pub(super) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.pool.as_ptr()
    }

    /// Buffers that are in the pool now; a snapshot.
    pub(super) fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as this value.
        unsafe { dpdk_sys::rte_mempool_avail_count(self.pool.as_ptr()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: the port and all packets are gone, see the module's invariants.
        unsafe { dpdk_sys::rte_mempool_free(self.pool.as_ptr()) };
    }
}
