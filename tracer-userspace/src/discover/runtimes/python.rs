//! Python: scripts, modules, and the servers that load an application by name.

use super::{Naming, option, skip_options};
use crate::discover::procfs::Snapshot;
use crate::discover::words::{folder, is_generic, program, stem};
use std::path::Path;

/// Options of the interpreter that take a value.
const WITH_VALUE: &[&str] = &["-W", "-X", "--check-hash-based-pycs"];
const EXTENSIONS: &[&str] = &[".py", ".pyc", ".pyz", ".pex"];
/// Programs that serve the application that their first positional argument names.
const SERVERS: &[&str] = &[
    "gunicorn",
    "uvicorn",
    "hypercorn",
    "daphne",
    "granian",
    "waitress-serve",
    "waitress",
];

pub fn named(process: &Snapshot) -> Naming {
    let args = process.args.as_slice();
    let Some((zero, tail)) = args.split_first() else {
        return Naming::Unknown;
    };
    if let Some(title) = title(zero, tail) {
        return application(process, title).into();
    }
    if stem(zero, &[]).starts_with("uwsgi") {
        return uwsgi(process, tail).into();
    }
    if args
        .iter()
        .any(|a| a == "--multiprocessing-fork" || a.starts_with("from multiprocessing."))
    {
        return Naming::Parent;
    }
    let mut rest = tail;
    while let Some((first, tail)) = rest.split_first() {
        if WITH_VALUE.contains(&first.as_str()) {
            rest = tail.get(1..).unwrap_or_default();
        } else if first.starts_with("--") || !first.starts_with('-') || first == "-" {
            break;
        } else if let Some(at) = first.find(['c', 'm', 'W', 'X']) {
            // Short options run together (`-um http.server`); one that takes a value ends the cluster.
            let attached = first.get(at.saturating_add(1)..).unwrap_or_default();
            return match first.get(at..).and_then(|s| s.chars().next()) {
                Some('m') if attached.is_empty() => match tail.split_first() {
                    Some((module, args)) => run_module(process, module, args),
                    None => Naming::Unknown,
                },
                Some('m') => run_module(process, attached, tail),
                Some('c') => Naming::Unknown,
                _ => {
                    rest = tail;
                    continue;
                }
            };
        } else {
            rest = tail;
        }
    }
    match skip_options(rest, WITH_VALUE).split_first() {
        Some((script, args)) => run_script(process, script, args),
        None => Naming::Unknown,
    }
}

/// `setproctitle` forms: `gunicorn: worker [shop.wsgi:application]`, `[celeryd: shop@host:MainProcess]`.
fn title<'a>(zero: &'a str, tail: &[String]) -> Option<&'a str> {
    if !tail.is_empty() {
        return None;
    }
    if let Some(rest) = zero.strip_prefix("gunicorn: ") {
        return rest.split_once('[')?.1.strip_suffix(']');
    }
    let celery = zero.strip_prefix("[celeryd: ")?;
    celery.split(['@', ':', ']']).next()
}

fn run_script(process: &Snapshot, script: &str, args: &[String]) -> Naming {
    let base = stem(script, EXTENSIONS);
    if let Some(naming) = runner(process, base, args) {
        return naming;
    }
    program(&process.absolute(Path::new(script)), EXTENSIONS).into()
}

fn run_module(process: &Snapshot, module: &str, args: &[String]) -> Naming {
    if let Some(naming) = runner(process, module.split('.').next().unwrap_or(module), args) {
        return naming;
    }
    let bare = module.strip_suffix(".__main__").unwrap_or(module);
    if is_generic(bare) {
        in_directory(process, bare).into()
    } else {
        Some(bare.to_owned()).into()
    }
}

/// Programs that run somebody else's application. `None`: `name` is none of them.
fn runner(process: &Snapshot, name: &str, args: &[String]) -> Option<Naming> {
    let found = match name {
        _ if SERVERS.contains(&name) => {
            match option(args, &["--name", "-n"]).filter(|_| name == "gunicorn") {
                Some(given) => Some(given.to_owned()),
                None => args
                    .iter()
                    .find(|a| a.contains(':') && !a.starts_with('-') && is_application(a))
                    .or_else(|| args.last().filter(|a| !a.starts_with('-') && is_application(a)))
                    .and_then(|a| application(process, a)),
            }
        }
        "celery" => option(args, &["--app", "-A"]).and_then(|a| application(process, a)),
        "flask" => option(args, &["--app", "-A"])
            .or_else(|| process.environ.get("FLASK_APP"))
            .map_or_else(|| in_directory(process, name), |a| application(process, a)),
        "fastapi" | "streamlit" => args.iter().find(|a| a.ends_with(".py")).map_or_else(
            || in_directory(process, name),
            |a| program(&process.absolute(Path::new(a)), EXTENSIONS),
        ),
        "manage" | "django-admin" => django(process).or_else(|| in_directory(process, name)),
        _ => return None,
    };
    Some(found.or_else(|| Some(name.to_owned())).into())
}

/// `module.path:variable`, not a bind address or a URL.
fn is_application(arg: &str) -> bool {
    let (module, variable) = arg.split_once(':').unwrap_or((arg, ""));
    let variable = variable.split('(').next().unwrap_or_default();
    let word = |text: &str, extra: &[char]| {
        text.chars()
            .all(|c| c.is_alphanumeric() || c == '_' || extra.contains(&c))
            && text.chars().any(|c| c.is_alphabetic())
    };
    word(module, &['.', '/', '-']) && (variable.is_empty() || word(variable, &['.']))
}

/// `shop.wsgi:application` is `shop`; `app:app` is the folder's name.
fn application(process: &Snapshot, target: &str) -> Option<String> {
    let module = target.split(':').next().unwrap_or(target);
    let module = module.strip_suffix(".py").unwrap_or(module);
    let mut parts: Vec<&str> = module.split(['.', '/']).filter(|p| !p.is_empty()).collect();
    while parts.last().is_some_and(|last| is_generic(last)) {
        parts.pop();
    }
    if !parts.is_empty() {
        return Some(parts.join("."));
    }
    in_directory(process, module.rsplit('.').next().unwrap_or(module))
}

fn in_directory(process: &Snapshot, otherwise: &str) -> Option<String> {
    process
        .cwd
        .as_deref()
        .and_then(folder)
        .or_else(|| Some(otherwise.to_owned()))
}

fn django(process: &Snapshot) -> Option<String> {
    let settings = process.environ.get("DJANGO_SETTINGS_MODULE")?;
    let name = settings
        .split('.')
        .next()
        .filter(|n| *n != "settings" && !is_generic(n))?;
    Some(name.to_owned())
}

fn uwsgi(process: &Snapshot, args: &[String]) -> Option<String> {
    if let Some(target) = option(args, &["--module", "--wsgi", "-w"]) {
        return application(process, target);
    }
    let file = option(args, &["--wsgi-file", "--file", "--ini", "--yaml"])
        .or_else(|| args.iter().map(String::as_str).find(|a| a.ends_with(".ini")));
    match file {
        Some(file) => program(
            &process.absolute(Path::new(file)),
            &[".py", ".ini", ".yaml", ".yml", ".wsgi"],
        ),
        None => Some("uwsgi".to_owned()),
    }
}
