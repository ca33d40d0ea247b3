//! The command behind the upkeep of the store; `vmprobe run` starts it.

use std::io;

use vmprobe::store::{Round, stand_back};

use super::output::{self, Outcome};

/// What is to be done comes as JSON on standard input: it may be longer than an argument.
pub(crate) fn tidy() -> Outcome {
    let round: Round = match serde_json::from_reader(io::stdin().lock()) {
        Ok(round) => round,
        Err(error) => return output::misused(&error),
    };
    stand_back();
    round.run(&mut |step| output::json(&step));
    Outcome::Success
}
