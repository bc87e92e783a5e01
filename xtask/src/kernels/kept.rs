//! What guests told, kept in a folder for each kernel: to be read by whoever wants to know why a cell fails, and to be judged again when
//! a limit is written down. A run with some back ends leaves what the others told.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

/// What `tracer doctor` said, and the truth.
const DOCTOR: &str = "doctor.json";
/// The last line of the guest.
const END: &str = "end.json";
/// The revision of the programs in the image.
const REVISION: &str = "revision";

/// Forgets what is to be told again.
pub fn begin(logs: &Path, backends: &[String], revision: &str) -> anyhow::Result<()> {
    fs::create_dir_all(logs)?;
    let results = backends.iter().map(|backend| file_of(backend));
    for name in [DOCTOR.to_owned(), END.to_owned()].into_iter().chain(results) {
        match fs::remove_file(logs.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context(name),
            _ => {}
        }
    }
    Ok(fs::write(logs.join(REVISION), revision)?)
}

/// Keeps a line of the guest; what the daemon printed, with the verifier's log if a program was refused, as text too.
pub fn keep(logs: &Path, line: &Value) -> anyhow::Result<()> {
    let write = |name: &str, value: &Value| fs::write(logs.join(name), format!("{value:#}\n"));
    if line.get("doctor").is_some() {
        write(DOCTOR, line)?;
    }
    if line.get("done").is_some() || line.get("error").is_some() {
        write(END, line)?;
    }
    if let (Some(backend), Some(result)) = (line.get("backend").and_then(Value::as_str), line.get("result")) {
        let said = result.get("refused").or(result.get("said"));
        let said = said.and_then(Value::as_str).unwrap_or_default();
        fs::write(logs.join(format!("{backend}.log")), said)?;
        write(&file_of(backend), result)?;
    }
    Ok(())
}

fn file_of(backend: &str) -> String {
    format!("{backend}.json")
}

/// What was told last, in the order of the guest. What a guest did not come to is absent.
pub fn told(logs: &Path, backends: &[String]) -> anyhow::Result<Vec<Value>> {
    let read = |name: &str| -> anyhow::Result<Option<Value>> {
        match fs::read_to_string(logs.join(name)) {
            Ok(text) => Ok(Some(
                serde_json::from_str(&text).with_context(|| name.to_owned())?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(name.to_owned()),
        }
    };
    let mut told: Vec<Value> = read(DOCTOR)?.into_iter().collect();
    for backend in backends {
        let result = read(&file_of(backend))?;
        told.extend(result.map(|result| json!({ "backend": backend, "result": result })));
    }
    told.extend(read(END)?);
    anyhow::ensure!(
        !told.is_empty(),
        "no guest has told anything in {}",
        logs.display()
    );
    Ok(told)
}

/// The revisions that were in those guests.
pub fn revisions(folders: impl Iterator<Item = PathBuf>) -> anyhow::Result<String> {
    let mut all = BTreeSet::new();
    for folder in folders {
        let path = folder.join(REVISION);
        all.insert(fs::read_to_string(&path).with_context(|| path.display().to_string())?);
    }
    Ok(all.into_iter().collect::<Vec<_>>().join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_kept_by_back_end() {
        let logs = std::env::temp_dir().join(format!("xtask-kept-{}", std::process::id()));
        let doctor = json!({"doctor": {}, "exit": 0});
        let result =
            |backend: &str, spans: u64| json!({"backend": backend, "result": {"spans": spans, "said": "x"}});
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|&name| name.to_owned()).collect() };
        let both = names(&["fentry", "syscall"]);
        let run = |backends: &[&str], lines: &[Value]| {
            begin(&logs, &names(backends), "abc").expect("a folder");
            for line in lines {
                keep(&logs, line).expect("kept");
            }
        };
        let end = json!({"done": true});
        run(
            &["fentry", "syscall"],
            &[
                doctor.clone(),
                result("fentry", 1),
                result("syscall", 2),
                end.clone(),
            ],
        );
        // The second run, of one back end, comes to no end.
        let silent = json!({"error": "it fell silent"});
        run(
            &["syscall"],
            &[doctor.clone(), result("syscall", 3), silent.clone()],
        );
        let expected = [doctor.clone(), result("fentry", 1), result("syscall", 3), silent];
        assert_eq!(told(&logs, &both).expect("told"), expected);
        run(&["syscall"], std::slice::from_ref(&doctor));
        assert_eq!(told(&logs, &both).expect("told"), [doctor, result("fentry", 1)]);
        let twice = [logs.clone(), logs.clone()].into_iter();
        assert_eq!(revisions(twice).expect("a revision"), "abc");
        fs::remove_dir_all(&logs).expect("remove the folder");
        told(&logs, &both).expect_err("nothing was told");
    }
}
