//! Ports on loopback for servers of tests.
//!
//! In: nothing. Out: ports that nobody listens on now, and that no other test is given while this one runs.
//! Invariants: none of them is one that the kernel gives to clients. Who connects to such a port before
//! its server is up may be given that very port, and then talks to himself (TCP's simultaneous open).
//! Source: `ip(7)`, `ip_local_port_range`, which begins at 32768.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher as _;
use std::net::TcpListener;
use std::os::fd::IntoRawFd as _;

use rustix::fs::{FlockOperation, flock};

use crate::folder::base;
use crate::random::Random;

/// Below what clients are given, above most of what is registered.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const TRIES_MAX: usize = 1_000;

/// Whether no other test has it. Then it is this one's until its process ends: a server may be started long
/// after its port was drawn, and again.
fn take(port: u16) -> bool {
    let folder = base().join(format!("vmprobe-ports-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let options = File::options().create(true).truncate(false).write(true).clone();
    let file = options.open(folder.join(port.to_string())).expect("a file");
    let is_ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_ours {
        // It stays open, and so locked.
        let _ = file.into_raw_fd();
    }
    is_ours
}

/// Different ones. Other tests look for some at the same time, so they are drawn.
///
/// # Panics
/// If there are none.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let mut chance = Random::new(RandomState::new().hash_one(0));
    let count = u64::from(PORTS.end - PORTS.start);
    // All are held until all are found.
    let bound = [(); N].map(|()| {
        let mut drawn = (0..TRIES_MAX).map(|_| chance.below(count));
        drawn
            .find_map(|place| {
                let port = PORTS.start + u16::try_from(place).expect("below the count");
                // The server of one that another test has may be down just now.
                take(port).then(|| TcpListener::bind(("127.0.0.1", port)).ok()).flatten()
            })
            .expect("a free port")
    });
    bound.map(|listener| listener.local_addr().expect("its address").port())
}

/// One.
///
/// # Panics
/// If there is none.
pub fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_differ_and_are_no_clients() {
        let mut ports = free_ports::<32>();
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
    }
}
