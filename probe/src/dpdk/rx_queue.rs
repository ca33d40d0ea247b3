//! One receive queue, its bursts and their packets.
//!
//! In: a started port's queue. Out: [`RxBurst`] of [`Packet`]s.
//! Cost: one foreign call a burst; a packet of several segments is copied together, all others
//! are read where the NIC put them. Nothing is allocated after `new`.
//! Invariants: one owner polls (`&mut self`, neither `Copy` nor `Clone`); packets borrow their
//! burst, which gives each buffer back exactly once; nobody writes to a buffer meanwhile, for which
//! the configuration refuses devices that share theirs (`config::device`).
//! Source: DPDK 22.11, `rte_mbuf_core.h`.

use std::sync::Arc;

use dpdk_sys::{rte_mbuf, vmprobe_packet, vmprobe_stamp_field};

use super::port::PortInner;

/// Packets of one burst at most.
pub const BURST_PACKETS_MAX: u16 = 256;
const SLOTS: usize = BURST_PACKETS_MAX as usize;

/// The owner of one receive queue.
#[derive(Debug)]
pub struct RxQueue {
    port: Arc<PortInner>,
    queue: u16,
    burst: u16,
    stamp: vmprobe_stamp_field,
    descriptors: u16,
    frame_octets_max: usize,
    mbufs: Box<[*mut rte_mbuf; SLOTS]>,
    packets: Box<[vmprobe_packet; SLOTS]>,
    /// One place a packet of the burst, each of `frame_octets_max` octets. Its pages are not
    /// touched before a packet of several segments needs them.
    gathered: Box<[u8]>,
}

// SAFETY: the pointers are to buffers that this queue owns until it gives them back, which any
// thread may do; DPDK binds a queue to no thread as long as only one at a time uses it.
unsafe impl Send for RxQueue {}

/// Fill of the receive ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFill {
    /// Descriptors that hold a packet not yet taken.
    pub used: u32,
    /// Descriptors of the ring.
    pub size: u32,
}

/// VLAN tags that the NIC took off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VlanTags {
    /// Tag control information of the outer, or only, tag.
    pub outer_tci: u16,
    /// That of the inner tag, where two were taken off.
    pub inner_tci: Option<u16>,
}

impl RxQueue {
    pub(super) fn new(
        port: Arc<PortInner>,
        queue: u16,
        burst: u16,
        descriptors: u16,
        frame_octets_max: u32,
        stamp: vmprobe_stamp_field,
    ) -> Self {
        let frame_octets_max = usize::try_from(frame_octets_max).unwrap_or(usize::MAX);
        let gathered = frame_octets_max.saturating_mul(usize::from(burst));
        Self {
            port,
            queue,
            burst,
            stamp,
            descriptors,
            frame_octets_max,
            mbufs: Box::new([std::ptr::null_mut(); SLOTS]),
            packets: Box::new([vmprobe_packet::default(); SLOTS]),
            gathered: vec![0; gathered].into_boxed_slice(),
        }
    }

    /// Number of the queue in its port.
    pub fn number(&self) -> u16 {
        self.queue
    }

    /// Takes what has arrived, at most one burst; never waits.
    #[inline]
    pub fn poll(&mut self) -> RxBurst<'_> {
        // SAFETY: both arrays hold at least `burst` places; `&mut self` proves that nobody else
        // polls this queue; the port is started as long as `self.port` lives.
        let burst = unsafe {
            dpdk_sys::vmprobe_rx_burst(
                self.port.number,
                self.queue,
                self.mbufs.as_mut_ptr(),
                self.packets.as_mut_ptr(),
                self.burst,
                &raw const self.stamp,
                self.port.pool.as_ptr(),
            )
        };
        if burst.packets > 0
            && let Some(given) = self.port.given.get(usize::from(self.queue))
        {
            given.add(burst.packets.into());
        }
        if burst.chained > 0 {
            self.gather(burst.packets);
        }
        let is_common = burst.uncommon == 0;
        let count = usize::from(burst.packets).min(SLOTS);
        RxBurst { queue: self, tsc: burst.tsc, count, is_common }
    }

    /// Fill of the ring; `None` where the driver cannot tell.
    pub fn fill(&self) -> Option<RingFill> {
        // SAFETY: the queue is set up; only its owner asks, so no poll runs at the same time.
        let used = unsafe { dpdk_sys::vmprobe_rx_queue_count(self.port.number, self.queue) };
        let used = u32::try_from(used).ok()?;
        Some(RingFill { used, size: u32::from(self.descriptors) })
    }

    /// Copies packets of several segments together, each to its own place.
    #[cold]
    fn gather(&mut self, count: u16) {
        let places = self.gathered.chunks_exact_mut(self.frame_octets_max.max(1));
        let chained = self.packets.iter_mut().zip(self.mbufs.iter()).take(usize::from(count));
        for ((packet, &mbuf), place) in chained.zip(places) {
            if packet.segments < 2 {
                continue;
            }
            let room = u32::try_from(place.len()).unwrap_or(u32::MAX);
            // SAFETY: the mbuf was received in this burst and is still ours; at most `room`
            // octets are written to `place`, which has that many.
            let copied = unsafe { dpdk_sys::vmprobe_copy(mbuf, place.as_mut_ptr(), room) };
            packet.bytes = place.as_ptr();
            packet.segment_octets = copied;
        }
    }
}

