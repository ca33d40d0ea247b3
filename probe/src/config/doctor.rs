//! Is this host fit for packets from a NIC? Read-only, without DPDK and without root.
//!
//! In: files of `/proc`, `/sys`, `/run` under a root folder. Out: [`Finding`]s, each with the
//! command that mends it.
//! Invariants: changes nothing; a file that cannot be read is a finding or no statement, never
//! an error.
//! Source: Linux kernel documentation (hugetlbpage, sysfs-bus-pci, kernel-parameters); DPDK 22.11,
//! Linux Getting Started Guide.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// PCI class of network controllers (PCI Code and ID Assignment, base class 02h).
const NETWORK_CLASS: &str = "0x02";
/// Flags of a time stamp counter that runs evenly through all power states, see proc(5).
const TSC_FLAGS: [&str; 2] = ["constant_tsc", "nonstop_tsc"];
/// Drivers through which DPDK reaches a device: user-space access, or drivers that share it with
/// the kernel (Linux Getting Started Guide, Linux Drivers).
pub(crate) const DPDK_DRIVERS: &[&str] =
    &["vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core"];

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Huge pages and where they are mounted.
    HugePages,
    /// IOMMU, which lets a process drive a device safely.
    Iommu,
    /// Kernel modules that hand devices over.
    Modules,
    /// Network devices, their drivers and NUMA nodes.
    Devices,
    /// Cores and their isolation.
    Cores,
    /// Time stamp counter and wall clock.
    Clock,
}

impl Area {
    /// The name that is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HugePages => "huge pages",
            Self::Iommu => "IOMMU",
            Self::Modules => "modules",
            Self::Devices => "devices",
            Self::Cores => "cores",
            Self::Clock => "clock",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// One observation about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub area: Area,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen, as a sentence without a full stop.
    pub what: String,
    /// The shell command, as root, that mends it; `None` where nothing needs mending or no
    /// command can.
    pub mend: Option<String>,
}

/// A PCI device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Address with domain, such as `0000:3b:00.0`.
    pub address: String,
    /// Class code, such as `0x020000`.
    pub class: String,
    /// Kernel driver that holds it.
    pub driver: Option<String>,
    /// NUMA node, where the machine has several.
    pub numa_node: Option<u16>,
    /// Kernel interfaces on it.
    pub interfaces: Vec<String>,
}

/// Looks at everything. `root` is `/`, or a folder with a copy for tests; `memory_mib` is the
/// packet memory that is wanted.
pub fn examine(root: &Path, memory_mib: u32) -> Vec<Finding> {
    let mut findings = huge_pages(root, memory_mib);
    findings.push(iommu(root));
    findings.push(modules(root));
    findings.extend(devices(root));
    findings.push(isolation(root));
    findings.push(counter(root));
    findings.push(synchronised(root));
    findings
}

/// The PCI network devices, by address.
pub fn pci_network_devices(root: &Path) -> Vec<PciDevice> {
    names_in(&root.join("sys/bus/pci/devices"))
        .iter()
        .filter_map(|address| pci_device(root, address))
        .filter(|device| device.class.starts_with(NETWORK_CLASS))
        .collect()
}

/// The PCI device at `address`, if there is one.
pub fn pci_device(root: &Path, address: &str) -> Option<PciDevice> {
    // The address becomes part of a path, so it must be one name.
    if address.is_empty() || address.contains(['/', '\0']) || address.starts_with('.') {
        return None;
    }
    let folder = root.join("sys/bus/pci/devices").join(address);
    let class = read(&folder.join("class"))?;
    let driver = fs::read_link(folder.join("driver")).ok();
    Some(PciDevice {
        address: address.to_owned(),
        class,
        driver: driver
            .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned())),
        numa_node: read(&folder.join("numa_node")).and_then(|node| node.parse().ok()),
        interfaces: interfaces_of(&folder),
    })
}

/// Interfaces lie in `net`; those of virtio devices one folder deeper.
fn interfaces_of(folder: &Path) -> Vec<String> {
    let mut interfaces = names_in(&folder.join("net"));
    for name in names_in(folder).iter().filter(|name| name.starts_with("virtio")) {
        interfaces.extend(names_in(&folder.join(name).join("net")));
    }
    interfaces
}

