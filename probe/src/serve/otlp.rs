//! Metrics sent to a collector of OpenTelemetry.
//!
//! In: the newest snapshot. Out: `POST /v1/metrics` each interval: the families of `/metrics`, counters as
//! cumulative sums since the start, gauges as they are.
//! Cost: a thread of its own, which waits for the collector; nobody waits for it.
//! Invariants: nothing is queued: counts are cumulative, so the next attempt says all that one that failed
//! would have said; a request is not repeated sooner than an interval.
//! Source: OpenTelemetry Protocol 1.5, "OTLP/HTTP" and "JSON Protobuf Encoding"; OpenTelemetry, "Prometheus
//! and OpenMetrics Compatibility".

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use serde_json::{Value, json};

use super::ServeError;
use super::metrics::{self, Label, Output, Samples};
use crate::aggregate::live::LiveCell;
use crate::config::{OtlpPlan, secret};
use crate::export::{Client, Hidden};
use crate::sources::StatusCell;
use crate::time::{Timestamp, wall_clock};

/// CUMULATIVE, of the enumeration `AggregationTemporality`.
const CUMULATIVE: u8 = 2;

/// The running thread. Dropping it ends it, at the latest after the attempt that it is at, without waiting.
#[derive(Debug)]
pub struct Pusher(#[expect(dead_code, reason = "the thread ends when it is gone")] Sender<()>);

/// Starts the thread, if the plan says where to send to.
///
/// # Errors
/// [`ServeError::Threads`] where the system has no thread to give.
pub fn start(
    plan: &OtlpPlan,
    live: &LiveCell,
    status: &StatusCell,
) -> Result<Option<Pusher>, ServeError> {
    let Some(url) = &plan.url else { return Ok(None) };
    let (sender, stop) = bounded(0);
    let push = Push {
        url: format!("{}/v1/metrics", url.as_str().trim_end_matches('/')),
        shown: url.to_string(),
        plan: plan.clone(),
        live: Arc::clone(live),
        status: status.clone(),
        begun: wall_clock(),
        client: None,
        failing: false,
    };
    std::thread::Builder::new()
        .name("otlp".to_owned())
        .spawn(move || push.run(&stop))
        .map_err(|source| ServeError::Threads { source })?;
    Ok(Some(Pusher(sender)))
}

struct Push {
    url: String,
    shown: String,
    plan: OtlpPlan,
    live: LiveCell,
    status: StatusCell,
    begun: Timestamp,
    client: Option<Client>,
    failing: bool,
}

impl Push {
    fn run(mut self, stop: &Receiver<()>) {
        let interval = Duration::from_millis(self.plan.interval_ms.into());
        while stop.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
            let outcome = self.push();
            match &outcome {
                Err(error) if !self.failing => {
                    tracing::error!(url = self.shown, error, "metrics are not taken");
                }
                Ok(()) if self.failing => {
                    tracing::info!(url = self.shown, "metrics are taken again");
                }
                _ => {}
            }
            self.failing = outcome.is_err();
        }
    }

    fn push(&mut self) -> Result<(), String> {
        let body = body(&self.live.load(), &self.status.load(), self.begun, wall_clock());
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let tls = self.plan.url.as_ref().is_some_and(|url| url.tls);
                let ca_file = tls.then_some(self.plan.ca_file.as_path());
                Client::new(ca_file, self.plan.timeout_ms)?
            }
        };
        let authorization = self.plan.authorization.as_ref().map(secret::read).transpose();
        let authorization = authorization.map_err(|error| error.to_string())?;
        let mut headers = vec![("Content-Type", "application/json")];
        if let Some(authorization) = &authorization {
            headers.push(("Authorization", authorization));
        }
        // Of `Bearer TOKEN` the token.
        let secrets = authorization.iter().filter_map(|it| it.rsplit(' ').next());
        let secrets: Vec<_> = secrets.collect();
        let hidden = self.plan.url.as_ref().map(|url| Hidden::new(url, &secrets));
        let hidden = hidden.unwrap_or_default();
        let answer = client.post(&self.url, &headers, body.to_string().as_bytes(), hidden)?;
        self.client = Some(client);
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let rejected = &said["partialSuccess"]["rejectedDataPoints"];
        let rejected = rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok()).unwrap_or(0);
        if answer.status == 200 && rejected == 0 {
            return Ok(());
        }
        Err(format!("status {}: {}", answer.status, answer.text()))
    }
}

