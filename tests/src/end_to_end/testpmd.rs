//! DPDK's own `dpdk-testpmd` as a sender over memif: of many flows, or of a capture.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vmprobe::time::sleep_ms;

use super::program::until;

/// Running; killed when dropped.
#[derive(Debug)]
pub struct Testpmd {
    child: Child,
    prefix: String,
    /// The port that is the memif.
    port: u16,
}

impl Testpmd {
    /// Starts it as server of the memif `socket`. It sends 256 flows of 64-octet frames from its
    /// second core as soon as somebody connects.
    pub fn start(socket: &Path, prefix: &str) -> Self {
        let flows = ["--forward-mode=txonly", "--txonly-multi-flow", "--auto-start"];
        Self::spawn(socket, prefix, &[], &flows)
    }

    /// Starts it as server of the memif `socket`. It sends the frames of a capture once, in order,
    /// as soon as somebody connects within half a minute, and waits where the ring is full.
    pub fn start_with(socket: &Path, prefix: &str, capture: &Path) -> Self {
        let source = format!("net_pcap0,rx_pcap={}", capture.display());
        // It would read the capture to its end before it starts, to flush what is old.
        let pass_on = ["--forward-mode=io", "--no-flush-rx"];
        let mut testpmd = Self::spawn(socket, prefix, &[&source], &pass_on);
        testpmd.say("set fwd io retry\nset burst tx delay 30 retry 1000000\nstart\n");
        testpmd
    }

    /// With devices in front of the memif, and what it does with all of them.
    fn spawn(socket: &Path, prefix: &str, devices: &[&str], what: &[&str]) -> Self {
        let memif = format!(
            "net_memif0,role=server,socket={},socket-abstract=no,rsize=11",
            socket.display()
        );
        let mut command = Command::new("dpdk-testpmd");
        command
            .args(["--lcores", "0@0,1@1", "-m", "128", "--no-huge", "--no-pci"])
            .args(["--file-prefix", prefix])
            .args(devices.iter().flat_map(|device| ["--vdev", device]))
            .args(["--vdev", &memif, "--", "--interactive"])
            .args(["--no-mlockall", "--total-num-mbufs=8192"])
            .args(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().expect("dpdk-testpmd starts");
        let started = until(30, || socket.exists().then_some(()));
        assert!(started.is_some(), "dpdk-testpmd makes no socket");
        let port = u16::try_from(devices.len()).expect("a few devices");
        Self { child, prefix: prefix.to_owned(), port }
    }

    /// Stops sending; the ring stays, so that the other side can take what is in it.
    pub fn stop_sending(&mut self) {
        self.say("stop\n");
        sleep_ms(500);
    }

    /// Ends it; the answer is how many packets it sent.
    pub fn end(mut self) -> u64 {
        self.say(&format!("show port stats {}\nquit\n", self.port));
        let mut text = String::new();
        let mut output = self.child.stdout.take().expect("it is piped");
        output.read_to_string(&mut text).expect("it prints text");
        // It forgets its counts when the other side leaves, so the largest is the whole.
        let counts = text.lines().filter_map(|line| {
            let rest = line.split("TX-packets:").nth(1)?;
            rest.split_whitespace().next()?.parse().ok()
        });
        counts.max().unwrap_or_else(|| panic!("no statistics:\n{text}"))
    }

    fn say(&mut self, words: &str) {
        let input = self.child.stdin.as_mut().expect("it is piped");
        input.write_all(words.as_bytes()).expect("it reads commands");
        input.flush().expect("it reads commands");
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it leaves behind when it is killed.
        let _ = fs::remove_dir_all(Path::new("/var/run/dpdk").join(&self.prefix));
    }
}
