//! The head of a request or response of HTTP/1.
//!
//! In: the first octets of a message, whole or cut. Out: [`RequestHead`], [`ResponseHead`].
//! Cost: a pass over the head; texts are allocated, so this is no work for a worker.
//! Invariants: never panics; [`LINES_MAX`] lines are looked at, texts are cut at [`TEXT_OCTETS_MAX`].
//! Of header fields only those are kept that are named here: no cookie, no authorization, no body. Of a
//! target whatever may be a secret is left out, as far as its form says so: user and password always, the
//! query unless it is asked for.
//! Source: RFC 9112 §2 to §4; RFC 3986 §3.

/// Lines of a head that are looked at.
const LINES_MAX: usize = 128;
/// Octets of a text that are kept.
pub const TEXT_OCTETS_MAX: usize = 1_024;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// As `HTTP/1.1`.
    pub version: String,
    /// The field Host, without its port.
    pub host: Option<String>,
    /// The field User-Agent.
    pub user_agent: Option<String>,
    /// The end of the head was not there: fields may be missing.
    pub is_cut: bool,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// As `HTTP/1.1`.
    pub version: String,
    /// Status code.
    pub status: u16,
    /// The field Content-Type, without parameters.
    pub content_type: Option<String>,
    /// The field Content-Length.
    pub content_length: Option<u64>,
    /// The end of the head was not there: fields may be missing.
    pub is_cut: bool,
}

impl RequestHead {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let texts = self.method.capacity() + self.target.capacity() + self.version.capacity();
        size_of::<Self>() + texts + optional(&self.host) + optional(&self.user_agent)
    }

    /// Reads it; `None` where the first line is none. `keeps_query`: what stands behind `?` in a target
    /// is kept.
    pub fn read(octets: &[u8], keeps_query: bool) -> Option<Self> {
        let mut lines = Lines::new(octets);
        let first = lines.next()?;
        let mut words = first.split(|octet| *octet == b' ').filter(|word| !word.is_empty());
        let (method, wanted) = (words.next()?, words.next()?);
        let version = words.next().unwrap_or_default();
        if !method.iter().all(|octet| octet.is_ascii_uppercase() || *octet == b'-') {
            return None;
        }
        if !version.starts_with(b"HTTP/1.") && lines.is_whole_line {
            return None;
        }
        let mut head = Self {
            method: text(method),
            target: target(wanted, keeps_query),
            // Of a line that was cut it may be a piece of the target.
            version: if version.starts_with(b"HTTP/1.") && version.len() == b"HTTP/1.1".len() {
                text(version)
            } else {
                String::new()
            },
            ..Self::default()
        };
        for line in &mut lines {
            let Some((name, value)) = field(line) else { continue };
            if name.eq_ignore_ascii_case(b"host") {
                head.host.get_or_insert_with(|| text(without_port(value)));
            } else if name.eq_ignore_ascii_case(b"user-agent") {
                head.user_agent.get_or_insert_with(|| text(value));
            }
        }
        head.is_cut = !lines.has_ended;
        Some(head)
    }
}

impl ResponseHead {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let kind = self.content_type.as_ref().map_or(0, String::capacity);
        size_of::<Self>() + self.version.capacity() + kind
    }

    /// Reads it; `None` where the first line is none.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let mut lines = Lines::new(octets);
        let first = lines.next()?;
        let mut words = first.split(|octet| *octet == b' ');
        let version = words.next().filter(|version| version.starts_with(b"HTTP/1."))?;
        let status = number(words.find(|word| !word.is_empty())?)?;
        let mut head =
            Self { version: text(version), status: u16::try_from(status).ok()?, ..Self::default() };
        for line in &mut lines {
            let Some((name, value)) = field(line) else { continue };
            if name.eq_ignore_ascii_case(b"content-type") {
                let kind = value.split(|octet| *octet == b';').next().unwrap_or_default();
                head.content_type.get_or_insert_with(|| text(kind.trim_ascii()));
            } else if name.eq_ignore_ascii_case(b"content-length") && head.content_length.is_none()
            {
                head.content_length = number(value);
            }
        }
        head.is_cut = !lines.has_ended;
        Some(head)
    }
}

/// The lines of a head, up to the empty one.
struct Lines<'a> {
    rest: &'a [u8],
    left: usize,
    /// The last line given had an end.
    is_whole_line: bool,
    /// The empty line was there.
    has_ended: bool,
}

impl<'a> Lines<'a> {
    const fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets, left: LINES_MAX, is_whole_line: false, has_ended: false }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.has_ended || self.left == 0 || self.rest.is_empty() {
            return None;
        }
        self.left -= 1;
        let end = self.rest.iter().position(|octet| *octet == b'\n');
        self.is_whole_line = end.is_some();
        let (line, rest) = match end {
            Some(end) => (self.rest.get(..end)?, self.rest.get(end + 1..)?),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() && self.is_whole_line {
            self.has_ended = true;
            return None;
        }
        Some(line)
    }
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|octet| *octet == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    Some((name, value.get(1..)?.trim_ascii()))
}

