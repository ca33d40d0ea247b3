//! The OpenAPI document.
//!
//! In: `openapi.json` of this folder. Out: `/api/v1/openapi.json`.
//! Invariants: its paths are the router's, its parameters the filters', its schemas what the
//! answers hold; tests compare each.
//! Source: OpenAPI Specification 3.1.

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// The document as JSON text.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// `GET /api/v1/openapi.json`.
pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::api;
    use super::super::list::Filter;
    use super::*;

    fn names<T>(filters: &[Filter<T>]) -> Vec<(&'static str, Vec<&'static str>)> {
        let own = filters.iter().map(|filter| (filter.name, filter.values.to_vec()));
        [("limit", vec![]), ("offset", vec![])].into_iter().chain(own).collect()
    }

    fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
        let target = value.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#'));
        target.map_or(value, |pointer| document.pointer(pointer).expect("reference"))
    }

    fn check<T>(document: &Value, path: &str, filters: &[Filter<T>]) {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("array");
        let stated: Vec<_> = parameters
            .iter()
            .map(|parameter| {
                let parameter = resolved(document, parameter);
                let values = parameter["schema"]["enum"].as_array().cloned().unwrap_or_default();
                (parameter["name"].clone(), values)
            })
            .collect();
        let expected: Vec<(Value, Vec<Value>)> = names(filters)
            .into_iter()
            .map(|(name, values)| (name.into(), values.into_iter().map(Value::from).collect()))
            .collect();
        assert_eq!(stated, expected, "{path}");
    }

    #[test]
    fn parameters_are_those_that_are_read() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        check(&document, "/api/v1/conversations", api::CONVERSATION_FILTERS);
        check(&document, "/api/v1/alerts", api::ALERT_FILTERS);
        check(&document, "/api/v1/workers", api::WORKER_FILTERS);
        check(&document, "/api/v1/taps", api::TAP_FILTERS);
        check(&document, "/api/v1/paths", api::PATH_FILTERS);
        check(&document, "/api/v1/migrations", api::MIGRATION_FILTERS);
        check(&document, "/api/v1/inventory/vms", super::super::inventory::VM_FILTERS);
        check(&document, "/api/v1/coverage", super::super::coverage::FILTERS);
    }

    #[test]
    fn version_is_the_package_s() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    }
}
