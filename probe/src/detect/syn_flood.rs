//! SYN flood: likelihood ratio on connection attempts that were not completed.
//!
//! Sees: for each service (address space, destination, port) the SYNs of a window less the
//! handshakes completed in it, so successful requests, however many, are no flood.
//! Formula: x ~ Poisson(λ) under H0 with the service's own baseline λ; −2 ln Λ =
//! 2 (x ln(x/λ) − (x − λ)) for x > λ. It fires above the χ² quantile (one degree of freedom) that
//! `alpha` leaves above it, which is the alert's threshold, and not below `attempts_min` attempts.
//! Source: Wilks 1938 for the distribution of −2 ln Λ; METHODS "window statistics".
//! Parameters: `[detect.syn_flood]`. The baseline is an exponential mean that starts at the first
//! window's x, capped at a tenth of `attempts_min` so that an attack that is there from the start
//! is none of it, is never below [`BASELINE_LEAST`], and stands still while the service is
//! attacked.
//! Cost: one map look-up a TCP conversation; at most `services_max` services.
//! Fires: thousands of SYNs of spoofed sources to one web server.
//! Must not: a busy server whose handshakes complete; a few clients of a server that is down.

use crate::aggregate::{Observers, WindowView};
use crate::config::SynFloodPlan;
use crate::decode::{Address, protocol};
use crate::hash::KeyedMap;
use crate::inventory::{AddressSpace, Segment};

use super::chi_squared::{quantile_one_degree, tail_one_degree};
use super::{Detector, Finding, Severity};

/// Name in alerts.
const NAME: &str = "syn_flood";

/// Attempts a window that fail at any service now and then.
const BASELINE_LEAST: f64 = 1.0;

type Service = (AddressSpace, Address, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    ip_version: u8,
    segment: Segment,
    syns: u64,
    established: u64,
    sources: u64,
    observers: Observers,
}

/// The detector.
pub struct SynFlood {
    baselines: KeyedMap<Service, f64>,
    /// Of the window that is looked at; empty between two.
    services: KeyedMap<Service, Counts>,
    attempts_min: f64,
    threshold: f64,
    baseline_weight: f64,
    services_max: usize,
}

impl SynFlood {
    /// From the plan, whose probabilities lie strictly between 0 and 1.
    pub fn new(plan: &SynFloodPlan) -> Self {
        Self {
            baselines: KeyedMap::default(),
            services: KeyedMap::default(),
            attempts_min: f64::from(plan.attempts_min),
            threshold: quantile_one_degree(plan.alpha),
            baseline_weight: plan.baseline_weight,
            services_max: plan.services_max as usize,
        }
    }

    fn judge(&mut self, service: Service, counts: &Counts, view: &WindowView) -> Option<Finding> {
        let half_open = count(counts.syns.saturating_sub(counts.established));
        let known = self.baselines.get(&service).copied();
        let baseline = known.unwrap_or(half_open.min(self.attempts_min / 10.0)).max(BASELINE_LEAST);
        let statistic = likelihood_ratio(half_open, baseline);
        let fires = half_open >= self.attempts_min && statistic > self.threshold;
        if !fires {
            self.learn(service, baseline, half_open);
            return None;
        }
        Some(Finding {
            detector: NAME,
            severity: if half_open >= 10.0 * self.attempts_min {
                Severity::High
            } else {
                Severity::Medium
            },
            confidence: half_open / count(counts.syns.max(1)),
            mitre_technique: Some("T1499.001"),
            space: service.0,
            segment: counts.segment,
            source: None,
            destination: Some(service.1),
            destination_port: Some(service.2),
            ip_version: counts.ip_version,
            first_seen: view.start,
            last_seen: view.end,
            statistic,
            threshold: self.threshold,
            baseline,
            events: counts.syns,
            features: vec![
                ("syn_count", count(counts.syns)),
                ("established_count", count(counts.established)),
                ("sources", count(counts.sources)),
                ("attempts_min", self.attempts_min),
                ("p_value", tail_one_degree(statistic)),
            ],
            silent_if: format!(
                "fewer than {:.0} attempts had been left open in the window",
                self.attempts_min
            ),
            observers: counts.observers,
        })
    }

    fn learn(&mut self, service: Service, baseline: f64, half_open: f64) {
        if self.baselines.len() >= self.services_max && !self.baselines.contains_key(&service) {
            return;
        }
        let moved = baseline + self.baseline_weight * (half_open - baseline);
        self.baselines.insert(service, moved);
    }
}

