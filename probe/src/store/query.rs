//! The way to the query program.
//!
//! In: the arguments of `vmprobe query` or `topology`; a plan. Out: this process becomes
//! `vmprobe-query`; or where that is, for those that run it beside, and where the records are that it asks.
//! Invariants: the program beside this one is preferred, so that both are of one version.
//!
//! SQL runs in a program of its own: DuckDB is a library of 70 MB that the probe must start and
//! run without, and a query that takes all its memory takes nothing of the probe's.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::config::{ClickhousePlan, Plan};

const PROGRAM: &str = "vmprobe-query";
/// Longest URL: what a pipe takes at once on every system.
const URL_OCTETS_MAX: usize = 4_096;

/// Where the records are that are asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Records {
    /// In files of this folder.
    Folder(PathBuf),
    /// On a server.
    Clickhouse(Box<ClickhousePlan>),
}

impl Records {
    /// As a plan has them; `None` where none are kept.
    pub fn of(plan: &Plan) -> Option<Self> {
        match &plan.query.clickhouse {
            Some(server) => Some(Self::Clickhouse(Box::new(server.clone()))),
            None => plan.store.folder.clone().map(Self::Folder),
        }
    }

    /// Tells the query program: arguments, and what it reads. No argument is a secret, for whoever is on the machine
    /// sees them: path and query of a URL may be, so it is read from standard input.
    ///
    /// # Errors
    /// The system's, where it has no pipe, and a URL that is longer than one takes at once.
    pub fn tell(&self, command: &mut Command) -> io::Result<()> {
        command.args(self.arguments()).stdin(self.input()?);
        Ok(())
    }

    fn input(&self) -> io::Result<Stdio> {
        let Self::Clickhouse(plan) = self else { return Ok(Stdio::null()) };
        let line = format!("{}\n", plan.url.as_str());
        if line.len() > URL_OCTETS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the URL is too long"));
        }
        let (reader, mut writer) = io::pipe()?;
        // It fits a pipe, so nobody waits for a reader.
        writer.write_all(line.as_bytes())?;
        Ok(reader.into())
    }

    fn arguments(&self) -> Vec<OsString> {
        match self {
            Self::Folder(folder) => vec!["--data".into(), folder.into()],
            Self::Clickhouse(plan) => {
                let argument = |name: &str, value: &dyn std::fmt::Display| {
                    OsString::from(format!("--{name}={value}"))
                };
                let access = &plan.access;
                let mut arguments = vec![
                    "--clickhouse=-".into(),
                    argument("database", &plan.database),
                    argument("ca-file", &access.ca_file.display()),
                ];
                arguments.extend(access.user.as_ref().map(|user| argument("user", user)));
                let password = access.password.as_ref();
                arguments.extend(password.map(|place| argument("password", place)));
                arguments
            }
        }
    }
}

/// How the query program ends where the records cannot be read, in time and memory.
pub const FAILED: i32 = 1;
/// Where the arguments are wrong.
pub const BAD_USAGE: i32 = 2;
/// Where the server of the records does not answer.
pub const UNREACHABLE: i32 = 3;
/// And where it says no.
pub const REFUSED: i32 = 4;

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

/// Replaces this process by the query program: `subcommand`, where the records are, if it is said here, and these
/// arguments. Returns only if that fails.
pub fn exec(
    subcommand: Option<&str>,
    records: Option<&Records>,
    arguments: impl IntoIterator<Item = OsString>,
) -> QueryError {
    let program = match program() {
        Ok(program) => program,
        Err(error) => return error,
    };
    let mut command = Command::new(&program);
    command.args(subcommand);
    if let Some(Err(source)) = records.map(|records| records.tell(&mut command)) {
        return QueryError::Start { program, source };
    }
    let source = command.args(arguments).exec();
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
    fn a_server_is_told_without_its_secret() {
        let mut plan = Plan::default();
        assert_eq!(Records::of(&plan), None);
        plan.store.folder = Some("records".into());
        let records = Records::of(&plan).expect("records");
        assert_eq!(records.arguments(), ["--data", "records"]);
        let mut server = ClickhousePlan::new("http://h:1/secret?key=1".parse().expect("a URL"));
        server.access.user = Some("--x".to_owned());
        server.access.password = Some("env:SECRET".parse().expect("a place"));
        plan.query.clickhouse = Some(server);
        let arguments = Records::of(&plan).expect("records").arguments();
        let ca_file = "--ca-file=/etc/ssl/certs/ca-certificates.crt";
        let expected = ["--clickhouse=-", "--database=vmprobe", ca_file, "--user=--x"];
        assert_eq!(arguments[..4], expected);
        assert_eq!(arguments[4..], ["--password=env:SECRET"]);
        // What the program finds: its arguments, and the URL.
        let mut command = Command::new("sh");
        command.args(["-c", "echo \"$@\" >&2; cat", "sh"]).stdout(Stdio::piped());
        Records::of(&plan).expect("records").tell(&mut command).expect("a pipe");
        let output = command.stderr(Stdio::piped()).output().expect("a shell");
        assert_eq!(output.stdout, b"http://h:1/secret?key=1\n");
        let arguments = String::from_utf8_lossy(&output.stderr);
        assert!(
            arguments.contains("--clickhouse=-") && !arguments.contains("secret"),
            "{arguments}"
        );
    }

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