/// `ExportMetricsServiceRequest`.
fn body(
    live: &crate::aggregate::live::LiveSnapshot,
    status: &crate::sources::InventoryStatus,
    begun: Timestamp,
    now: Timestamp,
) -> Value {
    let mut list = List { begun, now, metrics: Vec::new() };
    let written = metrics::all(live, status, &mut list);
    debug_assert!(written.is_ok(), "a list takes all");
    let resource = [
        ("service.name", "vmprobe"),
        ("service.namespace", &live.domain),
        ("service.instance.id", &live.probe_id),
        ("service.version", &live.version),
    ];
    let scope = json!({ "name": "vmprobe", "version": live.version });
    json!({ "resourceMetrics": [{
        "resource": { "attributes": resource.map(|(key, value)| attribute(key, value)) },
        "scopeMetrics": [{ "scope": scope, "metrics": list.metrics }],
    }]})
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// Families as `Metric`s.
struct List {
    begun: Timestamp,
    now: Timestamp,
    metrics: Vec<Value>,
}

impl List {
    /// A `NumberDataPoint`; 64-bit numbers are texts in this JSON.
    fn point(&self, labels: &[Label], since: bool, key: &str, value: Value) -> Value {
        let attributes: Vec<_> =
            labels.iter().map(|(name, value)| attribute(name, value)).collect();
        let mut point =
            json!({ "attributes": attributes, "timeUnixNano": self.now.as_ns().to_string() });
        if since {
            point["startTimeUnixNano"] = self.begun.as_ns().to_string().into();
        }
        point[key] = value;
        point
    }
}

impl Output for List {
    fn counters(&mut self, name: &str, help: &str, samples: Samples<u64>) -> fmt::Result {
        let points: Vec<_> = samples
            .iter()
            .map(|(labels, count)| self.point(labels, true, "asInt", signed(*count).into()))
            .collect();
        if !points.is_empty() {
            let sum = json!({
                "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points,
            });
            let metric =
                json!({ "name": name, "description": help, "unit": unit(name), "sum": sum });
            self.metrics.push(metric);
        }
        Ok(())
    }

    fn gauges(&mut self, name: &str, help: &str, samples: Samples<f64>) -> fmt::Result {
        let points: Vec<_> = samples
            .iter()
            .map(|(labels, value)| self.point(labels, false, "asDouble", (*value).into()))
            .collect();
        if !points.is_empty() {
            let gauge = json!({ "dataPoints": points });
            let metric =
                json!({ "name": name, "description": help, "unit": unit(name), "gauge": gauge });
            self.metrics.push(metric);
        }
        Ok(())
    }
}

/// A count as a 64-bit number of this JSON: signed, and a text.
fn signed(count: u64) -> String {
    i64::try_from(count).unwrap_or(i64::MAX).to_string()
}

/// The unit that a name ends in, as UCUM writes it.
fn unit(name: &str) -> &'static str {
    let ends = |ending| name.ends_with(ending);
    if ends("_per_second") {
        ""
    } else if ends("_seconds") {
        "s"
    } else if ends("_ratio") {
        "1"
    } else if ends("_octets") || ends("_bytes") {
        "By"
    } else if ends("_packets") {
        "{packet}"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::live::LiveSnapshot;

    #[test]
    fn what_metrics_shows_is_there_with_its_kind() {
        let mut live = LiveSnapshot { probe_id: "p1".to_owned(), ..LiveSnapshot::default() };
        live.ledger.received = u64::MAX;
        live.ledger.causes.insert("duplicate".to_owned(), 2);
        live.ledger.unaccounted = -3;
        let made =
            body(&live, &crate::sources::InventoryStatus::default(), Timestamp(5), Timestamp(9));
        let resource = &made["resourceMetrics"][0];
        assert_eq!(resource["resource"]["attributes"][2]["value"]["stringValue"], "p1");
        let metrics = resource["scopeMetrics"][0]["metrics"].as_array().expect("metrics");
        let of = |name: &str| metrics.iter().find(|it| it["name"] == name).expect(name);
        let received = of("vmprobe_packets_received");
        let point = &received["sum"]["dataPoints"][0];
        assert_eq!(
            (&point["asInt"], &received["unit"]),
            (&i64::MAX.to_string().into(), &"".into())
        );
        assert_eq!(
            (&point["startTimeUnixNano"], &point["timeUnixNano"]),
            (&"5".into(), &"9".into())
        );
        let dropped = &of("vmprobe_packets_dropped")["sum"]["dataPoints"][0];
        assert_eq!(dropped["attributes"][0], attribute("cause", "duplicate"));
        let unaccounted = &of("vmprobe_packets_unaccounted")["gauge"]["dataPoints"][0];
        assert_eq!(unaccounted["asDouble"], -3.0);
        assert!(unaccounted.get("startTimeUnixNano").is_none());
        // A family without samples is none.
        assert!(metrics.iter().all(|it| it["name"] != "vmprobe_tap_packets"));
    }

    #[test]
    fn units_follow_from_names() {
        let names = ["a_seconds", "a_packets_per_second", "a_ratio", "a_octets", "a_packets", "a"];
        assert_eq!(names.map(unit), ["s", "", "1", "By", "{packet}", ""]);
    }
}
