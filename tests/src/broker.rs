//! A RabbitMQ of its own for a test: started, killed, started again; taken down when it is dropped.
//!
//! In: nothing. Out: a [`Broker`] on loopback ports of its own, and a [`Publisher`] that speaks as a
//! service of OpenStack does.
//! Source: RabbitMQ, "Configuration"; the server is run by its own script, not by the system's.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;
use vmprobe::time::sleep_ms;

use crate::end_to_end::until;
use crate::folder::Folder;
use crate::ports::free_ports;

/// What it comes with.
pub const PACKAGES: &str = "rabbitmq-server openssl";
/// How long it may take to start, on a machine that is busy with other tests.
const START_S: u64 = 90;

/// A broker.
pub struct Broker {
    folder: Folder,
    /// Port of AMQP.
    pub port: u16,
    /// Port of AMQP inside TLS.
    pub tls_port: u16,
    epmd_port: u16,
    dist_port: u16,
    scripts: PathBuf,
    child: Option<Child>,
}

/// The folder with the server's own scripts.
fn scripts() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/rabbitmq/lib").ok()?.flatten();
    let folders = versions.map(|version| version.path().join("sbin"));
    folders.filter(|folder| folder.join("rabbitmq-server").is_file()).max()
}

impl Broker {
    /// Starts one; `None` where it is not installed.
    pub fn start() -> Option<Self> {
        let scripts = scripts()?;
        let [port, tls_port, epmd_port, dist_port] = free_ports();
        let folder = Folder::new("rabbit");
        certificates(&folder);
        let at = |name: &str| folder.path(name).display().to_string();
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nlisteners.ssl.1 = 127.0.0.1:{tls_port}\n\
             ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
             ssl_options.verify = verify_none\ndisk_free_limit.absolute = 10MB\nlog.console = false\n",
            at("ca.pem"),
            at("broker.pem"),
            at("broker.key"),
        );
        fs::write(folder.path("rabbitmq.conf"), configuration).expect("a file");
        fs::write(folder.path("enabled_plugins"), "[].\n").expect("a file");
        let mut broker =
            Self { folder, port, tls_port, epmd_port, dist_port, scripts, child: None };
        broker.run();
        Some(broker)
    }

    /// The certificate of the authority that has signed the broker's.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path("ca.pem")
    }

    /// A certificate of another authority.
    pub fn other_ca_file(&self) -> PathBuf {
        self.folder.path("other.pem")
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// One of its scripts, in its surroundings.
    fn script(&self, name: &str) -> Command {
        let at = |name: &str| self.folder.path(name).display().to_string();
        let mut command = Command::new(self.scripts.join(name));
        command
            .env("HOME", self.folder.root())
            .env("RABBITMQ_NODENAME", format!("vmprobe{}@localhost", self.port))
            .env("RABBITMQ_MNESIA_BASE", at("mnesia"))
            .env("RABBITMQ_LOG_BASE", at("log"))
            .env("RABBITMQ_CONFIG_FILE", at("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", at("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", at("pid"))
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .stdin(Stdio::null());
        command
    }

    /// Has `rabbitmqctl` tell it something.
    pub fn control(&self, arguments: &[&str]) {
        let mut command = self.script("rabbitmqctl");
        command.args(arguments);
        run(command);
    }

    /// Starts it, or starts it again with what it has on its disk.
    pub fn run(&mut self) {
        let inet = "-kernel inet_dist_use_interface {127,0,0,1}";
        let mut command = self.script("rabbitmq-server");
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", inet);
        let said = fs::File::create(self.folder.path("said")).expect("a file");
        let also = said.try_clone().expect("a file");
        command.stdout(said).stderr(also);
        self.child = Some(command.spawn().expect("the server's script runs"));
        let up = until(START_S, || TcpStream::connect(("127.0.0.1", self.tls_port)).ok());
        assert!(up.is_some(), "RabbitMQ does not start: {}", self.said());
    }

    /// Kills it without warning, and waits until its ports are closed.
    pub fn kill(&mut self) {
        let pid = fs::read_to_string(self.folder.path("pid")).ok();
        if let Some(pid) = pid.and_then(|pid| pid.trim().parse().ok()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let gone = until(10, || TcpStream::connect(("127.0.0.1", self.port)).err());
        assert!(gone.is_some() || std::thread::panicking(), "RabbitMQ still answers");
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path("said")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        // Erlang's port mapper outlives its nodes; this one is ours alone.
        let mut command = Command::new("epmd");
        let port = self.epmd_port.to_string();
        command.args(["-port", &port, "-kill"]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = command.status();
    }
}

/// An authority, a certificate of it for 127.0.0.1, and another authority.
pub fn certificates(folder: &Folder) {
    fs::write(folder.path("names"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    let authority = |name: &str, folder: &Path| {
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-nodes", "-days", "2", "-subj", &format!("/CN={name}")]);
        command.args(["-keyout", &key, "-out", &pem]).current_dir(folder);
        run(command);
    };
    authority("ca", folder.root());
    authority("other", folder.root());
    let mut command = Command::new("openssl");
    command.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-subj", "/CN=broker", "-keyout", "broker.key", "-out", "broker.csr"]);
    run(on(command, folder));
    let mut command = Command::new("openssl");
    command.args(["x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key"]);
    command.args(["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "broker.pem"]);
    run(on(command, folder));
}

fn on(mut command: Command, folder: &Folder) -> Command {
    command.current_dir(folder.root());
    command
}

fn run(mut command: Command) {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Publishes to topic exchanges, which it makes.
pub struct Publisher {
    runtime: Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Publisher {
    /// Connects as guest, and makes the exchanges, which end with the broker, as those of OpenStack do.
    pub fn new(broker: &Broker, exchanges: &[&str]) -> Self {
        Self::with_exchanges(broker, exchanges, false)
    }

    /// The same with exchanges that are there again when the broker is, 2 s after they were made.
    pub fn lasting(broker: &Broker, exchanges: &[&str]) -> Self {
        Self::with_exchanges(broker, exchanges, true)
    }

    fn with_exchanges(broker: &Broker, exchanges: &[&str], durable: bool) -> Self {
        let runtime = Runtime::new().expect("threads");
        let url = format!("amqp://guest:guest@127.0.0.1:{}", broker.port);
        let (connection, channel) = runtime.block_on(async {
            let mut connected = Connection::connect(&url, ConnectionProperties::default()).await;
            for _ in 0..100 {
                // The port is open a little before the broker takes connections.
                if connected.is_ok() {
                    break;
                }
                sleep_ms(100);
                connected = Connection::connect(&url, ConnectionProperties::default()).await;
            }
            let connection = connected.expect("the broker takes connections");
            let channel = connection.create_channel().await.expect("a channel");
            channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
            for exchange in exchanges {
                let options =
                    ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
                let made = channel.exchange_declare(
                    (*exchange).into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                );
                made.await.expect("an exchange");
            }
            (connection, channel)
        });
        Self { runtime, channel, _connection: connection }
    }

    /// Publishes a message; the broker has it when this returns.
    pub fn publish(&self, exchange: &str, key: &str, body: &[u8]) {
        self.runtime.block_on(async {
            let published = self.channel.basic_publish(
                exchange.into(),
                key.into(),
                BasicPublishOptions::default(),
                body,
                BasicProperties::default().with_delivery_mode(2),
            );
            published.await.expect("published").await.expect("confirmed");
        });
    }
}
