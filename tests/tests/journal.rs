//! A probe that is killed and started again knows what it knew: what requests and the file have told,
//! since when, and which requests it has taken.
#![cfg(feature = "dpdk")]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value as Json, json};
use vmprobe_tests::end_to_end::{
    Answer, Folder, Probe, SmallDisk, get, is_root, send, send_json, skipped, until, vmprobe,
};

const WEB: &str = "00000000-0000-0000-0000-000000000001";
const OLD: &str = "00000000-0000-0000-0000-000000000002";
const DB: &str = "00000000-0000-0000-0000-000000000003";

fn file(vms: &[(&str, &str)]) -> String {
    let vm = |(uuid, name): &(&str, &str)| {
        let last = &uuid[uuid.len() - 1..];
        format!(
            "[[vm]]\nuuid = \"{uuid}\"\nname = \"{name}\"\ntenant = \"acme\"\n[[vm.interface]]\n\
             mac = \"02:00:00:00:00:0{last}\"\naddresses = [\"10.0.0.{last}\"]\nsegment = \"default/vlan/7\"\n"
        )
    };
    let vms: String = vms.iter().map(vm).collect();
    format!("[[tenant]]\nname = \"acme\"\n{vms}")
}

fn configuration(folder: &Folder, records: &Path, rest: &str) -> std::path::PathBuf {
    folder.write(
        "vmprobe.toml",
        format!(
            "[eal]\nhuge_pages = false\nmemory_mib = 128\nfile_prefix = \"{name}\"\n\
             [[port]]\nname = \"p\"\ndevice = \"net_null0,no-rx=1\"\nmbufs = 4095\n\
             [flow]\nslots_per_worker = 1024\n[copies]\nslots = 1024\n[decode]\nfragment_slots = 64\n\
             [serve]\nlisten = \"127.0.0.1:0\"\n[store]\nfolder = \"{records}\"\n{rest}\
             [inventory]\napi = true\nfile = \"inventory.toml\"\n",
            name = folder.name(),
            records = records.display(),
        ),
    )
}

fn start(file: &Path) -> (Probe, String) {
    let mut command = Command::new(vmprobe());
    command.args(["run", "--json", "-c"]).arg(file);
    let mut probe = Probe::start(command);
    let address = probe.receiving().expect("it has a page");
    (probe, address)
}

fn journal(address: &str) -> Json {
    get(address, "/api/v1/inventory").json()["journal"].clone()
}

/// Waits until all that is known is in the file.
fn written(address: &str, entries: u64) -> Json {
    let mut last = Json::Null;
    let all = until(10, || {
        last = journal(address);
        let all = last["entries"].as_u64() >= Some(entries) && last["waiting_entries"] == 0;
        (all && last["bytes"].as_u64() > Some(0)).then(|| last.clone())
    });
    all.unwrap_or_else(|| panic!("{last}"))
}

fn vm(address: &str, uuid: &str) -> Json {
    get(address, &format!("/api/v1/inventory/vms/{uuid}")).json()
}

fn post(address: &str, key: &str, body: &Json) -> Answer {
    let headers = format!("Content-Type: application/json\r\nIdempotency-Key: {key}\r\n");
    send(address, "POST", "/api/v1/inventory", &headers, &body.to_string())
}

fn event(event: &str, revision: u64, host: &str) -> Json {
    json!({"events": [{
        "vm": DB, "event": event, "revision": revision, "name": "db", "tenant": "acme", "host": host,
        "interfaces": [{"mac": "02:00:00:00:00:33", "addresses": ["10.0.0.33"], "segment": "default/vlan/7"}],
    }]})
}

