//! `vmprobe bench`.

use clap::Args;

use super::output::{self, Outcome};

#[derive(Args)]
pub(crate) struct BenchArguments {}

pub(crate) fn bench(_arguments: &BenchArguments) -> Outcome {
    output::failed(&"bench")
}
