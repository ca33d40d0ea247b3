//! The scenarios that can be generated.
//!
//! In: a name. Out: [`Scenario`], with a line that says what it shows.

use std::fmt;
use std::str::FromStr;

use super::GenerateError;

/// What a generated cloud does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// The demo: everything at once.
    Cloud,
    /// Many tenants on the same addresses, with migrations.
    Overlap,
    /// One port scan before benign background.
    PortScan,
    /// One SYN flood before benign background.
    SynFlood,
    /// Background alone: no detector may fire.
    Benign,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: &'static [Self] =
        &[Self::Cloud, Self::Overlap, Self::PortScan, Self::SynFlood, Self::Benign];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cloud => "cloud",
            Self::Overlap => "overlap",
            Self::PortScan => "port-scan",
            Self::SynFlood => "syn-flood",
            Self::Benign => "benign",
        }
    }

    /// One line for the help text.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Cloud => {
                "the demo: five tenants, three on the same addresses, users outside, a live \
                 migration, path loss, a port scan and a SYN flood (60 s)"
            }
            Self::Overlap => {
                "100 tenants of 10 VMs each (--vms-per-tenant) on one 10.0.0.0/24, one migration a \
                 second (20 s)"
            }
            Self::PortScan => "a VM scans its own network, before benign background (30 s)",
            Self::SynFlood => {
                "spoofed sources flood a web server with SYNs, before benign background (30 s)"
            }
            Self::Benign => "benign background alone: no detector may fire (30 s)",
        }
    }

    /// Length of the traffic in seconds, unless an option says otherwise.
    pub(super) const fn duration_s(self) -> u64 {
        match self {
            Self::Cloud => 60,
            Self::Overlap => 20,
            Self::PortScan | Self::SynFlood | Self::Benign => 30,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Scenario {
    type Err = GenerateError;

    fn from_str(text: &str) -> Result<Self, GenerateError> {
        let found = Self::ALL.iter().copied().find(|scenario| scenario.name() == text);
        found.ok_or_else(|| GenerateError::UnknownScenario { name: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for scenario in Scenario::ALL {
            assert_eq!(scenario.name().parse::<Scenario>().ok(), Some(*scenario));
            assert!(!scenario.meaning().contains('\n'));
        }
        let error = "clouds".parse::<Scenario>().expect_err("no such scenario");
        assert!(error.to_string().contains("port-scan"), "{error}");
    }
}
