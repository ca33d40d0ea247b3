//! Packets of settled flows counted and measured at once.
//!
//! In: [`Brief`]s with their [`Fields`]. Out: what [`FlowStage::count_settled`] and
//! [`FlowStage::measure_settled`] give one after the other.
//! Cost: the flow's two lines, its row's first and both of its measures; nothing is looked up twice.
//! Invariants: what is left is told, and done by [`FlowStage::finish_noted`] before anything else.
//! Source: ARCHITECTURE.md, "Settled flows".

use crate::app::Speech;
use crate::decode::brief::Fields;
use crate::decode::{Brief, protocol, tcp_flag};
use crate::index::WindowNumber;

use super::super::output::FlowOutput;
use super::super::table::Guess;
use super::super::tcp;
use super::measured::Plain;
use super::{FlowStage, Share};

/// FIN, which stands in the low octet of the flags.
const FIN: u8 = tcp_flag::FIN.to_le_bytes()[0];

/// What is left to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: it is counted and measured.
    Nothing,
    /// All: it begins a row, or there is no room for its notes.
    All,
    /// It was counted, and measured as far as it is plain: what more it is, and what became of its
    /// segment.
    Rest(More, Plain),
}

/// What a packet is that was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// No more.
    Nothing,
    /// It changes its flow, or says something.
    Looks,
    /// The octets of its flow went round; it may be the other too.
    WentRound,
}

impl FlowStage {
    /// Counts a punctual packet of the flow that was guessed in `window`, and measures it, after
    /// [`FlowStage::is_settled`] with nothing in between.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "each packet of a settled flow goes this way")]
    pub fn count_noted(
        &mut self,
        guess: Guess,
        (brief, fields): (&Brief, &Fields),
        window: WindowNumber,
        output: &mut impl FlowOutput,
    ) -> Left {
        let share = Share::of_brief(brief);
        let index = guess.index();
        let Some(flow) = self.table.guessed_mut(guess) else { return Left::All };
        // See `FlowStage::count_settled`.
        if !flow.may_be_in(window) {
            return Left::All;
        }
        // Only what is measured needs room for notes.
        let is_measured = self.measures.is_some() && brief.protocol == protocol::TCP;
        let opened = if is_measured {
            output.open_row_noted(flow.row, window, index).map(|(row, notes)| (row, Some(notes)))
        } else {
            output.open_row(flow.row, window, index).map(|row| (row, None))
        };
        let Some((row, notes)) = opened else { return Left::All };
        if !row.has_room(share.sender, share.octets) {
            return Left::All;
        }
        row.count(share.sender, share.octets, false);
        let went_round = flow.count(share.sender, share.octets, (share.at, share.clock));
        let more = if went_round {
            More::WentRound
        } else if tcp::changes_settled(flow, brief.sender, brief.tcp_flags)
            || (flow.listens_to(brief.sender) && brief.has_payload)
        {
            More::Looks
        } else {
            More::Nothing
        };
        let plain = match (&mut self.measures, notes) {
            // What ends its sender's direction is not plain: it need not be asked.
            (Some(_), Some(_)) if brief.tcp_flags & FIN != 0 => Plain::Not,
            (Some(measures), Some(notes)) => measures.plain_noted(index, (brief, fields), notes),
            _ => Plain::Taken,
        };
        if more == More::Nothing && plain == Plain::Taken {
            return Left::Nothing;
        }
        Left::Rest(more, plain)
    }

    /// Does what [`FlowStage::count_noted`] left. `speech` tells the packet's payload, where that is
    /// wanted.
    #[inline]
    pub fn finish_noted<'a>(
        &mut self,
        guess: Guess,
        (brief, fields): (&Brief, &Fields),
        (left, window): (Left, WindowNumber),
        output: &mut impl FlowOutput,
        speech: impl FnOnce() -> Speech<'a>,
    ) {
        match left {
            Left::Nothing => {}
            Left::All => {
                self.count_settled(guess, brief, (window, false), output, speech);
                self.measure_settled(guess, (brief, fields), window, output);
            }
            Left::Rest(more, plain) => {
                let index = guess.index();
                if more != More::Nothing {
                    let which = (index, more == More::WentRound);
                    self.look_at_counted(which, brief, window, output, speech);
                }
                if plain != Plain::Taken {
                    self.measure_closer(index, (brief, fields), window, plain, output);
                }
            }
        }
    }
}
