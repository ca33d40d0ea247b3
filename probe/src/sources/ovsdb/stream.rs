//! Octets to and from a server, through a unix socket, TCP, or TLS.
//!
//! In: an address. Out: a [`Stream`] that never waits longer than a tick for octets.
//! Invariants: making a connection, resolving the name and the handshake included, takes no longer than
//! the plan allows; nor does sending. Whoever waits looks every [`TICK_MS`] whether it is to end.
//! Source: unix(7), `connect` on a socket that does not block.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustls::ClientConnection;

use super::tls::{self, TlsError};
use crate::config::{OvsdbHost, OvsdbPlan, OvsdbRemote};
use crate::sources::SourceHandle;
use crate::time::{monotonic_ns, ms};

/// Longest wait for octets, after which the end is looked for.
pub(super) const TICK_MS: u64 = 100;
/// Octets that are read at once.
const READ_BYTES: usize = 1 << 16;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The system says no.
    #[error("cannot connect to {remote}: {source}")]
    Refused {
        /// Where.
        remote: String,
        /// Why.
        source: io::Error,
    },
    /// It takes too long.
    #[error("cannot connect to {remote} within {timeout_ms} ms (inventory.ovsdb.timeout_ms)")]
    Slow {
        /// Where.
        remote: String,
        /// As configured.
        timeout_ms: u32,
    },
    /// The protection cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The probe ends.
    #[error("stopped")]
    Stopped,
}

/// An open connection.
pub(super) struct Stream {
    plain: Plain,
    tls: Option<Box<ClientConnection>>,
    read: Vec<u8>,
}

/// A socket.
enum Plain {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Plain {
    fn limit(&self, read_ms: u64, write_ms: u64) -> io::Result<()> {
        let (read, write) = (Duration::from_millis(read_ms), Duration::from_millis(write_ms));
        match self {
            Self::Unix(socket) => {
                socket.set_read_timeout(Some(read)).and(socket.set_write_timeout(Some(write)))
            }
            Self::Tcp(socket) => {
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(read)).and(socket.set_write_timeout(Some(write)))
            }
        }
    }
}

impl Read for Plain {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(into),
            Self::Tcp(socket) => socket.read(into),
        }
    }
}

impl Write for Plain {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.write(from),
            Self::Tcp(socket) => socket.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes connections. A name that the system does not stop resolving is waited for, not asked again.
#[derive(Default)]
pub(super) struct Connector {
    pending: Option<Receiver<io::Result<TcpStream>>>,
}

impl Connector {
    /// Connects, with the handshake where there is one.
    pub(super) fn connect(
        &mut self,
        plan: &OvsdbPlan,
        handle: &SourceHandle,
    ) -> Result<Stream, ConnectError> {
        let end_ns = monotonic_ns().saturating_add(ms(plan.timeout_ms.into()));
        let remote = || plan.address.to_string();
        let refused = |source| ConnectError::Refused { remote: remote(), source };
        let plain = match &plan.address {
            OvsdbRemote::Unix(path) => Plain::Unix(unix(path).map_err(refused)?),
            OvsdbRemote::Tcp(host) | OvsdbRemote::Tls(host) => {
                Plain::Tcp(self.tcp(host, plan, handle, end_ns)?)
            }
        };
        plain.limit(TICK_MS, plan.timeout_ms.into()).map_err(refused)?;
        let mut stream = Stream { plain, tls: None, read: vec![0; READ_BYTES] };
        if let OvsdbRemote::Tls(host) = &plan.address {
            let config = Arc::new(tls::config(plan)?);
            let name = tls::server_name(plan, &host.host)?;
            let tls = ClientConnection::new(config, name).map_err(TlsError::from)?;
            stream.tls = Some(Box::new(tls));
            stream.handshake(plan, handle, end_ns)?;
        }
        Ok(stream)
    }

