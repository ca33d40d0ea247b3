//! Names of DPDK devices.
//!
//! In: the text of `port.device`. Out: whether DPDK will know what it names.
//! Source: DPDK 22.11 Programmer's Guide, "Device specification"; PCI address as
//! `DOMAIN:BUS:DEVICE.FUNCTION` in hexadecimal digits.

/// Virtual devices that a probe can receive from, by the beginning of their name.
pub const VIRTUAL: [&str; 9] = [
    "net_memif",
    "net_af_packet",
    "net_af_xdp",
    "net_tap",
    "net_vhost",
    "net_virtio_user",
    "net_pcap",
    "net_ring",
    "net_null",
];

/// Older name of `net_virtio_user`, which DPDK takes too.
const VIRTIO_USER: &str = "virtio_user";

/// Whether `text` is a PCI address or a virtual device, with or without arguments after a comma.
pub fn is_known(text: &str) -> bool {
    let plain = text.len() <= 1024 && !text.chars().any(char::is_control);
    plain && (is_pci(name(text)) || is_virtual(name(text))) && !shares_buffers(text)
}

/// Whether packets would be read where the sender can still write: a memif without copies. What a
/// decoder has checked must not change before it is used.
fn shares_buffers(text: &str) -> bool {
    let asked = |argument: &str| {
        let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
        key.trim() == "zero-copy" && value.trim() != "no"
    };
    name(text).starts_with("net_memif") && text.split(',').skip(1).any(asked)
}

/// The device's name without arguments; the same name twice is the same device.
pub fn name(text: &str) -> &str {
    text.split_once(',').map_or(text, |(name, _)| name)
}

/// Whether the device is a virtual one.
pub fn is_virtual(name: &str) -> bool {
    VIRTUAL.iter().chain([&VIRTIO_USER]).any(|prefix| {
        name.strip_prefix(prefix).is_some_and(|rest| {
            rest.len() <= 32
                && rest.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
        })
    })
}

/// Whether the device is a PCI address, with or without the domain.
pub fn is_pci(name: &str) -> bool {
    let mut parts = name.rsplitn(3, ':');
    let place = parts.next().and_then(|part| part.split_once('.'));
    let bus = parts.next();
    let domain = parts.next();
    let Some((device, function)) = place else { return false };
    bus.is_some_and(|bus| number(bus, 2))
        && number(device, 2)
        && device < "20"
        && number(function, 1)
        && function < "8"
        && domain.is_none_or(|domain| number(domain, 4))
}

fn number(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// What is allowed, for people.
pub fn allowed() -> String {
    format!(
        "a PCI address such as 0000:3b:00.0, or a virtual device such as net_null0 that begins \
         with {} or {VIRTIO_USER}; each with arguments after a comma if it takes some, but \
         net_memif not with zero-copy=yes, because its sender could change a packet while it is \
         read",
        VIRTUAL.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_devices() {
        for text in [
            "0000:3b:00.0",
            "3b:00.1",
            "0001:e1:1f.7,txq_inline_mpw=0",
            "net_null0",
            "net_null0,no-rx=1",
            "net_pcap_a,rx_pcap=a.pcap",
            "net_memif0,role=client,socket=/run/memif.sock,socket-abstract=no",
            "virtio_user0,path=/dev/vhost-net",
            "net_virtio_user1",
            "net_memif0,role=client,zero-copy=no",
            "net_pcap0,rx_pcap=zero-copy=yes",
            "net_af_packet0,iface=eth0",
        ] {
            assert!(is_known(text), "{text}");
        }
    }

    #[test]
    fn unknown_devices() {
        for text in [
            "",
            "eth0",
            "net_foo0",
            "net_memif0,zero-copy=yes",
            "net_memif0,role=client,zero-copy=yes,socket=/run/memif.sock",
            "net_memif0, zero-copy = yes",
            "net_memif0,zero-copy=no,zero-copy=yes",
            "0000:3b:00",
            "0000:3b:20.0",
            "0000:3b:00.8",
            "3b:00.",
            ":00.0",
            "xxxx:3b:00.0",
            "10000:3b:00.0",
            "3b:1g.0",
            "3b:00.a",
            "net_null0 --no-pci",
            "net_null\n0",
            "000:3b:00.0",
            "1:2:3:4.0",
        ] {
            assert!(!is_known(text), "{text}");
        }
    }
}
