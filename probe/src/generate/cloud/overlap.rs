//! A hundred tenants on one network.
//!
//! In: length, rate and VMs of each tenant. Out: its [`Story`].
//! Invariants: every tenant has the same addresses, the same users and the same first ports, so
//! only the VXLAN network identifier tells their flows apart.

use std::net::IpAddr;

use crate::inventory::{Segment, SegmentKind};

use super::demo::{Plan, user};
use super::{Builder, Endpoint, Move, NodeIndex, Story, Talk};
use crate::generate::random::Random;

const TENANTS: u32 = 100;
/// So many VMs the rates of conversations are for.
const VMS_AT_RATE: u32 = 10;
const VNI_FIRST: u32 = 10_000;
const USERS: u64 = 16;
const MIGRATION_INTERVAL_US: u64 = 1_000_000;
const MIGRATION_BLACKOUT_US: u64 = 60_000;

/// Builds the scenario with so many VMs a tenant, at least 10. `scale` multiplies the rate of
/// conversations, which also grows with the VMs.
pub(crate) fn overlap(
    random: &mut Random,
    duration_us: u64,
    scale: f64,
    vms_per_tenant: u8,
) -> Story {
    let tiers = Tiers::new(vms_per_tenant);
    let mut builder = Builder::new(random);
    for number in 0..TENANTS {
        tenant(&mut builder, number, tiers);
    }
    let gateway = builder.outside(100);
    let users: Vec<(NodeIndex, IpAddr)> =
        (0..USERS).map(|number| user(&mut builder, number)).collect();
    let cloud = builder.cloud;

    let mut plan = Plan { demands: Vec::new(), scale };
    let every = |interval_us: u32| interval_us * VMS_AT_RATE / u32::from(vms_per_tenant);
    for number in 0..TENANTS {
        let first = usize::try_from(number).unwrap_or(0) * usize::from(vms_per_tenant);
        let outside = users.iter().map(|(node, ip)| cloud.outside(*node, *ip, segment_of(number)));
        let outside: Vec<Endpoint> = outside.collect();
        let vms: Vec<Endpoint> = (first..first + usize::from(vms_per_tenant))
            .filter_map(|vm| cloud.endpoint(vm, 0, false))
            .collect();
        let [web, app, db] = [0, 1, 2].map(|tier| tiers.of(&vms, tier));
        let (others, dns) = vms.split_at(3 * usize::from(tiers.third));
        let resolver = dns.first().copied();
        let https = Talk::Https("shop.example".into());
        plan.add(https, &outside, web, None, every(900_000));
        plan.add(Talk::Http(8080, "api.internal".into()), web, app, resolver, every(700_000));
        plan.add(Talk::Postgres, app, db, None, every(900_000));
        plan.add(Talk::Dns("time.internal".into()), others, dns, None, every(800_000));
        plan.add(Talk::Ping, dns, others, None, every(1_500_000));
    }
    let moves = moves(duration_us, TENANTS * u32::from(vms_per_tenant));
    let (scans, floods) = (Vec::new(), Vec::new());
    Story { cloud, gateway, demands: plan.demands, moves, scans, floods, duration_us }
}

fn segment_of(tenant: u32) -> Segment {
    Segment::new(0, SegmentKind::Vxlan, VNI_FIRST + tenant)
}

/// Three tiers of the same size; the rest are name servers.
#[derive(Clone, Copy)]
struct Tiers {
    vms: u8,
    third: u8,
}

impl Tiers {
    fn new(vms: u8) -> Self {
        Self { vms, third: u8::try_from(u16::from(vms) * 3 / 10).unwrap_or(0) }
    }

    /// The VMs of a tier.
    fn of(self, vms: &[Endpoint], tier: usize) -> &[Endpoint] {
        let third = usize::from(self.third);
        vms.get(tier * third..(tier + 1) * third).unwrap_or_default()
    }
}

fn tenant(builder: &mut Builder<'_>, number: u32, tiers: Tiers) {
    let name = format!("tenant-{number:03}");
    let place = builder.tenant(&name);
    for vm in 0..tiers.vms {
        let (role, ports): (_, &[u16]) = match vm / tiers.third {
            0 => ("web", &[22, 80, 443]),
            1 => ("app", &[22, 8080]),
            2 => ("db", &[22, 5432]),
            _ => ("dns", &[53]),
        };
        let host = usize::from((number % 2 == 1) ^ (vm % 2 == 1));
        let address = IpAddr::from([10, 0, 0, 10 + vm]);
        let name = format!("{name}-{role}-{}", vm - (vm / tiers.third).min(3) * tiers.third + 1);
        builder.vm(place, &name, host, ports, &[(segment_of(number), &[address])]);
    }
}

/// One VM a second, each another one as long as there are some; the first after half a second.
fn moves(duration_us: u64, vms: u32) -> Vec<Move> {
    let count = duration_us / MIGRATION_INTERVAL_US;
    let vms = u64::from(vms);
    // A prime that has no factor in common with the number of VMs.
    let step = if vms.is_multiple_of(37) { 41 } else { 37 };
    let one = |number: u64| Move {
        vm: usize::try_from(number * step % vms).unwrap_or(0),
        at_us: number * MIGRATION_INTERVAL_US + MIGRATION_INTERVAL_US / 2,
        blackout_us: MIGRATION_BLACKOUT_US,
    };
    (0..count).map(one).collect()
}