    /// Names are resolved by the system, which has its own idea of time: on a thread of its own.
    fn tcp(
        &mut self,
        host: &OvsdbHost,
        plan: &OvsdbPlan,
        handle: &SourceHandle,
        end_ns: u64,
    ) -> Result<TcpStream, ConnectError> {
        let remote = || plan.address.to_string();
        let refused = |source| ConnectError::Refused { remote: remote(), source };
        let pending = match self.pending.take() {
            Some(pending) => pending,
            None => connect_aside(host, plan.timeout_ms).map_err(refused)?,
        };
        loop {
            match pending.recv_timeout(Duration::from_millis(TICK_MS)) {
                Ok(connected) => return connected.map_err(refused),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(refused(io::Error::other("the thread that connects has ended")));
                }
                Err(RecvTimeoutError::Timeout) if handle.is_stopping() => {
                    return Err(ConnectError::Stopped);
                }
                Err(RecvTimeoutError::Timeout) if monotonic_ns() > end_ns => {
                    self.pending = Some(pending);
                    return Err(ConnectError::Slow {
                        remote: remote(),
                        timeout_ms: plan.timeout_ms,
                    });
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// Never waits: a server whose queue of connections is full refuses.
fn unix(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

fn connect_aside(host: &OvsdbHost, timeout_ms: u32) -> io::Result<Receiver<io::Result<TcpStream>>> {
    let (done, pending) = channel::bounded(1);
    let host = host.clone();
    let thread = std::thread::Builder::new().name("ovsdb-connect".to_owned());
    thread.spawn(move || {
        let _ = done.send(tcp(&host, timeout_ms));
    })?;
    Ok(pending)
}

/// Tries all addresses of a name, all together no longer than the limit.
fn tcp(host: &OvsdbHost, timeout_ms: u32) -> io::Result<TcpStream> {
    let addresses: Vec<_> = (host.host.as_str(), host.port).to_socket_addrs()?.take(8).collect();
    let each_ms = u64::from(timeout_ms) / addresses.len().max(1) as u64;
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_millis(each_ms.max(1))) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Stream {
    fn handshake(
        &mut self,
        plan: &OvsdbPlan,
        handle: &SourceHandle,
        end_ns: u64,
    ) -> Result<(), ConnectError> {
        let remote = || plan.address.to_string();
        let refused = |source| ConnectError::Refused { remote: remote(), source };
        while self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
            if handle.is_stopping() {
                return Err(ConnectError::Stopped);
            }
            if monotonic_ns() > end_ns {
                return Err(ConnectError::Slow { remote: remote(), timeout_ms: plan.timeout_ms });
            }
            self.tls_out().map_err(refused)?;
            match self.tls_in() {
                Err(error) if !is_wait(&error) => {
                    // What is wrong is told to the server too, if it still listens.
                    let _ = self.tls_out();
                    return Err(refused(error));
                }
                _ => {}
            }
        }
        self.tls_out().map_err(refused)
    }

    /// Sends all of it.
    pub(super) fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(octets)?;
            self.tls_out()
        } else {
            self.plain.write_all(octets)
        }
    }

    /// What has come; `None` after a tick without any.
    ///
    /// # Errors
    /// Also where the server has closed the connection.
    pub(super) fn receive(&mut self) -> io::Result<Option<&[u8]>> {
        let received =
            if self.tls.is_some() { self.receive_tls() } else { self.plain.read(&mut self.read) };
        match received {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server")),
            Ok(count) => Ok(self.read.get(..count)),
            Err(error) if is_wait(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn receive_tls(&mut self) -> io::Result<usize> {
        if let Some(count) = self.decrypted()? {
            return Ok(count);
        }
        self.tls_in()?;
        self.tls_out()?;
        match self.decrypted()? {
            Some(count) => Ok(count),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Octets that were decrypted and wait; `Some(0)` at the end.
    fn decrypted(&mut self) -> io::Result<Option<usize>> {
        let Some(tls) = &mut self.tls else { return Ok(None) };
        match tls.reader().read(&mut self.read) {
            Ok(count) => Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One read of the socket, decrypted.
    fn tls_in(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        if tls.wants_read() && tls.read_tls(&mut self.plain)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server"));
        }
        tls.process_new_packets().map(drop).map_err(io::Error::other)
    }

    fn tls_out(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.plain)?;
        }
        Ok(())
    }
}

/// Whether a read ended for want of octets.
fn is_wait(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
