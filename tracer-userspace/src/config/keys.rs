//! All keys of the configuration, found by asking its types, so that no second list can fall behind.

use super::Config;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor, value::Error};
use serde::{Deserialize, forward_to_deserialize_any};

/// Every key with its path (`export.otlp.endpoint`), sections included.
#[must_use]
pub fn all() -> Vec<String> {
    let mut found = Vec::new();
    walk(&mut Vec::new(), &mut found);
    found
}

fn walk(path: &mut Vec<&'static str>, found: &mut Vec<String>) {
    let mut fields = None;
    // Ends in an error always: the probe has no values to give.
    let _ = Config::deserialize(Probe {
        path,
        fields: &mut fields,
    });
    for field in fields.unwrap_or_default() {
        path.push(field);
        found.push(path.join("."));
        walk(path, found);
        path.pop();
    }
}

/// A document with one key on each level, down `path`; notes which keys the type at its end asks for.
struct Probe<'a> {
    path: &'a [&'static str],
    fields: &'a mut Option<&'static [&'static str]>,
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.path.is_empty() {
            *self.fields = Some(fields);
            return Err(Error::custom("probe"));
        }
        visitor.visit_map(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("probe"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(first) = self.path.first() else {
            return Ok(None);
        };
        seed.deserialize(serde::de::value::StrDeserializer::new(first))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let path = self.path.get(1..).unwrap_or_default();
        seed.deserialize(Probe {
            path,
            fields: &mut *self.fields,
        })
    }
}

/// The candidate that a slip of the hand could have meant.
#[must_use]
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_lowercase().replace('-', "_");
    // A third of the letters may differ; a swap of two neighbours counts one.
    let allowed = (text.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&text, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
