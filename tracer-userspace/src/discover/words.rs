//! From paths to names that tell services apart.

use std::path::Path;

/// Names that half of all programs have: the folder says more.
const GENERIC: &[&str] = &[
    "__main__",
    "app",
    "application",
    "api",
    "asgi",
    "bin",
    "boot",
    "cli",
    "config",
    "entrypoint",
    "index",
    "init",
    "launcher",
    "main",
    "manage",
    "program",
    "run",
    "serve",
    "server",
    "service",
    "start",
    "web",
    "worker",
    "wsgi",
];

/// Folders that hold any program.
const FOLDERS: &[&str] = &[
    "",
    "app",
    "apps",
    "bin",
    "build",
    "builds",
    "cmd",
    "code",
    "current",
    "debug",
    "dist",
    "go",
    "home",
    "java",
    "lib",
    "libexec",
    "local",
    "main",
    "node",
    "node_modules",
    "opt",
    "out",
    "php",
    "public",
    "publish",
    "python",
    "release",
    "root",
    "ruby",
    "rust",
    "sbin",
    "scripts",
    "server",
    "src",
    "srv",
    "target",
    "test",
    "tests",
    "tmp",
    "usr",
    "var",
    "work",
    "workspace",
    "www",
];

/// Whether a name tells nothing.
#[must_use]
pub fn is_generic(name: &str) -> bool {
    GENERIC.contains(&name.to_ascii_lowercase().as_str())
}

/// A path's last part without the given extensions.
#[must_use]
pub fn stem<'a>(path: &'a str, extensions: &[&str]) -> &'a str {
    let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    extensions
        .iter()
        .find_map(|e| base.strip_suffix(e))
        .filter(|s| !s.is_empty())
        .unwrap_or(base)
}

/// The nearest folder, at most three levels up, that is not one of those which hold anything.
#[must_use]
pub fn folder(directory: &Path) -> Option<String> {
    directory
        .ancestors()
        .take(3)
        .filter_map(|d| d.file_name()?.to_str())
        .find(|name| !FOLDERS.contains(&name.to_ascii_lowercase().as_str()) && !is_generic(name))
        .map(str::to_owned)
}

/// The name of the program at `path` (absolute): its stem, or its folder if the stem tells nothing.
#[must_use]
pub fn program(path: &Path, extensions: &[&str]) -> Option<String> {
    let stem = stem(path.to_str()?, extensions);
    if is_generic(stem)
        && let Some(name) = path.parent().and_then(folder)
    {
        return Some(name);
    }
    (!stem.is_empty()).then(|| stem.to_owned())
}

/// Splits `orders-1.4.2` into name and version: the version starts at the first `-` that a digit follows.
#[must_use]
pub fn split_version(stem: &str) -> (&str, Option<&str>) {
    let at = stem.match_indices('-').map(|(at, _)| at).find(|&at| {
        let mut rest = stem.get(at..).unwrap_or_default().chars().skip(1);
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        match rest.next() {
            Some('v') => digit(rest.next()),
            first => digit(first),
        }
    });
    match at.and_then(|at| stem.split_at_checked(at)) {
        Some((name, version)) if !name.is_empty() => (name, version.strip_prefix('-')),
        _ => (stem, None),
    }
}
