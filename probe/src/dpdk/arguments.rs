//! EAL's arguments and the workers' cores, computed from the plan.
//!
//! In: `EalPlan`, the PCI addresses among the ports, the cores this process may use. Out: the
//! argument vector; one core for each worker.
//! Invariants: pure. Virtual devices are not among the arguments: they are attached one by one
//! after the start, so that each failure can be told apart; PCI devices are allowed by address,
//! because EAL looks at them to choose its address mode.
//! Source: DPDK 22.11, Linux Getting Started Guide, EAL parameters.

use super::error::EalError;
use crate::config::EalPlan;

/// The argument vector, the program's name first.
///
/// The main lcore 0 is mapped onto all allowed cores: workers are threads of ours that register
/// themselves, so EAL needs no core for itself.
///
/// # Errors
/// [`EalError::ArgumentClash`] where an extra argument excludes one of the plan.
pub fn eal_arguments(
    plan: &EalPlan,
    pci: &[&str],
    allowed_cores: &[u16],
) -> Result<Vec<String>, EalError> {
    if !plan.huge_pages {
        // Without huge pages EAL uses its legacy memory, which these two exclude.
        for argument in ["--in-memory", "--single-file-segments"] {
            if plan.extra_arguments.iter().any(|extra| extra == argument) {
                return Err(EalError::ArgumentClash { argument });
            }
        }
    }
    let cores = allowed_cores.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let mut arguments: Vec<String> =
        ["vmprobe", "--log-level", "warning", "--no-telemetry"].map(str::to_owned).into();
    let mut pair = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    pair("--lcores", format!("0@({cores})"));
    pair("--file-prefix", plan.file_prefix.clone());
    pair("-m", plan.memory_mib.to_string());
    if let (true, Some(folder)) = (plan.huge_pages, &plan.huge_folder) {
        pair("--huge-dir", folder.display().to_string());
    }
    for address in pci {
        pair("-a", (*address).to_owned());
    }
    if !plan.huge_pages {
        arguments.push("--no-huge".to_owned());
    }
    if pci.is_empty() {
        arguments.push("--no-pci".to_owned());
    }
    arguments.extend(plan.extra_arguments.iter().cloned());
    Ok(arguments)
}

/// The core of each of `workers` workers, in order.
///
/// # Errors
/// [`EalError::CoreNotAllowed`] and [`EalError::TooFewCores`].
pub fn worker_cores(plan: &EalPlan, workers: usize, allowed: &[u16]) -> Result<Vec<u16>, EalError> {
    if let Some(&core) = plan.cores.iter().find(|core| !allowed.contains(core)) {
        return Err(EalError::CoreNotAllowed { core, allowed: allowed.to_vec() });
    }
    let usable = match (plan.cores.as_slice(), allowed) {
        // The last core is left to the aggregator, the store and the pages.
        ([], [most @ .., _]) if !most.is_empty() => most,
        ([], all) => all,
        (configured, _) => configured,
    };
    usable
        .get(..workers)
        .map(<[u16]>::to_vec)
        .ok_or_else(|| EalError::TooFewCores { workers, cores: usable.to_vec() })
}

/// Whether a port's device is a PCI address (`0000:3b:00.0`, or without the domain).
pub(super) fn pci_address(device: &str) -> Option<String> {
    let address = device.split(',').next().unwrap_or(device);
    let (rest, function) = address.rsplit_once('.')?;
    let mut parts = rest.split(':').rev();
    let (slot, bus, domain) = (parts.next()?, parts.next()?, parts.next().unwrap_or("0000"));
    let hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|octet| octet.is_ascii_hexdigit())
    };
    let fits = parts.next().is_none()
        && hex(domain, 4)
        && hex(bus, 2)
        && hex(slot, 2)
        && matches!(function.as_bytes(), [b'0'..=b'7']);
    fits.then(|| format!("{domain}:{bus}:{slot}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> EalPlan {
        EalPlan { memory_mib: 64, file_prefix: "t".to_owned(), ..EalPlan::default() }
    }

    #[test]
    fn arguments_follow_the_plan() {
        let mut plan = plan();
        plan.huge_pages = false;
        plan.huge_folder = Some("/huge".into());
        plan.extra_arguments = vec!["--vmware-tsc-map".to_owned()];
        let text = eal_arguments(&plan, &[], &[0, 3]).expect("no clash").join(" ");
        assert_eq!(
            text,
            "vmprobe --log-level warning --no-telemetry --lcores 0@(0,3) --file-prefix t -m 64 \
             --no-huge --no-pci --vmware-tsc-map"
        );
        plan.huge_pages = true;
        let text = eal_arguments(&plan, &["0000:3b:00.0"], &[1]).expect("no clash").join(" ");
        assert_eq!(
            text,
            "vmprobe --log-level warning --no-telemetry --lcores 0@(1) --file-prefix t -m 64 \
             --huge-dir /huge -a 0000:3b:00.0 --vmware-tsc-map"
        );
    }

    #[test]
    fn legacy_memory_excludes_in_memory() {
        let mut plan = plan();
        plan.extra_arguments = vec!["--in-memory".to_owned()];
        assert!(eal_arguments(&plan, &[], &[0]).is_ok());
        plan.huge_pages = false;
        let error = eal_arguments(&plan, &[], &[0]).expect_err("they clash");
        assert!(matches!(error, EalError::ArgumentClash { argument: "--in-memory" }));
    }

    #[test]
    fn workers_get_the_first_cores_and_leave_one() {
        let mut plan = plan();
        assert_eq!(worker_cores(&plan, 2, &[0, 1, 2]).expect("enough"), [0, 1]);
        assert_eq!(worker_cores(&plan, 1, &[5]).expect("the only one"), [5]);
        assert!(matches!(
            worker_cores(&plan, 3, &[0, 1, 2]),
            Err(EalError::TooFewCores { workers: 3, cores }) if cores == [0, 1]
        ));
        plan.cores = vec![2, 1, 0];
        assert_eq!(worker_cores(&plan, 3, &[0, 1, 2]).expect("as configured"), [2, 1, 0]);
        plan.cores = vec![7];
        assert!(matches!(
            worker_cores(&plan, 1, &[0, 1]),
            Err(EalError::CoreNotAllowed { core: 7, .. })
        ));
    }

    #[test]
    fn pci_addresses_are_told_from_names() {
        assert_eq!(pci_address("0000:3B:00.0").as_deref(), Some("0000:3b:00.0"));
        assert_eq!(pci_address("3b:00.1,arg=1").as_deref(), Some("0000:3b:00.1"));
        for other in
            ["net_memif0", "net_pcap0,rx_pcap=a:b.0", "0000:3b:00.8", "x:00:00.0", "0.0", ""]
        {
            assert_eq!(pci_address(other), None, "{other}");
        }
    }
}
