//! Ports on loopback for servers of tests.
//!
//! In: nothing. Out: ports that nobody listens on now.
//! Invariants: none of them is one that the kernel gives to clients. Who connects to such a port before
//! its server is up may be given that very port, and then talks to himself (TCP's simultaneous open).
//! Source: `ip(7)`, `ip_local_port_range`, which begins at 32768.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::TcpListener;

use crate::random::Random;

/// Below what clients are given, above most of what is registered.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const TRIES_MAX: usize = 1_000;

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
                TcpListener::bind(("127.0.0.1", port)).ok()
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
