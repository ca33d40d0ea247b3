//! DPDK's environment (EAL): started once, ended once.
//!
//! In: `EalPlan` and the ports' devices. Out: [`Eal`], which everything else holds on to.
//! Invariants: one start a process; the calling thread runs on the same cores afterwards as
//! before; EAL ends when the last holder is gone.
//! Source: DPDK 22.11, Programmer's Guide, Environment Abstraction Layer.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::thread::{sched_getaffinity, sched_setaffinity};

use super::arguments::{eal_arguments, pci_address};
use super::console;
use super::error::EalError;
use crate::config::{EalPlan, PortPlan, doctor};
use crate::cores;

/// `rte_errno` and Linux use the same numbers.
const EPERM: c_int = 1;
const ENOMEM: c_int = 12;
const EACCES: c_int = 13;

/// Set at the first attempt: EAL cannot be started again, not even after a failure.
static STARTED: AtomicBool = AtomicBool::new(false);

/// DPDK, running. Ports, queues, packets and worker threads keep it running.
#[derive(Clone, Debug)]
pub struct Eal(Arc<EalInner>);

/// Ends EAL when the last holder drops it.
#[derive(Debug)]
pub(super) struct EalInner {
    prefix: String,
}

impl Eal {
    /// Starts DPDK. The devices of `ports` are looked at but not opened; `Port::configure` does
    /// that.
    ///
    /// # Errors
    /// See [`EalError`]; each says what to do.
    pub fn start(plan: &EalPlan, ports: &[PortPlan]) -> Result<Self, EalError> {
        let pci: Vec<String> = ports.iter().filter_map(|port| pci_address(&port.device)).collect();
        for address in &pci {
            check_pci(Path::new("/"), address)?;
        }
        let pci: Vec<&str> = pci.iter().map(String::as_str).collect();
        let arguments = eal_arguments(plan, &pci, &cores::allowed())?;
        if STARTED.swap(true, Ordering::AcqRel) {
            return Err(EalError::AlreadyStarted);
        }
        // EAL pins its caller, and threads started later would inherit that.
        let affinity = sched_getaffinity(None);
        let (result, text) = console::listen(|| init(&arguments));
        if let Ok(set) = affinity {
            let _ = sched_setaffinity(None, &set);
        }
        match result {
            Ok(()) => {
                report(&text);
                Ok(Self(Arc::new(EalInner { prefix: plan.file_prefix.clone() })))
            }
            Err(errno) => Err(explain(errno, &text, plan)),
        }
    }

    /// DPDK's version, as it names itself.
    pub fn version() -> String {
        // SAFETY: returns a pointer to static text, and may be called before the start.
        let text = unsafe { dpdk_sys::rte_version() };
        // SAFETY: the text ends with a zero octet and lives as long as the program.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    pub(super) fn inner(&self) -> Arc<EalInner> {
        Arc::clone(&self.0)
    }
}

