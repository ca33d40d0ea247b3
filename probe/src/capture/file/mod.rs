//! Capture files: pcap and pcapng, plain or compressed.

mod write;

pub use write::PcapWriter;

/// First word of a classic pcap file with stamps in microseconds.
pub(crate) const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;

/// First word of a classic pcap file with stamps in nanoseconds.
pub(crate) const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Octets of one packet that a record may hold; more is a corrupt record. The largest snap
/// length that tcpdump and Wireshark use (`MAXIMUM_SNAPLEN`).
pub const CAPTURED_OCTETS_MAX: u32 = 262_144;