fn huge_pages(root: &Path, memory_mib: u32) -> Vec<Finding> {
    let mut free_kib = 0;
    let mut sizes = Vec::new();
    for name in names_in(&root.join("sys/kernel/mm/hugepages")) {
        let folder = root.join("sys/kernel/mm/hugepages").join(&name);
        let size_kib = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB"))
            .and_then(|number| number.parse::<u64>().ok());
        let free = read(&folder.join("free_hugepages")).and_then(|text| text.parse::<u64>().ok());
        if let (Some(size_kib), Some(free)) = (size_kib, free) {
            free_kib += size_kib.saturating_mul(free);
            sizes.push(format!("{free} of {size_kib} KiB"));
        }
    }
    let wanted_kib = u64::from(memory_mib) * 1024;
    let enough = free_kib >= wanted_kib;
    let seen = if sizes.is_empty() { "none".to_owned() } else { sizes.join(", ") };
    let mut findings = vec![Finding {
        area: Area::HugePages,
        ok: enough,
        what: format!("free huge pages: {seen}; packet memory wants {memory_mib} MiB"),
        mend: (!enough)
            .then(|| format!("echo {} > /proc/sys/vm/nr_hugepages", memory_mib.div_ceil(2))),
    }];
    let mount = hugetlbfs_mount(root);
    findings.push(Finding {
        area: Area::HugePages,
        ok: mount.is_some(),
        what: mount.as_ref().map_or_else(
            || "no hugetlbfs is mounted".to_owned(),
            |folder| format!("hugetlbfs is mounted at {}", folder.display()),
        ),
        mend: mount.is_none().then(|| {
            "mkdir -p /dev/hugepages && mount -t hugetlbfs none /dev/hugepages".to_owned()
        }),
    });
    findings
}

/// Where hugetlbfs is mounted, the first place.
fn hugetlbfs_mount(root: &Path) -> Option<PathBuf> {
    let mounts = read(&root.join("proc/mounts"))?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (folder, kind) = (fields.next()?, fields.next()?);
        (kind == "hugetlbfs").then(|| PathBuf::from(folder))
    })
}

fn iommu(root: &Path) -> Finding {
    let units = names_in(&root.join("sys/class/iommu")).len();
    let groups = names_in(&root.join("sys/kernel/iommu_groups")).len();
    let ok = units > 0 && groups > 0;
    let what = if ok {
        format!("the IOMMU is on ({units} units, {groups} groups)")
    } else if units > 0 {
        "there is an IOMMU, but it has no groups".to_owned()
    } else {
        "no IOMMU is in use; virtual devices and kernel interfaces need none".to_owned()
    };
    let parameter =
        if cpu_is_amd(root) { "amd_iommu=on iommu=pt" } else { "intel_iommu=on iommu=pt" };
    let mend = (!ok).then(|| {
        format!(
            "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{parameter} /' /etc/default/grub && update-grub && \
             reboot"
        )
    });
    Finding { area: Area::Iommu, ok, what, mend }
}

fn cpu_is_amd(root: &Path) -> bool {
    read(&root.join("proc/cpuinfo")).is_some_and(|text| text.contains("AuthenticAMD"))
}

fn modules(root: &Path) -> Finding {
    let loaded = ["vfio_pci", "uio_pci_generic", "igb_uio", "mlx5_core", "mlx4_core"]
        .into_iter()
        .find(|module| root.join("sys/module").join(module).exists());
    Finding {
        area: Area::Modules,
        ok: loaded.is_some(),
        what: loaded.map_or_else(
            || "no driver is loaded that hands PCI devices to DPDK".to_owned(),
            |module| format!("{module} is loaded"),
        ),
        mend: loaded.is_none().then(|| "modprobe vfio-pci".to_owned()),
    }
}