/// Packets that arrived together; given back when dropped.
#[derive(Debug)]
pub struct RxBurst<'queue> {
    queue: &'queue mut RxQueue,
    tsc: u64,
    count: usize,
    /// Every packet is a whole buffer of the port's pool that nobody else holds.
    is_common: bool,
}

impl RxBurst<'_> {
    /// Number of packets.
    #[inline]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether nothing arrived.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The time stamp counter when the burst was taken.
    #[inline]
    pub fn tsc(&self) -> u64 {
        self.tsc
    }

    /// The `place`-th packet, in order of arrival.
    ///
    /// # Panics
    /// If `place` is not below [`Self::len`].
    #[inline]
    pub fn packet(&self, place: usize) -> Packet<'_> {
        let packet = &self.queue.packets[..self.count][place];
        // SAFETY: the octets belong to an mbuf of this burst, or to its place in `gathered`;
        // both stay unchanged until the burst is dropped.
        let bytes =
            unsafe { std::slice::from_raw_parts(packet.bytes, packet.segment_octets as usize) };
        Packet { bytes, packet }
    }
}

impl Drop for RxBurst<'_> {
    #[inline]
    fn drop(&mut self) {
        let count = u16::try_from(self.count).unwrap_or(0);
        let mbufs = self.queue.mbufs.as_mut_ptr();
        if count == 0 {
            return;
        }
        if self.is_common {
            let pool = self.queue.port.pool.as_ptr();
            // SAFETY: the first `count` pointers are mbufs of this burst, each owned by us; the
            // shim has found that each is a whole buffer of this pool.
            unsafe { dpdk_sys::vmprobe_give_back(pool, mbufs, count) };
        } else {
            // SAFETY: the first `count` pointers are mbufs of this burst, each owned by us.
            unsafe { dpdk_sys::rte_pktmbuf_free_bulk(mbufs, count.into()) };
        }
    }
}

/// A packet of a burst.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'burst> {
    bytes: &'burst [u8],
    packet: &'burst vmprobe_packet,
}

impl<'burst> Packet<'burst> {
    /// The octets from the Ethernet header on, without FCS; of a packet of several segments at
    /// most the port's `frame_octets_max`.
    #[inline]
    pub fn bytes(&self) -> &'burst [u8] {
        self.bytes
    }

    /// Octets of the whole packet as it was on the wire, stripped tags included, without FCS.
    #[inline]
    pub fn wire_octets(&self) -> u32 {
        let tags = match self.vlan() {
            None => 0,
            Some(VlanTags { inner_tci: None, .. }) => 4,
            Some(_) => 8,
        };
        self.packet.packet_octets.saturating_add(tags)
    }

    /// The stamp that the port wrote, in the unit of [`super::Port::stamps`].
    #[inline]
    pub fn stamp(&self) -> Option<u64> {
        self.has(dpdk_sys::VMPROBE_STAMPED).then_some(self.packet.stamp)
    }

    /// The tags that the NIC took off.
    #[inline]
    pub fn vlan(&self) -> Option<VlanTags> {
        if !self.has(dpdk_sys::VMPROBE_VLAN_STRIPPED | dpdk_sys::VMPROBE_QINQ_STRIPPED) {
            return None;
        }
        // `rte_mbuf_core.h`: with two tags taken off, vlan_tci is the inner one.
        Some(if self.has(dpdk_sys::VMPROBE_QINQ_STRIPPED) {
            VlanTags {
                outer_tci: self.packet.vlan_tci_outer,
                inner_tci: Some(self.packet.vlan_tci),
            }
        } else {
            VlanTags { outer_tci: self.packet.vlan_tci, inner_tci: None }
        })
    }

    #[inline]
    fn has(&self, marks: u32) -> bool {
        u32::from(self.packet.marks) & marks != 0
    }
}