/// A VM that was told of an instant ago ends, once.
fn end_at_once(address: &str) {
    let uuid = DB.replace('3', "7");
    let place = format!("/api/v1/inventory/vms/{uuid}");
    assert_eq!(send(address, "DELETE", &place, "", "").status, 404);
    assert_eq!(send_json(address, "PUT", &place, &json!({"name": "brief"})).status, 202);
    let end = || send(address, "DELETE", &place, "Idempotency-Key: end-7\r\n", "");
    let (ended, again) = (end(), end());
    assert_eq!((ended.status, ended.header("Idempotency-Replayed")), (202, None), "{ended:?}");
    assert_eq!((again.status, again.header("Idempotency-Replayed")), (202, Some("true")));
    assert_eq!(again.body, ended.body);
    let ended = until(10, || {
        let total = get(address, "/api/v1/inventory/vms?name=brief").json()["total"].clone();
        (total == 0 && get(address, &place).status == 200).then_some(())
    });
    assert!(ended.is_some(), "{}", vm(address, &uuid));
}

#[test]
fn a_probe_that_is_killed_knows_what_it_knew() {
    let folder = Folder::new("journal");
    let records = folder.path("records");
    folder.write("inventory.toml", file(&[(WEB, "web"), (OLD, "old")]));
    let toml = configuration(&folder, &records, "free_mib_min = 16\n");
    let (probe, address) = start(&toml);
    let first = post(&address, "create-1", &event("create", 1, "host1"));
    assert_eq!((first.status, &first.json()["stale_events"]), (202, &json!(0)), "{first:?}");
    assert_eq!(post(&address, "move-2", &event("migrate", 2, "host2")).status, 202);
    end_at_once(&address);
    // What is older than that changes nothing, and neither does the same again.
    let late = post(&address, "late", &event("migrate", 1, "host9")).json();
    assert_eq!((&late["changes"], &late["stale_events"]), (&json!(0), &json!(1)));
    let again = post(&address, "create-1", &event("create", 1, "host1"));
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(
        (again.header("Idempotency-Replayed"), first.header("Idempotency-Replayed")),
        (Some("true"), None)
    );
    let other = post(&address, "create-1", &event("create", 3, "host3"));
    assert_eq!(other.status, 422, "{other:?}");
    let path = records.join("inventory.journal");
    let noted = || fs::read_to_string(&path).ok().filter(|text| text.contains("\"late\""));
    assert!(until(10, noted).is_some(), "the last request is in the file: {}", journal(&address));
    let whole = json!({"name": "db", "revision": 1});
    let place = format!("/api/v1/inventory/vms/{DB}");
    let older = send_json(&address, "PUT", &place, &whole);
    assert_eq!(older.status, 409, "{older:?}");
    let delete = format!("{place}?revision=1");
    assert_eq!(send(&address, "DELETE", &delete, "", "").status, 409);
    let bad_key = post(&address, "a\tb", &event("create", 9, "host9"));
    assert_eq!(
        (bad_key.status, &bad_key.json()["error"]),
        (400, &json!("Idempotency-Key is none"))
    );
    let (db, web) = (vm(&address, DB), vm(&address, WEB));
    assert_eq!(db["migrations"].as_array().map(Vec::len), Some(1), "{db}");
    // Killed, not ended.
    drop(probe);

    let text = fs::read_to_string(&path).expect("a journal");
    assert!(text.contains("host2") && !text.contains("host9"));
    folder.write("inventory.toml", file(&[(WEB, "web")]));
    let (probe, address) = start(&toml);
    assert_eq!(vm(&address, DB), db, "facts with their times");
    assert_eq!(vm(&address, WEB), web, "what the file says again is nothing new");
    let status = get(&address, "/api/v1/inventory").json();
    assert_eq!(
        (&status["journal"]["state"], &status["journal"]["restored_vms"]),
        (&json!("ok"), &json!(4))
    );
    // The file has the last word on its own VMs.
    let names = get(&address, "/api/v1/inventory/vms?limit=10").json();
    let names: Vec<_> =
        names["items"].as_array().expect("VMs").iter().map(|vm| &vm["name"]).collect();
    assert!(names.contains(&&json!("web")) && names.contains(&&json!("db")), "{names:?}");
    assert!(!names.contains(&&json!("old")), "{names:?}");
    // A retry after the restart is known too.
    let again = post(&address, "create-1", &event("create", 1, "host1"));
    assert_eq!((again.status, &again.body), (202, &first.body));
    let late = post(&address, "late-2", &event("migrate", 1, "host9")).json();
    assert_eq!(late["stale_events"], 1, "{late}");
    // A second probe does not write there.
    let prefix = format!("file_prefix = \"{}\"", folder.name());
    let second =
        fs::read_to_string(&toml).expect("a file").replace(&prefix, "file_prefix = \"second\"");
    let second = folder.write("second.toml", second);
    let mut command = Command::new(vmprobe());
    command.args(["run", "-c"]).arg(second);
    let refused = Probe::start(command).end(60);
    refused.expect(2, &["inventory.journal: is kept by another process"]);
    written(&address, 1);
    drop(probe);

    torn_and_newer(&path, &toml, &db);
}

