//! A password, from where it is said to be.
//!
//! Invariants: it stands in no argument and in no text that is made here.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context as _, ensure};

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// First line of a file.
    File(PathBuf),
    /// Variable of the environment.
    Variable(String),
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Variable(name.to_owned())),
            _ => Err("allowed: file:PATH or env:VARIABLE"),
        }
    }
}

impl Secret {
    /// The secret.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::File(path) => {
                std::fs::read_to_string(path).with_context(|| path.display().to_string())?
            }
            Self::Variable(name) => {
                std::env::var(name).with_context(|| format!("the variable {name}"))?
            }
        };
        let line = text.lines().next().unwrap_or_default();
        ensure!(!line.is_empty(), "{self}: no text in its first line");
        Ok(line.to_owned())
    }
}

impl std::fmt::Display for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(out, "file:{}", path.display()),
            Self::Variable(name) => write!(out, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_secrets_are_not_shown() {
        assert_eq!("file:/a:b".parse(), Ok(Secret::File("/a:b".into())));
        assert_eq!("env:A".parse(), Ok(Secret::Variable("A".to_owned())));
        for text in ["hunter2", "file:", "env:", ""] {
            assert!(text.parse::<Secret>().is_err(), "{text}");
        }
        let path = std::env::temp_dir().join(format!("vmprobe-query-{}", std::process::id()));
        std::fs::write(&path, "hunter2\nmore\n").expect("a file");
        let secret = Secret::File(path.clone());
        assert_eq!(secret.read().expect("a secret"), "hunter2");
        std::fs::write(&path, "\nhunter2\n").expect("a file");
        let error = secret.read().expect_err("nothing").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let _ = std::fs::remove_file(path);
    }
}
