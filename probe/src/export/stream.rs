//! Connections by TCP or TLS to destinations that answer nothing.
//!
//! In: octets. Out: the same at the other end.
//! Invariants: no call takes longer than the timeout; a certificate is checked before anything is
//! written.
//! Source: RFC 5425 §4.2 (the handshake comes first).

use std::io::{self, ErrorKind, Read as _, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::tls;
use crate::config::StreamUrl;

/// Reads of a connection before a batch at most: who sends more has not closed it.
const READS_MAX: usize = 64;

/// An open connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Connects, to each address of the name until one answers.
    pub(super) fn open(url: &StreamUrl, ca_file: &Path, timeout_ms: u32) -> Result<Self, String> {
        let text = |error: io::Error| format!("{url}: {error}");
        let timeout = Duration::from_millis(timeout_ms.into());
        let addresses = (url.host.as_str(), url.port).to_socket_addrs().map_err(text)?;
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(socket) => {
                    socket.set_write_timeout(Some(timeout)).map_err(text)?;
                    socket.set_read_timeout(Some(timeout)).map_err(text)?;
                    return Self::protect(socket, url, ca_file);
                }
                Err(error) => last = error,
            }
        }
        Err(text(last))
    }

    fn protect(socket: TcpStream, url: &StreamUrl, ca_file: &Path) -> Result<Self, String> {
        if !url.tls {
            return Ok(Self::Plain(socket));
        }
        let config = tls::config(ca_file)?;
        let name =
            ServerName::try_from(url.host.clone()).map_err(|error| format!("{url}: {error}"))?;
        let client = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(client, socket);
        // The handshake now, so that a wrong certificate is told before anything is written.
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| format!("{url}: {error}"))?;
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whether the receiver has closed it: what is written then goes nowhere, and TCP says so only later.
    pub(super) fn is_closed(&mut self) -> bool {
        match self {
            Self::Plain(socket) => is_closed(socket),
            Self::Tls(stream) => {
                let closed = stream.sock.set_nonblocking(true).is_err() || has_ended(stream);
                stream.sock.set_nonblocking(false).is_err() || closed
            }
        }
    }

    /// Writes all of it; some may still stand here.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer().write_all(bytes)
    }

    /// Sends what stands here.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer().flush()
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream,
        }
    }
}

/// Reads what the receiver has sent without waiting for more. Tickets of sessions, which TLS 1.3 sends
/// unasked, stand before its end, so a look at the first octet says nothing; and it may say that it closes
/// (`close_notify`) before its connection does.
fn has_ended(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> bool {
    for _ in 0..READS_MAX {
        match stream.conn.read_tls(&mut stream.sock) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
        let Ok(state) = stream.conn.process_new_packets() else { return true };
        if state.peer_has_closed() {
            return true;
        }
        // Nothing that a receiver says means anything here.
        let said = u64::try_from(state.plaintext_bytes_to_read()).unwrap_or(u64::MAX);
        let _ = io::copy(&mut stream.conn.reader().take(said), &mut io::sink());
    }
    false
}

/// Whether the other end has closed it.
pub(super) fn is_closed(socket: &TcpStream) -> bool {
    let looked = socket.set_nonblocking(true).and_then(|()| socket.peek(&mut [0]));
    let closed = match looked {
        Ok(octets) => octets == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    socket.set_nonblocking(false).is_err() || closed
}
