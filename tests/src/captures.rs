//! Real captures that nobody in the project wrote, and what tshark says of them.
//!
//! In: the folder in `VMPROBE_TEST_DATA`, else `../shared/data` beside the workspace. Out: paths in
//! a fixed order, and [`Expected`] where a `.tshark.json` lies beside the capture.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::skips::skipped;

/// Folders with captures.
pub const FOLDERS: [&str; 6] =
    ["encapsulation", "protocols", "tcp", "malformed", "attacks", "benign"];

/// Endings of captures, before `.gz` and `.zst`.
const ENDINGS: [&str; 4] = ["pcap", "pcapng", "cap", "trace"];

/// What tshark says of a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Packets.
    pub packets: u64,
    /// Their original lengths in octets.
    pub octets: u64,
    /// TCP streams.
    pub tcp_streams: u64,
    /// UDP streams.
    pub udp_streams: u64,
}

/// The folder of captures; where there is none it says so, and the test is skipped.
pub fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("VMPROBE_TEST_DATA").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    let why = format!("none in {} (VMPROBE_TEST_DATA names another)", folder.display());
    skipped("what needs real captures", &why);
    None
}

/// All captures below one of [`FOLDERS`], in order of their names.
pub fn captures(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&folder.join(name), &mut found);
    found.sort();
    found
}

/// The name of a capture in tables: its path below the folder.
pub fn name(folder: &Path, capture: &Path) -> String {
    capture.strip_prefix(folder).unwrap_or(capture).display().to_string()
}

/// What tshark says of a capture, if that is known.
///
/// # Panics
/// If the file beside it is not as it should be.
pub fn expected(capture: &Path) -> Option<Expected> {
    let beside = PathBuf::from(format!("{}.tshark.json", capture.display()));
    let text = std::fs::read_to_string(beside).ok()?;
    let json: Json = serde_json::from_str(&text).expect("JSON");
    let number = |key: &str| json[key].as_u64().expect("a number");
    Some(Expected {
        packets: number("packets"),
        octets: number("bytes_on_wire"),
        tcp_streams: number("tcp_streams"),
        udp_streams: number("udp_streams"),
    })
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if is_capture(&path) {
            found.push(path);
        }
    }
}

fn is_capture(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    ENDINGS.iter().any(|ending| name.ends_with(&format!(".{ending}")))
}
