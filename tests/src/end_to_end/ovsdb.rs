//! A real `ovsdb-server` with the schema of Open vSwitch, and no switch behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::program::{missing_tools, run_to_end, until};
use crate::folder::Folder;
use crate::ports::free_ports;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How it keeps its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A file.
    Alone,
    /// A cluster of one server, which remembers transactions.
    Cluster,
}

/// A server that listens on a unix socket, on TCP and inside TLS; killed when dropped.
#[derive(Debug)]
pub struct OvsdbServer {
    child: Option<Child>,
    /// Database, socket, certificates and log.
    pub folder: Folder,
    /// Port of TCP on 127.0.0.1.
    pub tcp_port: u16,
    /// Port of TLS on 127.0.0.1.
    pub tls_port: u16,
}

impl OvsdbServer {
    /// What it needs and is not there.
    pub fn lacks() -> Vec<&'static str> {
        let mut lacks = missing_tools(&["ovsdb-server", "ovsdb-tool", "ovs-vsctl", "openssl"]);
        lacks.extend((!Path::new(SCHEMA).exists()).then_some(SCHEMA));
        lacks
    }

    /// Makes a database and certificates, and starts a server. Its certificate is for 127.0.0.1.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(storage: Storage) -> Self {
        let folder = Folder::new("ovsdb");
        let path = |name: &str| folder.path(name).display().to_string();
        let database = path("conf.db");
        match storage {
            Storage::Alone => run("ovsdb-tool", &["create", &database, SCHEMA]),
            Storage::Cluster => {
                let remote = format!("unix:{}", path("raft.sock"));
                run("ovsdb-tool", &["create-cluster", &database, SCHEMA, &remote]);
            }
        }
        authority(&folder, "ca");
        certificate(&folder, "ca", "server", "subjectAltName=IP:127.0.0.1,DNS:localhost");
        certificate(&folder, "ca", "probe", "basicConstraints=CA:FALSE");
        let [tcp_port, tls_port] = free_ports();
        let mut server = Self { child: None, tcp_port, tls_port, folder };
        server.resume();
        server.set(&["--no-wait", "init"]);
        server
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    /// Starts it again.
    ///
    /// # Panics
    /// If it makes no socket.
    pub fn resume(&mut self) {
        let path = |name: &str| self.folder.path(name).display().to_string();
        let _ = fs::remove_file(self.folder.path("db.sock"));
        let mut command = Command::new("ovsdb-server");
        command.arg(path("conf.db")).args([
            format!("--remote=punix:{}", path("db.sock")),
            format!("--remote=ptcp:{}:127.0.0.1", self.tcp_port),
            format!("--remote=pssl:{}:127.0.0.1", self.tls_port),
            format!("--private-key={}", path("server-key.pem")),
            format!("--certificate={}", path("server.pem")),
            format!("--ca-cert={}", path("ca.pem")),
            format!("--unixctl={}", path("ovsdb.ctl")),
            format!("--log-file={}", path("ovsdb.log")),
        ]);
        for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
            command.env(variable, self.folder.root());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("ovsdb-server starts"));
        let socket = self.folder.path("db.sock");
        let up = until(20, || socket.exists().then_some(()));
        let log = || fs::read_to_string(self.folder.path("ovsdb.log")).unwrap_or_default();
        assert!(up.is_some(), "ovsdb-server makes no socket\n{}", log());
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `ovs-vsctl` on it; the answer is what it prints.
    ///
    /// # Panics
    /// If it is refused.
    pub fn set(&self, arguments: &[&str]) -> String {
        let ended = self.try_set(arguments);
        assert_eq!(ended.code, Some(0), "ovs-vsctl {arguments:?}: {}", ended.log);
        ended.output
    }

    /// The same, which may fail.
    pub fn try_set(&self, arguments: &[&str]) -> super::Ended {
        let mut command = Command::new("ovs-vsctl");
        let socket = format!("--db=unix:{}", self.folder.path("db.sock").display());
        // Nobody sets up what is asked for, so nobody is waited for.
        command.args(["--timeout=20", "--no-wait", &socket]).args(arguments);
        run_to_end(command)
    }

    /// A transaction on the file, while no server runs.
    ///
    /// # Panics
    /// If it is refused.
    pub fn change_file(&self, transaction: &str) {
        let database = self.folder.path("conf.db").display().to_string();
        run("ovsdb-tool", &["transact", &database, transaction]);
    }
}

impl Drop for OvsdbServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Makes `NAME.pem` and `NAME-key.pem` of an authority in a folder.
///
/// # Panics
/// If openssl fails.
pub fn authority(folder: &Folder, name: &str) {
    let path = |file: String| folder.path(&file).display().to_string();
    let (key, out) = (path(format!("{name}-key.pem")), path(format!("{name}.pem")));
    let subject = format!("/CN={name}");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let rest = ["-keyout", &key, "-out", &out, "-days", "2", "-subj", &subject];
    run("openssl", &[&["req", "-x509"][..], &curve, &rest].concat());
}

/// Makes `NAME.pem` and `NAME-key.pem`, signed by an authority, with one line of extensions.
///
/// # Panics
/// If openssl fails.
pub fn certificate(folder: &Folder, authority: &str, name: &str, extension: &str) {
    let path = |file: String| folder.path(&file).display().to_string();
    let (key, request) = (path(format!("{name}-key.pem")), path(format!("{name}.csr")));
    let subject = format!("/CN={name}");
    let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let rest = ["-keyout", &key, "-out", &request, "-subj", &subject];
    run("openssl", &[&["req"][..], &curve, &rest].concat());
    let extensions = folder.write(&format!("{name}.ext"), format!("{extension}\n"));
    let (ca, ca_key) = (path(format!("{authority}.pem")), path(format!("{authority}-key.pem")));
    let (out, extensions) = (path(format!("{name}.pem")), extensions.display().to_string());
    let signed = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
    let rest = ["-CAcreateserial", "-days", "2", "-out", &out, "-extfile", &extensions];
    run("openssl", &[&signed[..], &rest].concat());
}

fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments);
    let ended = run_to_end(command);
    assert_eq!(ended.code, Some(0), "{program} {arguments:?}: {}", ended.log);
}