fn devices(root: &Path) -> Vec<Finding> {
    let devices = pci_network_devices(root);
    if devices.is_empty() {
        return vec![Finding {
            area: Area::Devices,
            ok: false,
            what:
                "no PCI network device; virtual devices (net_memif0, net_af_packet0 …) still work"
                    .to_owned(),
            mend: None,
        }];
    }
    devices.iter().map(device).collect()
}

fn device(device: &PciDevice) -> Finding {
    let driver = device.driver.as_deref();
    let ok = driver.is_some_and(|driver| DPDK_DRIVERS.contains(&driver));
    let held = driver.map_or("no driver".to_owned(), |driver| format!("driver {driver}"));
    let node = device.numa_node.map(|node| format!(", NUMA node {node}")).unwrap_or_default();
    let mut what = format!("{} has {held}{node}", device.address);
    if !device.interfaces.is_empty() {
        what += ", kernel interface ";
        what += &device.interfaces.join(", ");
    }
    let mend = (!ok).then(|| format!("dpdk-devbind.py --bind=vfio-pci {}", device.address));
    if !ok {
        what +=
            "; binding it to DPDK takes it from the kernel (never the one you are logged in by)";
    }
    Finding { area: Area::Devices, ok, what, mend }
}

fn isolation(root: &Path) -> Finding {
    let isolated = read(&root.join("sys/devices/system/cpu/isolated")).unwrap_or_default();
    let online = read(&root.join("sys/devices/system/cpu/online")).unwrap_or_default();
    let ok = !isolated.is_empty();
    let what = if ok {
        format!("cores {isolated} of {online} are isolated for workers")
    } else {
        format!("no core of {online} is isolated: other programs run on the workers' cores")
    };
    let mend = last_cores(&online).filter(|_| !ok).map(|cores| {
        format!(
            "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&isolcpus={cores} nohz_full={cores} \
             rcu_nocbs={cores} /' /etc/default/grub && update-grub && reboot"
        )
    });
    Finding { area: Area::Cores, ok, what, mend }
}

/// All cores but the first, of a list such as `0-7`; `None` if there is only one, or holes.
fn last_cores(online: &str) -> Option<String> {
    let (first, last) = online.split_once('-')?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (last > first).then(|| match first + 1 {
        next if next == last => last.to_string(),
        next => format!("{next}-{last}"),
    })
}

fn counter(root: &Path) -> Finding {
    let cpu = read(&root.join("proc/cpuinfo")).unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let missing: Vec<&str> = TSC_FLAGS
        .into_iter()
        .filter(|wanted| !flags.split_whitespace().any(|flag| flag == *wanted))
        .collect();
    let source =
        read(&root.join("sys/devices/system/clocksource/clocksource0/current_clocksource"))
            .unwrap_or_else(|| "unknown".to_owned());
    let ok = missing.is_empty();
    let what = if ok {
        format!("the time stamp counter runs evenly; the kernel's clock source is {source}")
    } else {
        format!(
            "the time stamp counter lacks {}: stamps may drift between cores; the kernel's clock \
             source is {source}",
            missing.join(" and ")
        )
    };
    Finding { area: Area::Clock, ok, what, mend: None }
}

