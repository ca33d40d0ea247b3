//! The command behind the upkeep of the store; `vmprobe run` starts it.

use std::io;

use clap::Args;
use vmprobe::store::{Round, stand_back};

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct TidyArguments {
    /// What is to be done, as JSON.
    round: String,
}

pub(crate) fn tidy(arguments: &TidyArguments) -> Outcome {
    let round: Round = match serde_json::from_str(&arguments.round) {
        Ok(round) => round,
        Err(error) => return output::misused(&error),
    };
    stand_back();
    output::json(&round.run(&mut io::stdout()));
    Outcome::Success
}
