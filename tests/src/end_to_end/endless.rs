//! A probe with traffic that never ends, on no network.
//!
//! In: a few frames. Out: the program, which receives them again and again with the time of the clock
//! (DPDK's `net_pcap` with `infinite_rx`), by one worker in windows of half a second.

use std::fs::File;
use std::process::Command;

use vmprobe::capture::file::PcapWriter;
use vmprobe::time::Timestamp;

use super::program::{Probe, vmprobe};
use crate::folder::Folder;

/// MAC and IP address.
pub type Station = ([u8; 6], [u8; 4]);

/// A UDP datagram in a VLAN.
pub fn datagram(vlan: u16, from: Station, to: Station) -> Vec<u8> {
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(from.0, to.0)
        .single_vlan(vlan.try_into().expect("a VLAN id"))
        .ipv4(from.1, to.1, 64)
        .udp(5_000, 9)
        .write(&mut frame, &[7; 20])
        .expect("a vector takes all");
    frame
}

/// Starts it for at most two minutes, with records in `records`; gives the address of its page. `rest` of
/// the configuration may have no section `eal`, `port`, `flow`, `window`, `store` or `serve`.
pub fn endless(folder: &Folder, frames: &[Vec<u8>], rest: &str) -> (Probe, String) {
    let capture = folder.path("in.pcap");
    let file = File::create(&capture).expect("a file");
    let mut writer = PcapWriter::new(file, 1, true).expect("room");
    for frame in frames {
        let octets = u32::try_from(frame.len()).expect("short");
        writer.write(Timestamp::from_parts(1_700_000_000, 0), octets, frame).expect("room");
    }
    writer.finish().expect("room");
    let text = format!(
        "[eal]\nmemory_mib = 128\nhuge_pages = false\nfile_prefix = \"{}\"\n\
         [[port]]\nname = \"p\"\ndevice = \"net_pcap0,rx_pcap={},infinite_rx=1\"\n\
         [flow]\nslots_per_worker = 1024\n[window]\nlength_ms = 500\nrows_max = 1024\n\
         [store]\nfolder = \"records\"\nfree_mib_min = 16\n[serve]\nlisten = \"127.0.0.1:0\"\n{rest}",
        folder.name(),
        capture.display(),
    );
    let file = folder.write("vmprobe.toml", text);
    let mut command = Command::new(vmprobe());
    command.args(["run", "--json", "--seconds", "120", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let address = probe.receiving().expect("it has a page");
    (probe, address)
}
