//! Where packets come from: a NIC queue or capture files.
//!
//! In: a DPDK queue, or pcap and pcapng files. Out: bursts of [`Frame`] with receive time.
//! Cost: no allocation per burst for a NIC; a file source reads ahead in large blocks.
//! Invariants: one owner per queue; a burst borrows its source, so it is given back before the
//! next poll; no stamp is above [`STAMP_MAX`].

pub mod file;
pub mod memory;
pub mod clock;
#[cfg(feature = "dpdk")]
pub mod nic;

use crate::index::PortIndex;
use crate::time::Timestamp;

/// Largest stamp that a source gives, in the year 2262. What a file says beyond it is taken for it,
/// so that no sum of a stamp and a timeout comes near the ends of the range, which mean "never".
pub const STAMP_MAX: Timestamp = Timestamp(u64::MAX / 2);

/// How the bytes of a frame begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LinkType {
    /// Ethernet II or 802.3, without FCS (`LINKTYPE_ETHERNET` 1).
    #[default]
    Ethernet,
    /// Begins with an IPv4 or IPv6 header (`LINKTYPE_RAW` 101, `IPV4` 228, `IPV6` 229).
    RawIp,
    /// Linux cooked capture (`LINKTYPE_LINUX_SLL` 113).
    LinuxSll,
    /// Linux cooked capture, version 2 (`LINKTYPE_LINUX_SLL2` 276).
    LinuxSll2,
    /// BSD loopback, address family in the byte order of the capturing host
    /// (`LINKTYPE_NULL` 0, `LINKTYPE_LOOP` 108).
    Loopback,
    /// Any other; such frames are counted, not decoded.
    Unsupported(u16),
}

/// A VLAN tag that the NIC took off the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrippedVlan {
    /// Tag control information: priority (3 bits), DEI, VLAN id (12 bits).
    pub outer_tci: u16,
    /// The second tag, where the NIC took off two.
    pub inner_tci: Option<u16>,
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The captured octets, from the link-layer header on, without FCS.
    pub bytes: &'a [u8],
    /// Original length of the frame in octets, as the source states it (with FCS where a file
    /// says that it holds one); at least `bytes.len()`.
    pub wire_octets: u32,
    /// When it was received, as the source knows it.
    pub timestamp: Timestamp,
    /// How `bytes` begins.
    pub link: LinkType,
    /// Where it arrived.
    pub port: PortIndex,
    /// The tag that the NIC stripped, outside all that is in `bytes`.
    pub stripped_vlan: Option<StrippedVlan>,
}

/// Frames that arrived together. Given back to the source when dropped.
pub trait Burst {
    /// Number of frames.
    fn len(&self) -> usize;

    /// The `place`-th frame, in order of arrival; `place` is below [`Burst::len`]. Changes nothing, and
    /// is the same however often it is asked for.
    fn frame(&self, place: usize) -> Frame<'_>;

    /// Has the first two cache lines of each of the first `frames` fetched; there are so many.
    #[inline]
    fn fetch(&self, frames: usize) {
        for place in 0..frames {
            fetch_lines(self.frame(place).bytes);
        }
    }

    /// Names of the source's ports, in order of [`PortIndex`]; more may come with later bursts.
    /// Empty where the ports are known from the configuration.
    fn port_names(&self) -> &[String] {
        &[]
    }

    /// Whether nothing arrived.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Has the lines fetched in which the headers of a frame lie.
#[inline]
fn fetch_lines(bytes: &[u8]) {
    if let Some(first) = bytes.first() {
        crate::memory::fetch(first);
    }
    if let Some(second) = bytes.get(64) {
        crate::memory::fetch(second);
    }
}

/// What a source says beside its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// More may come. The time is the source's clock now: for a NIC the time of the poll, for a
    /// file the largest stamp read so far (time in a replay moves by packets alone).
    Open(Timestamp),
    /// Nothing came, and as far as the source can tell nothing will, but it stays open: a NIC that
    /// plays a file back and is through. Nobody need wait for it; time stands still.
    Quiet,
    /// Nothing will come any more.
    Ended,
}

/// One queue of packets with a single owner.
pub trait Source {
    /// A burst borrowed from this source.
    type Burst<'a>: Burst
    where
        Self: 'a;

    /// Whether packets are lost if nobody takes them in time (a NIC). A worker never waits for a
    /// full ring if so; with a file it waits.
    fn is_live(&self) -> bool;

    /// Takes what has arrived, at most the source's burst size, without waiting. An empty burst
    /// with [`SourceState::Open`] is no end.
    fn poll(&mut self) -> (Self::Burst<'_>, SourceState);

    /// How full the receive ring is, in percent, where the port can say.
    fn fill_percent(&self) -> Option<u8> {
        None
    }
}