impl Detector for SynFlood {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, view: &WindowView, findings: &mut Vec<Finding>) {
        if self.baselines.len() >= self.services_max {
            // Those at the least baseline leave: it is what they would start with again.
            self.baselines.retain(|_, baseline| *baseline > BASELINE_LEAST);
        }
        let mut services = std::mem::take(&mut self.services);
        for (key, conversation) in &view.conversations {
            if key.protocol != protocol::TCP || conversation.syns + conversation.established == 0 {
                continue;
            }
            let service = (key.space, key.destination, key.destination_port);
            let counts = services.entry(service).or_default();
            counts.ip_version = key.ip_version;
            counts.segment = key.segment;
            counts.syns += conversation.syns;
            counts.established += conversation.established;
            counts.sources += 1;
            counts.observers.add(conversation.observers);
        }
        let mut in_order: Vec<_> = services.drain().collect();
        in_order.sort_unstable_by_key(|(service, _)| *service);
        for (service, counts) in &in_order {
            findings.extend(self.judge(*service, counts, view));
        }
        // A scan has as many services as conversations; that much is not kept for the next window.
        services.shrink_to(self.services_max);
        self.services = services;
    }
}

/// −2 ln Λ of a Poisson count against its mean, one-sided: 0 where the count is not above it.
fn likelihood_ratio(observed: f64, mean: f64) -> f64 {
    if observed <= mean {
        0.0
    } else {
        2.0 * (observed * (observed / mean).ln() - (observed - mean))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a window are far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Conversation, ConversationKey};
    use crate::detect::tests::view;

    fn attempts(sources: u8, syns: u64, established: u64) -> Vec<(ConversationKey, Conversation)> {
        (0..sources)
            .map(|source| {
                let key = ConversationKey {
                    source: Address::v4([198, 51, 100, source]),
                    destination: Address::v4([10, 0, 0, 1]),
                    protocol: 6,
                    ip_version: 4,
                    destination_port: 443,
                    ..ConversationKey::default()
                };
                (key, Conversation { syns, established, ..Conversation::default() })
            })
            .collect()
    }

    fn run(windows: Vec<Vec<(ConversationKey, Conversation)>>) -> Vec<Finding> {
        let mut detector = SynFlood::new(&SynFloodPlan::default());
        let mut findings = Vec::new();
        for (number, conversations) in (10..).zip(windows) {
            detector.observe(&view(number, conversations), &mut findings);
        }
        findings
    }

    #[test]
    fn fires_on_attempts_that_are_left_open() {
        let findings = run(vec![attempts(200, 10, 0); 2]);
        assert_eq!(findings.len(), 2, "the baseline stands still during the attack");
        assert_eq!((findings[0].events, findings[0].severity), (2_000, Severity::High));
        assert!(findings[0].statistic > 1_000.0);
    }

    #[test]
    fn statistic_and_threshold_have_one_unit() {
        let [finding] = &run(vec![attempts(200, 10, 0)])[..] else { panic!("one finding") };
        // The 1 − 10⁻⁶ quantile of χ² with one degree of freedom.
        assert!((finding.threshold - 23.928_127).abs() < 1e-4, "{}", finding.threshold);
        assert!(finding.features.contains(&("attempts_min", 100.0)), "{:?}", finding.features);
    }

    #[test]
    fn is_silent_below_the_quantile() {
        // More than `attempts_min`, but hardly more than usual.
        let plan = SynFloodPlan { attempts_min: 5, baseline_weight: 1.0, ..Default::default() };
        let mut detector = SynFlood::new(&plan);
        let mut findings = Vec::new();
        for (number, syns) in (10..).zip([4, 8, 12, 16, 20]) {
            detector.observe(&view(number, attempts(1, syns, 0)), &mut findings);
        }
        assert_eq!(findings, []);
        detector.observe(&view(15, attempts(1, 200, 0)), &mut findings);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn is_silent_on_success_and_on_small_numbers() {
        assert!(run(vec![attempts(200, 50, 50); 5]).is_empty());
        assert!(run(vec![attempts(20, 2, 0); 5]).is_empty());
    }

    #[test]
    fn the_ratio_is_that_of_the_formula() {
        assert!((likelihood_ratio(10.0, 5.0) - 3.862_943_611).abs() < 1e-8);
        assert!(
            likelihood_ratio(5.0, 5.0).abs() < 1e-12 && likelihood_ratio(1.0, 5.0).abs() < 1e-12
        );
    }
}
