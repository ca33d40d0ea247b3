//! The way to the query program.
//!
//! In: the arguments of `vmprobe query` or `topology`. Out: this process becomes `vmprobe-query`; or
//! where that is, for those that run it beside.
//! Invariants: the program beside this one is preferred, so that both are of one version.
//!
//! SQL runs in a program of its own: DuckDB is a library of 70 MB that the probe must start and
//! run without, and a query that takes all its memory takes nothing of the probe's.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "vmprobe-query";

/// Why the query program did not start.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It is nowhere.
    #[error(
        "{PROGRAM} is neither {beside} nor in PATH; build it with \
         `scripts/fetch-duckdb && cargo build --release -p {PROGRAM}`"
    )]
    Missing {
        /// Where it was looked for first.
        beside: String,
    },
    /// The system refused to start it.
    #[error("{program} did not start: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Replaces this process by the query program with these arguments. Returns only if that fails.
pub fn exec(arguments: impl IntoIterator<Item = OsString>) -> QueryError {
    let program = match program() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let source = Command::new(&program).args(arguments).exec();
    QueryError::Start { program, source }
}

/// Where the query program is.
///
/// # Errors
/// [`QueryError::Missing`] where it is neither beside this program nor in `PATH`.
pub fn program() -> Result<PathBuf, QueryError> {
    let beside = std::env::current_exe().ok().and_then(|program| program.parent().map(sibling));
    find(beside.as_deref(), std::env::var_os("PATH"))
}

fn sibling(folder: &Path) -> PathBuf {
    folder.join(PROGRAM)
}

fn find(beside: Option<&Path>, path: Option<OsString>) -> Result<PathBuf, QueryError> {
    let folders = path.unwrap_or_default();
    let in_path = std::env::split_paths(&folders).map(|folder| sibling(&folder));
    let mut places = beside.map(Path::to_path_buf).into_iter().chain(in_path);
    places.find(|place| place.is_file()).ok_or_else(|| QueryError::Missing {
        beside: beside
            .map_or_else(|| "beside this program".to_owned(), |it| it.display().to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_goes_before_path_and_a_missing_one_says_how_to_get_it() {
        let folder = std::env::temp_dir().join(format!("vmprobe-exec-{}", std::process::id()));
        let (near, far) = (folder.join("near"), folder.join("far"));
        for place in [&near, &far] {
            std::fs::create_dir_all(place).expect("a folder");
        }
        std::fs::write(sibling(&far), "").expect("a file");
        let found = || find(Some(&sibling(&near)), Some(far.clone().into_os_string()));
        assert_eq!(found().expect("in PATH"), sibling(&far));
        std::fs::write(sibling(&near), "").expect("a file");
        assert_eq!(found().expect("beside"), sibling(&near));
        let missing = find(Some(&folder.join("no")), None).expect_err("nowhere").to_string();
        assert!(missing.contains("scripts/fetch-duckdb") && missing.contains("/no"), "{missing}");
        let _ = std::fs::remove_dir_all(folder);
    }
}
