//! The graph of a span of time, from the records, in files or on a server.
//!
//! In: the query part of a request. Out: the JSON of `vmprobe topology`.
//! Cost: a process of its own, one at a time, stopped after [`TIME_S_MAX`] s, with
//! [`MEMORY_MIB_MAX`] MiB; nothing of the workers' cores is reserved for it.
//! Invariants: values of a request reach the program as whole arguments; an answer is at most
//! [`OCTETS_MAX`] octets.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncReadExt as _;
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
const COMPLAINT_OCTETS_MAX: u64 = 400;

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
        if value.is_empty() || value.chars().count() > VALUE_CHARS_MAX {
            let allowed = format!("1 to {VALUE_CHARS_MAX} characters");
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

/// What the program writes, if it ends well; else its complaint, which is of the request.
async fn read(mut child: Child) -> Result<Vec<u8>, Problem> {
    let failed = |error: String| Problem::new(StatusCode::BAD_GATEWAY, error, "a whole answer");
    let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("vmprobe-query has no output".to_owned()));
    };
    let (mut json, mut complaint) = (Vec::new(), Vec::new());
    let (mut out, mut err) = (out.take(OCTETS_MAX + 1), err.take(COMPLAINT_OCTETS_MAX));
    let both = tokio::join!(out.read_to_end(&mut json), err.read_to_end(&mut complaint));
    if let (Err(error), _) | (_, Err(error)) = both {
        return Err(failed(format!("vmprobe-query: {error}")));
    }
    if json.len() as u64 > OCTETS_MAX {
        let allowed = format!("{OCTETS_MAX} octets; a smaller limit");
        return Err(Problem::bad_request("the graph is too large", allowed));
    }
    // Whoever still writes complaints has no reader any more, and ends.
    drop(err);
    let status = child.wait().await.map_err(|error| failed(format!("vmprobe-query: {error}")))?;
    if status.success() {
        return Ok(json);
    }
    let complaint = String::from_utf8_lossy(&complaint);
    let line = complaint.trim().trim_start_matches("vmprobe-query: ");
    let unanswered = match status.code() {
        Some(query::UNREACHABLE) => Some(StatusCode::SERVICE_UNAVAILABLE),
        Some(query::REFUSED) => Some(StatusCode::BAD_GATEWAY),
        _ => None,
    };
    if let Some(status) = unanswered {
        let allowed = "a ClickHouse that answers; see docs/sinks/clickhouse.md";
        return Err(Problem::new(status, line.to_owned(), allowed));
    }
    let allowed = "times as 2026-01-01T00:00:00Z or nanoseconds, from before to";
    Err(Problem::bad_request(line.to_owned(), allowed))
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let told = runtime.expect("a runtime").block_on(async {
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

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = "x".repeat(VALUE_CHARS_MAX + 1);
        for query in [
            &[("limit", "0")][..],
            &[("limit", "10001")],
            &[("tenant", "")],
            &[("tenant", &long)],
            &[("data", "/")],
            &[("from", "1"), ("from", "2")],
        ] {
            assert!(of(query).is_err(), "{query:?}");
        }
    }
}
