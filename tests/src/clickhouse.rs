//! A ClickHouse of its own for a test: started, killed, started again; taken down when it is dropped.
//!
//! In: nothing. Out: a [`Clickhouse`] on loopback ports of its own.
//! Source: ClickHouse, "Configuration Files"; the server is the one of scripts/fetch-clickhouse.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::broker::certificates;
use crate::end_to_end::{missing_tools, until};
use crate::folder::Folder;
use crate::ports::free_ports;
use crate::skips::{missing, skipped};

mod amid;

/// How long it may take to start, on a machine that is busy with other tests.
const START_S: u64 = 60;
/// Password of the user `probe`.
pub const PASSWORD: &str = "s3cret&%";

/// A server. Its user `default` has no password, `probe` has [`PASSWORD`].
pub struct Clickhouse {
    folder: Folder,
    /// Port of HTTP.
    pub port: u16,
    /// Port of HTTPS, where it has one.
    pub tls_port: u16,
    child: Option<Child>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Clickhouse {
    /// Starts one; `None`, which is said, where it is not there.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_with(test, free_ports(), "")
    }

    /// The same with a port for HTTPS too, whose certificate is of `ca.pem` in its folder.
    pub fn start_with_tls(test: &str) -> Option<Self> {
        let tools = missing_tools(&["openssl"]);
        if !tools.is_empty() {
            missing(test, &tools, "openssl");
            return None;
        }
        let [port, native, tls_port] = free_ports();
        let more = format!(
            "<https_port>{tls_port}</https_port><openSSL><server>\
             <certificateFile>broker.pem</certificateFile><privateKeyFile>broker.key</privateKeyFile>\
             <verificationMode>none</verificationMode></server></openSSL>"
        );
        let mut server = Self::start_with(test, [port, native], &more)?;
        server.tls_port = tls_port;
        Some(server)
    }

    fn start_with(test: &str, [port, native]: [u16; 2], more: &str) -> Option<Self> {
        if !root().join(".deps/clickhouse/chdb/_chdb.abi3.so").is_file() {
            skipped(test, "not installed: ClickHouse (scripts/fetch-clickhouse)");
            return None;
        }
        let folder = Folder::new("clickhouse");
        let at = folder.root().display();
        let user = |name: &str, password: &str| {
            format!(
                "<{name}><password><![CDATA[{password}]]></password><networks><ip>127.0.0.1</ip>\
                 </networks><profile>default</profile><quota>default</quota>\
                 <access_management>1</access_management></{name}>"
            )
        };
        folder.write(
            "users.xml",
            format!(
                "<clickhouse><profiles><default><max_threads>2</max_threads></default></profiles>\
                 <users>{}{}</users><quotas><default/></quotas></clickhouse>",
                user("default", ""),
                user("probe", PASSWORD)
            ),
        );
        folder.write(
            "config.xml",
            format!(
                "<clickhouse><logger><level>warning</level><log>{at}/server.log</log></logger>\
                 <http_port>{port}</http_port><tcp_port>{native}</tcp_port>\
                 <listen_host>127.0.0.1</listen_host><path>{at}/data/</path>\
                 <tmp_path>{at}/tmp/</tmp_path><user_files_path>{at}/files/</user_files_path>\
                 <format_schema_path>{at}/schemas/</format_schema_path>\
                 <user_directories><users_xml><path>users.xml</path></users_xml>\
                 <local_directory><path>{at}/access/</path></local_directory></user_directories>\
                 <default_profile>default</default_profile>\
                 <default_database>default</default_database>\
                 <mark_cache_size>67108864</mark_cache_size>\
                 <max_server_memory_usage>2000000000</max_server_memory_usage>{more}</clickhouse>"
            ),
        );
        if more.contains("openSSL") {
            certificates(&folder);
        }
        let mut server = Self { folder, port, tls_port: 0, child: None };
        server.run();
        Some(server)
    }

