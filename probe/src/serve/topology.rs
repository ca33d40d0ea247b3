//! The graph of a span of time, from the records, in files or on a server.
//!
//! In: the query part of a request. Out: the JSON of `vmprobe topology`.
//! Cost: a process of its own, one at a time, stopped after [`TIME_S_MAX`] s, with
//! [`MEMORY_MIB_MAX`] MiB; nothing of the workers' cores is reserved for it.
//! Invariants: values of a request reach the program as whole arguments; an answer is at most
//! [`OCTETS_MAX`] octets.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use crate::store::query::{self, Records};

use super::list::{Pairs, VALUE_CHARS_MAX};
use super::problem::{Problem, repeated};
use super::routes::Shared;

/// Seconds that the records are read for.
const TIME_S_MAX: u32 = 30;
/// Seconds beyond them after which the program is ended by force.
const GRACE_S: u32 = 5;
/// Memory of the program in MiB.
const MEMORY_MIB_MAX: u32 = 1024;
/// Largest answer.
const OCTETS_MAX: u64 = 32 << 20;
/// Conversations of one answer at most, and without `limit`.
const CONVERSATIONS_MAX: u32 = 10_000;
const CONVERSATIONS_GIVEN: u32 = 500;
/// What of the program's complaint is repeated.
const COMPLAINT_CHARS_MAX: usize = 400;
/// What of its complaints is kept, the last ones: warnings stand before the reason why it ended.
const COMPLAINTS_OCTETS_MAX: usize = 16 << 10;
/// What each of them begins with.
const COMPLAINT: &str = "vmprobe-query: ";

