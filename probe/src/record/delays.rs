//! Delays of a window by tenant and method.
//!
//! In: the measures of conversations, with the tenants of their ends. Out: rows of `delays`.
//! Cost: nothing for a conversation without delays; else a look-up and a few additions for each
//! bucket in use. 16 KiB for each tenant and method with a sample, given back with the window.
//! Invariants: a sample belongs to the tenant of the end that answered, and to one row; rows come
//! in the order of tenants and methods; not more than [`TENANTS_MAX`] tenants: samples of others
//! are counted.
//! Source: docs/measures.md, percentiles.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DelayRecord;
use crate::aggregate::{Direction, Extra};
use crate::measure::histogram::Dense;
use crate::measure::tcp::Method;
use crate::time::Timestamp;

/// Tenants of a window, the one without a name included. At five methods of 16 KiB: 20 MiB.
pub(super) const TENANTS_MAX: usize = 256;

/// No name for ends that the inventory does not know.
type Tenant = Option<Arc<str>>;

/// Delays of one window.
#[derive(Debug, Default)]
pub(super) struct TenantDelays {
    tenants: BTreeMap<Tenant, [Option<Dense>; Method::ALL.len()]>,
    /// Samples that found no room.
    lost: u64,
}

impl TenantDelays {
    /// Adds a conversation between these tenants.
    pub(super) fn add(&mut self, initiator: &Tenant, responder: &Tenant, extra: &Extra) {
        for (method, direction) in both_ways() {
            let Some(samples) = extra.delay(method, direction) else { continue };
            // Who answered: of what the initiator sent, the responder.
            let tenant = match direction {
                Direction::Forward => responder,
                Direction::Reverse => initiator,
            };
            if self.tenants.len() == TENANTS_MAX && !self.tenants.contains_key(tenant) {
                self.lost = self.lost.saturating_add(samples.summary().count);
                continue;
            }
            let methods = self.tenants.entry(tenant.clone()).or_default();
            if let Some(delays) = methods.get_mut(method as usize) {
                delays.get_or_insert_default().merge_sparse(samples);
            }
        }
    }

    /// The rows, and the samples that found no room; begins anew.
    pub(super) fn take(&mut self, (start, end): (Timestamp, Timestamp)) -> (Vec<DelayRecord>, u64) {
        let Self { tenants, lost } = std::mem::take(self);
        let mut rows = Vec::new();
        for (tenant, methods) in tenants {
            for (method, delays) in Method::ALL.iter().zip(methods) {
                let Some(delays) = delays else { continue };
                let summary = delays.summary();
                let percentile = |per_mille| delays.percentile_ns(per_mille).unwrap_or_default();
                rows.push(DelayRecord {
                    window_start_ns: start.0,
                    window_end_ns: end.0,
                    virtual_station_tenant: tenant.clone(),
                    method: method.name(),
                    sample_count: summary.count,
                    sum_ns: summary.sum_ns,
                    min_ns: summary.min_ns,
                    max_ns: summary.max_ns,
                    p50_ns: percentile(500),
                    p90_ns: percentile(900),
                    p99_ns: percentile(990),
                });
            }
        }
        (rows, lost)
    }
}

fn both_ways() -> impl Iterator<Item = (Method, Direction)> {
    Method::ALL.into_iter().flat_map(|method| Direction::BOTH.map(|way| (method, way)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{ExtraPlace, Extras};
    use crate::index::Sender;
    use crate::window::{Note, What};

    const WINDOW: (Timestamp, Timestamp) = (Timestamp(1), Timestamp(2));

    /// Measures of a conversation that Low began.
    fn measured(method: Method, answered: Sender, delays_ns: &[u64]) -> Extra {
        let (mut extras, mut place) = (Extras::default(), ExtraPlace::default());
        for ns in delays_ns {
            let note = Note::new(What::Delay(method), answered, *ns);
            extras.add(&mut place, (Sender::Low, note), usize::MAX);
        }
        extras.get(place).expect("there is room").into_owned()
    }

    fn named(name: &str) -> Tenant {
        Some(name.into())
    }

    #[test]
    fn samples_go_to_the_tenant_that_answered() {
        let mut delays = TenantDelays::default();
        let responses = measured(Method::Response, Sender::High, &[1_000, 3_000, 2_000]);
        let late = measured(Method::Response, Sender::High, &[9_000]);
        let completed = measured(Method::HandshakeClient, Sender::Low, &[50]);
        delays.add(&named("red"), &named("blue"), &responses);
        delays.add(&None, &named("blue"), &late);
        delays.add(&named("red"), &None, &completed);
        let (rows, lost) = delays.take(WINDOW);
        let short = |row: &DelayRecord| {
            let tenant = row.virtual_station_tenant.as_deref().unwrap_or("-").to_owned();
            (tenant, row.method, row.sample_count, row.sum_ns, row.min_ns, row.max_ns)
        };
        let expected = [
            ("blue".to_owned(), "response", 4, 15_000, 1_000, 9_000),
            ("red".to_owned(), "handshake_client", 1, 50, 50, 50),
        ];
        assert_eq!(rows.iter().map(short).collect::<Vec<_>>(), expected);
        assert!(rows[0].p50_ns.abs_diff(2_000) <= 16 && rows[0].p99_ns == 9_000, "{rows:?}");
        assert_eq!((lost, delays.take(WINDOW)), (0, (Vec::new(), 0)), "begins anew");
    }

    #[test]
    fn tenants_beyond_the_bound_are_counted() {
        let mut delays = TenantDelays::default();
        let measured = measured(Method::SequenceAck, Sender::High, &[5, 6]);
        for number in 0..TENANTS_MAX + 3 {
            delays.add(&None, &named(&number.to_string()), &measured);
        }
        delays.add(&None, &named("0"), &measured);
        let (rows, lost) = delays.take(WINDOW);
        assert_eq!((rows.len(), lost), (TENANTS_MAX, 6));
        assert_eq!(rows[0].sample_count, 4, "those that are there go on");
    }
}
