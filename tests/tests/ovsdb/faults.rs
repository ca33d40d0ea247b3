//! Servers that say what no `ovsdb-server` says, and some that say nothing.

use serde_json::{Value, json};
use vmprobe::config::OvsdbPlan;
use vmprobe::inventory::SourceState;

use super::double::{Double, result, schema};
use super::over_tcp;
use super::watch::Watch;
use vmprobe_tests::end_to_end::{OvsdbServer, free_port, missing};

/// A plan that loses patience soon.
fn hasty(port: u16) -> OvsdbPlan {
    OvsdbPlan {
        timeout_ms: 500,
        echo_ms: 300,
        stale_after_ms: 400,
        message_mib_max: 1,
        rows_max: 100,
        ..over_tcp(port)
    }
}

/// The source fails for that reason, invents nothing, and ends when it should.
fn fails(double: &Double, why: &str) {
    let mut watch = Watch::start(&hasty(double.port));
    watch.until_failed(why);
    assert_eq!(watch.vms(), []);
    let ended_ms = watch.end();
    assert!(ended_ms < 2_000, "{why}: it ends after {ended_ms} ms");
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let deep = format!("{{\"a\":{}", "[".repeat(100));
    let long = format!("{{\"a\":\"{}", "x".repeat(2 << 20));
    for (said, why) in [
        ("HTTP/1.0 400 Bad Request\r\n", "octet 0x48 where a JSON object should begin"),
        ("{\"id\":1,\"result\":tru}", "is no JSON"),
        ("{\"id\":null,\"result\":[]}", "neither a method nor an id"),
        ("{\"id\":1,\"result\":\"\u{0}\"}", "is no JSON"),
        (&deep, "nested deeper than 32 levels"),
        (&long, "longer than 1048576 bytes"),
    ] {
        fails(&Double::saying(said.as_bytes().to_vec()), why);
    }
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    fails(&Double::saying(Vec::new()), "no answer to get_schema within 500 ms");
    fails(&Double::start(drop), "");
    let mut nobody = Watch::start(&hasty(free_port()));
    nobody.until_failed("refused");
}

/// The real schema, then `monitored` as the first rows, then `told`.
fn after_monitor(rows: Value, told: Value) -> Double {
    Double::answering(move |question| match question["method"].as_str() {
        Some("get_schema") => Some(result(question, &schema())),
        Some("monitor_cond_since") => {
            let first = json!([false, "00000000-0000-0000-0000-000000000000", rows]);
            let mut octets = result(question, &first);
            if !told.is_null() {
                octets.extend_from_slice(told.to_string().as_bytes());
            }
            Some(octets)
        }
        _ => None,
    })
}

/// The double has the real schema.
fn has_schema(test: &str) -> bool {
    let lacks = OvsdbServer::lacks();
    if !lacks.is_empty() {
        missing(test, &lacks, "openvswitch-switch openssl");
    }
    lacks.is_empty()
}

#[test]
fn foreign_databases_are_named() {
    if !has_schema("foreign_databases_are_named") {
        return;
    }
    let mut without = schema();
    let interface = without["tables"]["Interface"]["columns"].as_object_mut().expect("an object");
    interface.remove("external_ids");
    without["tables"].as_object_mut().expect("an object").remove("Mirror");
    let double = Double::answering(move |question| Some(result(question, &without)));
    fails(&double, "lacks Interface.external_ids, Mirror.name, Mirror.select_all");
    let double = Double::answering(|question| {
        let error = json!({"error": "unknown database", "details": "get_schema"});
        let answer = json!({"id": question["id"], "result": null, "error": error});
        Some(answer.to_string().into_bytes())
    });
    fails(&double, "the server answers: unknown database");
}

#[test]
fn updates_that_do_not_fit_end_the_connection() {
    if !has_schema("updates_that_do_not_fit_end_the_connection") {
        return;
    }
    let uuid = "5e8f7f3a-6d6b-4b55-9a0e-3a2f6b1c0d01";
    let told =
        |rows: Value| json!({"id": null, "method": "update3", "params": ["vmprobe", "t", rows]});
    for (told, why) in [
        (told(json!({"Port": {uuid: {"modify": {"tag": 1}}}})), "changes a row of Port"),
        (told(json!({"Port": {uuid: {"insert": {"tag": "x"}}}})), "an update of Port.tag"),
        (told(json!({"Port": {"x": {"insert": {}}}})), "has not the shape"),
        (json!({"id": null, "method": "update3", "params": [1]}), "an update has not the shape"),
        (
            json!({"id": null, "method": "monitor_canceled", "params": ["vmprobe"]}),
            "ended the monitor",
        ),
    ] {
        fails(&after_monitor(json!({}), told), why);
    }
    let many: serde_json::Map<String, Value> = (0..101)
        .map(|number| (format!("00000000-0000-0000-0000-{number:012x}"), json!({"initial": {}})))
        .collect();
    fails(&after_monitor(json!({"Port": many}), Value::Null), "more than 100 rows");
    fails(&after_monitor(json!([]), Value::Null), "has not the shape");
}

#[test]
fn a_server_that_falls_silent_is_stale_and_then_failed() {
    if !has_schema("a_server_that_falls_silent_is_stale_and_then_failed") {
        return;
    }
    let double = after_monitor(json!({}), Value::Null);
    let mut watch = Watch::start(&hasty(double.port));
    watch.until_live(1);
    watch.until("stale", |watch| watch.health().state == SourceState::Stale);
    watch.until_failed("the server has been silent for");
}
