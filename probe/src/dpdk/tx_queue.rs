//! Sends frames through a port, for generators and tests; the probe itself never sends.
//!
//! In: frames. Out: how many the port took.
//! Invariants: one owner, as for a receive queue.

use std::sync::Arc;

use dpdk_sys::rte_mbuf;

use super::port::PortInner;
use super::rx_queue::BURST_PACKETS_MAX;

const SLOTS: usize = BURST_PACKETS_MAX as usize;

/// The owner of a port's transmit queue 0.
#[derive(Debug)]
pub struct TxQueue {
    port: Arc<PortInner>,
    mbufs: Box<[*mut rte_mbuf; SLOTS]>,
}

// SAFETY: the pointers are used only within `send`; DPDK binds a queue to no thread.
unsafe impl Send for TxQueue {}

impl TxQueue {
    pub(super) fn new(port: Arc<PortInner>) -> Self {
        Self { port, mbufs: Box::new([std::ptr::null_mut(); SLOTS]) }
    }

    /// Sends the first frames, at most [`BURST_PACKETS_MAX`]; the answer is how many the port
    /// took. Ends at a frame that does not fit into one buffer.
    pub fn send(&mut self, frames: &[&[u8]]) -> usize {
        let mut made: u16 = 0;
        for (frame, slot) in frames.iter().zip(self.mbufs.iter_mut()) {
            let octets = u32::try_from(frame.len()).unwrap_or(u32::MAX);
            // SAFETY: the pool lives as long as the port; `octets` octets are read from `frame`.
            // A longer frame than 4 GiB would be refused as too long for a buffer.
            let mbuf = unsafe {
                dpdk_sys::vmprobe_packet_of(self.port.pool.as_ptr(), frame.as_ptr(), octets)
            };
            if mbuf.is_null() {
                break;
            }
            *slot = mbuf;
            made += 1;
        }
        // SAFETY: the first `made` pointers are packets that we own; `&mut self` proves that
        // nobody else sends on this queue. Those taken belong to the driver afterwards.
        let sent = unsafe {
            dpdk_sys::vmprobe_tx_burst(self.port.number, 0, self.mbufs.as_mut_ptr(), made)
        };
        for &mbuf in &self.mbufs[usize::from(sent)..usize::from(made)] {
            // SAFETY: not taken by the driver, so still ours.
            unsafe { dpdk_sys::vmprobe_free(mbuf) };
        }
        usize::from(sent)
    }
}
