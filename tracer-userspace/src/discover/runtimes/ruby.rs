//! Ruby: scripts, and the titles that Puma, Unicorn, Sidekiq and Passenger give themselves.

use super::{Naming, skip_options};
use crate::discover::procfs::Snapshot;
use crate::discover::words::{folder, is_generic, program, stem};
use std::path::Path;

const WITH_VALUE: &[&str] = &["-r", "-I", "-C", "-E", "--encoding"];
const EXTENSIONS: &[&str] = &[".rb", ".ru"];
/// Programs that serve the application in the current directory.
const SERVERS: &[&str] = &[
    "puma",
    "unicorn",
    "rackup",
    "thin",
    "rails",
    "falcon",
    "passenger",
    "sidekiq",
    "resque",
    "rake",
    "bundle",
    "spring",
];

pub fn named(process: &Snapshot) -> Naming {
    let Some((zero, tail)) = process.args.split_first() else {
        return Naming::Unknown;
    };
    if let Some(found) = title(process, zero, tail) {
        return Some(found).into();
    }
    match skip_options(tail, WITH_VALUE).first() {
        Some(script) if SERVERS.contains(&stem(script, EXTENSIONS)) => here(process)
            .or_else(|| Some(stem(script, EXTENSIONS).to_owned()))
            .into(),
        Some(script) => program(&process.absolute(Path::new(script)), EXTENSIONS).into(),
        None => Naming::Unknown,
    }
}

/// `puma 6.4.0 (tcp://…) [shop]`, `puma: cluster worker 0: 12 [shop]`, `sidekiq 7.2.0 shop [0 of 5 busy]`,
/// `unicorn master -c config.rb`, `Passenger RubyApp: /srv/shop (production)`.
fn title(process: &Snapshot, zero: &str, tail: &[String]) -> Option<String> {
    if !tail.is_empty() {
        return None;
    }
    if zero.starts_with("puma") {
        let tag = zero
            .rsplit_once('[')
            .and_then(|(_, tag)| tag.trim_end().strip_suffix(']'));
        return tag
            .filter(|t| !t.is_empty() && !is_generic(t))
            .map(str::to_owned)
            .or_else(|| here(process))
            .or_else(|| Some("puma".to_owned()));
    }
    if let Some(rest) = zero.strip_prefix("sidekiq ") {
        return rest
            .split(' ')
            .nth(1)
            .filter(|w| !w.starts_with('['))
            .map(str::to_owned)
            .or_else(|| here(process));
    }
    if let Some(rest) = zero.strip_prefix("Passenger RubyApp: ") {
        return folder(Path::new(rest.split(' ').next()?));
    }
    if zero.starts_with("unicorn ") {
        return here(process).or_else(|| Some("unicorn".to_owned()));
    }
    None
}

fn here(process: &Snapshot) -> Option<String> {
    process.cwd.as_deref().and_then(folder)
}