/// A torn end is cut and said; a file of a newer version is left alone.
fn torn_and_newer(path: &Path, toml: &Path, db: &Json) {
    let mut octets = fs::read(path).expect("a journal");
    octets.extend(b"1234abcd {\"known\":1,\"all\":[{\"of");
    fs::write(path, &octets).expect("written");
    let (mut probe, address) = start(toml);
    probe.said("the end of the inventory's journal was cut off: the last line is not whole", 1);
    assert_eq!(journal(&address)["cut_bytes"], 31);
    assert_eq!(&vm(&address, DB), db);
    drop(probe);
    let text = fs::read_to_string(path).expect("a journal");
    let newer = text.replacen("\"version\":1", "\"version\":9", 1);
    fs::write(path, &newer).expect("written");
    let mut command = Command::new(vmprobe());
    command.args(["run", "-c"]).arg(toml);
    let refused = Probe::start(command).end(60);
    refused.expect(2, &["is of version 9, and this vmprobe reads 1 at most"]);
    assert_eq!(fs::read_to_string(path).expect("a journal"), newer);
}

#[test]
fn a_full_disk_is_said_and_stops_nothing() {
    let name = "a_full_disk_is_said_and_stops_nothing";
    if !is_root() {
        skipped(name, "needs root to mount a small disk");
        return;
    }
    let folder = Folder::new("journal-full");
    let Some(disk) = SmallDisk::mount(folder.path("disk"), 64) else {
        skipped(name, "the system mounts no small disk");
        return;
    };
    folder.write("inventory.toml", file(&[(WEB, "web")]));
    let toml = configuration(&folder, disk.root(), "free_mib_min = 16\n");
    let (mut probe, address) = start(&toml);
    written(&address, 0);
    fs::write(disk.root().join("ballast"), vec![1_u8; 60 << 20]).expect("room");
    assert_eq!(post(&address, "k", &event("create", 1, "host1")).status, 202);
    let full =
        until(10, || Some(journal(&address)).filter(|journal| journal["state"] == "disk_full"));
    let full = full.unwrap_or_else(|| panic!("{}", journal(&address)));
    assert!(full["waiting_entries"].as_u64() > Some(0), "{full}");
    assert!(
        full["last_error"].as_str().is_some_and(|error| error.contains("free_mib_min")),
        "{full}"
    );
    let metrics = get(&address, "/metrics").body;
    assert!(
        metrics.contains("vmprobe_inventory_journal_state{state=\"disk_full\"} 1.0"),
        "{metrics}"
    );
    assert!(probe.runs() && vm(&address, DB)["facts"].is_array(), "it is known all the same");
    fs::remove_file(disk.root().join("ballast")).expect("removed");
    let ok = until(10, || Some(journal(&address)).filter(|journal| journal["state"] == "ok"));
    assert!(ok.is_some_and(|journal| journal["waiting_entries"] == 0), "{}", journal(&address));
    let db = vm(&address, DB);
    drop(probe);
    let (probe, address) = start(&toml);
    assert_eq!(vm(&address, DB), db);
    drop(probe);
}
