//! Node.js, Bun and Deno: the package that the script belongs to, or the script.

use super::{Naming, Program, skip_options};
use crate::discover::procfs::{Snapshot, read_regular};
use crate::discover::words::program;
use std::path::Path;

/// Options of `node` that take their value as the next argument.
const WITH_VALUE: &[&str] = &[
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "--conditions",
    "--env-file",
    "--title",
    "--max-http-header-size",
    "--icu-data-dir",
    "--openssl-config",
    "--redirect-warnings",
];
const EXTENSIONS: &[&str] = &[".js", ".mjs", ".cjs", ".ts", ".mts", ".tsx"];
/// Folders searched upwards for `package.json`.
const LEVELS: usize = 5;
const MAX_PACKAGE: u64 = 256 * 1024;

pub fn named(process: &Snapshot) -> Naming {
    let Some((zero, tail)) = process.args.split_first() else {
        return Naming::Unknown;
    };
    if tail.is_empty() && zero.contains(' ') {
        // `process.title`: `PM2 v5: God Daemon`, `node /srv/shop/app.js`.
        let words: Vec<String> = zero.split(' ').map(str::to_owned).collect();
        return run(process, words.get(1..).unwrap_or_default());
    }
    if tail.is_empty() && !zero.ends_with("node") && !zero.contains('/') && zero != "nodejs" {
        return Some(zero.clone()).into();
    }
    run(process, tail)
}

/// `bun run server.ts`, `deno run --allow-net server.ts`.
pub fn alternative(process: &Snapshot) -> Naming {
    let tail = process.args.get(1..).unwrap_or_default();
    let rest = skip_options(tail, &[]);
    match rest.split_first() {
        Some((verb, more)) if matches!(verb.as_str(), "run" | "serve" | "start" | "x") => run(process, more),
        _ => run(process, rest),
    }
}

fn run(process: &Snapshot, args: &[String]) -> Naming {
    let Some(script) = skip_options(args, WITH_VALUE).first() else {
        return package(process, Path::new("")).into();
    };
    let path = process.absolute(Path::new(script));
    // A tool from node_modules (`next start`) serves the package in the current directory.
    let start = match script.contains("node_modules/") {
        true => process.absolute(Path::new("")),
        false => path.parent().map(Path::to_owned).unwrap_or_default(),
    };
    match package(process, &start) {
        Some(found) => found.into(),
        None => program(&path, EXTENSIONS).into(),
    }
}

impl From<Program> for Naming {
    fn from(program: Program) -> Self {
        Self::Program(program)
    }
}

/// Name and version of the nearest `package.json` that has a name.
fn package(process: &Snapshot, directory: &Path) -> Option<Program> {
    let directory = process.absolute(directory);
    directory.ancestors().take(LEVELS).find_map(|directory| {
        let text = read_regular(&process.reach(&directory.join("package.json")), MAX_PACKAGE)?;
        let json: serde_json::Value = serde_json::from_slice(&text).ok()?;
        let full = json.get("name")?.as_str()?;
        // `@acme/shop` is `shop`.
        let name = full.rsplit('/').next().filter(|n| !n.is_empty())?;
        let version = json.get("version").and_then(|v| v.as_str()).map(str::to_owned);
        Some(Program {
            name: name.to_owned(),
            version,
        })
    })
}
