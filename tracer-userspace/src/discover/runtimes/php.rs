//! PHP: pools of PHP-FPM, scripts, the built-in server.

use super::{Naming, option, skip_options};
use crate::discover::procfs::Snapshot;
use crate::discover::words::{folder, program, stem};
use std::path::Path;

const WITH_VALUE: &[&str] = &["-c", "-d", "-t", "-S", "-z"];

pub fn named(process: &Snapshot) -> Naming {
    let Some((zero, tail)) = process.args.split_first() else {
        return Naming::Unknown;
    };
    if let Some(title) = zero.strip_prefix("php-fpm: ") {
        // `pool shop`; the pool that every installation has tells nothing.
        let pool = title
            .strip_prefix("pool ")
            .map(str::trim)
            .filter(|p| *p != "www" && !p.is_empty());
        return Some(pool.unwrap_or("php-fpm").to_owned()).into();
    }
    if stem(zero, &[]).starts_with("php-fpm") {
        return Some("php-fpm".to_owned()).into();
    }
    let script = match option(tail, &["-f"]) {
        Some(file) => Some(file),
        None => skip_options(tail, WITH_VALUE).first().map(String::as_str),
    };
    match script {
        Some("artisan" | "bin/console" | "yii" | "spark") => here(process).into(),
        Some(script) => program(&process.absolute(Path::new(script)), &[".php", ".phar"]).into(),
        None => match option(tail, &["-t"]) {
            Some(root) => folder(&process.absolute(Path::new(root))).into(),
            None if tail.iter().any(|a| a.starts_with("-S")) => here(process).into(),
            None => Naming::Unknown,
        },
    }
}

fn here(process: &Snapshot) -> Option<String> {
    process.cwd.as_deref().and_then(folder)
}
