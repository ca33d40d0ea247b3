//! What Prometheus itself says of a page of metrics.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::end_to_end::{get, missing_tools};
use crate::skips::missing;

/// `promtool check metrics` of `/metrics` there finds nothing to say; where it is not installed that is said.
pub fn promtool_has_nothing_to_say(page: &str) {
    let tools = missing_tools(&["promtool"]);
    if !tools.is_empty() {
        return missing("promtool", &tools, "prometheus");
    }
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    let text = get(page, "/metrics").body;
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let ended = child.wait_with_output().expect("it ends");
    let said = [ended.stdout, ended.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(ended.status.success() && said.trim().is_empty(), "{said}");
}
