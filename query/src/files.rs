//! The files of the records.
//!
//! In: the folder. Out: the Parquet files of each table, sorted by path.
//! Cost: twelve octets of each file are read.
//! Invariants: hidden names (what the probe is still writing) are no records; a file that is no
//! Parquet file is named, never passed on and never left out in silence.
//! Source: Parquet's file format: `PAR1` at both ends, before the last one the footer's length.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::schema;

const MAGIC: [u8; 4] = *b"PAR1";
/// Magic, footer length, magic.
const LEAST_BYTES: u64 = 12;
/// Folders below a table's: day and hour.
const DEPTH_MAX: u32 = 2;

/// The records of a folder.
#[derive(Debug)]
pub(crate) struct Files {
    /// The folder, absolute and without symbolic links.
    pub(crate) folder: PathBuf,
    /// Files of each table; none for a table that the query does not read.
    pub(crate) of_table: BTreeMap<&'static str, Vec<PathBuf>>,
}

/// Finds the records below `folder` that `sql` may read. Files that are none are an error that
/// names them, or with `skip_bad` a warning.
pub(crate) fn find(folder: &Path, sql: &str, skip_bad: bool) -> anyhow::Result<Files> {
    let shown = folder.display();
    let folder = folder.canonicalize().with_context(|| format!("--data {shown}"))?;
    if !folder.is_dir() {
        bail!("--data {shown}: not a folder");
    }
    let mut of_table = BTreeMap::new();
    let mut bad = Vec::new();
    for table in schema::tables() {
        let mut found = Vec::new();
        if schema::may_read(sql, table) {
            list(&folder.join(table), DEPTH_MAX, &mut found)?;
        }
        found.sort();
        found.retain(|path| match check(path) {
            Ok(()) => true,
            Err(problem) => {
                bad.push(format!("{}: {problem:#}", path.display()));
                false
            }
        });
        of_table.insert(table, found);
    }
    report_bad(&bad, skip_bad)?;
    Ok(Files { folder, of_table })
}

/// Refuses or warns.
pub(crate) fn report_bad(bad: &[String], skip_bad: bool) -> anyhow::Result<()> {
    if bad.is_empty() {
        return Ok(());
    }
    let list = bad.join("\n  ");
    if !skip_bad {
        bail!("not records of vmprobe (--skip-bad-files leaves them out):\n  {list}");
    }
    eprintln!("vmprobe-query: left out, not records of vmprobe:\n  {list}");
    Ok(())
}

fn list(folder: &Path, depth: u32, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    for entry in entries {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if kind.is_dir() && depth > 0 {
            list(&path, depth - 1, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|ending| ending == "parquet") {
            found.push(path);
        }
    }
    Ok(())
}

fn check(path: &Path) -> anyhow::Result<()> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes < LEAST_BYTES {
        bail!("{bytes} bytes are no Parquet file");
    }
    let mut magic = [0; 4];
    file.read_exact(&mut magic)?;
    let mut end = [0; 8];
    file.seek(SeekFrom::End(-8))?;
    file.read_exact(&mut end)?;
    let [a, b, c, d, end_magic @ ..] = end;
    if magic != MAGIC {
        bail!("not a Parquet file");
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if end_magic != MAGIC || footer > bytes - LEAST_BYTES {
        bail!("a Parquet file without its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, bytes: &[u8]) -> String {
        let path = std::env::temp_dir().join(format!("vmprobe-{name}-{}", std::process::id()));
        fs::write(&path, bytes).expect("a temporary file");
        let answer = check(&path);
        fs::remove_file(&path).expect("it was there");
        answer.map_or_else(|problem| problem.to_string(), |()| "good".to_owned())
    }

    #[test]
    fn torn_and_foreign_files_are_told_apart() {
        assert_eq!(checked("whole", b"PAR1\0\0\0\0PAR1"), "good");
        assert_eq!(checked("empty", b""), "0 bytes are no Parquet file");
        assert_eq!(checked("foreign", b"time,source,destination\n"), "not a Parquet file");
        assert_eq!(
            checked("torn", b"PAR1 and then power was cut"),
            "a Parquet file without its end"
        );
        assert_eq!(checked("length", b"PAR1\xff\0\0\0PAR1"), "a Parquet file without its end");
    }
}
