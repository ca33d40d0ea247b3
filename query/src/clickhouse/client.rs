//! Questions over HTTP.
//!
//! In: SQL, settings, tables that go with it. Out: the body of the answer, or [`Refused`].
//! Invariants: an answer comes whole or not at all (`wait_end_of_query`); no redirect is followed and no
//! proxy taken; the password is in a header alone.
//! Source: ClickHouse, "HTTP Interface", "External Data for Query Processing", "Settings".

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::{Access, Upload};
use crate::deadline::Deadline;
use crate::schema;

/// How long a server may take to be reached.
const CONNECT_MS: u64 = 10_000;
/// How much longer than the time limit an answer is waited for: the server looks at its clock now and then.
const GRACE_MS: u64 = 3_000;
/// Longest of the short answers.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// What is shown of an error's text.
const SHOWN_CHARACTERS: usize = 400;
/// The oldest server that is asked.
const VERSION_MIN: (u32, u32) = (24, 8);
/// Between the parts of a body. No value that is sent can hold it: line ends in them are written as `\n`.
const BOUNDARY: &str = "----vmprobe-table";

/// Numbers of errors: MEMORY_LIMIT_EXCEEDED, TOO_MANY_ROWS_OR_BYTES.
const TOO_MUCH: [u32; 2] = [241, 396];
/// UNKNOWN_TABLE, UNKNOWN_DATABASE.
const SCHEMA: [u32; 2] = [60, 81];
/// UNKNOWN_IDENTIFIER.
const NO_COLUMN: u32 = 47;
/// TIMEOUT_EXCEEDED.
const TOO_SLOW: u32 = 159;
/// READONLY.
const READONLY: u32 = 164;
/// How the tables are made and upgraded.
const APPLY: &str = "`vmprobe schema clickhouse --apply` makes and upgrades the tables";

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refused {
    /// No server, or none that speaks like one.
    Unreachable(String),
    /// The server's word, with its number.
    Says(u32, String),
    /// It is there, and has not what is asked.
    Lacks(String),
    /// The answer is larger than it may be.
    TooMuch(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(out, "ClickHouse does not answer: {why}"),
            Self::Says(code, text) => write!(out, "ClickHouse says ({code}): {text}"),
            Self::Lacks(what) | Self::TooMuch(what) => out.write_str(what),
        }
    }
}

impl std::error::Error for Refused {}

/// A column that this program asks for and the server lacks is one of another version.
pub(super) fn lacks_column(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(Refused::Says(NO_COLUMN, text)) => {
            Refused::Says(NO_COLUMN, format!("{text} ({APPLY})")).into()
        }
        _ => error,
    }
}

/// Whether it needed more memory, or gave more, than it may.
pub(crate) fn is_too_much(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(Refused::Says(code, _)) => TOO_MUCH.contains(code),
        Some(Refused::TooMuch(_)) => true,
        _ => false,
    }
}

/// What a question may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    /// Time of the whole command, which may ask several.
    pub(crate) deadline: Deadline,
    /// Memory of the server for it, in MiB.
    pub(crate) memory_mib: u32,
    /// Size of the answer, in MiB.
    pub(crate) answer_mib: u32,
}

/// A server.
pub(crate) struct Server {
    agent: Agent,
    access: Access,
    asking: Asking,
}

impl Server {
    /// A server that has the tables of this version's schema.
    pub(crate) fn open(access: Access, asking: Asking) -> anyhow::Result<Self> {
        let agent = agent(&access, asking)?;
        let server = Self { agent, access, asking };
        server.check_version()?;
        server.check_schema()?;
        Ok(server)
    }

    /// Size of an answer in bytes at most.
    pub(crate) fn answer_bytes_max(&self) -> u64 {
        u64::from(self.asking.answer_mib) << 20
    }

