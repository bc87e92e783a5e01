//! The YAML file: who may have written it, and what is wrong with it, where.

use super::{Config, keys};
use serde_saphyr::Error;
use std::fs::Metadata;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A configuration is a page or two.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a configuration file.
///
/// # Errors
/// `file:line:column: reason`, with what to do.
pub fn read(path: &Path) -> Result<Config, String> {
    let shown = path.display();
    let mut file = std::fs::File::open(path).map_err(|error| {
        format!("{shown}: cannot be read ({error}): give the path of a file with --config")
    })?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("{shown}: cannot be read ({error})"))?;
    // SAFETY: geteuid(2) takes nothing, touches no memory and always succeeds.
    let user = unsafe { libc::geteuid() };
    trusted(path, &metadata, user)?;
    let mut text = String::new();
    file.by_ref()
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| format!("{shown}: cannot be read ({error}): write it in UTF-8"))?;
    parse(&text).map_err(|(place, reason)| format!("{shown}{place}: {reason}"))
}

/// The tracer runs as root: who can write its configuration can tell root what to do.
fn trusted(path: &Path, metadata: &Metadata, user: u32) -> Result<(), String> {
    let shown = path.display();
    if !metadata.is_file() {
        return Err(format!(
            "{shown}: is not a regular file: give the path of a file with --config"
        ));
    }
    if metadata.len() > MAX_BYTES {
        return Err(format!(
            "{shown}: is larger than 1 MiB, which no configuration is"
        ));
    }
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != 0 && owner != user {
        return Err(format!(
            "{shown}: belongs to user {owner}, who is neither root nor the user that runs the tracer; remedy: chown root {shown}"
        ));
    }
    if mode & 0o022 != 0 {
        return Err(format!(
            "{shown}: others than its owner can write it (mode {:o}); remedy: chmod go-w {shown}",
            mode & 0o777
        ));
    }
    Ok(())
}

/// Reads the text of a configuration file. An error has its place (`:line:column`) and its reason.
pub fn parse(text: &str) -> Result<Config, (String, String)> {
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    if text.lines().all(blank) {
        return Ok(Config::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location().filter(|l| l.line() > 0);
        let place = location
            .map(|l| format!(":{}:{}", l.line(), l.column()))
            .unwrap_or_default();
        let number = location.and_then(|l| usize::try_from(l.line()).ok()?.checked_sub(1));
        let line = number.and_then(|n| text.lines().nth(n));
        (place, explain(error, line))
    })
}

fn explain(error: &Error, line: Option<&str>) -> String {
    let reason = match error {
        Error::SerdeUnknownField { field, expected, .. } => return unknown_key(field, expected),
        Error::DuplicateMappingKey { key, .. } => {
            return format!(
                "`{}` is given twice: remove one of them",
                key.as_deref().unwrap_or("a key")
            );
        }
        Error::SerdeUnknownVariant {
            variant, expected, ..
        } => {
            let near = keys::nearest(variant, expected.iter().copied());
            let near = near
                .map(|near| format!("did you mean `{near}`? "))
                .unwrap_or_default();
            format!("`{variant}` is not possible here: {near}use {}", one_of(expected))
        }
        Error::SerdeInvalidType {
            unexpected, expected, ..
        }
        | Error::SerdeInvalidValue {
            unexpected, expected, ..
        } => {
            format!("{unexpected} is not possible here: use {expected}")
        }
        Error::InvalidScalar { ty, .. } => format!("this is not possible here: use {}", plain(ty)),
        Error::InvalidBooleanStrict { .. } => "this is not possible here: use true or false".to_owned(),
        Error::NullIntoString { .. } => "has no value: write one, or remove the key".to_owned(),
        Error::Unexpected { expected, .. } => format!("this is not possible here: use {}", plain(expected)),
        Error::Message { msg, .. } => msg.clone(),
        other => {
            let text = other.to_string();
            return text
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("error: ")
                .to_owned();
        }
    };
    match line.and_then(key_of) {
        Some(key) => format!("`{key}`: {reason}"),
        None => reason,
    }
}

fn unknown_key(field: &str, expected: &[&'static str]) -> String {
    let near = keys::nearest(field, expected.iter().copied()).map(str::to_owned);
    // Or the right key in the wrong section, or with its section's name in front.
    let near = near.or_else(|| {
        let same = |path: &&String| {
            path.rsplit('.').next() == Some(field) || path.replace('.', "_").ends_with(field)
        };
        keys::all().iter().find(same).cloned()
    });
    match near {
        Some(near) => format!("unknown key `{field}`: did you mean `{near}`?"),
        None => format!("unknown key `{field}`: the keys here are {}", one_of(expected)),
    }
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "none".to_owned(),
    }
}

/// The key on a line of block style, for messages about its value.
fn key_of(line: &str) -> Option<&str> {
    let (key, rest) = line.trim_start_matches([' ', '-']).split_once(':')?;
    let plain = key.chars().all(|c| c.is_alphanumeric() || c == '_');
    (plain && !rest.contains('{')).then_some(key)
}

/// Types of Rust and terms of YAML in plain words.
fn plain(ty: &str) -> &str {
    match ty {
        "bool" | "boolean" => "true or false",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "sequence start" => "a list, such as [a, b]",
        "mapping start" => "keys and values, such as `key: value`",
        "string scalar" => "one value",
        ty if ty.starts_with('u') => "a whole number that is not negative",
        ty if ty.starts_with('i') => "a whole number",
        ty => ty,
    }
}

#[cfg(test)]
mod tests;
