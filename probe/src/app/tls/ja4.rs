//! JA4: the fingerprint of what a client offers.
//!
//! In: [`ClientHello`]. Out: a text of 36 characters, as `t13d1516h2_8daaf6152771_e5627efa2ab1`.
//! Cost: two sums by SHA-256.
//! Source: FoxIO, "JA4: TLS Client Fingerprinting" (technical_details/JA4.md), BSD 3-clause.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};

use super::hello::{ClientHello, is_grease};

/// Instead of a sum of nothing.
const NOTHING: &str = "000000000000";
/// Numbers that are said apart from the list of extensions.
const SERVER_NAME: u16 = 0;
const APPLICATION_PROTOCOLS: u16 = 16;
/// Two digits are there.
const COUNT_MAX: usize = 99;

/// The fingerprint of a client over TCP.
pub fn ja4(hello: &ClientHello) -> String {
    let real = |numbers: &[u16]| -> Vec<u16> {
        numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
    };
    let mut ciphers = real(&hello.ciphers);
    let mut extensions = real(&hello.extensions);
    let (ciphers_said, extensions_said) =
        (ciphers.len().min(COUNT_MAX), extensions.len().min(COUNT_MAX));
    let names = if extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
    ciphers.sort_unstable();
    extensions.retain(|number| ![SERVER_NAME, APPLICATION_PROTOCOLS].contains(number));
    extensions.sort_unstable();
    let mut offered = list(&extensions);
    let algorithms = real(&hello.signature_algorithms);
    if !offered.is_empty() && !algorithms.is_empty() {
        offered.push('_');
        offered.push_str(&list(&algorithms));
    }
    let [first, last] = ends_of_protocol(hello.protocols.first().map(Vec::as_slice));
    format!(
        "t{}{names}{ciphers_said:02}{extensions_said:02}{first}{last}_{}_{}",
        version(hello.version()),
        sum(&list(&ciphers)),
        sum(&offered),
    )
}

const fn version(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the first protocol; of what has others than letters and digits there,
/// those of its octets in hexadecimal.
fn ends_of_protocol(protocol: Option<&[u8]>) -> [char; 2] {
    let Some((Some(first), Some(last))) = protocol.map(|it| (it.first(), it.last())) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)];
    }
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0xf)]
}

fn list(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(numbers.len() * 5);
    for number in numbers {
        let comma = if text.is_empty() { "" } else { "," };
        // A text takes everything.
        let _ = write!(text, "{comma}{number:04x}");
    }
    text
}

/// The first twelve hexadecimal digits of a sum.
fn sum(text: &str) -> String {
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    let mut digits = String::with_capacity(NOTHING.len());
    for octet in digest(&SHA256, text.as_bytes()).as_ref().iter().take(NOTHING.len() / 2) {
        // A text takes everything.
        let _ = write!(digits, "{octet:02x}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chrome of 2022, as FoxIO's own tests have it for their capture tls-sni.pcapng.
    fn browser() -> ClientHello {
        ClientHello {
            legacy_version: 0x0303,
            ciphers: vec![
                0x8a8a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x5a5a, 0xff01, 0x0033, 0x002d, 0x0005, 0x4469, 0x000d, 0x0010, 0x0023, 0x001b,
                0x002b, 0x0000, 0x0012, 0x000a, 0x0017, 0x000b, 0xfafa, 0x0015,
            ],
            server_name: Some("clientservices.googleapis.com".to_owned()),
            protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            versions: vec![0x9a9a, 0x0304, 0x0303],
            signature_algorithms: vec![
                0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
            ],
        }
    }

    #[test]
    fn a_browser_has_the_fingerprint_that_its_makers_say() {
        assert_eq!(ja4(&browser()), "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let mut extensions = browser().extensions;
        extensions.retain(|number| ![0x4469, 0x0010].contains(number));
        let push = ClientHello { protocols: Vec::new(), extensions, ..browser() };
        assert_eq!(ja4(&push), "t13d151400_8daaf6152771_de4a06bb82e3");
    }

    #[test]
    fn what_is_not_there_is_noughts() {
        let bare = ClientHello { legacy_version: 0x0300, ..ClientHello::default() };
        assert_eq!(ja4(&bare), format!("ts3i000000_{NOTHING}_{NOTHING}"));
    }

    #[test]
    fn protocols_of_other_octets_are_told_in_hexadecimal() {
        let cases: [(&[u8], &str); 6] = [
            (b"h2", "h2"),
            (b"http/1.1", "h1"),
            (b"h", "hh"),
            (&[0xab], "ab"),
            (&[0x30, 0xab], "3b"),
            (b"", "00"),
        ];
        for (protocol, wanted) in cases {
            let ends: String = ends_of_protocol(Some(protocol)).iter().collect();
            assert_eq!(ends, wanted, "{protocol:?}");
        }
    }
}
