//! What client and server say first, in the clear.
//!
//! In: the octets of a direction from its beginning. Out: [`ClientHello`], [`ServerHello`].
//! Cost: a pass; lists are allocated, so this is no work for a worker.
//! Invariants: never panics; nothing is longer than what came in, and a handshake message no longer than
//! [`MESSAGE_OCTETS_MAX`].
//! Source: RFC 8446 §4.1, §5.1; RFC 6066 §3 (server name); RFC 7301 (ALPN); RFC 8701 (GREASE).

/// Octets of a hello that are put together at most.
pub const MESSAGE_OCTETS_MAX: usize = 16_384;
const RECORD_HEADER_OCTETS: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Octets of a name that are kept.
const NAME_OCTETS_MAX: usize = 255;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const APPLICATION_PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Why there is no hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoHello {
    /// More octets are needed.
    Incomplete,
    /// It is none, or its lengths are wrong.
    Malformed,
}

/// What a client offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version field, which TLS 1.3 keeps at 1.2.
    pub legacy_version: u16,
    /// Cipher suites, in order.
    pub ciphers: Vec<u16>,
    /// Types of extensions, in order.
    pub extensions: Vec<u16>,
    /// Whom the client wants to reach.
    pub server_name: Option<String>,
    /// Protocols above, in order.
    pub protocols: Vec<Vec<u8>>,
    /// Versions that it supports, in order; empty without that extension.
    pub versions: Vec<u16>,
    /// Signature algorithms, in order.
    pub signature_algorithms: Vec<u16>,
}

/// What a server chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// Version.
    pub version: u16,
    /// Cipher suite.
    pub cipher: u16,
    /// Protocol above; TLS 1.3 says it only in the part that is encrypted.
    pub protocol: Option<Vec<u8>>,
}

/// Whether a number is one of those that mean nothing (RFC 8701).
pub const fn is_grease(number: u16) -> bool {
    let [high, low] = number.to_be_bytes();
    high == low && low & 0xf == 0xa
}

/// Octets of the first record, its header included, by that header.
pub fn record_octets(head: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = *head.first_chunk::<RECORD_HEADER_OCTETS>()?;
    Some(RECORD_HEADER_OCTETS + usize::from(u16::from_be_bytes([high, low])))
}

impl ClientHello {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let Self { ciphers, extensions, versions, signature_algorithms, protocols, .. } = self;
        let numbers = [ciphers, extensions, versions, signature_algorithms];
        let name = self.server_name.as_ref().map_or(0, String::capacity);
        size_of::<Self>()
            + numbers.into_iter().map(|list| list.capacity() * size_of::<u16>()).sum::<usize>()
            + protocols.capacity() * size_of::<Vec<u8>>()
            + protocols.iter().map(Vec::capacity).sum::<usize>()
            + name
    }

    /// Reads it from the client's first octets.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(octets: &[u8]) -> Result<Self, NoHello> {
        let body = message(octets, CLIENT_HELLO)?;
        Self::of_body(&body).ok_or(NoHello::Malformed)
    }

    /// The highest version that it supports.
    pub fn version(&self) -> u16 {
        let offered = self.versions.iter().copied().filter(|version| !is_grease(*version));
        offered.max().unwrap_or(self.legacy_version)
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        let mut rest = Rest(body);
        let mut hello = Self { legacy_version: rest.short()?, ..Self::default() };
        rest.take(32)?;
        rest.with_octet_length()?;
        hello.ciphers = rest.with_short_length()?.shorts();
        rest.with_octet_length()?;
        // The first versions of TLS had no extensions.
        if rest.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = rest.with_short_length()?;
        while !extensions.0.is_empty() {
            let kind = extensions.short()?;
            let mut own = extensions.with_short_length()?;
            hello.extensions.push(kind);
            match kind {
                SERVER_NAME => hello.server_name = server_name(own),
                SIGNATURE_ALGORITHMS => {
                    hello.signature_algorithms = own.with_short_length()?.shorts();
                }
                APPLICATION_PROTOCOLS => hello.protocols = protocols(own)?,
                SUPPORTED_VERSIONS => hello.versions = own.with_octet_length()?.shorts(),
                _ => {}
            }
        }
        Some(hello)
    }
}

