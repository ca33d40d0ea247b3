//! A neutron-server of its own for a test, on SQLite, without Keystone and agents; it sends notifications to a
//! broker if it is given one. Taken down when it is dropped.
//!
//! Source: Neutron 21, "Configuration options"; `auth_strategy = noauth`.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value as Json, json};

use crate::broker::Broker;
use crate::end_to_end::{free_port, get, send, until};
use crate::folder::Folder;

/// What it comes with.
pub const PACKAGES: &str = "neutron-server";
const SERVER: &str = "/usr/bin/neutron-server";
/// The system's own Python, which has its modules.
const PYTHON: &str = "/usr/bin/python3";
const PASTE: &str = "/etc/neutron/api-paste.ini";
/// How long it may take to start, on a machine that is busy with other tests.
const START_S: u64 = 90;

/// A server.
pub struct Neutron {
    child: Child,
    folder: Folder,
    /// Host and port.
    pub address: String,
}

impl Neutron {
    /// Starts one; `None` where it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with("driver = noop")
    }

    /// Starts one that tells a broker what it does.
    pub fn notifying(broker: &Broker) -> Option<Self> {
        let url = format!("rabbit://guest:guest@127.0.0.1:{}/", broker.port);
        Self::start_with(&format!("driver = messagingv2\ntransport_url = {url}"))
    }

    fn start_with(notifications: &str) -> Option<Self> {
        if ![SERVER, PYTHON, PASTE].iter().all(|path| Path::new(path).exists()) {
            return None;
        }
        let folder = Folder::new("neutron");
        let (root, port) = (folder.root().display().to_string(), free_port());
        let configuration = format!(
            "[DEFAULT]\nbind_host = 127.0.0.1\nbind_port = {port}\ncore_plugin = ml2\n\
             service_plugins = router,trunk\nauth_strategy = noauth\nstate_path = {root}\nlock_path = {root}\n\
             api_workers = 1\nrpc_workers = 0\nrpc_state_report_workers = 0\ntransport_url = fake://\n\
             api_paste_config = {PASTE}\n[oslo_concurrency]\nlock_path = {root}\n\
             [database]\nconnection = sqlite:///{root}/neutron.db\n\
             [oslo_messaging_notifications]\n{notifications}\n\
             [ml2]\ntype_drivers = vxlan,vlan\ntenant_network_types = vxlan\n\
             mechanism_drivers = openvswitch\n[ml2_type_vxlan]\nvni_ranges = 4000:5000\n\
             [ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:500:600\n"
        );
        folder.write("neutron.conf", configuration);
        let tables = format!(
            "import sqlalchemy\nfrom neutron.db.migration.models import head\n\
             from neutron_lib.db import model_base\n\
             model_base.BASEV2.metadata.create_all(sqlalchemy.create_engine('sqlite:///{root}/neutron.db'))\n"
        );
        folder.write("tables.py", tables);
        let made =
            Command::new(PYTHON).arg(folder.path("tables.py")).output().expect("python runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let said = fs::File::create(folder.path("said")).expect("a file");
        let mut command = Command::new(PYTHON);
        command.arg(SERVER).arg("--config-file").arg(folder.path("neutron.conf"));
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("a file")).stderr(said);
        // Its workers are of its group.
        let child = command.process_group(0).spawn().expect("neutron-server runs");
        let neutron = Self { child, folder, address: format!("127.0.0.1:{port}") };
        let up = until(START_S, || std::net::TcpStream::connect(&neutron.address).ok());
        assert!(up.is_some(), "neutron-server does not start: {}", neutron.said());
        assert_eq!(get(&neutron.address, "/").status, 200);
        Some(neutron)
    }

    /// Makes or changes something, as an administrator of a project.
    pub fn ask(&self, method: &str, path: &str, body: &Json) -> Json {
        let headers = "Content-Type: application/json\r\nX-Roles: admin\r\nX-Project-Id: p1\r\n\
                       X-Tenant-Id: p1\r\nX-User-Id: u1\r\n";
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = send(&self.address, method, &format!("/v2.0{path}"), headers, &body);
        assert!(answer.status / 100 == 2, "{method} {path}: {answer:?}\n{}", self.said());
        if answer.body.is_empty() { Json::Null } else { answer.json() }
    }

    /// A network with one subnet: its id, its VXLAN identifier, the subnet's id.
    pub fn network(&self, cidr: &str) -> (String, u64, String) {
        let network = json!({"network": {"name": "n", "tenant_id": "p1"}});
        let network = self.ask("POST", "/networks", &network)["network"].take();
        let id = text(&network["id"]);
        let subnet = json!({"subnet": {
            "network_id": id, "ip_version": 4, "cidr": cidr, "tenant_id": "p1"}});
        let subnet = self.ask("POST", "/subnets", &subnet)["subnet"].take();
        let number = network["provider:segmentation_id"].as_u64().expect("a VNI");
        (id, number, text(&subnet["id"]))
    }

    /// A port of a VM, as Nova makes it: its id, MAC address and IP address.
    pub fn port(&self, network: &str, vm: &str) -> (String, String, String) {
        let port = json!({"port": {
            "network_id": network, "tenant_id": "p1", "device_id": vm, "device_owner": "compute:nova",
            "binding:host_id": "host1"}});
        let port = self.ask("POST", "/ports", &port)["port"].take();
        (text(&port["id"]), text(&port["mac_address"]), text(&port["fixed_ips"][0]["ip_address"]))
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path("said")).unwrap_or_default()
    }
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

impl Drop for Neutron {
    fn drop(&mut self) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}
