//! The things that a request or a call names: what looks like an id among the segments of a path and the values of a query. Names of
//! routes and versions, which all requests share, are told apart by how many do ([`crate::correlate::joint`]).

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::correlate::joint::Ids;
use crate::model::Attributes;

/// Where they are named.
const URL_PATH: &str = "url.path";
const URL_QUERY: &str = "url.query";
const URL_FULL: &str = "url.full";

/// The last ones named, as numbers that are alike in all exchanges: those of a path come from the general to the particular.
pub(super) fn named(attributes: &Attributes) -> Ids {
    let full = attributes.get_str(URL_FULL).unwrap_or_default();
    let of_full = full.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let texts = [
        of_full.map_or("", |(_, path)| path),
        attributes.get_str(URL_PATH).unwrap_or_default(),
        attributes.get_str(URL_QUERY).unwrap_or_default(),
    ];
    let words = texts
        .iter()
        .flat_map(|text| text.split(['/', '?', '&', '=', ';', ',']));
    let mut ids = Ids::default();
    for word in words.filter(|word| is_id(word)) {
        let id = number(word);
        if !ids.contains(&id) {
            ids.rotate_left(1);
            if let Some(last) = ids.last_mut() {
                *last = id;
            }
        }
    }
    ids
}

/// Words without a digit are names of routes.
fn is_id(word: &str) -> bool {
    (1..=128).contains(&word.len()) && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Never 0.
fn number(word: &str) -> u32 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(word);
    ((hash >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(attributes: &[(&'static str, &str)]) -> Ids {
        let mut all = Attributes::default();
        for (key, value) in attributes {
            all.push_str(key, value);
        }
        named(&all)
    }

    #[test]
    fn ids_are_alike_wherever_they_are_named() {
        let order = number("order-17");
        let cases: [(&[(&'static str, &str)], Ids); 6] = [
            (&[("url.path", "/orders/order-17")], [0, 0, 0, order]),
            (
                &[("url.full", "http://10.0.0.1:80/v1/order-17/items")],
                [0, 0, number("v1"), order],
            ),
            (
                &[("url.path", "/pay"), ("url.query", "order=order-17&all=yes")],
                [0, 0, 0, order],
            ),
            (
                &[("url.full", "http://shop/pay?order=order-17")],
                [0, 0, 0, order],
            ),
            (&[("url.path", "/a/b/")], [0; 4]),
            (&[("db.query.text", "SELECT order-17")], [0; 4]),
        ];
        for (attributes, expected) in cases {
            assert_eq!(ids(attributes), expected, "{attributes:?}");
        }
        let many = ids(&[("url.path", "/a1/a2/a3/a4/a5/a5")]);
        assert_eq!(many, ["a2", "a3", "a4", "a5"].map(number), "the last ones");
    }
}
