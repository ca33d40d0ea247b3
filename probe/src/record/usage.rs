//! Rows of what VMs use.
//!
//! In: samples that wait. Out: a row for each VM, and one for each of its interfaces.
//! Invariants: at most [`SAMPLES_MAX`] samples a window; the rest wait, in their own bounded queue.

use std::sync::Arc;

use super::VmUsageRecord;
use crate::sources::usage::{UsageQueue, VmUsage};

/// Samples that one window takes at most.
pub(super) const SAMPLES_MAX: usize = 1 << 12;

/// Rows of the samples that wait.
pub(super) fn usage_records(queue: &UsageQueue) -> Vec<VmUsageRecord> {
    let samples = std::iter::from_fn(|| queue.take()).take(SAMPLES_MAX);
    samples.flat_map(|sample| rows(&sample)).collect()
}

fn rows(sample: &VmUsage) -> Vec<VmUsageRecord> {
    let uuid: Arc<str> = sample.vm.to_string().into();
    let row = || VmUsageRecord {
        sample_ns: sample.at.0,
        virtual_station_uuid: Arc::clone(&uuid),
        ..VmUsageRecord::default()
    };
    let vm = VmUsageRecord {
        cpu_total_ns: sample.cpu_ns,
        vcpu_count: sample.vcpu_count,
        memory_bytes: sample.memory_bytes,
        resident_bytes: sample.resident_bytes,
        ..row()
    };
    let interfaces = sample.interfaces.iter().map(|interface| VmUsageRecord {
        mac: Some(interface.mac),
        layer2_octet_total_count: interface.tx_octets,
        reverse_layer2_octet_total_count: interface.rx_octets,
        packet_total_count: interface.tx_packets,
        reverse_packet_total_count: interface.rx_packets,
        dropped_packet_total_count: interface.tx_drops,
        reverse_dropped_packet_total_count: interface.rx_drops,
        error_packet_total_count: interface.tx_errors,
        reverse_error_packet_total_count: interface.rx_errors,
        ..row()
    });
    std::iter::once(vm).chain(interfaces).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Mac, Uuid};
    use crate::sources::usage::InterfaceUsage;
    use crate::time::Timestamp;

    #[test]
    fn a_sample_is_a_row_of_the_vm_and_one_of_each_interface() {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        let queue = UsageQueue::default();
        queue.add(VmUsage {
            vm: Uuid(1),
            at: Timestamp(5),
            cpu_ns: Some(7),
            vcpu_count: None,
            memory_bytes: None,
            resident_bytes: None,
            interfaces: vec![InterfaceUsage {
                mac,
                rx_drops: Some(3),
                tx_packets: Some(4),
                ..InterfaceUsage::default()
            }],
        });
        let rows = usage_records(&queue);
        let [vm, interface] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((vm.mac, vm.cpu_total_ns, vm.packet_total_count), (None, Some(7), None));
        assert_eq!((interface.mac, interface.cpu_total_ns), (Some(mac), None));
        assert_eq!(interface.reverse_dropped_packet_total_count, Some(3));
        assert_eq!((interface.packet_total_count, interface.sample_ns), (Some(4), 5));
        assert_eq!(interface.error_packet_total_count, None, "nobody said that there were none");
        assert!(usage_records(&queue).is_empty());
    }
}