impl Drop for EalInner {
    fn drop(&mut self) {
        let folder = run_folder(&self.prefix);
        // SAFETY: ports, queues, packets and registered threads each hold this value, so none is
        // left that could touch what is now unmapped.
        let result = unsafe { dpdk_sys::rte_eal_cleanup() };
        if result != 0 {
            tracing::warn!(prefix = self.prefix, reason = error_text(result), "DPDK did not end");
        } else if let Some(folder) = folder {
            // Without it the next start has nothing to clean up. Failing to is no harm.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// The folder with the files of this process's prefix.
fn run_folder(prefix: &str) -> Option<PathBuf> {
    // SAFETY: EAL has started; the answer is static text that ends with a zero octet, or null.
    let text = unsafe { dpdk_sys::rte_eal_get_runtime_dir() };
    if text.is_null() {
        return None;
    }
    // SAFETY: as above.
    let folder = PathBuf::from(unsafe { CStr::from_ptr(text) }.to_str().ok()?);
    // Only ever a folder of our own name is removed.
    folder.ends_with(Path::new("dpdk").join(prefix)).then_some(folder)
}

/// Gives DPDK's messages to the log, line by line.
pub(super) fn report(text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        tracing::warn!(target: "dpdk", "{line}");
    }
}

/// The last error number of DPDK's own calls on this thread.
pub(super) fn last_errno() -> c_int {
    // SAFETY: reads a variable of this thread.
    unsafe { dpdk_sys::vmprobe_errno() }
}

/// The text of a (negative) error number.
pub(super) fn error_text(result: c_int) -> String {
    // SAFETY: returns a pointer to text of this thread or static text, valid until the next call
    // on this thread.
    let text = unsafe { dpdk_sys::rte_strerror(result.saturating_abs()) };
    // SAFETY: the text ends with a zero octet and is copied before anything else is called.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Calls `rte_eal_init`; the error is `rte_errno`.
fn init(arguments: &[String]) -> Result<(), c_int> {
    // A zero octet cannot come from TOML into a C string: the argument is cut there.
    let owned: Vec<CString> = arguments
        .iter()
        .map(|text| CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default())
        .collect();
    let mut pointers: Vec<*mut c_char> =
        owned.iter().map(|text| text.as_ptr().cast_mut()).collect();
    let count = c_int::try_from(pointers.len()).unwrap_or(c_int::MAX);
    pointers.push(std::ptr::null_mut());
    // SAFETY: `count` pointers to text that ends with a zero octet and outlives the call, then a
    // null pointer. EAL reorders the pointers, copies what it keeps, and writes to no text.
    let result = unsafe { dpdk_sys::rte_eal_init(count, pointers.as_mut_ptr()) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Finds out why EAL did not start; its error numbers alone do not say.
fn explain(errno: c_int, text: &str, plan: &EalPlan) -> EalError {
    let says = |words: &str| text.contains(words);
    let detail = console::summary(text);
    let pages = plan.memory_mib.div_ceil(2);
    let memory_mib = plan.memory_mib;
    if says("another primary process") {
        EalError::PrefixInUse { prefix: plan.file_prefix.clone() }
    } else if says("runtime directory") {
        EalError::NotPermitted { detail }
    } else if says("'command line' arguments")
        || says("unrecognized option")
        || says("invalid parameter")
    {
        EalError::ArgumentRejected { detail }
    } else if says("hugepage information") || says("hugetlbfs") {
        EalError::HugePagesMissing { pages, folder: plan.huge_folder.clone(), detail }
    } else if plan.huge_pages && (says("Not enough memory available") || says("Cannot init memory"))
    {
        EalError::HugePagesTooFew { memory_mib, pages, detail }
    } else if says("Cannot init memory") || says("Cannot allocate memory") || errno == ENOMEM {
        EalError::MemoryTooSmall { memory_mib, detail }
    } else if matches!(errno, EPERM | EACCES) || says("Permission denied") {
        EalError::NotPermitted { detail }
    } else {
        EalError::Start { reason: error_text(errno), detail }
    }
}

/// Checks that a PCI device is there and free. A device that a kernel driver holds must not be
/// touched: it may carry the connection by which the operator is logged in.
fn check_pci(root: &Path, address: &str) -> Result<(), EalError> {
    let address = address.to_owned();
    let Some(device) = doctor::pci_device(root, &address) else {
        return Err(EalError::NoSuchPciDevice { address });
    };
    match device.driver {
        Some(driver) if doctor::DPDK_DRIVERS.contains(&driver.as_str()) => Ok(()),
        driver => Err(EalError::PciDeviceBusy { address, driver, interfaces: device.interfaces }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_start_are_told_apart() {
        let huge = EalPlan::default();
        let plain = EalPlan { huge_pages: false, ..EalPlan::default() };
        let cases = [
            (0, "EAL: Cannot create lock on 'x'. Is another primary process running?", &huge),
            (13, "EAL: FATAL: Cannot get hugepage information.", &huge),
            (22, "x: unrecognized option '--nonsense'", &huge),
            (12, "EAL: Not enough memory available! Requested: 64MB, available: 8MB", &huge),
            (12, "EAL: FATAL: Cannot init memory", &plain),
            (13, "EAL: Error creating '/var/run/dpdk': Permission denied", &plain),
            (22, "EAL: Cannot create runtime directory\nInvalid 'command line' arguments", &plain),
            (95, "EAL: something new", &plain),
        ];
        let names = cases.map(|(errno, text, plan)| {
            let debug = format!("{:?}", explain(errno, text, plan));
            debug.split([' ', '{']).next().unwrap_or_default().to_owned()
        });
        assert_eq!(
            names,
            [
                "PrefixInUse",
                "HugePagesMissing",
                "ArgumentRejected",
                "HugePagesTooFew",
                "MemoryTooSmall",
                "NotPermitted",
                "NotPermitted",
                "Start"
            ]
        );
    }

    #[test]
    fn a_device_of_the_kernel_is_not_touched() {
        let root = crate::config::doctor::tests::Tree::new("eal-pci");
        root.pci("0000:3b:00.0", "0x020000", Some("ixgbe"), &["eth2"]);
        root.pci("0000:3b:00.1", "0x020000", Some("vfio-pci"), &[]);
        root.pci("0000:3b:00.2", "0x020000", None, &[]);
        let check = |address: &str| check_pci(root.path(), address);
        assert!(check("0000:3b:00.1").is_ok());
        assert!(matches!(check("0000:99:00.0"), Err(EalError::NoSuchPciDevice { .. })));
        assert!(matches!(
            check("0000:3b:00.0"),
            Err(EalError::PciDeviceBusy { driver: Some(driver), interfaces, .. })
                if driver == "ixgbe" && interfaces == ["eth2"]
        ));
        assert!(matches!(check("0000:3b:00.2"), Err(EalError::PciDeviceBusy { driver: None, .. })));
    }
}
