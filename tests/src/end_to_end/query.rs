//! Records on disk, asked by the query program.

use std::path::Path;
use std::process::Command;

use serde_json::Value as Json;

use super::program::{built, run_to_end};

/// Why a query was skipped.
pub const NOT_BUILT: &str = "not built: vmprobe-query";

/// The answer of the query program; `None` where the program is not built. That it cannot read the
/// records is a failure.
pub fn query(records: &Path, sql: &str) -> Option<Json> {
    let mut command = Command::new(built("vmprobe-query")?);
    command.args(["--format", "json", "--data"]).arg(records).arg(sql);
    let ended = run_to_end(command);
    ended.expect(0, &[]);
    Some(serde_json::from_str(&ended.output).expect("the query program writes JSON"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{Folder, skipped};
    use super::*;

    #[test]
    fn a_torn_file_is_a_failure_and_no_skip() {
        if built("vmprobe-query").is_none() {
            skipped("a torn file and the query", NOT_BUILT);
            return;
        }
        let records = Folder::new("torn");
        let sql = "SELECT count(*)::UBIGINT AS rows FROM windows";
        let empty = query(records.root(), sql).expect("it is built");
        assert_eq!(empty[0]["rows"], 0);

        let hour = records.path("windows/2026-01-01/00");
        fs::create_dir_all(&hour).expect("a folder");
        fs::write(hour.join("torn.parquet"), b"PAR1 torn").expect("a file");
        let asked = std::panic::catch_unwind(|| query(records.root(), sql));
        assert!(asked.is_err(), "{asked:?}");
    }
}
