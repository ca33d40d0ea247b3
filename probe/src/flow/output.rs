//! What the flow stage gives out: rows of windows, and flows for which a record is due.
//!
//! In: state of flows. Out: [`Row`]s, [`Ending`]s, and from them [`EndedFlow`]s.
//! Cost: one copy of a flow's lines; what they say is told by whoever makes the record.
//! Invariants: the packets of all records of a flow are those of all its rows.

use crate::app::{Application, Excerpt};
use crate::index::{FlowIndex, Sender, TapIndex, WindowNumber};
use crate::measure::tcp::Opening;
use crate::spread::FlowKey;
use crate::time::Timestamp;
use crate::window::{LateRow, NO_TOTALS, Note, Row, RowNotes, RowPlace};

use super::sides::Apart;
use super::state::{Flow, Rest};
use super::{EndReason, FlowTotals, InitiatorMethod, Side, TcpState};

/// Where rows and ended flows go.
pub trait FlowOutput {
    /// The row at `place`, if `flow` has it open in `window` still.
    fn open_row(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<&mut Row>;
    /// The same, and where what is measured of a packet in it is noted; `None` also where there is no room
    /// for that, which [`FlowOutput::measured`] makes.
    #[inline]
    fn open_row_noted(
        &mut self,
        place: RowPlace,
        window: WindowNumber,
        flow: FlowIndex,
    ) -> Option<(&mut Row, RowNotes<'_>)> {
        let _ = (place, window, flow);
        None
    }
    /// Begins a row of `window`: gives where it is, and the row, in which an older one's fields stand.
    fn begin_row(&mut self, window: WindowNumber) -> (RowPlace, &mut Row);
    /// Takes a flow for which a record is due, with what there is to tell of it beside packets. `write`
    /// writes all of it but [`Ending::totals`] where it stays; an older one may stand there.
    fn ended(&mut self, totals: Option<&FlowTotals>, write: impl FnOnce(&mut Ending));
    /// Takes what was measured in a flow's row, which is open: the packet was just counted in it.
    #[inline]
    fn measured(&mut self, place: RowPlace, note: Note) {
        let _ = (place, note);
    }
    /// Takes payload of a message that transactions of applications are told by; none where the packet
    /// was not at hand.
    fn said(&mut self, excerpt: &Excerpt, payload: &[u8]) {
        let _ = (excerpt, payload);
    }
    /// Takes what was found out of an older window.
    fn late(&mut self, row: &LateRow) {
        let _ = row;
    }
}

/// What was measured of a flow; what was not is null in its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Its packets were looked at: [`FlowTotals`] hold all that happened.
    pub packets: bool,
    /// Its TCP segments were, so that no events are no events.
    pub segments: bool,
    /// Its losses are all stated.
    pub losses: bool,
    /// How far its opening came; `None` where nobody looked.
    pub opening: Option<Opening>,
    /// SYN to SYN-ACK in ns, if no repetition hides it.
    pub handshake_server_rtt_ns: Option<u64>,
    /// SYN-ACK to ACK in ns, likewise.
    pub handshake_client_rtt_ns: Option<u64>,
}

/// A biflow as its record tells of it. Arrays of two are by sender.
#[derive(Clone, Copy, Debug, Default)]
pub struct Biflow {
    /// Key; endpoints in order, not by direction.
    pub key: FlowKey,
    /// Who began.
    pub initiator: Sender,
    /// How that is known.
    pub initiator_method: InitiatorMethod,
    /// TCP state.
    pub tcp: TcpState,
    /// TCP flags seen (IE 6, low octet).
    pub tcp_control_bits: [u8; 2],
    /// Recognised application.
    pub application: Application,
    /// What each endpoint's packets looked like.
    pub sides: [Side; 2],
    /// Tap that counted each endpoint's first packet.
    pub taps: [TapIndex; 2],
    /// Time of the first packet of the biflow.
    pub first_seen: Timestamp,
    /// Time of the first packet of this record.
    pub record_start: Timestamp,
    /// Largest time of a packet.
    pub last_seen: Timestamp,
    /// Clock at the last packet.
    pub heard: Timestamp,
    /// Packets of this record.
    pub packets: [u64; 2],
    /// Octets of this record.
    pub octets: [u64; 2],
    /// Layer-2 octets of this record.
    pub layer2_octets: [u64; 2],
    /// What was measured beside.
    pub measured: Measured,
}

