//! A link with known truth: it delays, loses, reorders, duplicates and merges frames, and says what
//! it did to each.
//!
//! In: frames of side A and side B with the time at which they came, a seed, [`Impairments`]. Out:
//! frames for the other side and for the mirrors of both sides, and a [`Truth`].
//! Cost: memory for each frame that ever came, at most [`FRAMES_MAX`].
//! Invariants: time and chance are arguments, so the same frames at the same times with the same
//! seed give the same result; what a mirror loses depends on nothing that the link draws; a frame
//! that came is lost, or has left, alone or as part of a merged one.
//!
//! ```text
//!  side A ──┬──► delay, loss, reordering, duplicates, merging ──┬──► side B
//!         tap A                                               tap B
//!           ╰── loss, duplicates, short frames of a mirror ──╯
//! ```
//!
//! Three ways to drive it: [`impair_capture`] with a capture, [`transfer`] with a sender and a
//! receiver of TCP that answer to what the link does, [`live`] between two network interfaces.

mod alike;
mod engine;
mod expected;
mod impairments;
pub mod live;
mod merge;
mod offline;
mod packet;
mod random;
mod relay;
pub mod transfer;
mod truth;
mod whole;

pub use engine::{FRAMES_MAX, Link, Outlet, QUEUE_FRAMES_MAX};
pub use expected::Counted;
pub use impairments::{Direction, Impairments, Merge, Mirror, PPM, Side, Way};
pub use offline::{Captures, impair_capture};
pub use packet::{Headers, Tcp, parse};
pub use relay::{each_frame_of, relay};
pub use truth::{Delay, Fate, Frame, Shown, Sums, TapSums, Truth};
pub use whole::{Whole, shown_whole};
