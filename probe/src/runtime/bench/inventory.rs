//! `bench --inventory`: look-ups while the inventory changes.
//!
//! In: how many tenants and VMs, how many changes a second. Out: [`InventoryReport`]: look-ups a second of
//! one thread's CPU time, what a change costs the keeper, and look-ups that were wrong.
//! Cost: the asked time; two threads, one that looks up and one that keeps, as in a run.
//! Invariants: all tenants use the same addresses. Each look-up asks at an instant of which the answer is
//! known, and is compared with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use crate::config::Plan;
use crate::inventory::{
    Address, AddressSpace, Batch, InventoryCell, Mac, Segment, SegmentKind, SourceKind, Statement,
    Uuid,
};
use crate::sources::{Keeper, SourceHandle, SourceSpec};
use crate::time::{Timestamp, monotonic_ns, ms, sleep_ms, thread_cpu_ns, wall_clock};

use super::machine::resident_bytes;

/// Look-ups between two looks at the clock, each with the newest snapshot.
const LOOKUPS_AT_ONCE: u64 = 4_096;
/// Instant of the first facts, in the years of captures.
const BEGIN: Timestamp = Timestamp::from_parts(1_700_000_000, 0);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct InventoryOptions {
    /// Tenants, each with a segment of its own.
    pub tenants: u32,
    /// VMs of each tenant, at most 254: all tenants have the addresses 10.0.0.1, 10.0.0.2 …
    pub vms_per_tenant: u8,
    /// Migrations a second; as many addresses go over to a new VM.
    pub changes_per_second: u32,
    /// How long.
    pub seconds: u32,
}

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct InventoryReport {
    /// Tenants.
    pub tenants: u32,
    /// Virtual machines at the start.
    pub vms: u32,
    /// Look-ups made.
    pub lookups: u64,
    /// Look-ups a second of the thread's CPU time.
    pub lookups_per_second: f64,
    /// CPU time of a look-up.
    pub ns_per_lookup: f64,
    /// The same where every look-up fetches the newest snapshot for itself.
    pub ns_per_lookup_with_fetch: f64,
    /// Look-ups that gave another VM than the one that had the address then.
    pub wrong: u64,
    /// Migrations and hand-overs of addresses meanwhile.
    pub changes: u64,
    /// From the moment a change is sent until a look-up sees it: median.
    pub visible_us_p50: f64,
    /// And the longest.
    pub visible_us_max: f64,
    /// CPU time of the store for a change, its snapshot included: mean.
    pub change_us: f64,
    /// CPU time of reading all VMs into the empty store.
    pub load_ms: f64,
    /// Memory of the process at the end.
    pub resident_bytes: u64,
}

