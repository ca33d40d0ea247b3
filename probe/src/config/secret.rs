//! Passwords and keys, from where the plan says that they are.
//!
//! In: a place. Out: the secret.
//! Invariants: read anew each time, so that another one is taken without a restart; no text that is made
//! here shows it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use super::plan::SecretPlace;

/// Longest file of a secret.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{}: no text in its first line", .0.display())]
    Empty(PathBuf),
    #[error("the environment has no variable {0}")]
    Variable(String),
}

/// The secret.
pub(crate) fn read(place: &SecretPlace) -> Result<String, SecretError> {
    match place {
        SecretPlace::File(path) => {
            let mut text = String::new();
            File::open(path)
                .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
                .map_err(|error| SecretError::File { path: path.clone(), error })?;
            let line = text.lines().next().unwrap_or_default();
            if line.is_empty() {
                Err(SecretError::Empty(path.clone()))
            } else {
                Ok(line.to_owned())
            }
        }
        SecretPlace::Variable(name) => std::env::var(name)
            .ok()
            .filter(|secret| !secret.is_empty())
            .ok_or_else(|| SecretError::Variable(name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_secret_and_nothing_shows_it() {
        let path = std::env::temp_dir().join(format!("vmprobe-secret-{}", std::process::id()));
        let place = SecretPlace::File(path.clone());
        assert!(matches!(read(&place), Err(SecretError::File { .. })));
        std::fs::write(&path, "hunter2\nsecond\n").expect("a file");
        assert_eq!(read(&place).expect("a secret"), "hunter2");
        std::fs::write(&path, "\nhunter2\n").expect("a file");
        let error = read(&place).expect_err("empty").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        std::fs::remove_file(path).expect("it was there");
        let missing = SecretPlace::Variable("VMPROBE_NO_SUCH_VARIABLE".to_owned());
        assert!(read(&missing).expect_err("none").to_string().contains("VMPROBE_NO_SUCH"));
    }
}
