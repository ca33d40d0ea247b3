//! One NIC port: opened, configured, started; closed when the last holder drops it.
//!
//! In: `PortPlan`. Out: [`Port`] (statistics, clock), one [`RxQueue`] for each queue, warnings.
//! Invariants: a feature that the port lacks is a warning; only what makes receiving impossible
//! is an error.
//! Source: DPDK 22.11, Programmer's Guide, Poll Mode Driver.

use std::ffi::{CStr, CString, c_int};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::utils::CachePadded;

use super::arguments::pci_address;
use super::console;
use super::counts::DriverCounts;
use super::eal::{Eal, error_text, report};
use super::error::{PortError, PortWarning};
use super::features::{Facts, Setup, StampKind, decide};
use super::packet_sockets::PacketSockets;
use super::pool::Pool;
use super::rx_queue::{BURST_PACKETS_MAX, RxQueue};
use super::tx_queue::TxQueue;
use crate::config::PortPlan;
use crate::counters::Counter;

const EEXIST: c_int = 17;
const EFAULT: c_int = 14;
const ENODEV: c_int = 19;
const ENOTSUP: c_int = 95;
/// Descriptors of a transmit ring; the probe sends nothing, but many drivers want one.
const TX_DESCRIPTORS: u16 = 256;
/// A frame of an ordinary MTU with a VLAN tag, without FCS. Up to here the MTU is left alone:
/// some drivers set that of a kernel interface, which others use.
const ORDINARY_FRAME_OCTETS: u32 = 1518;
/// The driver that takes frames from a packet socket's ring, and does not tell what was dropped there.
const AF_PACKET: &str = "net_af_packet";
/// `SOCKET_ID_ANY`.
const ANY_NODE: c_int = -1;

/// A port, running. Clones are handles to the same port.
#[derive(Clone, Debug)]
pub struct Port(Arc<PortInner>);

/// Stops and closes the port when the last holder drops it.
#[derive(Debug)]
pub(super) struct PortInner {
    pub(super) number: u16,
    pub(super) pool: Pool,
    name: String,
    driver: String,
    node: c_int,
    mbufs: u32,
    stamps: StampKind,
    on_pci: bool,
    tx_given: AtomicBool,
    /// Packets that each queue gave out.
    pub(super) given: Box<[CachePadded<Counter>]>,
    counts: DriverCounts,
    sockets: PacketSockets,
}

/// What the NIC counted since the port was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NicStats {
    /// Packets handed over to the probe.
    pub received: u64,
    /// Packets lost because the receive ring was full, be it the NIC's or the kernel's.
    pub missed: u64,
    /// Packets that the port found faulty.
    pub errors: u64,
    /// Packets lost because the pool was empty.
    pub no_mbuf: u64,
    /// Octets of the packets received.
    pub octets: u64,
}

impl Port {
    /// Opens, configures and starts the port of `plan`; `burst` packets are polled at once
    /// (1–256).
    ///
    /// # Errors
    /// See [`PortError`]; each says what to do.
    pub fn configure(
        eal: &Eal,
        plan: &PortPlan,
        burst: u16,
    ) -> Result<(Self, Vec<RxQueue>, Vec<PortWarning>), PortError> {
        let burst = burst.clamp(1, BURST_PACKETS_MAX);
        let sockets = PacketSockets::all();
        let number = attach(plan)?;
        let opened = PacketSockets::all().since(&sockets);
        let step = "asking the driver";
        let info =
            dev_info(number).map_err(|result| Failure { step, result }.into_error(plan, ""))?;
        let facts = facts_of(&info);
        // Other drivers tell their drops themselves, and may have sockets that only send.
        let sockets = if facts.driver == AF_PACKET { opened } else { PacketSockets::default() };
        let (setup, mut warnings) = decide(plan, &facts, burst)?;
        // SAFETY: any number may be asked for; an unknown one is answered by -1.
        let node = unsafe { dpdk_sys::rte_eth_dev_socket_id(number) };
        let pool = make_pool(eal, plan, setup.room_octets, node, &mut warnings)?;
        let mut inner = PortInner {
            number,
            pool,
            name: plan.name.clone(),
            driver: facts.driver,
            node,
            mbufs: plan.mbufs,
            stamps: setup.stamps,
            on_pci: pci_address(&plan.device).is_some(),
            tx_given: AtomicBool::new(setup.tx_queues == 0),
            given: (0..plan.queues).map(|_| CachePadded::default()).collect(),
            counts: DriverCounts::default(),
            sockets,
        };
        let (started, text) = console::listen(|| start(&inner, plan, &setup, &info, &mut warnings));
        let descriptors = started.map_err(|failure| failure.into_error(plan, &text))?;
        report(&text);
        let stamp = find_stamp(&mut inner, &mut warnings);
        let port = Arc::new(inner);
        let queues = (0..plan.queues)
            .map(|queue| {
                let port = Arc::clone(&port);
                RxQueue::new(port, queue, burst, descriptors, plan.frame_octets_max, stamp)
            })
            .collect();
        Ok((Self(port), queues, warnings))
    }

