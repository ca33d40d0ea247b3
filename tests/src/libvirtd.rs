//! A libvirtd of its own for a test, with libvirt's test driver: no hypervisor, but real domains, events
//! and connections. Taken down when it is dropped.
//!
//! Source: libvirt, "Test driver", libvirtd(8).

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::end_to_end::{is_root, missing_tools, until};
use crate::folder::Folder;

/// What it comes with.
pub const PACKAGES: &str = "libvirt-daemon libvirt-clients";
/// Programs that are needed.
pub const TOOLS: [&str; 2] = ["libvirtd", "virsh"];
/// A driver that the daemon does not start without.
const DRIVER: &str =
    "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_network.so";

/// A daemon.
pub struct Libvirtd {
    folder: Folder,
    child: Option<Child>,
}

impl Libvirtd {
    /// Starts one; `None` where it is not installed.
    pub fn start() -> Option<Self> {
        if !missing_tools(&TOOLS).is_empty() {
            return None;
        }
        let folder = Folder::new("libvirt");
        fs::create_dir(folder.path("drivers")).expect("a folder");
        if Path::new(DRIVER).exists() {
            let own = folder.path("drivers/libvirt_driver_network.so");
            std::os::unix::fs::symlink(DRIVER, own).expect("a link");
        }
        let configuration = format!(
            "unix_sock_dir = \"{root}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n\
             log_outputs = \"3:file:{root}/log\"\n",
            root = folder.root().display()
        );
        fs::write(folder.path("libvirtd.conf"), configuration).expect("a file");
        let mut daemon = Self { folder, child: None };
        daemon.run();
        Some(daemon)
    }

    /// Starts it, or starts it again; the test driver keeps nothing.
    pub fn run(&mut self) {
        let path = |name: &str| self.folder.path(name);
        let mut command = daemon();
        command.arg("-f").arg(path("libvirtd.conf")).arg("-p").arg(path("pid"));
        command.env("LIBVIRT_DRIVER_DIR", path("drivers")).env("HOME", self.folder.root());
        command.env("XDG_RUNTIME_DIR", self.folder.root());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("libvirtd runs"));
        let socket = path("libvirt-sock");
        let up = until(30, || UnixStream::connect(&socket).ok());
        let log = fs::read_to_string(path("log")).unwrap_or_default();
        assert!(up.is_some(), "libvirtd does not start: {log}");
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.folder.path("pid"));
    }

    /// Where its domains are, to be read.
    pub fn uri(&self) -> String {
        format!("test+unix:///default?socket={}", self.folder.path("libvirt-sock-ro").display())
    }

    /// Does something with a domain.
    pub fn virsh(&self, arguments: &[&str]) {
        let uri =
            format!("test+unix:///default?socket={}", self.folder.path("libvirt-sock").display());
        let mut command = Command::new("virsh");
        command.args(["--quiet", "--connect", &uri]).args(arguments);
        let output = command.output().expect("virsh runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "virsh {arguments:?}: {error}");
    }

    /// A file in its folder.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

/// The daemon's network driver has one place on each machine; here it has one of its own.
fn daemon() -> Command {
    if !is_root() {
        return Command::new("libvirtd");
    }
    let script =
        "mkdir -p /run/libvirt && mount -t tmpfs tmpfs /run/libvirt && exec libvirtd \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "libvirtd"]);
    command
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        self.kill();
    }
}
