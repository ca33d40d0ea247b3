//! The demo cloud: tenants with the same addresses, three tiers, users outside.
//!
//! In: length, rate and attacks. Out: its [`Story`].
//! Invariants: red, blue and green use the same addresses in different segments; amber and
//! services share one address space, with a router between their segments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::inventory::{Segment, SegmentKind};

use super::{Builder, Demand, Endpoint, Flood, Move, NodeIndex, Scan, Story, Talk};
use crate::generate::random::Random;

/// Which attacks happen.
#[derive(Clone, Copy)]
pub(crate) struct Attacks {
    pub(crate) scan: bool,
    pub(crate) flood: bool,
}

const RED: Segment = Segment::new(0, SegmentKind::Vxlan, 4242);
const BLUE: Segment = Segment::new(0, SegmentKind::Vxlan, 4711);
const GREEN: Segment = Segment::new(0, SegmentKind::Vlan, 42);
const AMBER: Segment = Segment::new(0, SegmentKind::Vxlan, 5000);
const SERVICES: Segment = Segment::new(0, SegmentKind::Vxlan, 5001);

const USERS: u64 = 48;
const MIGRATION_BLACKOUT_US: u64 = 180_000;
/// SYNs of the flood in a second.
const FLOOD_RATE: u64 = 2_000;
const FLOOD_LONGEST_US: u64 = 6_000_000;
const SCAN_INTERVAL_LONGEST_US: u64 = 40_000;

/// Places of a tenant's VMs.
struct Tiers {
    name: &'static str,
    segment: Segment,
    web: Vec<usize>,
    app: Vec<usize>,
    db: Vec<usize>,
}

/// Builds the demo. `scale` multiplies the rate of the background, not of the attacks.
pub(crate) fn demo(random: &mut Random, duration_us: u64, scale: f64, attacks: Attacks) -> Story {
    let mut builder = Builder::new(random);
    builder.join("amber-services", &[AMBER, SERVICES]);
    let tiers = [("red", RED), ("blue", BLUE), ("green", GREEN)]
        .map(|(name, segment)| Tiers::new(&mut builder, name, segment));
    let amber = amber(&mut builder);
    let services = Services::new(&mut builder);
    let gateway = builder.outside(100);
    let users: Vec<(NodeIndex, IpAddr)> =
        (0..USERS).map(|number| user(&mut builder, number)).collect();
    let attacker = builder.outside(4_000);
    let cloud = builder.cloud;

    let mut plan = Plan { demands: Vec::new(), scale };
    let end = |vm: &usize, version6| cloud.endpoint(*vm, 0, version6);
    let ends = |vms: &[usize]| vms.iter().filter_map(|vm| end(vm, false)).collect::<Vec<_>>();
    let ends6 = |vms: &[usize]| vms.iter().filter_map(|vm| end(vm, true)).collect::<Vec<_>>();
    for (place, tenant) in tiers.iter().enumerate() {
        let outside = users.iter().map(|(node, ip)| cloud.outside(*node, *ip, tenant.segment));
        let outside: Vec<Endpoint> = outside.collect();
        let resolver = cloud.endpoint(services.dns, place + 1, false);
        let (web, app, db) = (ends(&tenant.web), ends(&tenant.app), ends(&tenant.db));
        let name = tenant.name;
        plan.add(Talk::Https(format!("shop.{name}.example")), &outside, &web, None, 125_000);
        plan.add(Talk::Http(80, format!("www.{name}.example")), &outside, &web, None, 300_000);
        plan.add(Talk::Http(8080, format!("api.{name}.internal")), &web, &app, resolver, 120_000);
        plan.add(Talk::Postgres, &app, &db, resolver, 140_000);
        let everyone = [web, app, db].concat();
        let resolver: Vec<Endpoint> = resolver.into_iter().collect();
        plan.add(Talk::Dns(format!("time.{name}.internal")), &everyone, &resolver, None, 90_000);
        plan.add(Talk::Ping, &everyone[..1], &everyone[1..], None, 150_000);
    }
    let resolver = cloud.endpoint(services.dns, 0, false);
    let resolver6 = cloud.endpoint(services.dns, 0, true);
    let registry: Vec<Endpoint> = end(&services.registry, false).into_iter().collect();
    let outside = users.iter().map(|(node, ip)| cloud.outside(*node, *ip, AMBER));
    let outside: Vec<Endpoint> = outside.collect();
    let (web, app) = (ends(&amber.web), ends(&amber.app));
    plan.add(Talk::Https("portal.amber.example".into()), &outside, &web, None, 150_000);
    plan.add(
        Talk::Http(8080, "api.amber.internal".into()),
        &ends6(&amber.web),
        &ends6(&amber.app),
        resolver6,
        120_000,
    );
    plan.add(Talk::Postgres, &ends6(&amber.app), &ends6(&amber.db), None, 180_000);
    plan.add(Talk::Https("registry.services.internal".into()), &app, &registry, resolver, 180_000);
    plan.add(Talk::Ping, &ends6(&amber.web[..1]), &ends6(&amber.db), None, 250_000);

    let target = end(&tiers[1].web[0], false);
    let scanner = end(&tiers[0].app[2], false);
    let scans = scanner.filter(|_| attacks.scan).map(|source| {
        let targets = scan_targets(&cloud, source);
        let interval_us =
            (duration_us * 3 / 10 / targets.len() as u64).clamp(1, SCAN_INTERVAL_LONGEST_US);
        Scan { source, targets, at_us: duration_us / 5, interval_us }
    });
    let floods = target.filter(|_| attacks.flood).map(|target| {
        let interval_us = 1_000_000 / FLOOD_RATE;
        let packets = (duration_us / 5).min(FLOOD_LONGEST_US) / interval_us;
        let at_us = duration_us * 13 / 20;
        Flood { origin: attacker, target, port: 443, at_us, interval_us, packets }
    });
    let (scans, floods) = (scans.into_iter().collect(), floods.into_iter().collect());
    let moves = vec![Move {
        vm: tiers[0].app[0],
        at_us: duration_us / 2,
        blackout_us: MIGRATION_BLACKOUT_US.min(duration_us / 10),
    }];
    Story { cloud, gateway, demands: plan.demands, moves, scans, floods, duration_us }
}

