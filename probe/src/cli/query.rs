//! `vmprobe query` and `vmprobe topology`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use vmprobe::config::{self, Mode};
use vmprobe::store::query::{self, Records};

use super::output::{self, Outcome};

/// Becomes the query program. `-c FILE` among the arguments says by the configuration where the records
/// are, all others are passed on.
pub(crate) fn query(first: Option<&str>, arguments: Vec<OsString>) -> Outcome {
    let (file, rest) = match split_config(arguments) {
        Ok(split) => split,
        Err(problem) => return output::misused(&problem),
    };
    let records = match file.as_deref().map(place).transpose() {
        Ok(records) => records,
        Err(outcome) => return outcome,
    };
    output::failed(&query::exec(first, records.as_ref(), rest))
}

fn place(file: &Path) -> Result<Records, Outcome> {
    let plan = match config::load(file, Mode::Check) {
        Ok(loaded) => loaded.plan,
        Err(problems) => return Err(output::misused(&problems)),
    };
    match Records::of(&plan) {
        Some(records) => Ok(records),
        None => {
            let what = "no records are kept (allowed: store.folder, or query.clickhouse)";
            Err(output::misused(&format!("{}: {what}", file.display())))
        }
    }
}

/// The file behind `-c` or `--config`, and all other arguments.
fn split_config(
    arguments: Vec<OsString>,
) -> Result<(Option<PathBuf>, Vec<OsString>), &'static str> {
    let (mut file, mut rest) = (None, Vec::new());
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        let joined = text.strip_prefix("--config=").or_else(|| text.strip_prefix("-c"));
        let found = match joined {
            _ if text == "--" => {
                rest.push(argument);
                rest.extend(arguments);
                break;
            }
            _ if text == "-c" || text == "--config" => {
                arguments.next().ok_or("-c: names no file")?.into()
            }
            Some(name) => PathBuf::from(name),
            None => {
                rest.push(argument);
                continue;
            }
        };
        if file.replace(found).is_some() {
            return Err("-c: is given twice");
        }
    }
    Ok((file, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(arguments: &[&str]) -> Result<(Option<PathBuf>, Vec<OsString>), &'static str> {
        split_config(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_configuration_is_taken_out() {
        for given in [&["a", "-c", "f", "b"][..], &["-cf", "a", "b"], &["a", "b", "--config=f"]] {
            let (file, rest) = split(given).expect("allowed");
            assert_eq!(file, Some("f".into()));
            assert_eq!(rest, ["a", "b"]);
        }
        assert_eq!(
            split(&["a", "--", "-c"]),
            Ok((None, vec!["a".into(), "--".into(), "-c".into()]))
        );
        assert!(split(&["-c"]).is_err() && split(&["-c", "a", "-cb"]).is_err());
    }
}
