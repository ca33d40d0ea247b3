//! What a destination answers, without what nobody may read.
//!
//! In: texts of others. Out: their beginning, with `…` in place of secrets.
//! Invariants: of a URL nothing behind host and port is shown, and no password or token, also where an answer
//! repeats them: whole, percent-decoded, in other case, or with their signs written in another way, as in
//! JSON or HTML.

use crate::config::HttpUrl;

/// What is shown of a text.
const SHOWN_CHARACTERS: usize = 400;
/// Parts of a URL or a secret that are as long are hidden by themselves.
const PART_OCTETS_MIN: usize = 4;

/// What is to be hidden, in small letters; the longest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden(Vec<String>);

impl Hidden {
    /// All of the URL but scheme, host and port, and secrets.
    pub(crate) fn new(url: &HttpUrl, secrets: &[&str]) -> Self {
        let url = url.as_str();
        let place = url.find("://").map_or(0, |at| at + 3);
        let path = url.get(place..).and_then(|rest| rest.get(rest.find(['/', '?'])?..));
        let path = path.unwrap_or_default().trim_matches('/');
        let mut words = Vec::new();
        for whole in [path, &percent_decoded(path)].into_iter().chain(secrets.iter().copied()) {
            words.push(whole.to_ascii_lowercase());
            let between: [fn(char) -> bool; 2] =
                [|it| "/?&=".contains(it), |it| !it.is_alphanumeric()];
            for is_between in between {
                let parts = whole.split(is_between).filter(|it| it.len() >= PART_OCTETS_MIN);
                words.extend(parts.map(str::to_ascii_lowercase));
            }
        }
        words.retain(|word| !word.is_empty());
        words.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        words.dedup();
        Self(words)
    }

    /// The beginning of a text.
    pub(crate) fn shown(&self, text: &str) -> String {
        let small = text.to_ascii_lowercase();
        let (mut out, mut at) = (String::new(), 0);
        let mut characters = 0;
        while characters < SHOWN_CHARACTERS
            && let Some(rest) = small.get(at..)
            && let Some(first) = text.get(at..).and_then(|rest| rest.chars().next())
        {
            let word = self.0.iter().find(|word| rest.starts_with(word.as_str()));
            out.push(match word {
                Some(_) => '…',
                None if first.is_control() => ' ',
                None => first,
            });
            at += word.map_or(first.len_utf8(), String::len);
            characters += 1;
        }
        out
    }
}

/// Text of a URL as it is meant.
fn percent_decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let octet = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match octet.filter(|_| *first == b'%') {
            Some(octet) => {
                octets.push(octet);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                octets.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(url: &str, secrets: &[&str]) -> Hidden {
        Hidden::new(&url.parse().expect("a URL"), secrets)
    }

    #[test]
    fn an_answer_that_repeats_the_path_shows_nothing_of_it() {
        let url = "https://hooks.example:8443/T0/h1%2Fdden/B-x_y/?key=ab%20cdef&v=1";
        let hidden = hidden(url, &["p4ss\"word"]);
        for text in [
            "Cannot POST /T0/h1%2Fdden/B-x_y/?key=ab%20cdef&v=1",
            "no route for T0/h1/dden/B-x_y/?key=ab cdef&v=1",
            r#"{"path": "\/T0\/h1\/dden\/B-x_y\/?key=ab cdef"}"#,
            "<p>/t0/H1%2fDDEN/b-X_y/?key=ab+cdef&amp;v=1</p>",
            "unknown: B-x_y, dden, cdef",
            "p4ss&quot;word is wrong, p4ss\"word too",
        ] {
            let shown = hidden.shown(text).to_ascii_lowercase();
            for secret in ["dden", "b-x_y", "cdef", "p4ss", "word"] {
                assert!(!shown.contains(secret), "{text} → {shown}");
            }
            assert!(shown.contains('…'), "{shown}");
        }
    }

    #[test]
    fn a_text_without_secrets_stays_as_it_is_up_to_a_length() {
        let nothing = hidden("http://a.example:8123/", &[""]);
        assert_eq!(nothing.shown("a\nb ü/1"), "a b ü/1");
        assert_eq!(nothing.shown(&"ü".repeat(5_000)).chars().count(), SHOWN_CHARACTERS);
        // What is cut off is cut off behind the secret, not within.
        let all = hidden("http://a.example/secret", &[]);
        let shown = all.shown(&"secret".repeat(1_000));
        assert!(shown.chars().all(|it| it == '…'), "{shown}");
    }

    #[test]
    fn percent_signs_of_nothing_stay() {
        assert_eq!(percent_decoded("a%2Fb%zz%4"), "a/b%zz%4");
    }
}
