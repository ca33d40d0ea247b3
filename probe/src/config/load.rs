//! Reads a configuration file.
//!
//! In: a path or text. Out: [`Loaded`], or every problem at once.
//! Cost: runs at start and on reload only; the text has at most [`CONFIG_BYTES_MAX`].
//! Invariants: never panics; a plan that comes out has passed every check.

use std::path::Path;

use super::document::{self, Problems, Section};
use super::plan::Plan;
use super::schema::ROOT;
use super::{agree, build};

/// Largest configuration file in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What the configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `vmprobe run`: packets come from ports, so there is at least one.
    Run,
    /// `vmprobe replay`: packets come from files; ports are not opened.
    Replay,
    /// `vmprobe check`: as `run` where the file has ports, else as `replay`.
    Check,
}

/// A configuration that may run.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What will run.
    pub plan: Plan,
    /// What is allowed but may surprise.
    pub warnings: Problems,
}

/// A replay follows every packet: it can wait, and gives the same each time.
const REPLAY_ONE_IN: u32 = 1;

/// Reads the file at `path`.
///
/// # Errors
/// Every problem of the file; or that it cannot be read, is no UTF-8, or is too large.
pub fn load(path: &Path, mode: Mode) -> Result<Loaded, Problems> {
    let text = document::read(path, CONFIG_BYTES_MAX)?;
    let base = path.parent().unwrap_or(Path::new(""));
    parse(&text, &path.display().to_string(), base, mode)
}

/// Reads `text` of a file called `file_name` in problems; relative paths begin at `base`.
///
/// # Errors
/// Every problem of the text.
pub fn parse(text: &str, file_name: &str, base: &Path, mode: Mode) -> Result<Loaded, Problems> {
    let (document, mut report) = document::parse(text, file_name, CONFIG_BYTES_MAX, &ROOT)?;
    let root = Section::root(&ROOT, &document);
    let mut plan = build::plan(&root, base, &mut report);
    agree::check(&root, &plan, mode, &mut report);
    if !root.table("copies").has("remove") {
        plan.copies.remove = removes_copies(&plan, mode);
    }
    if !root.table("path").has("sample_one_in") && mode == Mode::Replay {
        plan.path.sample_one_in = REPLAY_ONE_IN;
    }
    report.finish().map(|warnings| Loaded { plan, warnings })
}

/// The plan of a replay without a configuration file.
pub fn replay_without_file() -> Plan {
    let mut plan = Plan::default();
    plan.copies.remove = removes_copies(&plan, Mode::Replay);
    plan.path.sample_one_in = REPLAY_ONE_IN;
    plan
}

/// Whether copies leave the traffic if the file does not say. A capture whose taps nobody
/// described may hold the same packet twice for reasons that only its maker knows.
fn removes_copies(plan: &Plan, mode: Mode) -> bool {
    match mode {
        Mode::Run => true,
        Mode::Replay => !plan.taps.is_empty(),
        Mode::Check => !plan.ports.is_empty() || !plan.taps.is_empty(),
    }
}
