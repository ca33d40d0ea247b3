//! Where the records are.
//!
//! In: arguments. Out: a folder, or a ClickHouse.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::clickhouse::{Access, Secret};

/// Longest URL that standard input says.
const URL_OCTETS_MAX: u64 = 1 << 14;

/// Where the records are: a folder or a server.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Folder of the records, as `store.folder` of the probe or `--out` of a replay.
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "clickhouse",
        conflicts_with = "clickhouse"
    )]
    pub(crate) data: Option<PathBuf>,
    /// ClickHouse in place of a folder: its HTTP interface, as `sink.clickhouse.url`; `-` for one in the first
    /// line of standard input, where nobody sees it in a list of processes. With `vmprobe query -c FILE` the
    /// configuration says it.
    #[arg(long, value_name = "URL")]
    pub(crate) clickhouse: Option<String>,
    /// Database of the records there.
    #[arg(long, value_name = "NAME", default_value = "vmprobe", requires = "clickhouse")]
    database: String,
    /// Who asks there; `default` where nobody is named.
    #[arg(long, value_name = "NAME", requires = "clickhouse")]
    user: Option<String>,
    /// Where that one's password is: `file:PATH` or `env:VARIABLE`.
    #[arg(long, value_name = "PLACE", requires = "clickhouse")]
    password: Option<Secret>,
    /// Certificates of authorities, PEM, where the URL is https.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt",
        requires = "clickhouse"
    )]
    ca_file: PathBuf,
}

impl Place {
    /// Whether it is a server.
    pub(crate) fn is_server(&self) -> bool {
        self.clickhouse.is_some()
    }

    /// Who asks where, if it is a server.
    pub(crate) fn server(&self) -> anyhow::Result<Option<Access>> {
        let Some(url) = &self.clickhouse else { return Ok(None) };
        Ok(Some(Access {
            url: if url == "-" { url_of_input()? } else { url.clone() },
            database: self.database.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            ca_file: self.ca_file.clone(),
        }))
    }

    /// The folder, where it is none.
    pub(crate) fn folder(&self) -> anyhow::Result<&PathBuf> {
        self.data.as_ref().context("--data names no folder")
    }
}

fn url_of_input() -> anyhow::Result<String> {
    let mut line = String::new();
    let input = std::io::stdin().lock();
    input.take(URL_OCTETS_MAX).read_line(&mut line).context("--clickhouse -: standard input")?;
    ensure!(
        line.ends_with('\n') || (line.len() as u64) < URL_OCTETS_MAX,
        "--clickhouse -: the first line of standard input is longer than {URL_OCTETS_MAX} octets"
    );
    ensure!(!line.trim().is_empty(), "--clickhouse -: standard input has no URL in its first line");
    Ok(line.trim().to_owned())
}