fn number(octets: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(octets).ok()?.trim();
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

fn text(octets: &[u8]) -> String {
    let kept = octets.get(..octets.len().min(TEXT_OCTETS_MAX)).unwrap_or_default();
    String::from_utf8_lossy(kept).into_owned()
}

/// A target without what may be a secret: user and password before a host, and the query, whose `?`
/// stays, unless it is kept.
fn target(octets: &[u8], keeps_query: bool) -> String {
    let query = octets.iter().position(|octet| *octet == b'?' || *octet == b'#');
    let (path, query) = octets.split_at(query.unwrap_or(octets.len()));
    let mut target = Vec::with_capacity(octets.len().min(TEXT_OCTETS_MAX));
    match path.windows(3).position(|three| three == b"://") {
        Some(at) => {
            let (scheme, behind) = path.split_at(at + 3);
            let slash = behind.iter().position(|octet| *octet == b'/').unwrap_or(behind.len());
            let (authority, path) = behind.split_at(slash);
            target.extend_from_slice(scheme);
            target.extend_from_slice(without_user(authority));
            target.extend_from_slice(path);
        }
        // Only the form of CONNECT has no slash.
        None if path.starts_with(b"/") => target.extend_from_slice(path),
        None => target.extend_from_slice(without_user(path)),
    }
    if keeps_query {
        target.extend_from_slice(query);
    } else if !query.is_empty() {
        target.push(b'?');
    }
    text(&target)
}

/// What stands behind the last `@`.
fn without_user(authority: &[u8]) -> &[u8] {
    authority.rsplit(|octet| *octet == b'@').next().unwrap_or_default()
}

/// A host without its port; of an IPv6 address, which stands in brackets, the colons stay.
fn without_port(host: &[u8]) -> &[u8] {
    let host = without_user(host);
    match host.iter().rposition(|octet| *octet == b':') {
        Some(colon) if !host.ends_with(b"]") => host.get(..colon).unwrap_or(host),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: &[u8] =
        b"GET /a/b?token=1 HTTP/1.1\r\nCookie: secret\r\nHOST: Example.org:8080\r\n\
        Authorization: Basic c2VjcmV0\r\nuser-agent:  curl/8.0 \r\n\r\nbody";
    const RESPONSE: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html; charset=utf-8\r\n\
        Content-Length: 12\r\nSet-Cookie: secret\r\n\r\n";

    #[test]
    fn a_request_says_what_is_asked_and_no_secret() {
        let head = RequestHead::read(REQUEST, false).expect("a request");
        let wanted = RequestHead {
            method: "GET".to_owned(),
            target: "/a/b?".to_owned(),
            version: "HTTP/1.1".to_owned(),
            host: Some("Example.org".to_owned()),
            user_agent: Some("curl/8.0".to_owned()),
            is_cut: false,
        };
        assert_eq!(head, wanted);
        let kept = RequestHead::read(REQUEST, true).expect("a request");
        assert_eq!(kept, RequestHead { target: "/a/b?token=1".to_owned(), ..wanted });
        for length in 0..REQUEST.len() {
            let read = RequestHead::read(&REQUEST[..length], false);
            let has_ended = length >= REQUEST.len() - b"body".len();
            assert!(read.is_none_or(|head| head.is_cut != has_ended), "{length}");
        }
    }

    #[test]
    fn targets_lose_users_and_queries() {
        for (target_octets, wanted) in [
            ("http://user:word@example.org/a@b?q#f", "http://example.org/a@b?"),
            ("http://example.org", "http://example.org"),
            ("user:word@example.org:443", "example.org:443"),
            ("/login@here#part", "/login@here?"),
            ("*", "*"),
        ] {
            assert_eq!(target(target_octets.as_bytes(), false), wanted);
        }
        for (host, wanted) in [("a:80", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")] {
            assert_eq!(without_port(host.as_bytes()), wanted.as_bytes());
        }
    }

    #[test]
    fn a_response_says_how_it_went() {
        let head = ResponseHead::read(RESPONSE).expect("a response");
        let wanted = ResponseHead {
            version: "HTTP/1.1".to_owned(),
            status: 404,
            content_type: Some("text/html".to_owned()),
            content_length: Some(12),
            is_cut: false,
        };
        assert_eq!(head, wanted);
        for none in [
            &b""[..],
            b"HTTP/1.1",
            b"HTTP/1.1 x",
            b"HTTP/2 200",
            b"HTTP/1.1 70000 X",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(ResponseHead::read(none), None, "{none:?}");
        }
        assert_eq!(
            ResponseHead::read(b"HTTP/1.0 200").map(|it| (it.status, it.is_cut)),
            Some((200, true))
        );
    }

    proptest! {
        /// Whatever comes, there is no panic, and no text is longer than it may be.
        #[test]
        fn arbitrary_octets_are_read_within_bounds(
            octets in prop::collection::vec(any::<u8>(), 0..400),
            line in "[ -~\r\n]{0,200}",
            repeats in 1_usize..20,
        ) {
            let long = format!("GET /{}", line.repeat(repeats));
            for octets in [&octets[..], line.as_bytes(), long.as_bytes()] {
                let _ = ResponseHead::read(octets);
                if let Some(head) = RequestHead::read(octets, true) {
                    // What is no UTF-8 becomes three octets each.
                    prop_assert!(head.target.len() <= 3 * TEXT_OCTETS_MAX);
                }
            }
        }
    }
}