    /// Starts it, or starts it again with what it has on its disk.
    pub fn run(&mut self) {
        let said = fs::File::create(self.folder.path("said")).expect("a file");
        let also = said.try_clone().expect("a file");
        let mut command = Command::new("python3");
        command.arg(root().join("scripts/clickhouse-server")).arg(self.folder.path("config.xml"));
        command.current_dir(self.folder.root());
        command.stdin(Stdio::null()).stdout(said).stderr(also);
        self.child = Some(command.spawn().expect("python3 runs"));
        let up = until(START_S, || self.ask("SELECT 1"));
        assert!(up.is_some(), "ClickHouse does not start: {}", self.said());
    }

    /// Kills it without warning, at any moment but the one that its tables do not survive without a keeper
    /// (docs/sinks/clickhouse.md, "Delivery"): it is stopped first, and goes on where it is in that.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        amid::halt_outside(child.id(), &self.folder.path("data"));
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The URL for a sink.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same inside TLS.
    pub fn tls_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.tls_port)
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// The answer to a statement.
    pub fn query(&self, statement: &str) -> String {
        self.ask(statement).unwrap_or_else(|| panic!("no answer to {statement}: {}", self.said()))
    }

    /// The same as a number.
    pub fn number(&self, statement: &str) -> u64 {
        let answer = self.query(statement);
        answer.trim().parse().unwrap_or_else(|_| panic!("{statement}: {answer}"))
    }

    /// The answer, where it is a good one.
    fn ask(&self, statement: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        let length = statement.len();
        write!(
            stream,
            "POST /?output_format_json_quote_64bit_integers=0&output_format_json_quote_denormals=0 \
             HTTP/1.0\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{statement}"
        )
        .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let good = head.lines().next()?.contains(" 200 ");
        if !good {
            eprintln!("{statement}: {body}");
        }
        good.then(|| body.to_owned())
    }

    fn said(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path(name)).unwrap_or_default();
        format!("{}{}", read("said"), read("server.log"))
    }
}

impl Drop for Clickhouse {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two servers, each a shard of the cluster `lake`, with a ZooKeeper.
pub struct Cluster {
    /// The shards.
    pub servers: [Clickhouse; 2],
    _keeper: Keeper,
    _folder: Folder,
}

/// A ZooKeeper, killed when dropped.
struct Keeper(Child);

/// Where Debian's package has it.
const KEEPER: &str = "/usr/share/java/zookeeper.jar";

impl Cluster {
    /// Starts one; `None`, which is said, where a part is not there.
    pub fn start(test: &str) -> Option<Self> {
        if !Path::new(KEEPER).is_file() {
            missing(test, &["ZooKeeper"], "libzookeeper-java default-jre-headless");
            return None;
        }
        let folder = Folder::new("keeper");
        let [port, http_one, native_one, parts_one, http_two, native_two, parts_two] = free_ports();
        let settings = format!(
            "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
             admin.enableServer=false\n",
            folder.path("data").display()
        );
        let settings = folder.write("zoo.cfg", settings);
        let keeper = Command::new("java")
            .args(["-Xmx128m", "-cp", "/usr/share/java/*"])
            .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
            .arg(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Keeper)
            .expect("java runs");
        let shard = |native: u16| {
            format!(
                "<shard><internal_replication>true</internal_replication><replica>\
                 <host>127.0.0.1</host><port>{native}</port></replica></shard>"
            )
        };
        let more = |number: u8, parts: u16| {
            format!(
                "<zookeeper><node><host>127.0.0.1</host><port>{port}</port></node></zookeeper>\
                 <macros><shard>{number}</shard><replica>a</replica></macros>\
                 <distributed_ddl><path>/clickhouse/ddl</path></distributed_ddl>\
                 <interserver_http_host>127.0.0.1</interserver_http_host>\
                 <interserver_http_port>{parts}</interserver_http_port>\
                 <remote_servers><lake>{}{}</lake></remote_servers>",
                shard(native_one),
                shard(native_two)
            )
        };
        let up = until(START_S, || TcpStream::connect(("127.0.0.1", port)).ok());
        assert!(up.is_some(), "ZooKeeper does not start");
        let one = Clickhouse::start_with(test, [http_one, native_one], &more(1, parts_one))?;
        let two = Clickhouse::start_with(test, [http_two, native_two], &more(2, parts_two))?;
        Some(Self { servers: [one, two], _keeper: keeper, _folder: folder })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
