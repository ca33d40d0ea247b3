//! The way to a collector.
//!
//! In: messages. Out: octets on a socket.
//! Invariants: an attempt takes no longer than its timeout (the first one by UDP [`ANSWER_MS`] more); a
//! datagram and an SCTP message hold one IPFIX message each.
//! Source: RFC 7011 §10; SCTP's one-to-one sockets, RFC 6458 §4.

use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, ipproto, socket_with};

use crate::config::{IpfixPlan, Transport};
use crate::export::stream::Stream;
use crate::time::{monotonic_ns, ms, sleep_ms};

/// Octets of datagrams without a pause: a quarter of what fits a receive buffer of Linux's default size
/// (208 KiB, in which a datagram of 1,400 octets takes 2,304).
const BURST_OCTETS: usize = 32 << 10;
/// The pause, in milliseconds.
const PAUSE_MS: u64 = 1;
/// How long the first datagrams of a socket wait for the word that nobody listens, in milliseconds. Sockets
/// are opened at the start and after an error: then it is likely.
const ANSWER_MS: u64 = 100;

/// An open way.
pub(super) enum Link {
    Udp {
        socket: UdpSocket,
        /// Nothing was sent on it yet.
        new: bool,
    },
    Stream(Box<Stream>),
    /// An SCTP socket; the system takes it for any other stream.
    Sctp(TcpStream),
}

impl Link {
    /// Opens it.
    pub(super) fn open(plan: &IpfixPlan, timeout_ms: u32) -> Result<Self, String> {
        let place = &plan.url.place;
        let text = |error: io::Error| format!("{}: {error}", plan.url);
        match plan.url.transport {
            Transport::Tcp | Transport::Tls => {
                let stream = Stream::open(place, &plan.ca_file, timeout_ms);
                stream.map(|stream| Self::Stream(Box::new(stream)))
            }
            Transport::Udp => {
                let socket = each_address(plan, udp).map_err(text)?;
                Ok(Self::Udp { socket, new: true })
            }
            Transport::Sctp => {
                let timeout = Duration::from_millis(timeout_ms.into());
                each_address(plan, |address| sctp(address, timeout)).map(Self::Sctp).map_err(text)
            }
        }
    }

    /// Whether what is known of it says that nothing gets there.
    pub(super) fn is_closed(&mut self) -> bool {
        match self {
            // An ICMP error of what was sent before: nobody listens there. Sockets tell it once.
            Self::Udp { .. } => false,
            Self::Stream(stream) => stream.is_closed(),
            Self::Sctp(socket) => crate::export::stream::is_closed(socket),
        }
    }

    /// Sends all; or how many were sent, and why no more.
    pub(super) fn send(
        &mut self,
        messages: &[Vec<u8>],
        timeout_ms: u32,
    ) -> Result<(), (usize, io::Error)> {
        let end_ns = monotonic_ns().saturating_add(ms(timeout_ms.into()));
        let mut burst = 0;
        for (sent, message) in messages.iter().enumerate() {
            if burst + message.len() > BURST_OCTETS && matches!(self, Self::Udp { .. }) {
                sleep_ms(PAUSE_MS);
                burst = 0;
            }
            burst += message.len();
            self.send_one(message).map_err(|error| (sent, error))?;
            // After the last one nothing is left to be late with.
            if sent + 1 < messages.len() && monotonic_ns() > end_ns {
                let slow = "it takes messages too slowly (timeout_ms)";
                return Err((sent + 1, io::Error::new(ErrorKind::TimedOut, slow)));
            }
        }
        match self {
            Self::Stream(stream) => stream.flush().map_err(|error| (0, error)),
            // Nothing of what was sent since the socket was opened got there, or since the collector died.
            Self::Udp { socket, new } => {
                let wait_ms = if std::mem::take(new) { ANSWER_MS } else { 0 };
                nobody_listens(socket, wait_ms).map_err(|error| (0, error))
            }
            Self::Sctp(_) => Ok(()),
        }
    }

    fn send_one(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write(message),
            Self::Sctp(socket) => whole(socket.write(message)?, message),
            Self::Udp { socket, .. } => whole(socket.send(message)?, message),
        }
    }
}

/// Whether the network says so of datagrams that were sent, within `wait_ms`.
fn nobody_listens(socket: &UdpSocket, wait_ms: u64) -> io::Result<()> {
    let mut left_ms = wait_ms;
    loop {
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        if left_ms == 0 {
            return Ok(());
        }
        sleep_ms(PAUSE_MS);
        left_ms = left_ms.saturating_sub(PAUSE_MS);
    }
}

fn whole(octets: usize, message: &[u8]) -> io::Result<()> {
    if octets == message.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// The first address that works, else the last error.
fn each_address<T>(plan: &IpfixPlan, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let place = &plan.url.place;
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (place.host.as_str(), place.port).to_socket_addrs()? {
        match open(address) {
            Ok(opened) => return Ok(opened),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    // So that errors come back.
    socket.connect(address)?;
    Ok(socket)
}

fn sctp(address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket =
        socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, Some(ipproto::SCTP))?;
    // Linux keeps to this in connect too.
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    connect(&socket, &address)?;
    Ok(TcpStream::from(socket))
}
