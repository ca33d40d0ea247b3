//! Frames that the kernel dropped because a driver's packet sockets were full.
//!
//! In: the packet sockets that this process gains while a device is opened. Out: a sum of drops.
//! Cost: a system call a socket for each reading; none for a driver without such sockets.
//! Invariants: the sum never goes back. The kernel's count begins anew with each answer, so that a
//! driver that asks too is told what we are not: both together are right.
//! Source: packet(7), `PACKET_STATISTICS`; DPDK 22.11's `net_af_packet` never asks.

use std::ffi::c_int;
use std::fs;

use crate::counters::Counter;

/// This process's open files, by their descriptors.
const OPEN_FILES: &str = "/proc/self/fd";

/// The packet sockets of one port.
#[derive(Debug, Default)]
pub(super) struct PacketSockets {
    sockets: Box<[c_int]>,
    dropped: Counter,
}

impl PacketSockets {
    /// Those that this process has now; none where `/proc` is not mounted.
    pub(super) fn all() -> Self {
        let names = fs::read_dir(OPEN_FILES).into_iter().flatten().flatten();
        let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // SAFETY: only asks the kernel; a descriptor that is closed meanwhile is answered by `false`.
        let is_one = |&fd: &c_int| unsafe { dpdk_sys::vmprobe_is_packet_socket(fd) };
        Self { sockets: numbers.filter(is_one).collect(), dropped: Counter::default() }
    }

    /// Those of `self` that are not in `earlier`; counted from now on.
    pub(super) fn since(self, earlier: &Self) -> Self {
        let is_new = |fd: &c_int| !earlier.sockets.contains(fd);
        let sockets = self.sockets.into_iter().filter(is_new).collect();
        Self { sockets, dropped: Counter::default() }
    }

    /// Forgets what was dropped until now.
    pub(super) fn reset(&self) {
        self.sockets.iter().for_each(|&fd| {
            take_drops(fd);
        });
    }

    /// Frames dropped since the last [`PacketSockets::reset`]; one thread asks at a time.
    pub(super) fn dropped(&self) -> u64 {
        let more: u64 = self.sockets.iter().map(|&fd| u64::from(take_drops(fd))).sum();
        self.dropped.add(more);
        self.dropped.load()
    }
}

fn take_drops(fd: c_int) -> u32 {
    // SAFETY: only asks the kernel; what is no packet socket, or none any more, is answered by 0.
    unsafe { dpdk_sys::vmprobe_packet_socket_drops(fd) }
}
