//! From the octets of a message to one notification.
//!
//! In: a message body of RabbitMQ. Out: [`Notification`], or why it is none.
//! Cost: one or two parses of JSON, whose nesting the parser bounds.
//! Invariants: never panics; nothing of a message that is none of ours gets further.
//! Source: oslo.messaging, "message envelope" version 2.0: the message is JSON text in the member
//! `oslo.message` of another JSON object, so encoded twice; before it, version 1.0, it stood there by
//! itself.

use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime};
use serde_json::{Map, Value};

use crate::inventory::TEXT_BYTES_MAX;
use crate::time::Timestamp;

/// A JSON object.
pub(super) type Object = Map<String, Value>;

/// What a service says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Notification {
    /// Kind of event: `instance.create.end`, `port.update.end`.
    pub(super) event: String,
    /// Host of the service: `host2` of `nova-compute:host2`, `compute.host2`.
    pub(super) publisher_host: Option<Arc<str>>,
    /// When it was said, by the service's clock; else when it arrived.
    pub(super) at: Timestamp,
    /// The same where a message is delivered twice.
    pub(super) id: Option<String>,
    /// Id and name of the project whose request it was.
    pub(super) project: Option<(Arc<str>, Arc<str>)>,
    /// What it says.
    pub(super) payload: Object,
}

/// Why a message is left out; each is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// Larger than `message_bytes_max`.
    TooLarge,
    /// Not JSON, or not an object, outside or inside.
    NotJson,
    /// An envelope of another version than 1 and 2.
    Version,
    /// No event type or payload.
    NoEvent,
    /// What its event needs is missing or of another form.
    Payload,
    /// The payload is of a version of which nobody knows what it means.
    PayloadVersion,
    /// A kind of event that says nothing of who is who.
    NotUsed,
    /// Delivered before.
    Repeated,
    /// Too much is remembered already to remember this as well.
    Full,
}

impl LeftOut {
    /// The name in counters.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::TooLarge => "message_too_large",
            Self::NotJson => "message_not_json",
            Self::Version => "envelope_version",
            Self::NoEvent => "message_without_event",
            Self::Payload => "payload_malformed",
            Self::PayloadVersion => "payload_version",
            Self::NotUsed => "event_not_used",
            Self::Repeated => "message_repeated",
            Self::Full => "model_full",
        }
    }

    /// Whether somebody should look at it: what is wrong, in plain English.
    pub(super) const fn trouble(self) -> Option<&'static str> {
        match self {
            Self::TooLarge => Some("a message was larger than message_bytes_max"),
            Self::NotJson => Some("a message was not JSON"),
            Self::Version => Some("a message had an envelope of an unknown version"),
            Self::NoEvent => Some("a message had no event type or payload"),
            Self::Payload => Some("the payload of a notification lacked what its event needs"),
            Self::PayloadVersion => {
                Some("the payload of a notification had a version that this vmprobe does not know")
            }
            Self::Full => Some("more is going on than is remembered at most"),
            Self::NotUsed | Self::Repeated => None,
        }
    }
}

/// Opens the envelope. `known` is when the message arrived.
pub(super) fn open(body: &[u8], known: Timestamp) -> Result<Notification, LeftOut> {
    let mut outer = object(body)?;
    let inner = match outer.get("oslo.version") {
        None => outer,
        Some(version) => {
            let major = version.as_str().and_then(|version| version.split('.').next());
            if !matches!(major, Some("1" | "2")) {
                return Err(LeftOut::Version);
            }
            match outer.remove("oslo.message") {
                Some(Value::String(text)) => object(text.as_bytes())?,
                Some(Value::Object(inner)) => inner,
                _ => return Err(LeftOut::NotJson),
            }
        }
    };
    notification(inner, known)
}

fn object(body: &[u8]) -> Result<Object, LeftOut> {
    serde_json::from_slice(body).map_err(|_| LeftOut::NotJson)
}

fn notification(mut inner: Object, known: Timestamp) -> Result<Notification, LeftOut> {
    let Some(Value::String(event)) = inner.remove("event_type") else {
        return Err(LeftOut::NoEvent);
    };
    let Some(Value::Object(payload)) = inner.remove("payload") else {
        return Err(LeftOut::NoEvent);
    };
    let when = |name| inner.get(name).and_then(Value::as_str).and_then(timestamp);
    let at = when("timestamp").or_else(|| when("_context_timestamp")).unwrap_or(known);
    let id = ["_unique_id", "message_id"].into_iter().find_map(|name| inner.get(name)?.as_str());
    let project = text(&inner, "_context_project_id").or_else(|| text(&inner, "_context_tenant"));
    let name =
        text(&inner, "_context_project_name").or_else(|| text(&inner, "_context_tenant_name"));
    Ok(Notification {
        event,
        publisher_host: inner.get("publisher_id").and_then(Value::as_str).and_then(host),
        at,
        id: id.map(str::to_owned),
        project: project.zip(name),
        payload,
    })
}