/// A flow for which a record is due, as its lines are: to copy them is less work for its worker than to
/// tell what they say.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub(super) flow: Flow,
    pub(super) rest: Rest,
    /// Where its directions are apart.
    pub(super) apart: Option<Apart>,
    pub(super) measured: Measured,
    /// Why the record is made.
    pub reason: EndReason,
    /// Share of flows kept by shedding when it ended.
    pub sampling_rate: f32,
    /// Place of its totals among those that came with it; [`NO_TOTALS`] where all are 0.
    pub totals: u32,
}

impl Default for Ending {
    fn default() -> Self {
        Self {
            flow: Flow::default(),
            rest: Rest::default(),
            apart: None,
            measured: Measured::default(),
            reason: EndReason::ForcedEnd,
            sampling_rate: 1.0,
            totals: NO_TOTALS,
        }
    }
}

impl Ending {
    /// A flow of an instant that timed out, of which only this is known. For benchmarks.
    pub fn of_instant(key: FlowKey, at: Timestamp, packets: [u32; 2], octets: [u32; 2]) -> Self {
        let mut flow = Flow::default();
        flow.identity.key = key;
        (flow.last_seen, flow.heard) = (at, at);
        (flow.packets, flow.octets) = (packets, octets);
        let rest = Rest { first_seen: at, record_start: at, ..Rest::default() };
        Self { flow, rest, reason: EndReason::IdleTimeout, ..Self::default() }
    }

    /// One as an older flow may have left it, by `octet`: two that differ leave nothing alike. For tests of who
    /// writes endings where others stood.
    pub fn left_over(octet: u8) -> Self {
        let is_odd = octet % 2 == 1;
        let at = Timestamp(octet.into());
        let key = FlowKey { low_port: octet.into(), protocol: octet, ..FlowKey::default() };
        let side = Side { layer2_header_octets: octet, ..Side::default() };
        Self {
            apart: Some(Apart { sides: [side; 2], layer2_correction: [octet.into(); 2] }),
            measured: Measured { packets: is_odd, segments: !is_odd, ..Measured::default() },
            reason: if is_odd { EndReason::EndOfFlow } else { EndReason::ForcedEnd },
            sampling_rate: 1.0 / f32::from(octet),
            totals: octet.into(),
            ..Self::of_instant(key, at, [octet.into(); 2], [octet.into(); 2])
        }
    }

    /// What its record is made of.
    pub fn told(&self) -> EndedFlow {
        let Self { reason, sampling_rate, totals, .. } = *self;
        EndedFlow { flow: self.biflow(), reason, sampling_rate, totals }
    }

    fn biflow(&self) -> Biflow {
        let (flow, rest) = (&self.flow, &self.rest);
        let apart = self.apart.as_ref();
        let sides = apart
            .filter(|_| flow.is_apart())
            .map_or_else(|| [flow.side(Sender::Low), flow.side(Sender::High)], |apart| apart.sides);
        let (packets, above) = (flow.packets.map(u64::from), { rest.octets_above });
        let octets = [0, 1].map(|place: usize| {
            (u64::from(above[place]) << u32::BITS) | u64::from(flow.octets[place])
        });
        let mut layer2_octets = [0, 1].map(|place: usize| {
            octets[place] + packets[place] * u64::from(sides[place].layer2_header_octets)
        });
        if let Some(Apart { layer2_correction, .. }) = apart {
            for (octets, correction) in layer2_octets.iter_mut().zip(layer2_correction) {
                *octets = octets.saturating_add_signed(*correction);
            }
        }
        Biflow {
            key: flow.identity.key,
            initiator: flow.initiator(),
            initiator_method: flow.initiator_method(),
            tcp: flow.tcp,
            tcp_control_bits: flow.tcp_control_bits,
            application: flow.application,
            sides,
            taps: flow.identity.taps,
            first_seen: rest.first_seen,
            record_start: rest.record_start,
            last_seen: flow.last_seen,
            heard: flow.heard,
            packets,
            octets,
            layer2_octets,
            measured: self.measured,
        }
    }
}

/// A flow record to be made: the flow as it was, and why.
#[derive(Clone, Copy, Debug)]
pub struct EndedFlow {
    /// The flow.
    pub flow: Biflow,
    /// Why the record is made.
    pub reason: EndReason,
    /// Share of flows kept by shedding when it ended.
    pub sampling_rate: f32,
    /// Place of its totals among those that came with it; [`NO_TOTALS`] where all are 0.
    pub totals: u32,
}

impl Default for EndedFlow {
    fn default() -> Self {
        Self {
            flow: Biflow::default(),
            reason: EndReason::ForcedEnd,
            sampling_rate: 1.0,
            totals: NO_TOTALS,
        }
    }
}
