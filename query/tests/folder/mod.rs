//! A folder of records, and the query program over it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value as Json;
use vmprobe::config::StorePlan;
use vmprobe::export::ParquetSink;
use vmprobe::record::Rows;
use vmprobe::time::Timestamp;

/// Removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("vmprobe-query-{name}'s-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Stores rows as a probe does.
    pub(crate) fn write(&self, rows: Rows, at: Timestamp) {
        let plan =
            StorePlan { folder: Some(self.0.clone()), free_mib_min: 0, ..StorePlan::default() };
        let mut sink = ParquetSink::new(&plan, "p1", "east").expect("a folder");
        sink.write(rows, at);
        assert!(sink.close(at), "{:?}", sink.health());
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmprobe-query"));
        command.arg("--data").arg(&self.0).args(arguments);
        command
    }

    pub(crate) fn query(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the query program")
    }

    pub(crate) fn json(&self, sql: &str) -> Vec<Json> {
        let output = self.query(&["--format", "json", sql]);
        assert!(output.status.success(), "{sql}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All files below, in order.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
