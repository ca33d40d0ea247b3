//! What a measurement asks the machine for.
//!
//! In: the system's own accounts. Out: memory, the rate of the time stamp counter.

/// What a load may take where the system does not say what it has.
const AVAILABLE_BYTES_UNKNOWN: u64 = 1 << 30;

/// In which the system accounts for CPU time, on all machines that we run on.
const TICKS_PER_SECOND: u64 = 100;

/// Memory that can be had without swapping (`MemAvailable`, proc(5)).
pub(super) fn available_bytes() -> u64 {
    bytes_of("/proc/meminfo", "MemAvailable:").unwrap_or(AVAILABLE_BYTES_UNKNOWN)
}

/// Resident memory of this process (`VmRSS`, proc(5)); 0 where the system does not say.
pub(super) fn resident_bytes() -> u64 {
    bytes_of("/proc/self/status", "VmRSS:").unwrap_or(0)
}

/// The most that it was.
pub(super) fn peak_bytes() -> u64 {
    bytes_of("/proc/self/status", "VmHWM:").unwrap_or(0)
}

/// The most that it was of another process; 0 once that has ended.
pub(super) fn peak_bytes_of(process: u32) -> u64 {
    bytes_of(&format!("/proc/{process}/status"), "VmHWM:").unwrap_or(0)
}

/// What it is of another process now.
pub(super) fn resident_bytes_of(process: u32) -> u64 {
    bytes_of(&format!("/proc/{process}/status"), "VmRSS:").unwrap_or(0)
}

/// Begins the most of another process anew; it goes on as before where the system does not allow it.
pub(super) fn forget_peak_of(process: u32) {
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// CPU time of all threads of another process, to a hundredth of a second; 0 once that has ended.
pub(super) fn cpu_ms_of(process: u32) -> f64 {
    let path = format!("/proc/{process}/stat");
    super::ratio((stat(&path, 11) + stat(&path, 12)) * 1_000, TICKS_PER_SECOND)
}

/// Page faults of this thread for which nothing was read from a disk (`minflt`, proc(5)); 0 where the
/// system does not say.
pub(super) fn page_faults() -> u64 {
    stat("/proc/thread-self/stat", 7)
}

/// CPU time of all processes that this one has started and that have ended (`cutime` and `cstime`,
/// proc(5)), to a hundredth of a second; 0 where the system does not say.
pub(super) fn cpu_ms_of_children() -> f64 {
    let ticks = stat("/proc/self/stat", 13) + stat("/proc/self/stat", 14);
    super::ratio(ticks * 1_000, TICKS_PER_SECOND)
}

/// CPU time of all threads of this process (`utime` and `stime`, proc(5)), to a hundredth of a second; 0
/// where the system does not say.
pub(super) fn cpu_ms() -> f64 {
    let ticks = stat("/proc/self/stat", 11) + stat("/proc/self/stat", 12);
    super::ratio(ticks * 1_000, TICKS_PER_SECOND)
}

/// A number by its place behind the name.
fn stat(path: &str, place: usize) -> u64 {
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    // The name of the thread may hold anything but ends with the last bracket.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    fields.split_whitespace().nth(place).and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// A line `NAME   NUMBER kB`.
fn bytes_of(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1_024)
}

/// Ticks of the time stamp counter in a nanosecond, over a tenth of a second.
#[cfg(feature = "dpdk")]
pub(super) fn ticks_per_ns() -> Option<f64> {
    let first = crate::dpdk::read_tsc()?;
    crate::time::sleep_ms(100);
    let second = crate::dpdk::read_tsc()?;
    let ticks = second.ticks.checked_sub(first.ticks)?;
    Some(super::ratio(ticks, second.before.since_ns(first.before)))
}

/// Without DPDK nothing reads the counter.
#[cfg(not(feature = "dpdk"))]
pub(super) fn ticks_per_ns() -> Option<f64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        assert!(resident_bytes() > 1 << 20);
        let before = page_faults();
        let touched = vec![1_u8; 64 << 20];
        assert!(page_faults() > before && touched[1 << 20] == 1);
        assert!(available_bytes() > 1 << 20);
        assert!(cpu_ms() > 0.0);
        let before_ms = cpu_ms_of_children();
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done";
        let mut child = std::process::Command::new("sh");
        assert!(child.args(["-c", spin]).status().is_ok_and(|status| status.success()));
        assert!(cpu_ms_of_children() > before_ms);
        assert_eq!(bytes_of("/proc/meminfo", "NoSuchLine:"), None);
    }
}