/// `nova-compute:host2` and `compute.host2.example.org`: the host is what follows the service.
fn host(publisher: &str) -> Option<Arc<str>> {
    let (_, host) = publisher.split_once([':', '.'])?;
    (!host.is_empty()).then(|| cut(host))
}

/// The member as text that says something, cut to what the inventory takes.
pub(super) fn text(object: &Object, name: &str) -> Option<Arc<str>> {
    let text = object.get(name)?.as_str()?;
    (!text.is_empty()).then(|| cut(text))
}

/// At most [`TEXT_BYTES_MAX`], whole characters.
pub(super) fn cut(text: &str) -> Arc<str> {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].into()
}

/// Reads the forms that services write, all in UTC where they say no zone: `2016-10-26
/// 21:52:22.377165`, `2012-10-29T13:42:11Z`, `2016-09-08 16:32:46+00:00`.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let zoned = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let time = zoned.or_else(|_| {
        let plain = text.replacen(' ', "T", 1);
        NaiveDateTime::parse_from_str(&plain, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc())
    });
    u64::try_from(time.ok()?.timestamp_nanos_opt()?).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KNOWN: Timestamp = Timestamp(7);

    fn inner() -> Value {
        json!({
            "event_type": "port.create.end",
            "payload": {"port": {}},
            "publisher_id": "network.net1.example.org",
            "timestamp": "2026-03-01 10:00:00.5",
            "message_id": "m1",
            "_unique_id": "u1",
            "_context_project_id": "p1",
            "_context_project_name": "acme",
        })
    }

    #[test]
    fn a_message_is_the_same_with_and_without_envelope() {
        let twice = json!({"oslo.version": "2.0", "oslo.message": inner().to_string()});
        let notification = open(twice.to_string().as_bytes(), KNOWN).expect("an envelope");
        assert_eq!(open(inner().to_string().as_bytes(), KNOWN).as_ref(), Ok(&notification));
        assert_eq!(notification.event, "port.create.end");
        assert_eq!(notification.publisher_host.as_deref(), Some("net1.example.org"));
        assert_eq!(notification.at, Timestamp(1_772_359_200_500_000_000));
        assert_eq!(notification.id.as_deref(), Some("u1"));
        assert_eq!(notification.project, Some(("p1".into(), "acme".into())));
    }

    #[test]
    fn a_message_without_a_time_is_of_when_it_arrived() {
        let body = json!({"event_type": "a", "payload": {}, "timestamp": "yesterday"}).to_string();
        assert_eq!(open(body.as_bytes(), KNOWN).map(|notification| notification.at), Ok(KNOWN));
        let body =
            json!({"event_type": "a", "payload": {}, "_context_timestamp": "1970-01-01T00:00:01"});
        let opened = open(body.to_string().as_bytes(), KNOWN).map(|notification| notification.at);
        assert_eq!(opened, Ok(Timestamp(1_000_000_000)));
    }

    #[test]
    fn what_is_no_notification_has_a_name() {
        let deep = "[".repeat(100_000);
        let cases = [
            ("", LeftOut::NotJson),
            ("[]", LeftOut::NotJson),
            ("{", LeftOut::NotJson),
            (deep.as_str(), LeftOut::NotJson),
            ("{}", LeftOut::NoEvent),
            (r#"{"event_type": "a"}"#, LeftOut::NoEvent),
            (r#"{"event_type": 1, "payload": {}}"#, LeftOut::NoEvent),
            (r#"{"event_type": "a", "payload": []}"#, LeftOut::NoEvent),
            (r#"{"oslo.version": "3.0", "oslo.message": "{}"}"#, LeftOut::Version),
            (r#"{"oslo.version": "2.0"}"#, LeftOut::NotJson),
            (r#"{"oslo.version": "2.0", "oslo.message": "{\"a\":"}"#, LeftOut::NotJson),
            (r#"{"oslo.version": "2.0", "oslo.message": "{}"}"#, LeftOut::NoEvent),
        ];
        for (body, why) in cases {
            assert_eq!(open(body.as_bytes(), KNOWN).map(|_| ()), Err(why), "{body:.60}");
        }
    }

    #[test]
    fn times_are_read_in_every_form() {
        let second = 1_477_518_742_u64;
        let cases = [
            ("2016-10-26 21:52:22.377165", second * 1_000_000_000 + 377_165_000),
            ("2016-10-26T21:52:22.000001", second * 1_000_000_000 + 1_000),
            ("2016-10-26T21:52:22Z", second * 1_000_000_000),
            ("2016-10-26 21:52:22+00:00", second * 1_000_000_000),
            ("2016-10-26 23:52:22+02:00", second * 1_000_000_000),
        ];
        for (text, ns) in cases {
            assert_eq!(timestamp(text), Some(Timestamp(ns)), "{text}");
        }
        for text in ["", "2016", "1960-01-01T00:00:00Z", "9999-01-01T00:00:00Z"] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let long = format!("a{}", "ä".repeat(TEXT_BYTES_MAX));
        assert_eq!(cut(&long).len(), TEXT_BYTES_MAX - 1);
    }
}
