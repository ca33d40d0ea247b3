//! Delay and loss between taps to records.
//!
//! In: a [`PathView`]. Out: rows of `path`, and of `path_samples` if there are samples.
//! Cost: a look-up of both endpoints a row.
//! Invariants: as of all records; a figure without samples or packets is null.

use super::ends::VmTexts;
use super::ledger::path_rows;
use super::{PathRecord, PathSampleRecord, RecordMaker, Rows};
use crate::aggregate::path::{PathRow, PathView};
use crate::decode::Mac;
use crate::index::TapIndex;
use crate::inventory::Interval;
use crate::path::{Ends, Trajectory};

impl RecordMaker {
    /// Records of a window's ways between taps.
    pub fn paths(&mut self, view: &PathView) -> Rows {
        let path = view.rows.iter().map(|row| self.path_row(view, row)).collect();
        let mut path_samples = Vec::new();
        for sample in &view.samples {
            self.sightings(view, sample, &mut path_samples);
        }
        Rows { path, path_samples, ledger: path_rows(view), ..Rows::default() }
    }

    fn path_row(&mut self, view: &PathView, row: &PathRow) -> PathRecord {
        let whose =
            row.ends.map(|ends| self.whose(&ends, Interval { from: view.start, to: view.end }));
        let (source, destination) = whose.unwrap_or_default();
        let counts = &row.counts;
        let loss = counts.loss();
        let delay = row.delay.as_ref();
        let percentile = |place: usize| delay.map(|delay| delay.percentiles_ns[place]);
        PathRecord {
            window_start_ns: view.start.0,
            window_end_ns: view.end.0,
            scope: if row.ends.is_some() { "endpoints" } else { "taps" },
            from_tap: self.names().tap(row.from),
            to_tap: self.names().tap(row.to),
            from_host: self.host(row.from),
            to_host: self.host(row.to),
            address_space: row.ends.map(|ends| self.space(ends.space)),
            source_address: row.ends.map(|ends| ends.source.to_ip(ends.ip_version)),
            destination_address: row.ends.map(|ends| ends.destination.to_ip(ends.ip_version)),
            protocol_identifier: row.ends.map(|ends| ends.protocol),
            source_virtual_station_uuid: source.uuid,
            source_virtual_station_name: source.name,
            source_virtual_station_tenant: source.tenant,
            destination_virtual_station_uuid: destination.uuid,
            destination_virtual_station_name: destination.name,
            destination_virtual_station_tenant: destination.tenant,
            sampling_probability: 1.0 / f64::from(self.path_one_in),
            sampled_packet_count: counts.total(),
            matched_packet_count: counts.matched,
            recut_packet_count: counts.recut,
            first_tap_missed_packet_count: counts.first_missed,
            network_loss_packet_count: counts.network,
            mirror_loss_packet_count: counts.mirror,
            unresolved_loss_packet_count: counts.unresolved,
            segment_stripped_packet_count: counts.stripped,
            ambiguous_packet_count: counts.ambiguous,
            answered_pair_count: row.answers.map(|answers| answers.pairs),
            first_tap_one_way_pair_count: row.answers.map(|answers| answers.unseen_first),
            later_tap_one_way_pair_count: row.answers.map(|answers| answers.unseen_later),
            loss_low: loss.map(|(low, _)| low),
            loss_high: loss.map(|(_, high)| high),
            delay_sample_count: delay.map_or(0, |delay| delay.count),
            delay_mean_ns: delay.map(|delay| delay.mean_ns),
            delay_min_ns: delay.map(|delay| delay.min_ns),
            delay_max_ns: delay.map(|delay| delay.max_ns),
            delay_p50_ns: percentile(0),
            delay_p90_ns: percentile(1),
            delay_p99_ns: percentile(2),
            delay_base_ns: delay.map(|delay| delay.base_ns),
            delay_excess_mean_ns: delay.map(|delay| delay.mean_ns - delay.base_ns),
            clock_offset_ns: row.offset.map(|offset| offset.offset_ns),
            clock_offset_bound_ns: row.offset.map(|offset| offset.bound_ns),
        }
    }

    fn host(&mut self, tap: TapIndex) -> Option<std::sync::Arc<str>> {
        self.names().tap_host(tap).map(Into::into)
    }

    fn whose(&mut self, ends: &Ends, time: Interval) -> (VmTexts, VmTexts) {
        let station = |address| (address, Mac::default());
        let (source, destination) = (station(ends.source), station(ends.destination));
        let known = self.endpoints(ends.space, ends.ip_version, source, destination, time);
        known.vms.into()
    }

    fn sightings(
        &mut self,
        view: &PathView,
        sample: &Trajectory,
        rows: &mut Vec<PathSampleRecord>,
    ) {
        let ends = &sample.ends;
        let address_space = self.space(ends.space);
        for sight in sample.sights() {
            rows.push(PathSampleRecord {
                observation_time_ns: sight.at.0,
                window_start_ns: view.start.0,
                digest_hash_value: sample.digest,
                tap: self.names().tap(sight.tap),
                ip_total_length: sample.octets,
                ip_ttl: sight.ttl,
                address_space: address_space.clone(),
                source_address: ends.source.to_ip(ends.ip_version),
                destination_address: ends.destination.to_ip(ends.ip_version),
                protocol_identifier: ends.protocol,
                evidence: sample.evidence.name(),
                segment_stripped: sight.is_untagged,
            });
        }
    }
}
