//! Lists with limit, offset and filters.
//!
//! In: a snapshot's list and the query part of a request. Out: one page of it, or a [`Problem`]
//! that names what is allowed.
//! Invariants: unknown parameters, repeated ones and values out of range are refused, never
//! passed over.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::aggregate::live::LiveSnapshot;

use super::problem::{Problem, repeated};

/// Items of one answer at most, and without `limit`.
pub(super) const LIMIT_MAX: usize = 200;
/// Largest `offset`.
pub(super) const OFFSET_MAX: usize = 100_000;
/// Characters of a filter's value.
pub(super) const VALUE_CHARS_MAX: usize = 128;

/// The query part of a request, decoded.
pub(super) type Pairs = Vec<(String, String)>;

/// One way to choose from a list of `T`.
pub(super) struct Filter<T> {
    /// Name of the parameter.
    pub(super) name: &'static str,
    /// Its values; empty: any text.
    pub(super) values: &'static [&'static str],
    /// Whether an item passes.
    pub(super) passes: fn(&T, &str) -> bool,
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<'a, T> {
    /// Window that the list is of.
    window_start_ns: u64,
    /// Length of that window.
    window_length_ms: u32,
    /// Items that pass the filters.
    total: usize,
    /// As asked for.
    limit: usize,
    /// As asked for.
    offset: usize,
    /// `limit` items from `offset` on.
    items: Vec<&'a T>,
}

/// Answers a request for a list.
pub(super) fn answer<T: Serialize>(
    snapshot: &LiveSnapshot,
    items: &[T],
    filters: &[Filter<T>],
    pairs: &Pairs,
) -> Response {
    match page(snapshot, items, filters, pairs) {
        Ok(page) => Json(page).into_response(),
        Err(problem) => problem.into_response(),
    }
}

fn page<'a, T>(
    snapshot: &LiveSnapshot,
    items: &'a [T],
    filters: &[Filter<T>],
    pairs: &Pairs,
) -> Result<Page<'a, T>, Problem> {
    let Query { limit, offset, chosen } = read(pairs, filters)?;
    let passing: Vec<&T> = items
        .iter()
        .filter(|item| chosen.iter().all(|(filter, value)| (filter.passes)(item, value)))
        .collect();
    Ok(Page {
        window_start_ns: snapshot.window_start_ns,
        window_length_ms: snapshot.window_length_ms,
        total: passing.len(),
        limit,
        offset,
        items: passing.into_iter().skip(offset).take(limit).collect(),
    })
}

/// What a request for a list asks.
pub(super) struct Query<'a, T> {
    pub(super) limit: usize,
    pub(super) offset: usize,
    pub(super) chosen: Vec<(&'a Filter<T>, &'a str)>,
}

pub(super) fn read<'a, T>(
    pairs: &'a Pairs,
    filters: &'a [Filter<T>],
) -> Result<Query<'a, T>, Problem> {
    let mut query = Query { limit: LIMIT_MAX, offset: 0, chosen: Vec::new() };
    for (place, (name, value)) in pairs.iter().enumerate() {
        if pairs.iter().take(place).any(|(earlier, _)| earlier == name) {
            let error = format!("parameter {:?} is given twice", repeated(name));
            return Err(Problem::bad_request(error, "each parameter once"));
        }
        match name.as_str() {
            "limit" => query.limit = number(name, value, 1, LIMIT_MAX)?,
            "offset" => query.offset = number(name, value, 0, OFFSET_MAX)?,
            _ => {
                let filter = filters.iter().find(|filter| filter.name == name);
                let filter = filter.ok_or_else(|| unknown(name, filters))?;
                check(filter, value)?;
                query.chosen.push((filter, value));
            }
        }
    }
    Ok(query)
}

fn number(name: &str, value: &str, min: usize, max: usize) -> Result<usize, Problem> {
    let number = value.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| {
        let error = format!("{name}: {:?} is out of range", repeated(value));
        Problem::bad_request(error, format!("a whole number from {min} to {max}"))
    })
}

fn check<T>(filter: &Filter<T>, value: &str) -> Result<(), Problem> {
    let problem = |allowed| {
        let error = format!("{}: {:?} is not allowed", filter.name, repeated(value));
        Err(Problem::bad_request(error, allowed))
    };
    if !filter.values.is_empty() && !filter.values.contains(&value) {
        return problem(filter.values.join(", "));
    }
    if value.is_empty() || value.chars().count() > VALUE_CHARS_MAX {
        return problem(format!("1 to {VALUE_CHARS_MAX} characters"));
    }
    Ok(())
}

fn unknown<T>(name: &str, filters: &[Filter<T>]) -> Problem {
    let names = filters.iter().map(|filter| filter.name);
    let allowed: Vec<_> = ["limit", "offset"].into_iter().chain(names).collect();
    let error = format!("unknown parameter {:?}", repeated(name));
    Problem::bad_request(error, allowed.join(", "))
}

/// For a route without parameters.
pub(super) fn none_allowed(pairs: &Pairs) -> Result<(), Problem> {
    match pairs.first() {
        Some((name, _)) => {
            let error = format!("unknown parameter {:?}", repeated(name));
            Err(Problem::bad_request(error, "no parameters"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILTERS: &[Filter<u32>] = &[
        Filter {
            name: "parity",
            values: &["odd", "even"],
            passes: |item, value| (item % 2 == 1) == (value == "odd"),
        },
        Filter {
            name: "text",
            values: &[],
            passes: |item, value| item.to_string().contains(value),
        },
    ];

    fn ask(query: &[(&str, &str)]) -> Result<(usize, Vec<u32>), Problem> {
        let pairs = query.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let items: Vec<u32> = (0..100).collect();
        let page = page(&LiveSnapshot::default(), &items, FILTERS, &pairs)?;
        Ok((page.total, page.items.into_iter().copied().collect()))
    }

    #[test]
    fn filters_join_and_pages_follow_one_another() {
        assert_eq!(ask(&[]).map(|(total, items)| (total, items.len())), Ok((100, 100)));
        let odd_nines = &[("parity", "odd"), ("text", "9")];
        assert_eq!(
            ask(odd_nines),
            Ok((14, vec![9, 19, 29, 39, 49, 59, 69, 79, 89, 91, 93, 95, 97, 99]))
        );
        assert_eq!(
            ask(&[("parity", "even"), ("limit", "2"), ("offset", "3")]),
            Ok((50, vec![6, 8]))
        );
        assert_eq!(ask(&[("offset", "100000")]), Ok((100, vec![])));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let long = "x".repeat(VALUE_CHARS_MAX + 1);
        for query in [
            [("limit", "0")],
            [("limit", "201")],
            [("limit", "-1")],
            [("limit", "1e3")],
            [("offset", "100001")],
            [("parity", "both")],
            [("parity", "")],
            [("text", "")],
            [("text", long.as_str())],
            [("colour", "red")],
        ] {
            let problem = ask(&query).expect_err(query[0].1);
            assert!(!problem.allowed.is_empty());
            assert!(problem.error.len() < 200);
        }
        assert!(ask(&[("text", "1"), ("text", "2")]).is_err());
    }
}
