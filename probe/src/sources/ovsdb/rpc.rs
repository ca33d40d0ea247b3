//! Messages of JSON-RPC 1.0 as OVSDB has them.
//!
//! In: one JSON object. Out: a [`Message`]; or the octets of one of ours.
//! Invariants: a text of the server that stands in an error is cut.
//! Source: RFC 7047 section 4; ovsdb-server(7) for `monitor_cond_since`.

use serde_json::{Value, json};

/// Characters of a server's error that are repeated.
const ERROR_CHARS_MAX: usize = 200;

/// A message of the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// It asks.
    Request {
        /// To be repeated in the answer.
        id: Value,
        /// What.
        method: String,
        /// With what.
        params: Value,
    },
    /// It answers.
    Answer {
        /// Of the question.
        id: Value,
        /// The result, or the error.
        result: Result<Value, ServerError>,
    },
    /// It tells.
    Notice {
        /// What.
        method: String,
        /// With what.
        params: Value,
    },
}

/// What the server did not like.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the server answers: {text}")]
pub(super) struct ServerError {
    text: String,
}

impl ServerError {
    fn new(error: &Value) -> Self {
        let said = |name: &str| error.get(name).and_then(Value::as_str);
        let text = match (error.as_str().or_else(|| said("error")), said("details")) {
            (Some(error), Some(details)) => format!("{error}: {details}"),
            (Some(error), None) => error.to_owned(),
            (None, _) => error.to_string(),
        };
        Self { text: text.chars().take(ERROR_CHARS_MAX).collect() }
    }

    /// Whether it does not know the method, being too old.
    pub(super) fn is_unknown_method(&self) -> bool {
        self.text.starts_with("unknown method")
    }
}

/// An object that is no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum RpcError {
    /// It is no JSON.
    #[error("a message is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is neither a request nor an answer nor a notice.
    #[error("a message has neither a method nor an id")]
    Shape,
}

/// Reads one message.
pub(super) fn parse(octets: &[u8]) -> Result<Message, RpcError> {
    let Value::Object(mut object) = serde_json::from_slice(octets)? else {
        return Err(RpcError::Shape);
    };
    let id = object.remove("id").unwrap_or_default();
    let params = object.remove("params").unwrap_or_default();
    match object.remove("method") {
        Some(Value::String(method)) if id.is_null() => Ok(Message::Notice { method, params }),
        Some(Value::String(method)) => Ok(Message::Request { id, method, params }),
        None if !id.is_null() => {
            let error = object.remove("error").filter(|error| !error.is_null());
            let result = object.remove("result").unwrap_or_default();
            let result = error.map_or(Ok(result), |error| Err(ServerError::new(&error)));
            Ok(Message::Answer { id, result })
        }
        _ => Err(RpcError::Shape),
    }
}

/// A question.
pub(super) fn request(id: u64, method: &str, params: &Value) -> Vec<u8> {
    json!({"id": id, "method": method, "params": params}).to_string().into_bytes()
}

/// An answer.
pub(super) fn answer(id: &Value, result: &Value) -> Vec<u8> {
    json!({"id": id, "result": result, "error": null}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Message> {
        parse(text.as_bytes()).ok()
    }

    #[test]
    fn kinds_of_messages() {
        assert!(matches!(
            read(r#"{"id":"echo","method":"echo","params":[]}"#),
            Some(Message::Request { method, .. }) if method == "echo"
        ));
        assert!(matches!(
            read(r#"{"id":null,"method":"update3","params":["v","t",{}]}"#),
            Some(Message::Notice { method, .. }) if method == "update3"
        ));
        let good = read(r#"{"id":1,"result":[],"error":null}"#);
        assert_eq!(good, Some(Message::Answer { id: json!(1), result: Ok(json!([])) }));
    }

    #[test]
    fn errors_in_both_forms() {
        for (error, text) in [
            (r#""unknown method""#, "unknown method"),
            (r#"{"error":"unknown database","details":"x"}"#, "unknown database: x"),
            (r#"{"code":7}"#, r#"{"code":7}"#),
        ] {
            let message = read(&format!(r#"{{"id":1,"result":null,"error":{error}}}"#));
            let Some(Message::Answer { result: Err(error), .. }) = message else {
                panic!("{text}")
            };
            assert_eq!(error.text, text);
            assert_eq!(error.is_unknown_method(), text == "unknown method");
        }
    }

    #[test]
    fn what_is_no_message() {
        for text in ["{}", "[]", "{", r#"{"id":null,"result":1}"#, r#"{"id":1,"method":7}"#] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn ours_read_back() {
        let asked = parse(&request(7, "get_schema", &json!(["Open_vSwitch"]))).ok();
        assert!(matches!(asked, Some(Message::Request { id, .. }) if id == json!(7)));
        let answered = parse(&answer(&json!("e"), &json!([]))).ok();
        assert_eq!(answered, Some(Message::Answer { id: json!("e"), result: Ok(json!([])) }));
    }
}