impl ServerHello {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.protocol.as_ref().map_or(0, Vec::capacity)
    }

    /// Reads it from the server's first octets.
    ///
    /// # Errors
    /// Why there is none.
    pub fn read(octets: &[u8]) -> Result<Self, NoHello> {
        let body = message(octets, SERVER_HELLO)?;
        Self::of_body(&body).ok_or(NoHello::Malformed)
    }

    fn of_body(body: &[u8]) -> Option<Self> {
        let mut rest = Rest(body);
        let version = rest.short()?;
        rest.take(32)?;
        rest.with_octet_length()?;
        let cipher = rest.short()?;
        rest.take(1)?;
        let mut hello = Self { version, cipher, protocol: None };
        if rest.0.is_empty() {
            return Some(hello);
        }
        let mut extensions = rest.with_short_length()?;
        while !extensions.0.is_empty() {
            let kind = extensions.short()?;
            let mut own = extensions.with_short_length()?;
            match kind {
                APPLICATION_PROTOCOLS => hello.protocol = protocols(own)?.into_iter().next(),
                SUPPORTED_VERSIONS => hello.version = own.short()?,
                _ => {}
            }
        }
        Some(hello)
    }
}

/// The first handshake message, put together from its records.
fn message(octets: &[u8], kind: u8) -> Result<Vec<u8>, NoHello> {
    let mut message: Vec<u8> = Vec::new();
    let mut rest = octets;
    loop {
        let Some(header) = rest.first_chunk::<RECORD_HEADER_OCTETS>() else {
            return Err(NoHello::Incomplete);
        };
        if header[0] != HANDSHAKE || header[1] != 3 {
            return Err(NoHello::Malformed);
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let behind = rest.get(RECORD_HEADER_OCTETS..).unwrap_or_default();
        let part = behind.get(..length.min(behind.len())).unwrap_or_default();
        message.extend_from_slice(part);
        if let Some([first, a, b, c]) = message.first_chunk::<4>() {
            if *first != kind {
                return Err(NoHello::Malformed);
            }
            let wanted = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if wanted > MESSAGE_OCTETS_MAX {
                return Err(NoHello::Malformed);
            }
            if let Some(body) = message.get(4..4 + wanted) {
                return Ok(body.to_vec());
            }
        }
        if part.len() < length || length == 0 {
            return Err(if length == 0 { NoHello::Malformed } else { NoHello::Incomplete });
        }
        rest = behind.get(length..).unwrap_or_default();
    }
}

fn server_name(mut extension: Rest<'_>) -> Option<String> {
    let mut names = extension.with_short_length()?;
    while !names.0.is_empty() {
        let kind = names.octet()?;
        let name = names.with_short_length()?.0;
        if kind == 0 && !name.is_empty() {
            let kept = name.get(..name.len().min(NAME_OCTETS_MAX)).unwrap_or_default();
            return Some(String::from_utf8_lossy(kept).into_owned());
        }
    }
    None
}

/// Application protocols of a hello that are kept.
const PROTOCOLS_MAX: usize = 16;

fn protocols(mut extension: Rest<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = extension.with_short_length()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() && protocols.len() < PROTOCOLS_MAX {
        protocols.push(list.with_octet_length()?.0.to_vec());
    }
    Some(protocols)
}

/// Octets that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn short(&mut self) -> Option<u16> {
        let octets = self.take(2)?.first_chunk()?;
        Some(u16::from_be_bytes(*octets))
    }

    fn with_octet_length(&mut self) -> Option<Self> {
        let length = self.octet()?;
        self.take(length.into()).map(Self)
    }

    fn with_short_length(&mut self) -> Option<Self> {
        let length = self.short()?;
        self.take(length.into()).map(Self)
    }

    fn shorts(&self) -> Vec<u16> {
        self.0.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn with_length<const N: usize>(octets: &[u8]) -> Vec<u8> {
        let length = octets.len().to_be_bytes();
        let begin = length.len() - N;
        [&length[begin..], octets].concat()
    }

    fn extension(kind: u16, octets: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &with_length::<2>(octets)].concat()
    }

    /// A hello of a client that wants `name`, with a large key share as they have it today.
    pub(crate) fn client(name: &str, share_octets: usize) -> Vec<u8> {
        let names = with_length::<2>(&[&[0], &with_length::<2>(name.as_bytes())[..]].concat());
        let protocols = with_length::<2>(b"\x02h2\x08http/1.1");
        let extensions = [
            extension(0x1a1a, &[]),
            extension(SERVER_NAME, &names),
            extension(APPLICATION_PROTOCOLS, &protocols),
            extension(SUPPORTED_VERSIONS, &with_length::<1>(&[0x2a, 0x2a, 3, 4, 3, 3])),
            extension(SIGNATURE_ALGORITHMS, &with_length::<2>(&[4, 3, 8, 4])),
            extension(51, &vec![7; share_octets]),
        ]
        .concat();
        let body = [
            &[3, 3][..],
            &[9; 32],
            &with_length::<1>(&[5; 32]),
            &with_length::<2>(&[0x4a, 0x4a, 0x13, 1, 0x13, 2]),
            &with_length::<1>(&[0]),
            &with_length::<2>(&extensions),
        ]
        .concat();
        record(&[&[1][..], &with_length::<3>(&body)].concat())
    }

    fn record(message: &[u8]) -> Vec<u8> {
        [&[22, 3, 1][..], &with_length::<2>(message)].concat()
    }

    #[test]
    fn a_client_says_whom_it_wants_and_what_it_offers() {
        let octets = client("example.org", 1_216);
        let hello = ClientHello::read(&octets).expect("a hello");
        assert_eq!(hello.server_name.as_deref(), Some("example.org"));
        assert_eq!(hello.protocols, [&b"h2"[..], b"http/1.1"]);
        assert_eq!((hello.version(), hello.legacy_version), (0x304, 0x303));
        assert_eq!(hello.ciphers, [0x4a4a, 0x1301, 0x1302]);
        assert_eq!(hello.extensions, [0x1a1a, 0, 16, 43, 13, 51]);
        assert_eq!(hello.signature_algorithms, [0x403, 0x804]);
        for length in 0..octets.len() {
            assert_eq!(ClientHello::read(&octets[..length]), Err(NoHello::Incomplete), "{length}");
        }
        assert_eq!(record_octets(&octets), Some(octets.len()));
    }

    #[test]
    fn a_message_may_come_in_several_records() {
        let whole = client("a", 8);
        let message = &whole[RECORD_HEADER_OCTETS..];
        let parts: Vec<u8> = message.chunks(50).flat_map(record).collect();
        assert_eq!(ClientHello::read(&parts), ClientHello::read(&whole));
        assert_eq!(ClientHello::read(&record(&[])), Err(NoHello::Malformed));
    }

    #[test]
    fn a_server_says_what_it_chose() {
        let body = |extensions: &[u8]| {
            let body = [
                &[3, 3][..],
                &[9; 32],
                &with_length::<1>(&[]),
                &[0x13, 2, 0],
                &with_length::<2>(extensions),
            ]
            .concat();
            record(&[&[2][..], &with_length::<3>(&body)].concat())
        };
        let newest = ServerHello::read(&body(&extension(SUPPORTED_VERSIONS, &[3, 4])));
        let wanted = ServerHello { version: 0x304, cipher: 0x1302, protocol: None };
        assert_eq!(newest, Ok(wanted));
        let older = ServerHello::read(&body(&extension(16, &with_length::<2>(b"\x02h2"))));
        let protocol = Some(b"h2".to_vec());
        assert_eq!(older, Ok(ServerHello { version: 0x303, cipher: 0x1302, protocol }));
        assert_eq!(ServerHello::read(&client("a", 1)), Err(NoHello::Malformed));
    }

    proptest! {
        /// Whatever comes, and whatever lengths a hello claims, there is no panic.
        #[test]
        fn arbitrary_octets_do_no_harm(
            octets in prop::collection::vec(any::<u8>(), 0..300),
            changes in prop::collection::vec((0_usize..400, any::<u8>()), 0..6),
        ) {
            let _ = (ClientHello::read(&octets), ServerHello::read(&octets));
            let mut hello = client("example.org", 40);
            for (at, to) in changes {
                if let Some(place) = hello.get_mut(at) {
                    *place = to;
                }
            }
            let _ = (ClientHello::read(&hello), ServerHello::read(&hello));
        }
    }
}
