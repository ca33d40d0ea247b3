//! The live page: files that are part of the program.
//!
//! In: the folder `page`. Out: `/` and `/page/…`.
//! Invariants: nothing is loaded from elsewhere; texts stand in `i18n.json` alone.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::problem::{Problem, repeated};

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
const SVG: &str = "image/svg+xml";

/// Name, media type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("style.css", STYLE, include_str!("page/style.css")),
    ("icon.svg", SVG, include_str!("page/icon.svg")),
    ("i18n.json", JSON, include_str!("page/i18n.json")),
    ("page.js", SCRIPT, include_str!("page/page.js")),
    ("feed.js", SCRIPT, include_str!("page/feed.js")),
    ("texts.js", SCRIPT, include_str!("page/texts.js")),
    ("format.js", SCRIPT, include_str!("page/format.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("chart.js", SCRIPT, include_str!("page/chart.js")),
    ("traffic.js", SCRIPT, include_str!("page/traffic.js")),
    ("conversations.js", SCRIPT, include_str!("page/conversations.js")),
    ("alerts.js", SCRIPT, include_str!("page/alerts.js")),
    ("ledger.js", SCRIPT, include_str!("page/ledger.js")),
    ("load.js", SCRIPT, include_str!("page/load.js")),
    ("taps.js", SCRIPT, include_str!("page/taps.js")),
    ("paths.js", SCRIPT, include_str!("page/paths.js")),
    ("migrations.js", SCRIPT, include_str!("page/migrations.js")),
    ("sources.js", SCRIPT, include_str!("page/sources.js")),
    ("coverage.js", SCRIPT, include_str!("page/coverage.js")),
];

/// `GET /`.
pub(super) async fn index() -> Response {
    sent(HTML, include_str!("page/index.html"))
}

/// `GET /page/{file}`.
pub(super) async fn file(Path(name): Path<String>) -> Response {
    match FILES.iter().find(|(known, _, _)| *known == name) {
        Some((_, media_type, content)) => sent(media_type, content),
        None => {
            let error = format!("the page has no file {:?}", repeated(&name));
            Problem::new(StatusCode::NOT_FOUND, error, "see /").into_response()
        }
    }
}

fn sent(media_type: &'static str, content: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], content)
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::counters::DropCause;

    type Texts = BTreeMap<String, BTreeMap<String, String>>;

    fn content(name: &str) -> &'static str {
        FILES.iter().find(|(known, _, _)| *known == name).expect(name).2
    }

    fn texts() -> Texts {
        serde_json::from_str(content("i18n.json")).expect("table of texts")
    }

    fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        FILES.iter().filter(|file| file.1 == SCRIPT).map(|file| (file.0, file.2))
    }

    /// What stands in `text` between each `begin` and the next `end`.
    fn between<'a>(text: &'a str, begin: &'a str, end: char) -> impl Iterator<Item = &'a str> {
        text.split(begin).skip(1).filter_map(move |rest| rest.split(end).next())
    }

    #[test]
    fn every_text_is_there_in_both_languages() {
        for (key, text) in texts() {
            let languages: Vec<_> = text.keys().map(String::as_str).collect();
            assert_eq!(languages, ["en", "zh"], "{key}");
            assert!(text.values().all(|text| !text.is_empty()), "{key}");
            let holes = |language: &str| {
                between(&text[language], "{", '}').map(str::to_owned).collect::<BTreeSet<_>>()
            };
            assert_eq!(holes("en"), holes("zh"), "{key}");
        }
    }

    #[test]
    fn every_cause_of_the_ledger_is_explained() {
        let texts = texts();
        for cause in DropCause::ALL {
            for part in ["name", "meaning"] {
                let key = format!("cause.{}.{part}", cause.name());
                assert!(texts.contains_key(&key), "{key} is missing in i18n.json");
            }
        }
    }

    #[test]
    fn every_text_that_the_page_names_exists() {
        let texts = texts();
        let html = include_str!("page/index.html");
        let mut used: Vec<&str> = Vec::new();
        for attribute in ["data-text=\"", "data-label=\"", "data-hint=\""] {
            used.extend(between(html, attribute, '"'));
        }
        for (_, script) in scripts() {
            used.extend(between(script, " t('", '\''));
            used.extend(between(script, "(t('", '\''));
        }
        assert!(used.len() > 30, "the search for keys found {}", used.len());
        for key in used {
            assert!(texts.contains_key(key), "{key} is missing in i18n.json");
        }
    }

    #[test]
    fn scripts_never_write_markup_and_nothing_is_loaded_from_elsewhere() {
        let html = include_str!("page/index.html");
        for (name, text) in
            scripts().chain([("index.html", html), ("style.css", content("style.css"))])
        {
            for word in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "@import",
                "https://",
            ] {
                assert!(!text.contains(word), "{name} has {word}");
            }
            let namespace = text.matches("http://").count();
            let svg = text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(namespace, svg, "{name}");
            assert!(!text.contains(" style=\"") && !text.contains(" onclick"), "{name}");
        }
    }

    #[test]
    fn every_module_that_is_imported_is_served() {
        for (name, script) in scripts() {
            for imported in between(script, "from './", '\'') {
                assert!(FILES.iter().any(|file| file.0 == imported), "{name} imports {imported}");
            }
        }
    }
}
