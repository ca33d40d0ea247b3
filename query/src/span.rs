//! A span of time, as people write it.

use chrono::DateTime;

/// Nanoseconds since the epoch, the first one and the first one behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

/// Why two texts are no span: bad usage.
#[derive(Debug)]
pub(crate) struct NoSpan(String);

impl std::fmt::Display for NoSpan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for NoSpan {}

impl Default for Span {
    fn default() -> Self {
        Self { from_ns: 0, to_ns: u64::MAX }
    }
}

/// Longest window.
const WINDOW_NS_MAX: u64 = 3_600_000_000_000;

impl Span {
    /// Windows that lie in the span, in part at least. What orders the rows stands in it too: no window is
    /// longer than an hour.
    pub(crate) fn windows(self) -> String {
        let Self { from_ns, to_ns } = self;
        let first_ns = from_ns.saturating_sub(WINDOW_NS_MAX);
        format!(
            "window_end_ns > {from_ns} AND window_start_ns < {to_ns} AND window_start_ns >= {first_ns}"
        )
    }

    /// From two texts; all of time where they are not there.
    pub(crate) fn of(from: Option<&str>, to: Option<&str>) -> Result<Self, NoSpan> {
        let all = Self::default();
        let from_ns = from.map_or(Ok(all.from_ns), |text| instant("--from", text))?;
        let to_ns = to.map_or(Ok(all.to_ns), |text| instant("--to", text))?;
        if from_ns >= to_ns {
            return Err(NoSpan("--from must be before --to".to_owned()));
        }
        Ok(Self { from_ns, to_ns })
    }
}

fn instant(option: &str, text: &str) -> Result<u64, NoSpan> {
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    let allowed = "allowed: 2026-01-01T00:00:00Z, or nanoseconds since the epoch; 1970 to 2262";
    let problem = |what: &str| NoSpan(format!("{option} {text}: {what} ({allowed})"));
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| problem("no time"))?;
    let ns = time.timestamp_nanos_opt().and_then(|ns| u64::try_from(ns).ok());
    ns.ok_or_else(|| problem("out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read_and_others_are_told() {
        let span = Span::of(Some("2026-01-01T00:00:00Z"), Some("1767225600000000001"));
        assert_eq!(
            span.expect("a span"),
            Span { from_ns: 1_767_225_600_000_000_000, to_ns: 1_767_225_600_000_000_001 }
        );
        assert_eq!(Span::of(None, None).expect("all of time"), Span::default());
        let offset = Span::of(None, Some("2026-01-01T01:00:00+01:00")).expect("an offset");
        assert_eq!(offset.to_ns, 1_767_225_600_000_000_000);
        for (from, to) in [
            (Some("yesterday"), None),
            (Some("1960-01-01T00:00:00Z"), None),
            (None, Some("2600-01-01T00:00:00Z")),
            (Some("5"), Some("5")),
            (None, Some("0")),
        ] {
            assert!(Span::of(from, to).is_err(), "{from:?} {to:?}");
        }
    }
}
