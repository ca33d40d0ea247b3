//! An rsyslog of its own for a test: started, killed, started again; taken down when it is dropped.
//!
//! In: nothing. Out: an [`Rsyslog`] on a loopback port of its own, and what each of its lives has understood.
//! Source: rsyslog, `imtcp` and `omfile`.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use crate::broker::certificates;
use crate::end_to_end::{missing_tools, until};
use crate::folder::Folder;
use crate::ports::free_port;
use crate::sinks::SOON_S;
use crate::skips::missing;

/// A receiver of syslog by TCP or TLS.
pub struct Rsyslog {
    folder: Folder,
    /// Its port.
    pub port: u16,
    tls: bool,
    lives: usize,
    child: Option<Child>,
}

impl Rsyslog {
    /// One that does not run yet; `None`, which is said, where it is not there.
    pub fn new(test: &str, tls: bool) -> Option<Self> {
        let tools = missing_tools(&["rsyslogd", "openssl"]);
        if !tools.is_empty() {
            missing(test, &tools, "rsyslog rsyslog-gnutls openssl");
            return None;
        }
        let folder = Folder::new("syslog");
        if tls {
            certificates(&folder);
        }
        Some(Self { folder, port: free_port(), tls, lives: 0, child: None })
    }

    /// The keys of a sink that say where it is, trusting the certificates in `ca`.
    pub fn keys(&self, ca: &str) -> String {
        let scheme = if self.tls { "tls" } else { "tcp" };
        let url = format!("url = \"{scheme}://127.0.0.1:{}\"\n", self.port);
        if self.tls {
            return format!("{url}ca_file = \"{}\"\n", self.folder.path(ca).display());
        }
        url
    }

    /// Starts it. What it understands goes, as lines of JSON, to a file of this life.
    pub fn run(&mut self) {
        self.lives += 1;
        let configuration = self.configuration();
        let file = self.folder.write("rsyslog.conf", configuration);
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(file).arg("-i").arg(self.folder.path("pid"));
        self.child = Some(command.stdin(Stdio::null()).spawn().expect("it starts"));
        let up = until(SOON_S, || TcpStream::connect(("127.0.0.1", self.port)).ok());
        assert!(up.is_some(), "rsyslog does not listen");
    }

    fn configuration(&self) -> String {
        let at = |name: &str| self.folder.path(name).display().to_string();
        let (driver, input) = if self.tls {
            let files = format!(
                "defaultNetstreamDriver=\"gtls\" defaultNetstreamDriverCAFile=\"{}\" \
                 defaultNetstreamDriverCertFile=\"{}\" defaultNetstreamDriverKeyFile=\"{}\"",
                at("ca.pem"),
                at("broker.pem"),
                at("broker.key")
            );
            let mode =
                "StreamDriver.Name=\"gtls\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\"";
            (files, mode)
        } else {
            (String::new(), "")
        };
        format!(
            "global(workDirectory=\"{root}\" maxMessageSize=\"192k\" {driver})\n\
             module(load=\"imtcp\" {input})\n\
             template(name=\"lines\" type=\"list\" option.jsonf=\"on\") {{\n\
             property(outname=\"severity\" name=\"syslogseverity\" format=\"jsonf\")\n\
             property(outname=\"facility\" name=\"syslogfacility\" format=\"jsonf\")\n\
             property(outname=\"host\" name=\"hostname\" format=\"jsonf\")\n\
             property(outname=\"app\" name=\"app-name\" format=\"jsonf\")\n\
             property(outname=\"id\" name=\"msgid\" format=\"jsonf\")\n\
             property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")\n\
             property(outname=\"message\" name=\"msg\" format=\"jsonf\") }}\n\
             ruleset(name=\"r\") {{ action(type=\"omfile\" file=\"{out}\" template=\"lines\") }}\n\
             input(type=\"imtcp\" port=\"{port}\" address=\"127.0.0.1\" ruleset=\"r\")\n",
            root = self.folder.root().display(),
            out = self.out(self.lives).display(),
            port = self.port,
        )
    }

    fn out(&self, life: usize) -> PathBuf {
        self.folder.path(&format!("messages-{life}"))
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What a life of it, counted from 1, has understood; whole lines of its file.
    pub fn messages(&self, life: usize) -> Vec<Json> {
        let text = fs::read_to_string(self.out(life)).unwrap_or_default();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until this life has understood so many messages at least, and gives all that it has.
    pub fn understood(&self, count: usize) -> Vec<Json> {
        let all = || Some(self.messages(self.lives)).filter(|messages| messages.len() >= count);
        let found = until(SOON_S, all);
        found.unwrap_or_else(|| panic!("{} of {count}", self.messages(self.lives).len()))
    }
}

/// The text of a message.
pub fn said(message: &Json) -> &str {
    // The blank that RFC 5424 has before it is rsyslog's.
    message["message"].as_str().expect("text").trim_start_matches(' ')
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        self.kill();
    }
}
