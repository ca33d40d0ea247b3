//! The link between two network interfaces, with a mirror interface for each side.
//!
//! In: [`Options`] from a file. Out: frames on four interfaces, and in the folder `truth.json`,
//! `frames.jsonl` and, if asked for, the captures of both taps. Runs as the program `vmprobe-link`,
//! in the network namespace of its interfaces, as root.
//! Cost: one thread; a system call for each frame received, delivered, shown.
//! Invariants: times are of the wall clock, read when a frame is taken in and when it goes out, so
//! the truth says what the link did, not what it meant to do; the captures have the same stamps.
//! Frames come as they are on the wire: offloads must be off at all interfaces. Tags are lost: the
//! kernel takes VLAN tags of received frames off, so VMs must send without.
//! Source: packet(7), signalfd(2).

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl::set_timerslack;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvfrom, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};
use vmprobe::time::{monotonic_ns, wall_clock};

use super::engine::{FRAMES_MAX, Link, Outlet};
use super::impairments::{Direction, Impairments, Side};
use super::offline::Captures;
use super::truth::Truth;

/// What the program says on standard error when frames may come.
pub const UP: &str = "the link is up";

/// Longest frame: the largest MTU of a veth pair, with Ethernet header and a tag.
const FRAME_OCTETS_MAX: usize = 65_535 + 18;
const SOCKET_BYTES: usize = 16 << 20;
/// Frames taken from one side before the other gets its turn.
const BURST: usize = 16;
/// Longest sleep.
const SLEEP_NS: u64 = 100_000_000;
/// `PACKET_OUTGOING` in packet(7): sent by this machine, not received.
const OUTGOING: u8 = 4;

/// What a live link is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Interfaces towards side A and side B.
    pub sides: [String; 2],
    /// Interfaces that the mirrors of A and B send on; may be the same one.
    pub mirrors: [String; 2],
    /// What chance is drawn from.
    pub seed: u64,
    /// What is done to frames.
    pub impairments: Impairments,
    /// Where the truth goes.
    pub folder: PathBuf,
    /// Whether the captures of both taps are written.
    pub captures: bool,
    /// Ends by itself after this time; before, at SIGTERM.
    pub seconds_max: u64,
}

/// Runs until SIGTERM or the end of its time. What is under way at the end still leaves when it
/// should.
///
/// # Errors
/// If an interface is not there, may not be used, or has not taken a frame that it should have: then
/// the truth would not be true.
pub fn run(options: &Options) -> io::Result<Truth> {
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.thread_block()?;
    let stop = SignalFd::new(&stop)?;
    // The default would wake us 50 us late.
    set_timerslack(1)?;
    let ports = [Port::receiving(&options.sides[0])?, Port::receiving(&options.sides[1])?];
    let mut out = Wires {
        captures: options.captures.then(|| Captures::create(&options.folder)).transpose()?,
        mirrors: [Port::sending(&options.mirrors[0])?, Port::sending(&options.mirrors[1])?],
        sides: ports,
        latest_ns: 0,
        failed: None,
    };
    let mut link = Link::new(options.seed, options.impairments.clone());
    let mut buffer = vec![0; FRAME_OCTETS_MAX];
    let end_ns = monotonic_ns().saturating_add(options.seconds_max.saturating_mul(1_000_000_000));
    eprintln!("{UP}");
    loop {
        let mut came = false;
        for side in Side::BOTH {
            for _ in 0..BURST {
                link.advance(wall_clock().as_ns(), &mut out);
                let Some(octets) = out.sides[side.place()].receive(&mut buffer)? else { break };
                came = true;
                let frame = buffer[..octets].to_vec();
                let wire_octets = u32::try_from(octets).map_err(io::Error::other)?;
                link.enter(
                    Direction::from(side),
                    wall_clock().as_ns(),
                    frame,
                    wire_octets,
                    &mut out,
                );
            }
        }
        let is_full = link.frames() + 2 * BURST > FRAMES_MAX;
        if is_full {
            return Err(io::Error::other(format!("more than {FRAMES_MAX} frames")));
        }
        if monotonic_ns() >= end_ns || (!came && wait(&link, &out.sides, Some(&stop))?) {
            break;
        }
    }
    while link.next_ns().is_some() {
        wait(&link, &[], None)?;
        link.advance(wall_clock().as_ns(), &mut out);
    }
    let truth = link.end(&mut out);
    let Wires { captures, failed, .. } = out;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some(captures) = captures {
        captures.finish()?;
    }
    truth.write(&options.folder)?;
    Ok(truth)
}