/// `GET /api/v1/topology`.
pub(super) async fn topology(State(shared): State<Shared>, Query(pairs): Query<Pairs>) -> Response {
    let answer = match arguments(&pairs) {
        Ok(arguments) => ask(&shared, arguments).await,
        Err(problem) => Err(problem),
    };
    match answer {
        Ok(json) => {
            let json_type = HeaderValue::from_static("application/json");
            ([(CONTENT_TYPE, json_type)], Body::from(json)).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// The request's parameters as arguments of the program.
fn arguments(pairs: &Pairs) -> Result<Vec<String>, Problem> {
    const ALLOWED: &str = "from, to, tenant, limit; each once";
    let mut limit = CONVERSATIONS_GIVEN;
    let mut arguments = Vec::new();
    for (place, (name, value)) in pairs.iter().enumerate() {
        if pairs.iter().take(place).any(|(earlier, _)| earlier == name) {
            let error = format!("parameter {:?} is given twice", repeated(name));
            return Err(Problem::bad_request(error, ALLOWED));
        }
        let is_argument = !value.is_empty() && !value.contains('\0');
        if !is_argument || value.chars().count() > VALUE_CHARS_MAX {
            let allowed = format!("1 to {VALUE_CHARS_MAX} characters, none of them U+0000");
            return Err(Problem::bad_request(format!("{:?}: its value", repeated(name)), allowed));
        }
        match name.as_str() {
            "from" | "to" | "tenant" => arguments.push(format!("--{name}={value}")),
            "limit" => limit = conversations(value)?,
            _ => {
                let error = format!("unknown parameter {:?}", repeated(name));
                return Err(Problem::bad_request(error, ALLOWED));
            }
        }
    }
    arguments.push(format!("--limit={limit}"));
    Ok(arguments)
}

fn conversations(value: &str) -> Result<u32, Problem> {
    let number = value.parse().ok().filter(|number| (1..=CONVERSATIONS_MAX).contains(number));
    number.ok_or_else(|| {
        let error = format!("limit: {:?} is out of range", repeated(value));
        Problem::bad_request(error, format!("a whole number from 1 to {CONVERSATIONS_MAX}"))
    })
}

async fn ask(shared: &Shared, arguments: Vec<String>) -> Result<Vec<u8>, Problem> {
    let unavailable = |error: String, allowed: &str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, allowed)
    };
    let Some(records) = &shared.records else {
        return Err(unavailable(
            "no records are kept".to_owned(),
            "a [store] folder, or a [query] server",
        ));
    };
    let program = query::program().map_err(|error| unavailable(error.to_string(), "it there"))?;
    let Ok(_place) = shared.questions.try_acquire() else {
        return Err(unavailable("another graph is in the making".to_owned(), "one at a time"));
    };
    let child = start(&program, records, &arguments).map_err(|error| {
        unavailable(format!("vmprobe-query did not start: {error}"), "that it does")
    })?;
    let longest = Duration::from_secs((TIME_S_MAX + GRACE_S).into());
    // The child ends with the future that is dropped here.
    tokio::time::timeout(longest, read(child)).await.unwrap_or_else(|_| {
        let allowed = format!("a span that takes less than {TIME_S_MAX} s");
        Err(unavailable("the records took too long".to_owned(), &allowed))
    })
}

fn start(program: &Path, records: &Records, arguments: &[String]) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("topology");
    records.tell(command.as_std_mut())?;
    command
        .args(["--skip-bad-files", "--format=json"])
        .arg(format!("--timeout-s={TIME_S_MAX}"))
        .arg(format!("--memory-mib={MEMORY_MIB_MAX}"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// What the program writes, if it ends well; else why there is no answer.
async fn read(mut child: Child) -> Result<Vec<u8>, Problem> {
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("vmprobe-query has no output"));
    };
    // Together: who writes complaints waits as long as nobody reads them.
    let (json, complaints) = tokio::try_join!(answer(out), last_complaints(err))?;
    let status = child.wait().await.map_err(|error| of_program(&error))?;
    if status.success() {
        return Ok(json);
    }
    let complaints = String::from_utf8_lossy(&complaints);
    let last = complaints.rsplit(COMPLAINT).next().unwrap_or_default().trim();
    Err(unanswered(status, last.chars().take(COMPLAINT_CHARS_MAX).collect()))
}

/// Why there is no answer, by how the program ended.
fn unanswered(status: ExitStatus, complaint: String) -> Problem {
    let of_server = "a ClickHouse that answers; see docs/sinks/clickhouse.md";
    let (code, allowed) = match status.code() {
        Some(query::BAD_USAGE) => (
            StatusCode::BAD_REQUEST,
            "times as 2026-01-01T00:00:00Z or nanoseconds, from before to",
        ),
        Some(query::UNREACHABLE) => (StatusCode::SERVICE_UNAVAILABLE, of_server),
        Some(query::REFUSED) => (StatusCode::BAD_GATEWAY, of_server),
        Some(query::FAILED) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "records that can be read, in time and memory; a shorter span takes less",
        ),
        _ => return failed(format!("vmprobe-query ended ({status}): {complaint}")),
    };
    Problem::new(code, complaint, allowed)
}

fn failed(error: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, error, "a whole answer")
}

fn of_program(error: &std::io::Error) -> Problem {
    failed(format!("vmprobe-query: {error}"))
}

/// All of an answer that is not too large.
async fn answer(out: impl AsyncRead + Unpin) -> Result<Vec<u8>, Problem> {
    let mut json = Vec::new();
    out.take(OCTETS_MAX + 1).read_to_end(&mut json).await.map_err(|error| of_program(&error))?;
    if json.len() as u64 > OCTETS_MAX {
        let allowed = format!("{OCTETS_MAX} octets; a smaller limit");
        return Err(Problem::bad_request("the graph is too large", allowed));
    }
    Ok(json)
}