/// Measures.
pub fn measure(options: InventoryOptions) -> InventoryReport {
    let stop = Arc::new(AtomicBool::new(false));
    let plan = Arc::new(Plan::default());
    let spec = SourceSpec {
        kind: SourceKind::File,
        name: "file".to_owned(),
        rank: 0,
        stale_after_ms: None,
    };
    let (mut keeper, handles) = Keeper::new(&plan, vec![spec], Arc::clone(&stop), false, BEGIN);
    let Some(handle) = handles.into_iter().next() else { return InventoryReport::default() };
    let begun_ns = thread_cpu_ns();
    keeper.apply(handle.id(), BEGIN, all(options));
    keeper.publish(BEGIN);
    let load_ns = thread_cpu_ns() - begun_ns;
    keeper.take_rows();
    let cell = Arc::clone(&keeper.view().inventory);
    let cpu = Arc::new(AtomicU64::new(0));
    let (keeping, keeper_cpu) = (Arc::clone(&stop), Arc::clone(&cpu));
    let keeper = std::thread::spawn(move || {
        let begun_ns = thread_cpu_ns();
        let rows = Arc::clone(&keeper.view().rows);
        while !keeping.load(Ordering::Relaxed) {
            keeper.turn(50);
            while rows.pop().is_some() {}
            keeper_cpu.store(thread_cpu_ns() - begun_ns, Ordering::Relaxed);
        }
    });
    let (changing, changed_cell) = (Arc::clone(&stop), Arc::clone(&cell));
    let changer = std::thread::spawn(move || change(options, &handle, &changed_cell, &changing));
    let looked = look_up(options, &cell);
    stop.store(true, Ordering::Relaxed);
    let mut visible_ns = changer.join().unwrap_or_default();
    let ended = keeper.join();
    if ended.is_err() {
        tracing::error!("the keeper of the inventory ended in a panic");
    }
    visible_ns.sort_unstable();
    let us = |ns: Option<&u64>| ns.map_or(0.0, |ns| float(*ns) / 1e3);
    let changes = visible_ns.len() as u64;
    InventoryReport {
        tenants: options.tenants,
        vms: options.tenants * u32::from(options.vms_per_tenant),
        lookups: looked.lookups,
        lookups_per_second: float(looked.lookups) * 1e9 / float(looked.cpu_ns.max(1)),
        ns_per_lookup: float(looked.cpu_ns) / float(looked.lookups.max(1)),
        ns_per_lookup_with_fetch: looked.ns_with_fetch,
        wrong: looked.wrong,
        changes: 2 * changes,
        visible_us_p50: us(visible_ns.get(visible_ns.len() / 2)),
        visible_us_max: us(visible_ns.last()),
        change_us: float(cpu.load(Ordering::Relaxed)) / 1e3 / float((2 * changes).max(1)),
        load_ms: float(load_ns) / 1e6,
        resident_bytes: resident_bytes(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
fn float(count: u64) -> f64 {
    count as f64
}

fn segment(tenant: u32) -> Segment {
    Segment::new(0, SegmentKind::Vxlan, 10_000 + tenant)
}

fn mac(tenant: u32, place: u8, generation: u8) -> Mac {
    let [_, a, b, c] = tenant.to_be_bytes();
    Mac([0x02, a, b, c, place, generation])
}

fn uuid(tenant: u32, place: u8, generation: u64) -> Uuid {
    Uuid(u128::from(generation) << 64 | u128::from(tenant) << 8 | u128::from(place))
}

fn vm(tenant: u32, place: u8, generation: u64, from: Timestamp) -> Statement {
    let mac = mac(tenant, place, u8::try_from(generation % 256).unwrap_or(0));
    Statement::new(uuid(tenant, place, generation), from)
        .exists(true)
        .name(format!("vm-{tenant}-{place}"))
        .tenant(format!("tenant-{tenant}"))
        .host(format!("host-{}", (tenant + u32::from(place)) % 16))
        .attached(mac, true)
        .segment(mac, segment(tenant))
        .addresses(mac, [Address::v4([10, 0, 0, place]).to_ip(4)])
}

fn all(options: InventoryOptions) -> Batch {
    let places = 1..=options.vms_per_tenant;
    let vms =
        (0..options.tenants).flat_map(|tenant| places.clone().map(move |place| (tenant, place)));
    let changes = vms.flat_map(|(tenant, place)| vm(tenant, place, 0, BEGIN).changes());
    Batch::from(changes.collect::<Vec<_>>())
}

/// Migrates one VM and gives the address of another one to a new VM, at even intervals; gives the time
/// until each was seen.
fn change(
    options: InventoryOptions,
    handle: &SourceHandle,
    cell: &InventoryCell,
    stop: &AtomicBool,
) -> Vec<u64> {
    let mut visible_ns = Vec::new();
    let interval_ms = 1_000 / u64::from(options.changes_per_second.max(1));
    let vms = u64::from(options.tenants) * u64::from(options.vms_per_tenant);
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let place_of = |number: u64| {
            // 37 has no factor in common with the number of VMs.
            let vm = number * 37 % vms;
            let tenant = u32::try_from(vm / u64::from(options.vms_per_tenant)).unwrap_or(0);
            (tenant, 1 + u8::try_from(vm % u64::from(options.vms_per_tenant)).unwrap_or(0))
        };
        let (now, generation) = (wall_clock(), 1 + number);
        let (tenant, place) = place_of(2 * number);
        let host = format!("host-{}", number % 16);
        let mut changes = Statement::new(uuid(tenant, place, 0), now).host(host).changes();
        let (tenant, place) = place_of(2 * number + 1);
        changes.extend(Statement::new(uuid(tenant, place, 0), now).exists(false).changes());
        changes.extend(vm(tenant, place, generation, now).changes());
        let begun_ns = monotonic_ns();
        if handle.send(changes, now).is_ok() {
            let space = AddressSpace::of_segment(segment(tenant));
            let address = Address::v4([10, 0, 0, place]);
            let seen = || {
                let inventory = cell.load();
                let found = inventory.resolve(space, address, 4, None, now);
                found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid)
            };
            while seen() != Some(uuid(tenant, place, generation)) && !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            visible_ns.push(monotonic_ns() - begun_ns);
        }
        sleep_ms(interval_ms);
    }
    visible_ns
}

struct Looked {
    lookups: u64,
    cpu_ns: u64,
    ns_with_fetch: f64,
    wrong: u64,
}

/// Looks endpoints up, in an order that no cache foresees, at instants before anything changed.
fn look_up(options: InventoryOptions, cell: &InventoryCell) -> Looked {
    let until_ns = monotonic_ns() + ms(u64::from(options.seconds) * 1_000);
    let vms = u64::from(options.tenants) * u64::from(options.vms_per_tenant);
    let mut looked = Looked { lookups: 0, cpu_ns: 0, ns_with_fetch: 0.0, wrong: 0 };
    let asked = |seed: &mut u64| {
        // Knuth's generator, as in The Art of Computer Programming 2, section 3.3.4.
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let vm = (*seed >> 33) % vms;
        let tenant = u32::try_from(vm / u64::from(options.vms_per_tenant)).unwrap_or(0);
        (tenant, 1 + u8::try_from(vm % u64::from(options.vms_per_tenant)).unwrap_or(0))
    };
    let at = BEGIN + ms(1_000);
    let mut seed = 1;
    while monotonic_ns() < until_ns {
        let inventory = cell.load_full();
        let begun_ns = thread_cpu_ns();
        for _ in 0..LOOKUPS_AT_ONCE {
            let (tenant, place) = asked(&mut seed);
            let space = AddressSpace::of_segment(segment(tenant));
            let found = inventory.resolve(space, Address::v4([10, 0, 0, place]), 4, None, at);
            let found = found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid);
            looked.wrong += u64::from(found != Some(uuid(tenant, place, 0)));
        }
        looked.cpu_ns += thread_cpu_ns() - begun_ns;
        looked.lookups += LOOKUPS_AT_ONCE;
    }
    let begun_ns = thread_cpu_ns();
    let rounds = 64 * LOOKUPS_AT_ONCE;
    for _ in 0..rounds {
        let (tenant, place) = asked(&mut seed);
        let space = AddressSpace::of_segment(segment(tenant));
        let inventory = cell.load();
        let found = inventory.resolve(space, Address::v4([10, 0, 0, place]), 4, None, at);
        let found = found.and_then(|vm| inventory.vm(vm)).map(|vm| vm.uuid);
        looked.wrong += u64::from(found != Some(uuid(tenant, place, 0)));
    }
    looked.ns_with_fetch = float(thread_cpu_ns() - begun_ns) / float(rounds);
    looked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_ups_are_right_while_the_inventory_changes() {
        let report = measure(InventoryOptions {
            tenants: 7,
            vms_per_tenant: 9,
            changes_per_second: 50,
            seconds: 1,
        });
        assert!(report.lookups > 0 && report.changes > 4, "{report:?}");
        assert_eq!(report.wrong, 0, "{report:?}");
    }
}
