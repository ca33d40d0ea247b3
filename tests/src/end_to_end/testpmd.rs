//! DPDK's own `dpdk-testpmd` as a sender of many flows over memif.

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
}

impl Testpmd {
    /// Starts it as server of the memif `socket`. It sends 256 flows of 64-octet frames from its
    /// second core as soon as somebody connects.
    pub fn start(socket: &Path, prefix: &str) -> Self {
        let vdev = format!(
            "net_memif0,role=server,socket={},socket-abstract=no,rsize=11",
            socket.display()
        );
        let mut command = Command::new("dpdk-testpmd");
        command
            .args(["--lcores", "0@0,1@1", "-m", "128", "--no-huge", "--no-pci"])
            .args(["--file-prefix", prefix, "--vdev", &vdev, "--"])
            .args(["--interactive", "--forward-mode=txonly", "--txonly-multi-flow"])
            .args(["--no-mlockall", "--total-num-mbufs=8192", "--auto-start"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command.spawn().expect("dpdk-testpmd starts");
        let started = until(30, || socket.exists().then_some(()));
        assert!(started.is_some(), "dpdk-testpmd makes no socket");
        Self { child, prefix: prefix.to_owned() }
    }

    /// Stops sending; the ring stays, so that the other side can take what is in it.
    pub fn stop_sending(&mut self) {
        self.say("stop\n");
        sleep_ms(500);
    }

    /// Ends it; the answer is how many packets it sent.
    pub fn end(mut self) -> u64 {
        self.say("show port stats 0\nquit\n");
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