/// The end of what is read to its end.
async fn last_complaints(mut err: impl AsyncRead + Unpin) -> Result<Vec<u8>, Problem> {
    let mut kept = Vec::with_capacity(2 * COMPLAINTS_OCTETS_MAX);
    while err.read_buf(&mut kept).await.map_err(|error| of_program(&error))? > 0 {
        kept.drain(..kept.len().saturating_sub(COMPLAINTS_OCTETS_MAX));
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &[(&str, &str)]) -> Result<Vec<String>, Problem> {
        arguments(&query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn values_are_whole_arguments() {
        let given = of(&[("tenant", "--data=/ x"), ("from", "5"), ("limit", "7")]);
        assert_eq!(
            given,
            Ok(vec!["--tenant=--data=/ x".into(), "--from=5".into(), "--limit=7".into()])
        );
        assert_eq!(of(&[]), Ok(vec![format!("--limit={CONVERSATIONS_GIVEN}")]));
    }

    /// What the program is told, by one that repeats it.
    #[test]
    fn the_program_has_bounds_of_time_and_memory() {
        let arguments = of(&[("limit", "7")]).expect("they are good");
        let told = in_time(async {
            let records = Records::Folder("/records".into());
            let child = start(Path::new("echo"), &records, &arguments);
            read(child.expect("it starts")).await
        });
        let told = String::from_utf8(told.expect("it ends well")).expect("text");
        assert_eq!(
            told.trim_end(),
            "topology --data /records --skip-bad-files --format=json --timeout-s=30 \
             --memory-mib=1024 --limit=7"
        );
    }

    fn in_time<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            tokio::time::timeout(Duration::from_secs(30), work).await.expect("it ends in time")
        })
    }

    /// What is made of a program that does this.
    fn of_script(script: &str) -> Result<String, (u16, String)> {
        let answer = in_time(async {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
            read(command.kill_on_drop(true).spawn().expect("a shell")).await
        });
        answer
            .map(|json| String::from_utf8(json).expect("text"))
            .map_err(|problem| (problem.status.as_u16(), problem.error))
    }

    /// More than a pipe holds, before and while there is output.
    const MANY_WARNINGS: &str = "line=$(printf '%0200d' 0); warn() { for n in $(seq 1000); do \
         echo \"vmprobe-query: left out $line\" >&2; done; }; warn;";

    #[test]
    fn many_warnings_hinder_no_answer() {
        let answer = of_script(&format!("{MANY_WARNINGS} echo 1; warn; echo 2"));
        assert_eq!(answer, Ok("1\n2\n".to_owned()));
        // And the reason is the last of them.
        let why = "vmprobe-query: stopped after 30 s";
        let answer = of_script(&format!("{MANY_WARNINGS} echo '{why}' >&2; exit 1"));
        assert_eq!(answer, Err((503, "stopped after 30 s".to_owned())));
    }

    /// Who reads no more of an answer that is too large does not wait for its end.
    #[test]
    fn an_answer_that_is_too_large_is_the_request_s_matter() {
        let answer = of_script(&format!("head -c {} /dev/zero; exec sleep 60", OCTETS_MAX + 1));
        assert_eq!(answer, Err((400, "the graph is too large".to_owned())));
    }

    #[test]
    fn only_wrong_arguments_are_the_request_s_matter() {
        for (ends, status) in [("exit 2", 400), ("exit 1", 503), ("exit 3", 503), ("exit 4", 502)] {
            let answer = of_script(&format!("echo 'vmprobe-query: why' >&2; {ends}"));
            assert_eq!(answer, Err((status, "why".to_owned())), "{ends}");
        }
        let lost = "vmprobe-query: error while loading shared libraries: libduckdb.so";
        for ends in ["exit 127", "kill -9 $$"] {
            let (status, error) = of_script(&format!("echo '{lost}' >&2; {ends}")).expect_err(ends);
            assert_eq!(status, 502, "{ends}");
            assert!(error.starts_with("vmprobe-query ended (") && error.ends_with("libduckdb.so"));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = "x".repeat(VALUE_CHARS_MAX + 1);
        for query in [
            &[("limit", "0")][..],
            &[("limit", "10001")],
            &[("tenant", "")],
            &[("tenant", &long)],
            &[("tenant", "a\0b")],
            &[("data", "/")],
            &[("from", "1"), ("from", "2")],
        ] {
            assert!(of(query).is_err(), "{query:?}");
        }
    }
}