/// Reads the options, then [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_with(options: &Path) -> io::Result<Truth> {
    run(&serde_json::from_str(&std::fs::read_to_string(options)?)?)
}

/// Sleeps until a frame comes or is due; the answer is whether it is time to stop.
fn wait(link: &Link, sides: &[Port], stop: Option<&SignalFd>) -> io::Result<bool> {
    let now_ns = wall_clock().as_ns();
    let due_ns = link.next_ns().map_or(SLEEP_NS, |due_ns| due_ns.saturating_sub(now_ns));
    let sleep = TimeSpec::from_duration(std::time::Duration::from_nanos(due_ns.min(SLEEP_NS)));
    let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut fds: Vec<_> = stop.iter().map(|stop| readable(stop.as_fd())).collect();
    fds.extend(sides.iter().map(|port| readable(port.socket.as_fd())));
    match ppoll(&mut fds, Some(sleep), None) {
        Ok(_) => Ok(stop.is_some() && fds[0].any().unwrap_or(false)),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A packet socket on one interface.
#[derive(Debug)]
struct Port {
    socket: OwnedFd,
    name: String,
    index: usize,
}

impl Port {
    /// One that takes every frame.
    fn receiving(name: &str) -> io::Result<Self> {
        let port = Self::open(name, Some(SockProtocol::EthAll))?;
        setsockopt(&port.socket, sockopt::RcvBufForce, &SOCKET_BYTES)?;
        Ok(port)
    }

    /// One that takes none.
    fn sending(name: &str) -> io::Result<Self> {
        Self::open(name, None)
    }

    fn open(name: &str, protocol: Option<SockProtocol>) -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?;
        setsockopt(&socket, sockopt::SndBuf, &SOCKET_BYTES)?;
        let address = getifaddrs()?.find_map(|interface| {
            let address = interface.address.filter(|_| interface.interface_name == name)?;
            address.as_link_addr().copied()
        });
        let address = address.ok_or_else(|| {
            io::Error::new(ErrorKind::NotFound, format!("there is no interface {name}"))
        })?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, name: name.to_owned(), index: address.ifindex() })
    }

    /// The length of the next frame that came in, if there is one.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
                Ok((octets, from)) => {
                    // Before it was bound the socket took frames of all interfaces.
                    let is_ours = from.is_some_and(|from| {
                        from.ifindex() == self.index && from.pkttype() != OUTGOING
                    });
                    if is_ours {
                        return Ok(Some(octets));
                    }
                }
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(io::Error::from(error)),
            }
        }
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let failed = |why: &str| {
            Err(io::Error::other(format!("{}: {} octets: {why}", self.name, frame.len())))
        };
        match send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT) {
            Ok(sent) if sent == frame.len() => Ok(()),
            Ok(sent) => failed(&format!("{sent} sent")),
            Err(error) => failed(error.desc()),
        }
    }
}

/// Where frames go.
struct Wires {
    captures: Option<Captures>,
    mirrors: [Port; 2],
    sides: [Port; 2],
    latest_ns: u64,
    failed: Option<io::Error>,
}

impl Wires {
    fn keep(&mut self, sent: io::Result<()>) {
        if let Err(error) = sent {
            self.failed.get_or_insert(error);
        }
    }
}

impl Outlet for Wires {
    fn happens_ns(&mut self, _: u64) -> u64 {
        self.latest_ns = self.latest_ns.max(wall_clock().as_ns());
        self.latest_ns
    }

    fn show(&mut self, tap: Side, at_ns: u64, frame: &[u8], wire_octets: u32) {
        self.keep(self.mirrors[tap.place()].send(frame));
        if let Some(captures) = &mut self.captures {
            captures.show(tap, at_ns, frame, wire_octets);
        }
    }

    fn deliver(&mut self, to: Side, _: u64, frame: Vec<u8>) {
        self.keep(self.sides[to.place()].send(&frame));
    }
}
