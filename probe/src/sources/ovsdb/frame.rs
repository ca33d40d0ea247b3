//! Where one JSON text ends and the next begins.
//!
//! In: octets as they come. Out: one object at a time, as octets.
//! Cost: each octet is looked at once, however it is cut.
//! Invariants: an object is at most so many octets long and nested at most [`DEPTH_MAX`] deep; what is
//! no object ends the connection. Whether an object is right JSON is the parser's to say.
//! Source: RFC 7047 section 4 (messages follow each other without separators), RFC 8259.

/// Levels of nesting at most; a schema has eleven.
pub(super) const DEPTH_MAX: u32 = 32;
/// Octets of done messages that are kept before the buffer is moved down.
const DONE_BYTES_MAX: usize = 1 << 16;

/// Why the octets are no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// An object is too long.
    #[error("a message is longer than {bytes_max} bytes (inventory.ovsdb.message_mib_max)")]
    Oversize {
        /// As configured.
        bytes_max: usize,
    },
    /// An object is nested too deeply.
    #[error("a message is nested deeper than {DEPTH_MAX} levels")]
    Depth,
    /// Something else stands where an object should begin.
    #[error("octet {found:#04x} where a JSON object should begin: is this an OVSDB server?")]
    NoObject {
        /// What stands there.
        found: u8,
    },
}

/// Cuts octets into objects.
#[derive(Debug)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    /// Where the current object begins.
    begin: usize,
    /// What was looked at.
    seen: usize,
    depth: u32,
    in_text: bool,
    escaped: bool,
    bytes_max: usize,
}

impl Framer {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            begin: 0,
            seen: 0,
            depth: 0,
            in_text: false,
            escaped: false,
            bytes_max,
        }
    }

    /// Adds what came.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
    }

    /// The next whole object; `None` until more has come.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        while let Some(octet) = self.buffer.get(self.seen).copied() {
            self.seen += 1;
            if self.depth == 0 && octet.is_ascii_whitespace() {
                self.begin = self.seen;
                continue;
            }
            if self.seen - self.begin > self.bytes_max {
                return Err(FrameError::Oversize { bytes_max: self.bytes_max });
            }
            if self.step(octet)? {
                return Ok(Some(self.take()));
            }
        }
        Ok(None)
    }

    /// Looks at one octet; `true` at the end of the object.
    fn step(&mut self, octet: u8) -> Result<bool, FrameError> {
        if self.in_text {
            (self.in_text, self.escaped) = match octet {
                _ if self.escaped => (true, false),
                b'\\' => (true, true),
                b'"' => (false, false),
                _ => (true, false),
            };
            return Ok(false);
        }
        match octet {
            _ if self.depth == 0 && octet != b'{' => Err(FrameError::NoObject { found: octet }),
            b'{' | b'[' if self.depth == DEPTH_MAX => Err(FrameError::Depth),
            b'{' | b'[' => {
                self.depth += 1;
                Ok(false)
            }
            b'}' | b']' => {
                self.depth -= 1;
                Ok(self.depth == 0)
            }
            b'"' => {
                self.in_text = true;
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn take(&mut self) -> Vec<u8> {
        let object = self.buffer.get(self.begin..self.seen).unwrap_or_default().to_vec();
        self.begin = self.seen;
        if self.begin == self.buffer.len() {
            // After a large message the memory goes back.
            self.buffer = Vec::new();
            (self.begin, self.seen) = (0, 0);
        } else if self.begin > DONE_BYTES_MAX {
            self.buffer.drain(..self.begin);
            (self.begin, self.seen) = (0, 0);
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(framer: &mut Framer) -> Result<Vec<String>, FrameError> {
        let mut objects = Vec::new();
        while let Some(object) = framer.next()? {
            objects.push(String::from_utf8(object).expect("UTF-8"));
        }
        Ok(objects)
    }

    const OBJECTS: [&str; 4] =
        [r#"{"a":[1,{"b":"}]"}]}"#, "{}", r#"{"\\":"\"{["}"#, r#"{"é":[[["x"]]]}"#];

    #[test]
    fn objects_come_out_however_they_are_cut() {
        let text = OBJECTS.join("\n \t");
        for part in 1..text.len() {
            let mut framer = Framer::new(100);
            let mut objects = Vec::new();
            for octets in text.as_bytes().chunks(part) {
                framer.push(octets);
                objects.extend(all(&mut framer).expect("they are right"));
            }
            assert_eq!(objects, OBJECTS, "in parts of {part}");
        }
    }

    #[test]
    fn what_is_done_takes_no_memory() {
        let mut framer = Framer::new(100);
        for _ in 0..100_000 {
            framer.push(OBJECTS[0].as_bytes());
            framer.push(b"{");
            assert_eq!(all(&mut framer).expect("they are right").len(), 1);
            framer.push(b"}");
            assert_eq!(all(&mut framer).expect("they are right").len(), 1);
        }
        assert!(framer.buffer.capacity() < 2 * DONE_BYTES_MAX);
    }

    #[test]
    fn bounds_end_it() {
        let refused = |text: &str| {
            let mut framer = Framer::new(64);
            framer.push(text.as_bytes());
            all(&mut framer).expect_err(text)
        };
        assert_eq!(
            refused(&format!("{{\"a\":\"{}", "x".repeat(64))),
            FrameError::Oversize { bytes_max: 64 }
        );
        assert_eq!(refused(&format!("{{\"a\":{}", "[".repeat(40))), FrameError::Depth);
        for (text, found) in
            [("GET / HTTP/1.0", b'G'), ("[]", b'['), ("{}]", b']'), ("\"a\"", b'"')]
        {
            assert_eq!(refused(text), FrameError::NoObject { found });
        }
    }

    /// Anything, and much that looks like JSON.
    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let of_json = prop::sample::select(b"{{}}[]\"\\ a".to_vec());
        let octet = prop_oneof![9 => of_json, 1 => any::<u8>()];
        (any::<bool>(), prop::collection::vec(octet, 0..400)).prop_map(|(begins, mut octets)| {
            octets.extend(begins.then_some(b'{'));
            octets.rotate_right(usize::from(begins));
            octets
        })
    }

    proptest! {
        #[test]
        fn garbage_never_panics(octets in octets(), part in 1_usize..50) {
            let mut framer = Framer::new(100);
            'all: for octets in octets.chunks(part) {
                framer.push(octets);
                loop {
                    match framer.next() {
                        Ok(Some(object)) => prop_assert!((2..=100).contains(&object.len())),
                        Ok(None) => break,
                        Err(_) => break 'all,
                    }
                }
            }
        }
    }
}