/// Collects demands at the wanted rate.
pub(super) struct Plan {
    pub(super) demands: Vec<Demand>,
    pub(super) scale: f64,
}

impl Plan {
    /// A conversation every `interval_us` on average, at scale 1.
    pub(super) fn add(
        &mut self,
        talk: Talk,
        clients: &[Endpoint],
        servers: &[Endpoint],
        resolver: Option<Endpoint>,
        interval_us: u32,
    ) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number; the cast saturates"
        )]
        let interval_us = ((f64::from(interval_us) / self.scale) as u64).max(1);
        self.demands.push(Demand {
            talk,
            clients: clients.to_vec(),
            servers: servers.to_vec(),
            resolver,
            interval_us,
        });
    }
}

impl Tiers {
    /// Two web servers, three application servers, two databases on 10.0.0.0/24, spread over
    /// both hosts.
    fn new(builder: &mut Builder<'_>, name: &'static str, segment: Segment) -> Self {
        let tenant = builder.tenant(name);
        let mut tier = |role: &str, first: u8, count: u8, ports: &[u16]| -> Vec<usize> {
            let place = |number: u8| {
                let address = v4(10, 0, first + number);
                let host = usize::from(number % 2);
                let name = format!("{name}-{role}-{}", number + 1);
                builder.vm(tenant, &name, host, ports, &[(segment, &[address])])
            };
            (0..count).map(place).collect()
        };
        let web = tier("web", 10, 2, &[22, 80, 443]);
        let app = tier("app", 20, 3, &[22, 8080]);
        let db = tier("db", 30, 2, &[22, 5432]);
        Self { name, segment, web, app, db }
    }
}

/// The tenant with two IP versions.
fn amber(builder: &mut Builder<'_>) -> Tiers {
    let tenant = builder.tenant("amber");
    let mut vm = |name: &str, last: u8, host: usize, ports: &[u16]| {
        let addresses = [v4(20, 0, last), v6(0x20, last)];
        builder.vm(tenant, name, host, ports, &[(AMBER, &addresses)])
    };
    let web = vec![vm("amber-web-1", 10, 0, &[22, 443]), vm("amber-web-2", 11, 1, &[22, 443])];
    let app = vec![vm("amber-app-1", 20, 0, &[22, 8080])];
    let db = vec![vm("amber-db-1", 30, 1, &[22, 5432])];
    Tiers { name: "amber", segment: AMBER, web, app, db }
}

/// Places of the VMs that serve all tenants.
struct Services {
    dns: usize,
    registry: usize,
}

impl Services {
    /// The name server has an interface in every tenant's network; both stand on the second
    /// host, so that what amber's first host asks of them is routed between the taps.
    fn new(builder: &mut Builder<'_>) -> Self {
        let tenant = builder.tenant("services");
        let shared = [v4(10, 0, 53)];
        let own = [v4(30, 0, 53), v6(0x30, 53)];
        let networks: [(Segment, &[IpAddr]); 4] =
            [(SERVICES, &own), (RED, &shared), (BLUE, &shared), (GREEN, &shared)];
        let dns = builder.vm(tenant, "services-dns-1", 1, &[53], &networks);
        let registry = [(SERVICES, &[v4(30, 0, 20)][..])];
        let registry = builder.vm(tenant, "services-registry-1", 1, &[22, 443], &registry);
        Self { dns, registry }
    }
}

/// A user in one of the two networks of RFC 5737 that stand for the outside.
pub(super) fn user(builder: &mut Builder<'_>, number: u64) -> (NodeIndex, IpAddr) {
    let distance_us = builder.random.between(2_000, 15_000);
    let last = u8::try_from(number / 2 % 200 + 10).unwrap_or(10);
    let address = if number.is_multiple_of(2) { [203, 0, 113, last] } else { [198, 51, 100, last] };
    (builder.outside(distance_us), IpAddr::from(address))
}

/// Ten ports on twenty addresses of the scanner's network, most of which nobody has.
fn scan_targets(cloud: &super::Cloud, source: Endpoint) -> Vec<(IpAddr, Option<Endpoint>, u16)> {
    const PORTS: [u16; 10] = [21, 22, 23, 25, 110, 139, 445, 1433, 3306, 3389];
    let known: Vec<Endpoint> = (0..cloud.vms.len())
        .filter_map(|vm| cloud.endpoint(vm, 0, false))
        .filter(|end| end.segment == source.segment)
        .collect();
    let last = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 30, 31, 32, 33];
    let hosts = last.map(|last| v4(10, 0, last));
    let target = |port: u16| {
        let known = &known;
        hosts.into_iter().map(move |address| {
            (address, known.iter().find(|end| end.address == address).copied(), port)
        })
    };
    PORTS.into_iter().flat_map(target).collect()
}

/// 10.x.y.z: `10.network.third.last`, where network 10 stands for 10.0.
fn v4(network: u8, third: u8, last: u8) -> IpAddr {
    Ipv4Addr::new(10, if network == 10 { 0 } else { network }, third, last).into()
}

/// fd00:network::last
fn v6(network: u16, last: u8) -> IpAddr {
    Ipv6Addr::new(0xfd00, network, 0, 0, 0, 0, 0, last.into()).into()
}
