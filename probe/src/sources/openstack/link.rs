//! The way to the broker: where it is, and an encrypted or plain connection there.
//!
//! In: a URL, certificates. Out: a stream that the AMQP client drives.
//! Invariants: with `amqps` nothing is said before the broker's certificate was checked against its
//! name; passwords stand in no error and no log; a stream ends when its [`Hold`] does, whatever the broker
//! does: the client's thread, socket and buffers live as long as its stream.
//! Source: RabbitMQ, "URI Specification".

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream as FutureStream;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};

/// Whoever has it holds connections; those made for it end with it.
///
/// The client has a thread for each connection, which ends by itself only where it can write that it closes,
/// or reads that the broker has: not with a broker that blocks publishers, and not with one that takes a
/// connection and says nothing.
pub(crate) struct Hold(watch::Sender<()>);

/// What a connection knows of its [`Hold`].
#[derive(Clone)]
pub(crate) struct Held(watch::Receiver<()>);

impl Hold {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// For a connection.
    pub(crate) fn held(&self) -> Held {
        Held(self.0.subscribe())
    }
}

impl Held {
    /// When nobody holds it any more.
    async fn let_go(mut self) {
        // Nothing is ever said but by the end.
        while self.0.changed().await.is_ok() {}
    }
}

/// Ready when nobody holds the connection any more; it has one waker, so each direction has its own.
struct Gone {
    held: Held,
    wait: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Gone {
    fn new(held: &Held) -> Self {
        Self { held: held.clone(), wait: Box::pin(held.clone().let_go()) }
    }

    /// An error when nobody holds the connection any more; else whoever polls is woken then.
    fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // The wait must not be asked again when it is over.
        if self.held.0.has_changed().is_err() || self.wait.as_mut().poll(cx).is_ready() {
            return Err(given_up());
        }
        Ok(())
    }
}

/// An error and no end of the stream: the client stops at an error whatever it is at.
fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was given up")
}

/// A connection to a broker.
pub(crate) struct Link {
    stream: Stream,
    /// Nobody wants what is read, or written, any more.
    gone: [Gone; 2],
}

enum Stream {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Certificates of those that sign brokers' ones, from PEM text.
pub(crate) fn connector(pem: &[u8]) -> io::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let (added, _) = roots.add_parsable_certificates(certificates.map_err(io::Error::other)?);
    if added == 0 {
        return Err(io::Error::other("the file of trusted certificates holds none"));
    }
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Connects, and checks the broker's certificate where there is a `connector`; as long as it is `held`.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    connector: Option<TlsConnector>,
    held: &Held,
) -> io::Result<Link> {
    tokio::select! {
        stream = open(host, port, connector) => Ok(Link::new(stream?, held)),
        () = held.clone().let_go() => Err(given_up()),
    }
}

async fn open(host: &str, port: u16, connector: Option<TlsConnector>) -> io::Result<Stream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let Some(connector) = connector else { return Ok(Stream::Plain(stream)) };
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Stream::Tls(Box::new(connector.connect(name, stream).await?)))
}

impl Link {
    fn new(stream: Stream, held: &Held) -> Self {
        Self { stream, gone: [Gone::new(held), Gone::new(held)] }
    }

    /// The stream to write to.
    fn writer(&mut self, cx: &mut Context<'_>) -> io::Result<&mut Stream> {
        self.gone[1].poll(cx)?;
        Ok(&mut self.stream)
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let link = self.get_mut();
        link.gone[0].poll(cx)?;
        let mut buffer = ReadBuf::new(into);
        let read = match &mut link.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, &mut buffer),
        };
        read.map_ok(|()| buffer.filled().len())
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut().writer(cx)? {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, from),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, from),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().writer(cx)? {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().writer(cx)? {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}

/// The AMQP client's runtime: tokio's, with [`Link`]s, which it is given, instead of plain connections. The client brings
/// TLS of its own, but with a tree of crates for key stores of other systems that is larger than
/// itself.
#[derive(Clone, Debug)]
pub(crate) struct Kit(pub(crate) Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Link;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Link, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl FutureStream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Link>> + Send + 'static {
        // Nobody would hold it.
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