    /// The text of a short answer.
    pub(crate) fn text(&self, sql: &str) -> anyhow::Result<String> {
        let mut text = String::new();
        let answer = self.ask(sql, "TabSeparatedRaw", &[])?;
        let read = answer.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| Refused::Unreachable(error.to_string()))?;
        // What is cut off would go unread, and a tree that is judged must be whole.
        ensure!(
            text.len() as u64 <= TEXT_BYTES_MAX,
            "the answer is longer than {TEXT_BYTES_MAX} octets"
        );
        Ok(text)
    }

    /// The answer to a question, in a format.
    pub(crate) fn ask(
        &self,
        sql: &str,
        format: &str,
        uploads: &[Upload],
    ) -> anyhow::Result<impl Read + use<>> {
        let left = self.asking.deadline.left();
        if left.is_zero() {
            return Err(self.too_slow().into());
        }
        let mut url = self.url();
        let mut add = |name: &str, value: &str| {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.extend([name, "=", &percent_encoded(value)]);
        };
        for (name, value) in self.settings(left) {
            add(name, &value);
        }
        add("default_format", format);
        let body = if uploads.is_empty() {
            sql.as_bytes().to_vec()
        } else {
            add("query", sql);
            for upload in uploads {
                add(&format!("{}_structure", upload.name), &upload.structure);
            }
            multipart(uploads)
        };
        let mut request = self
            .agent
            .post(&url)
            .config()
            .timeout_global(Some(left + Duration::from_millis(GRACE_MS)))
            .build()
            .header("X-ClickHouse-User", self.access.user.as_deref().unwrap_or("default"));
        if let Some(secret) = &self.access.password {
            request = request.header("X-ClickHouse-Key", secret.read()?);
        }
        if !uploads.is_empty() {
            let kind = format!("multipart/form-data; boundary={BOUNDARY}");
            request = request.header("Content-Type", kind);
        }
        let response = request.send(&body).map_err(|error| self.unreachable(&error))?;
        let header = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let code = header("x-clickhouse-exception-code").and_then(|code| code.parse().ok());
        let (status, given) = (response.status().as_u16(), header("x-clickhouse-format"));
        let mut reader = response.into_body().into_reader();
        if status == 200 && code.is_none() {
            let given = given.as_deref().unwrap_or_default();
            ensure!(
                given == format,
                "the query must not say a FORMAT (it gives {given:?}); --format does"
            );
            return Ok(reader);
        }
        let mut text = Vec::new();
        // What cannot be read of an error is not shown.
        let _ = reader.by_ref().take(1 << 16).read_to_end(&mut text);
        Err(self.refused(status, code, &String::from_utf8_lossy(&text)).into())
    }

    fn url(&self) -> String {
        let mut url = self.access.url.clone();
        let host = url.find("://").map_or(0, |at| at + 3);
        if !url.get(host..).is_some_and(|rest| rest.contains(['/', '?'])) {
            url.push('/');
        }
        url
    }

    /// Settings of every question. `readonly` makes the others hold.
    fn settings(&self, left: Duration) -> Vec<(&'static str, String)> {
        let Asking { memory_mib, answer_mib, .. } = self.asking;
        // Whole seconds, of which 0 would be no limit.
        let time_s = left.as_millis().div_ceil(1_000);
        let bytes = |mib: u32| (u64::from(mib) << 20).to_string();
        let one = || "1".to_owned();
        let none = || "0".to_owned();
        vec![
            ("database", self.access.database.clone()),
            ("readonly", one()),
            ("max_execution_time", time_s.to_string()),
            ("timeout_overflow_mode", "throw".to_owned()),
            ("max_memory_usage", bytes(memory_mib)),
            ("max_result_bytes", bytes(answer_mib)),
            ("result_overflow_mode", "throw".to_owned()),
            ("allow_ddl", none()),
            ("allow_introspection_functions", none()),
            ("cancel_http_readonly_queries_on_client_close", one()),
            ("wait_end_of_query", one()),
            ("http_write_exception_in_output_format", none()),
            // As SQL has it, and as the embedded store answers.
            ("join_use_nulls", one()),
            ("union_default_mode", "DISTINCT".to_owned()),
            ("output_format_json_quote_64bit_integers", none()),
            ("output_format_json_quote_denormals", none()),
            ("output_format_json_quote_decimals", none()),
            ("output_format_json_escape_forward_slashes", none()),
            ("date_time_output_format", "iso".to_owned()),
        ]
    }

    /// The URL as far as it may be shown: what stands behind host and port may be a secret, and so may what
    /// stands before the host.
    fn shown(&self) -> String {
        let url = &self.access.url;
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let place = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = place.rsplit('@').next().unwrap_or_default();
        format!("{scheme}://{host}")
    }

    fn unreachable(&self, error: &ureq::Error) -> Refused {
        match error {
            ureq::Error::Timeout(_) => {
                let longest = self.asking.deadline.seconds();
                Refused::Unreachable(format!("{}: nothing came in {longest} s", self.shown()))
            }
            error => Refused::Unreachable(format!("{}: {error}", self.shown())),
        }
    }

    fn refused(&self, status: u16, code: Option<u32>, text: &str) -> Refused {
        // The number is said already.
        let text = text.split_once("DB::Exception: ").map_or(text, |(_, text)| text);
        let text: String = text
            .trim()
            .chars()
            .map(|it| if it.is_control() { ' ' } else { it })
            .take(SHOWN_CHARACTERS)
            .collect();
        match code {
            None => Refused::Unreachable(format!("its answer has status {status}: {text}")),
            Some(TOO_SLOW) => self.too_slow(),
            Some(code) if SCHEMA.contains(&code) => {
                Refused::Says(code, format!("{text} ({APPLY})"))
            }
            Some(READONLY) if text.contains("Cannot modify") => {
                let why = "queries cannot change settings, and the user's profile must not set \
                           readonly: what it may is for its grants to say";
                Refused::Says(READONLY, format!("{text} ({why})"))
            }
            Some(code) => Refused::Says(code, text),
        }
    }

    fn too_slow(&self) -> Refused {
        let longest = self.asking.deadline.seconds();
        Refused::Says(TOO_SLOW, format!("stopped after {longest} s (--timeout-s sets the limit)"))
    }

    fn check_version(&self) -> anyhow::Result<()> {
        let version = self.text("SELECT version()")?;
        let mut parts = version.trim().split('.').map(|part| part.parse().unwrap_or(0));
        let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let (major, minor) = VERSION_MIN;
        if found < VERSION_MIN {
            let shown: String = version.trim().chars().take(40).collect();
            let what =
                format!("the server is ClickHouse {shown}; at least {major}.{minor} is needed");
            return Err(Refused::Lacks(what).into());
        }
        Ok(())
    }

    /// That each table is there, and of this version.
    fn check_schema(&self) -> anyhow::Result<()> {
        let database = &self.access.database;
        let found = self.text(
            "SELECT name, comment FROM system.tables WHERE database = currentDatabase() ORDER BY name",
        )?;
        let found: Vec<_> = found.lines().filter_map(|line| line.split_once('\t')).collect();
        for table in schema::tables() {
            if !found.iter().any(|(name, _)| *name == table) {
                let what = format!(
                    "database {database} has no table {table} that this user may read; {APPLY}"
                );
                return Err(Refused::Lacks(what).into());
            }
        }
        let own = schema::version();
        for (name, comment) in found {
            let version = comment.strip_prefix("vmprobe schema=");
            let version = version.and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
            let what = match version {
                Some(other) if other > own => format!(
                    "table {name} of database {database} is of schema version {other}, a newer vmprobe's; \
                     this one is of version {own}"
                ),
                Some(other) if other < own => {
                    format!(
                        "table {name} of database {database} is of schema version {other}; {APPLY}"
                    )
                }
                _ => continue,
            };
            return Err(Refused::Lacks(what).into());
        }
        Ok(())
    }
}

fn agent(access: &Access, asking: Asking) -> anyhow::Result<Agent> {
    let longest = asking.deadline.seconds() * 1_000 + GRACE_MS;
    let mut config = Agent::config_builder()
        .timeout_global(Some(Duration::from_millis(longest)))
        .timeout_connect(Some(Duration::from_millis(CONNECT_MS.min(longest))))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("vmprobe-query/", env!("CARGO_PKG_VERSION")));
    if access.url.starts_with("https:") {
        let path = access.ca_file.display();
        let text = std::fs::read(&access.ca_file).with_context(|| path.to_string())?;
        let roots: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        ensure!(!roots.is_empty(), "{path}: no certificate in it");
        let roots = RootCerts::Specific(Arc::new(roots));
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}

/// A body with a part a table.
fn multipart(uploads: &[Upload]) -> Vec<u8> {
    let mut body = Vec::new();
    for Upload { name, rows, .. } in uploads {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend([head.as_bytes(), rows.as_bytes(), b"\r\n"].concat());
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

/// Text in a URL's query.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, octet| {
        if octet.is_ascii_alphanumeric() || b"-_.~".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
        out
    })
}