fn synchronised(root: &Path) -> Finding {
    let daemon = [
        ("chrony", "run/chrony/chronyd.pid"),
        ("systemd-timesyncd", "run/systemd/timesync/synchronized"),
        ("ntpd", "run/ntpd.pid"),
        ("ptp4l", "run/ptp4l"),
    ]
    .into_iter()
    .find(|(_, file)| root.join(file).exists());
    Finding {
        area: Area::Clock,
        ok: daemon.is_some(),
        what: daemon.map_or_else(
            || {
                "nothing that synchronises the wall clock was found: delays between probes will be \
                wrong"
                    .to_owned()
            },
            |(name, _)| format!("{name} synchronises the wall clock"),
        ),
        mend: daemon.is_none().then(|| "apt install chrony".to_owned()),
    }
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

/// Names in a folder, sorted; none if it cannot be read.
fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder that looks like `/`, removed at the end.
    pub(crate) struct Tree(PathBuf);

    impl Tree {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vmprobe-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("the temporary folder can be written");
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        pub(crate) fn file(&self, name: &str, text: &str) {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("can be made");
            fs::write(path, text).expect("can be written");
        }

        pub(crate) fn pci(&self, at: &str, class: &str, driver: Option<&str>, nets: &[&str]) {
            let folder = format!("sys/bus/pci/devices/{at}");
            self.file(&format!("{folder}/class"), &format!("{class}\n"));
            self.file(&format!("{folder}/numa_node"), "1\n");
            if let Some(driver) = driver {
                let target = Path::new("../../../drivers").join(driver);
                symlink(target, self.0.join(&folder).join("driver")).expect("can be linked");
            }
            for net in nets {
                self.file(&format!("{folder}/net/{net}/mtu"), "1500\n");
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_bare_host_gets_a_command_for_each_fault() {
        let tree = Tree::new("bare");
        tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
        tree.file("sys/devices/system/cpu/online", "0-7\n");
        tree.pci("0000:3b:00.0", "0x020000", Some("ixgbe"), &["eth2"]);
        tree.pci("0000:00:1f.2", "0x010601", Some("ahci"), &[]);
        let findings = examine(tree.path(), 512);
        assert!(findings.iter().all(|finding| !finding.ok), "{findings:#?}");
        let mends: Vec<&str> = findings.iter().filter_map(|f| f.mend.as_deref()).collect();
        assert_eq!(mends.len(), 7, "{mends:#?}");
        assert_eq!(mends[0], "echo 256 > /proc/sys/vm/nr_hugepages");
        assert!(mends[2].contains("intel_iommu=on"));
        assert_eq!(mends[4], "dpdk-devbind.py --bind=vfio-pci 0000:3b:00.0");
        assert!(mends[5].contains("isolcpus=1-7 "));
    }

    #[test]
    fn a_prepared_host_needs_nothing() {
        let tree = Tree::new("ready");
        tree.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "256\n");
        tree.file("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "1\n");
        tree.file("proc/mounts", "none /dev/hugepages hugetlbfs rw 0 0\n");
        tree.file("sys/class/iommu/dmar0/x", "");
        tree.file("sys/kernel/iommu_groups/1/x", "");
        tree.file("sys/module/vfio_pci/x", "");
        tree.file("sys/devices/system/cpu/online", "0-7\n");
        tree.file("sys/devices/system/cpu/isolated", "1-7\n");
        tree.file("proc/cpuinfo", "flags\t\t: tsc constant_tsc nonstop_tsc\n");
        tree.file("run/chrony/chronyd.pid", "1\n");
        tree.pci("0000:3b:00.0", "0x020000", Some("vfio-pci"), &[]);
        let findings = examine(tree.path(), 1024);
        assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
        assert!(findings.iter().all(|finding| finding.mend.is_none()));
    }

    #[test]
    fn devices_are_read_with_driver_node_and_interfaces() {
        let tree = Tree::new("devices");
        tree.pci("0000:00:03.0", "0x020000", Some("virtio-pci"), &[]);
        tree.file("sys/bus/pci/devices/0000:00:03.0/virtio1/net/eth0/mtu", "1500\n");
        tree.file("sys/bus/pci/devices/0000:00:03.0/numa_node", "-1\n");
        let expected = PciDevice {
            address: "0000:00:03.0".to_owned(),
            class: "0x020000".to_owned(),
            driver: Some("virtio-pci".to_owned()),
            numa_node: None,
            interfaces: vec!["eth0".to_owned()],
        };
        assert_eq!(pci_network_devices(tree.path()), [expected]);
        assert_eq!(pci_device(tree.path(), "../../x"), None);
        assert_eq!(pci_device(tree.path(), ""), None);
    }

    #[test]
    fn an_empty_tree_is_no_failure() {
        let tree = Tree::new("empty");
        assert!(examine(tree.path(), 0).len() >= 7);
    }

    #[test]
    fn lists_of_cores() {
        assert_eq!(last_cores("0-1").as_deref(), Some("1"));
        assert_eq!(last_cores("0-7").as_deref(), Some("1-7"));
        assert_eq!((last_cores("0"), last_cores("0,2-3"), last_cores("")), (None, None, None));
    }
}
