//! What many probes have seen, put together: delay and loss between taps that no one probe sees together, and
//! attacks of which each probe sees a part.
//!
//! In: the topics of `path_samples` and `windows`. Out: records of `path` and `alerts` to the configured sinks.
//! Cost: one thread a member; members of a group share the partitions.
//! Invariants: sightings are joined by [`PathStage`](crate::path::PathStage) and added up by
//! [`Paths`](crate::aggregate::path::Paths), windows are looked at by [`Detectors`](crate::detect::Detectors),
//! as one probe does it that sees all taps; an offset is committed
//! when all that came of it is out, so whoever takes over a partition reads again what was not; what is
//! read again gives the same; no clock of another machine that is ahead moves what this one waits for.
//! Source: docs/correlate.md.
//!
//! | file | |
//! |---|---|
//! | `sample` | messages → sightings |
//! | `matcher` | sightings of one partition → trajectories |
//! | `joined` | trajectories on their way between members |
//! | `reducer` | trajectories of all → windows → records |
//! | `paths` | these four as a lane |
//! | `contact` | records of windows → who contacts whom |
//! | `contacts` | the contacts of one partition, on their way to the member that has the detectors |
//! | `fleet` | contacts of all → windows → detectors → records |
//! | `message` | what members tell each other |
//! | `reading` `sending` | a topic as a member of a group reads it; a producer |
//! | `lane` | reading, joining, adding up, sending, committing: what both lanes have in common |
//! | `member` | the loop |
//! | `counts` `status` | what is counted; how a member does |

mod contact;
mod contacts;
mod counts;
mod fleet;
mod joined;
mod lane;
mod matcher;
mod member;
mod message;
mod paths;
mod reading;
mod reducer;
mod sample;
mod sending;
mod status;
#[cfg(test)]
mod testing;

pub use counts::Counts;
pub use member::{CorrelateError, CorrelateReport, correlate};
pub use status::{LaneStatus, PartitionStatus, Rooms, Status, StatusCell, TopicStatus};

use crate::config::Plan;
use crate::index::TapIndex;

/// Up to when a message counts as sent: by its own time, at most a tenth of the hold behind the clock of
/// whoever reads it. One clock that is ahead would end all waiting for the others otherwise.
fn believed_ms(sent_ms: i64, now_ms: i64, hold_ms: i64) -> i64 {
    sent_ms.min(now_ms.saturating_add(hold_ms / 10))
}

/// Places of taps by their names, as the configuration lists them.
fn tap_named(plan: &Plan, name: &str) -> Option<TapIndex> {
    let place = plan.taps.iter().position(|tap| tap.name == name)?;
    u16::try_from(place).ok().map(TapIndex)
}