    /// Name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// DPDK's name of the driver.
    pub fn driver(&self) -> &str {
        &self.0.driver
    }

    /// NUMA node, where the port has one.
    pub fn numa_node(&self) -> Option<u16> {
        u16::try_from(self.0.node).ok()
    }

    /// What stamps of this port's packets mean.
    pub fn stamps(&self) -> StampKind {
        self.0.stamps
    }

    /// Whether the link is up; `None` where the driver cannot say.
    pub fn link_up(&self) -> Option<bool> {
        // SAFETY: the port is open as long as this handle lives.
        match unsafe { dpdk_sys::vmprobe_link_up(self.0.number) } {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// What the NIC counted. Counts never go back: memif forgets its own when the other side
    /// leaves, and what it counts from then on is added. `received` is at least what queues gave
    /// out.
    pub fn stats(&self) -> NicStats {
        let [received, octets, missed, errors, no_mbuf] = self.0.counts.read(|| {
            let mut stats = dpdk_sys::rte_eth_stats::default();
            // SAFETY: the port is open, and `stats` is a valid place for the answer.
            let result = unsafe { dpdk_sys::rte_eth_stats_get(self.0.number, &raw mut stats) };
            let s = stats;
            let missed = s.imissed.saturating_add(self.0.sockets.dropped());
            (result == 0).then_some([s.ipackets, s.ibytes, missed, s.ierrors, s.rx_nombuf])
        });
        let given: u64 = self.0.given.iter().map(|count| count.load()).sum();
        NicStats { received: received.max(given), missed, errors, no_mbuf, octets }
    }

    /// Buffers of the port's pool that are in use now; a snapshot, for tests that all come back.
    pub fn mbufs_in_use(&self) -> u32 {
        self.0.mbufs.saturating_sub(self.0.pool.available())
    }

    /// The device's clock now, in its ticks; `None` where it cannot be read.
    pub fn read_clock(&self) -> Option<u64> {
        read_clock(self.0.number).ok()
    }

    /// The transmit queue, for generators and tests; given out once, `None` after that and where
    /// the driver has none.
    pub fn tx_queue(&self) -> Option<TxQueue> {
        let free = !self.0.tx_given.swap(true, Ordering::AcqRel);
        free.then(|| TxQueue::new(Arc::clone(&self.0)))
    }
}

impl Drop for PortInner {
    fn drop(&mut self) {
        let device = dev_info(self.number).map(|info| info.device);
        // SAFETY: no queue and no packet of this port is left, since each holds this value.
        let _ = unsafe { dpdk_sys::rte_eth_dev_stop(self.number) };
        // SAFETY: as above; the pool is freed after this function, as a field.
        let _ = unsafe { dpdk_sys::rte_eth_dev_close(self.number) };
        // A virtual device is taken away, so that it can be opened again. A PCI device may carry
        // other ports; the end of EAL takes it away.
        if let (false, Ok(device)) = (self.on_pci, device) {
            // SAFETY: the device outlives its port; only this call frees it.
            let _ = unsafe { dpdk_sys::rte_dev_remove(device) };
        }
    }
}

/// A call that failed.
struct Failure {
    step: &'static str,
    result: c_int,
}

impl Failure {
    fn into_error(self, plan: &PortPlan, text: &str) -> PortError {
        PortError::Setup {
            port: plan.name.clone(),
            step: self.step,
            reason: error_text(self.result),
            detail: console::summary(text),
        }
    }
}

fn check(step: &'static str, result: c_int) -> Result<(), Failure> {
    if result == 0 { Ok(()) } else { Err(Failure { step, result }) }
}

/// Opens the device; the answer is its port's number.
fn attach(plan: &PortPlan) -> Result<u16, PortError> {
    let device = pci_address(&plan.device).map_or_else(
        || plan.device.clone(),
        |address| match plan.device.split_once(',') {
            Some((_, arguments)) => format!("{address},{arguments}"),
            None => address,
        },
    );
    let text = CString::new(device.replace('\0', "")).unwrap_or_default();
    // SAFETY: the text ends with a zero octet and outlives the call; EAL runs, as the caller's
    // `Eal` proves.
    let (result, said) = console::listen(|| unsafe { dpdk_sys::rte_dev_probe(text.as_ptr()) });
    let (port, device_text) = (plan.name.clone(), plan.device.clone());
    match result {
        // Opened at EAL's start, because it was allowed there.
        0 => report(&said),
        result if result == -EEXIST => {}
        result if result == -EFAULT || result == -ENODEV => {
            let detail = console::summary(&said);
            return Err(PortError::UnknownDevice { port, device: device_text, detail });
        }
        _ => {
            let detail = console::summary(&said);
            return Err(PortError::DeviceRefused { port, device: device_text, detail });
        }
    }
    let name = device.split(',').next().unwrap_or_default();
    port_named(name).ok_or_else(|| PortError::DeviceRefused {
        port,
        device: device_text,
        detail: console::summary(&said),
    })
}

/// The port of this name, or the first one on a device of this name.
fn port_named(name: &str) -> Option<u16> {
    let text = CString::new(name).ok()?;
    let mut number = 0;
    // SAFETY: the text ends with a zero octet, and `number` is a valid place for the answer.
    let result = unsafe { dpdk_sys::rte_eth_dev_get_port_by_name(text.as_ptr(), &raw mut number) };
    if result == 0 {
        return Some(number);
    }
    let mut from = 0;
    loop {
        // SAFETY: a walk over DPDK's own table; a number past its end is returned at the end.
        let next = unsafe { dpdk_sys::rte_eth_find_next(from) };
        let info = dev_info(next).ok()?;
        // SAFETY: the device of an open port is valid and keeps its name.
        let device = unsafe { dpdk_sys::rte_dev_name(info.device) };
        // SAFETY: DPDK's device names end with a zero octet.
        if unsafe { CStr::from_ptr(device) } == text.as_c_str() {
            return Some(next);
        }
        from = next.checked_add(1)?;
    }
}

fn dev_info(number: u16) -> Result<dpdk_sys::rte_eth_dev_info, c_int> {
    let mut info = dpdk_sys::rte_eth_dev_info::default();
    // SAFETY: `info` is a valid place for the answer; an unknown number is answered by an error.
    let result = unsafe { dpdk_sys::rte_eth_dev_info_get(number, &raw mut info) };
    if result == 0 && !info.device.is_null() { Ok(info) } else { Err(result) }
}

fn facts_of(info: &dpdk_sys::rte_eth_dev_info) -> Facts {
    let driver = if info.driver_name.is_null() {
        String::new()
    } else {
        // SAFETY: a driver's name is static text that ends with a zero octet.
        unsafe { CStr::from_ptr(info.driver_name) }.to_string_lossy().into_owned()
    };
    Facts {
        driver,
        mtu_min: info.min_mtu,
        mtu_max: info.max_mtu,
        packet_octets_max: info.max_rx_pktlen,
        buffer_octets_min: info.min_rx_bufsize,
        rx_queues_max: info.max_rx_queues,
        tx_queues_max: info.max_tx_queues,
        rx_offloads: info.rx_offload_capa,
        rss_types: info.flow_type_rss_offloads,
        rss_key_octets: info.hash_key_size,
        redirection_entries: info.reta_size,
    }
}

fn make_pool(
    eal: &Eal,
    plan: &PortPlan,
    room_octets: u16,
    node: c_int,
    warnings: &mut Vec<PortWarning>,
) -> Result<Pool, PortError> {
    let pool_on = |node| Pool::new(eal.inner(), plan.mbufs, room_octets, node);
    let made = pool_on(node).or_else(|reason| {
        if node < 0 {
            return Err(reason);
        }
        let elsewhere = pool_on(ANY_NODE)?;
        warnings.push(PortWarning::PoolOnOtherNode { node });
        Ok(elsewhere)
    });
    made.map_err(|reason| PortError::PoolMemory {
        port: plan.name.clone(),
        mbufs: plan.mbufs,
        bytes: u32::from(room_octets) + dpdk_sys::RTE_PKTMBUF_HEADROOM,
        reason,
    })
}

/// Configures queues and features, starts the port, sets what can be set only then. The answer
/// is the size of the receive rings.
fn start(
    port: &PortInner,
    plan: &PortPlan,
    setup: &Setup,
    info: &dpdk_sys::rte_eth_dev_info,
    warnings: &mut Vec<PortWarning>,
) -> Result<u16, Failure> {
    let offloads = configure_with_features(port.number, plan, setup, warnings)?;
    let (descriptors, tx_descriptors) = adjust_descriptors(port.number, plan, warnings)?;
    let mut receive = info.default_rxconf;
    receive.offloads = offloads;
    for queue in 0..plan.queues {
        // SAFETY: configured with this many queues; the pool outlives the port.
        check("setting up a receive queue", unsafe {
            dpdk_sys::rte_eth_rx_queue_setup(
                port.number,
                queue,
                descriptors,
                socket(port.node),
                &raw const receive,
                port.pool.as_ptr(),
            )
        })?;
    }
    let mut send = info.default_txconf;
    send.offloads = 0;
    for queue in 0..setup.tx_queues {
        // SAFETY: configured with this many queues.
        check("setting up a transmit queue", unsafe {
            dpdk_sys::rte_eth_tx_queue_setup(
                port.number,
                queue,
                tx_descriptors,
                socket(port.node),
                &raw const send,
            )
        })?;
    }
    if plan.frame_octets_max > ORDINARY_FRAME_OCTETS {
        set_mtu(port.number, setup.mtu, warnings);
    }
    // SAFETY: all its queues are set up.
    check("starting", unsafe { dpdk_sys::rte_eth_dev_start(port.number) })?;
    // SAFETY: only clears counters; drivers without that answer with an error.
    let _ = unsafe { dpdk_sys::rte_eth_stats_reset(port.number) };
    port.sockets.reset();
    if plan.promiscuous {
        set_promiscuous(port.number, warnings);
    }
    if setup.redirection_entries > 0 {
        set_redirection(port.number, setup.redirection_entries, plan.queues, warnings);
    }
    Ok(descriptors)
}

/// Configures with all that was decided, or, if the driver refuses that, without hash and
/// offloads. The answer is the offloads in force.
fn configure_with_features(
    number: u16,
    plan: &PortPlan,
    setup: &Setup,
    warnings: &mut Vec<PortWarning>,
) -> Result<u64, Failure> {
    let full = configure_once(number, plan.queues, setup);
    if full == 0 {
        return Ok(setup.offloads);
    }
    let bare = Setup { offloads: 0, rss_types: 0, rss_key: Vec::new(), ..setup.clone() };
    check("configuring", configure_once(number, plan.queues, &bare))?;
    warnings.push(PortWarning::FeaturesRefused { reason: error_text(full) });
    Ok(0)
}

fn configure_once(number: u16, queues: u16, setup: &Setup) -> c_int {
    let mut key = setup.rss_key.clone();
    let mut wanted = dpdk_sys::rte_eth_conf::default();
    wanted.rxmode.mtu = u32::from(setup.mtu);
    wanted.rxmode.offloads = setup.offloads;
    if setup.rss_types != 0 {
        wanted.rxmode.mq_mode = dpdk_sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
        wanted.rx_adv_conf.rss_conf.rss_hf = setup.rss_types;
        if !key.is_empty() {
            wanted.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            wanted.rx_adv_conf.rss_conf.rss_key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
        }
    }
    // SAFETY: the port is attached and not started; the configuration and its key outlive the
    // call, which copies them.
    unsafe { dpdk_sys::rte_eth_dev_configure(number, queues, setup.tx_queues, &raw const wanted) }
}

fn adjust_descriptors(
    number: u16,
    plan: &PortPlan,
    warnings: &mut Vec<PortWarning>,
) -> Result<(u16, u16), Failure> {
    let (mut receive, mut send) = (plan.descriptors, TX_DESCRIPTORS);
    // SAFETY: both pointers are valid places that the call reads and writes.
    let result = unsafe {
        dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(number, &raw mut receive, &raw mut send)
    };
    if result != -ENOTSUP {
        check("choosing ring sizes", result)?;
    }
    if receive != plan.descriptors {
        let (asked, given) = (plan.descriptors, receive);
        warnings.push(PortWarning::DescriptorsChanged { asked, given });
    }
    Ok((receive, send))
}

fn set_mtu(number: u16, mtu: u16, warnings: &mut Vec<PortWarning>) {
    // SAFETY: the port is configured; a driver without this call answers with an error.
    let result = unsafe { dpdk_sys::rte_eth_dev_set_mtu(number, mtu) };
    if result != 0 {
        warnings.push(PortWarning::MtuNotSet { mtu, reason: error_text(result) });
    }
}

fn set_promiscuous(number: u16, warnings: &mut Vec<PortWarning>) {
    // SAFETY: the port is started; a driver without this call answers with an error.
    let result = unsafe { dpdk_sys::rte_eth_promiscuous_enable(number) };
    if result != 0 {
        warnings.push(PortWarning::PromiscuousNotSet { reason: error_text(result) });
    }
}

/// Gives every queue the same share of the hash's values.
fn set_redirection(number: u16, entries: u16, queues: u16, warnings: &mut Vec<PortWarning>) {
    let groups = usize::from(entries).div_ceil(64);
    let mut table = vec![dpdk_sys::rte_eth_rss_reta_entry64::default(); groups];
    for entry in 0..entries {
        if let Some(group) = table.get_mut(usize::from(entry / 64)) {
            group.mask |= 1 << (entry % 64);
            group.reta[usize::from(entry % 64)] = entry % queues;
        }
    }
    // SAFETY: the table has the port's own number of entries in groups of 64 and outlives the
    // call.
    let result =
        unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(number, table.as_mut_ptr(), entries) };
    if result != 0 {
        warnings.push(PortWarning::RedirectionNotSet { reason: error_text(result) });
    }
}

/// Finds where the driver writes its stamps, and whether they can be used.
fn find_stamp(
    port: &mut PortInner,
    warnings: &mut Vec<PortWarning>,
) -> dpdk_sys::vmprobe_stamp_field {
    let nowhere = dpdk_sys::vmprobe_stamp_field { offset: -1, flag: 0 };
    if port.stamps == StampKind::None {
        return nowhere;
    }
    if port.stamps == StampKind::Device
        && let Err(result) = read_clock(port.number)
    {
        warnings.push(PortWarning::ClockNotReadable { reason: error_text(result) });
        port.stamps = StampKind::None;
        return nowhere;
    }
    let field = stamp_field();
    if field.is_none() {
        warnings.push(PortWarning::TimestampMissing);
        port.stamps = StampKind::None;
    }
    field.unwrap_or(nowhere)
}

/// The field and flag that drivers register for receive stamps (`rte_mbuf_dyn.h`).
fn stamp_field() -> Option<dpdk_sys::vmprobe_stamp_field> {
    // SAFETY: the name ends with a zero octet; a null pointer asks for no further answer.
    let offset = unsafe {
        dpdk_sys::rte_mbuf_dynfield_lookup(c"rte_dynfield_timestamp".as_ptr(), std::ptr::null_mut())
    };
    // SAFETY: as above.
    let bit = unsafe {
        dpdk_sys::rte_mbuf_dynflag_lookup(
            c"rte_dynflag_rx_timestamp".as_ptr(),
            std::ptr::null_mut(),
        )
    };
    let bit = u32::try_from(bit).ok()?;
    (offset >= 0).then_some(())?;
    Some(dpdk_sys::vmprobe_stamp_field { offset, flag: 1_u64.checked_shl(bit)? })
}

fn read_clock(number: u16) -> Result<u64, c_int> {
    let mut ticks = 0;
    // SAFETY: `ticks` is a valid place for the answer; a driver without a clock answers with an
    // error.
    let result = unsafe { dpdk_sys::rte_eth_read_clock(number, &raw mut ticks) };
    if result == 0 { Ok(ticks) } else { Err(result) }
}

/// A NUMA node as DPDK's calls take it; -1 (any) becomes the largest number.
fn socket(node: c_int) -> u32 {
    u32::try_from(node).unwrap_or(u32::MAX)
}
