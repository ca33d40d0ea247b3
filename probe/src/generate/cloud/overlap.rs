//! A hundred tenants on one network.
//!
//! In: length and rate. Out: its [`Story`].
//! Invariants: every tenant has the same addresses, the same users and the same first ports, so
//! only the VXLAN network identifier tells their flows apart.

use std::net::IpAddr;

use crate::inventory::{Segment, SegmentKind};

use super::demo::{Plan, user};
use super::{Builder, Endpoint, Move, NodeIndex, Story, Talk};
use crate::generate::random::Random;

const TENANTS: u32 = 100;
const VMS_PER_TENANT: u8 = 10;
const VNI_FIRST: u32 = 10_000;
const USERS: u64 = 16;
const MIGRATION_INTERVAL_US: u64 = 1_000_000;
const MIGRATION_BLACKOUT_US: u64 = 60_000;

/// Builds the scenario. `scale` multiplies the rate of conversations.
pub(crate) fn overlap(random: &mut Random, duration_us: u64, scale: f64) -> Story {
    let mut builder = Builder::new(random);
    for number in 0..TENANTS {
        tenant(&mut builder, number);
    }
    let gateway = builder.outside(100);
    let users: Vec<(NodeIndex, IpAddr)> =
        (0..USERS).map(|number| user(&mut builder, number)).collect();
    let cloud = builder.cloud;

    let mut plan = Plan { demands: Vec::new(), scale };
    for number in 0..TENANTS {
        let first = usize::try_from(number).unwrap_or(0) * usize::from(VMS_PER_TENANT);
        let outside = users.iter().map(|(node, ip)| cloud.outside(*node, *ip, segment_of(number)));
        let outside: Vec<Endpoint> = outside.collect();
        let vms: Vec<Endpoint> = (first..first + usize::from(VMS_PER_TENANT))
            .filter_map(|vm| cloud.endpoint(vm, 0, false))
            .collect();
        let (web, app, db, dns) = (&vms[..3], &vms[3..6], &vms[6..9], &vms[9..]);
        plan.add(Talk::Https("shop.example".into()), &outside, web, None, 900_000);
        plan.add(Talk::Http(8080, "api.internal".into()), web, app, dns.first().copied(), 700_000);
        plan.add(Talk::Postgres, app, db, None, 900_000);
        plan.add(Talk::Dns("time.internal".into()), &vms[..9], dns, None, 800_000);
        plan.add(Talk::Ping, dns, &vms[..9], None, 1_500_000);
    }
    let moves = moves(duration_us);
    let (scans, floods) = (Vec::new(), Vec::new());
    Story { cloud, gateway, demands: plan.demands, moves, scans, floods, duration_us }
}

fn segment_of(tenant: u32) -> Segment {
    Segment::new(0, SegmentKind::Vxlan, VNI_FIRST + tenant)
}

fn tenant(builder: &mut Builder<'_>, number: u32) {
    let name = format!("tenant-{number:03}");
    let place = builder.tenant(&name);
    for vm in 0..VMS_PER_TENANT {
        let (role, ports): (_, &[u16]) = match vm {
            0..3 => ("web", &[22, 80, 443]),
            3..6 => ("app", &[22, 8080]),
            6..9 => ("db", &[22, 5432]),
            _ => ("dns", &[53]),
        };
        let host = usize::from((number % 2 == 1) ^ (vm % 2 == 1));
        let address = IpAddr::from([10, 0, 0, 10 + vm]);
        let name = format!("{name}-{role}-{}", vm % 3 + 1);
        builder.vm(place, &name, host, ports, &[(segment_of(number), &[address])]);
    }
}

/// One VM a second, each another one as long as there are some; the first after half a second.
fn moves(duration_us: u64) -> Vec<Move> {
    let count = duration_us / MIGRATION_INTERVAL_US;
    let vms = u64::from(TENANTS) * u64::from(VMS_PER_TENANT);
    let one = |number: u64| Move {
        // 37 has no factor in common with the number of VMs.
        vm: usize::try_from(number * 37 % vms).unwrap_or(0),
        at_us: number * MIGRATION_INTERVAL_US + MIGRATION_INTERVAL_US / 2,
        blackout_us: MIGRATION_BLACKOUT_US,
    };
    (0..count).map(one).collect()
}
