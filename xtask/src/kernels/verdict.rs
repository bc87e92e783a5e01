//! What a guest told, judged: a verdict for every cell of the table.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{limits, ways};
use crate::guest::Arch;
use crate::guest::kernel::Kernel;

/// The judgement of one cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Passed,
    Failed(String),
    /// Cannot be there: the number of the limit.
    Limit(usize),
}

impl Verdict {
    /// Nothing to say, or what is wrong.
    fn from_problem(problem: Option<String>) -> Self {
        problem.map_or(Self::Passed, Self::Failed)
    }
}

/// (back end, row) -> verdict. The back end of `doctor` is "".
pub type Verdicts = BTreeMap<(String, String), Verdict>;

/// Rows of every back end besides the cases.
pub const LOADS: &str = "every program loads";
pub const WHOLE: &str = "nothing is left out of the programs";
pub const LEDGER: &str = "the ledger balances, nothing is lost";
/// Rows of the C cases begin so.
pub const WAYS: &str = "way:";
pub const DOCTOR: &str = "`tracer doctor` tells the truth";
/// The back end is "", too.
pub const ENDS: &str = "the guest comes to its end";

/// Judges all that a guest told.
pub fn judge(arch: Arch, kernel: &Kernel, told: &[Value]) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let end = told.last();
    let problem = match end.and_then(|line| line.get("error")).and_then(Value::as_str) {
        Some(error) => Some(error.to_owned()),
        None if end.is_none_or(|line| line.get("done").is_none()) => Some("it told no end".to_owned()),
        None => None,
    };
    verdicts.insert((String::new(), ENDS.to_owned()), Verdict::from_problem(problem));
    let doctor = told.iter().find(|line| line.get("doctor").is_some());
    let results: Vec<(&str, &Value)> = told
        .iter()
        .filter_map(|line| Some((line.get("backend")?.as_str()?, line.get("result")?)))
        .collect();
    let problem = match doctor {
        Some(line) => doctor_problem(&kernel.release, line, &results),
        None => Some("it said nothing".to_owned()),
    };
    verdicts.insert((String::new(), DOCTOR.to_owned()), Verdict::from_problem(problem));
    for (backend, result) in results {
        let mut put = |row: &str, verdict| verdicts.insert((backend.to_owned(), row.to_owned()), verdict);
        let limit = limits::find(backend, None, kernel.version(), arch);
        let limit_of = |row: &str| limits::find(backend, Some(row), kernel.version(), arch);
        if let Some(said) = result.get("refused").and_then(Value::as_str) {
            let verdict = limit.map_or_else(|| Verdict::Failed(said.to_owned()), Verdict::Limit);
            put(LOADS, verdict);
            continue;
        }
        if let Some(limit) = limit {
            put(
                LOADS,
                Verdict::Failed(format!("it starts: limit {limit} does not hold")),
            );
            continue;
        }
        put(LOADS, Verdict::Passed);
        put(WHOLE, with_limit(left_out(result), limit_of(WHOLE)));
        let cases = result
            .get("cases")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        let mut lacking = 0;
        for (case, problem) in &cases {
            let verdict = with_limit(problem.as_str().map(str::to_owned), limit_of(case));
            if let Verdict::Limit(limit) = verdict {
                lacking += limits::lacks(limit);
            }
            put(case, verdict);
        }
        put(
            LEDGER,
            with_limit(ledger_problem(result, lacking), limit_of(LEDGER)),
        );
        let told = result.get("ways").unwrap_or(&Value::Null);
        if let Some(error) = told.get("error").and_then(Value::as_str) {
            put(WAYS, Verdict::Failed(error.to_owned()));
        }
        for (case, row) in ways::rows(told) {
            let case = format!("{WAYS} {case}");
            let is_well = row.problems.is_empty() && row.unseen == 0;
            let problem =
                (!is_well).then(|| format!("{} messages unseen; {}", row.unseen, row.problems.join("; ")));
            let verdict = with_limit(problem, limit_of(&case));
            put(&case, verdict);
        }
    }
    verdicts
}

/// A limit that is written down must show, unless it does only sometimes.
fn with_limit(problem: Option<String>, limit: Option<usize>) -> Verdict {
    match (problem, limit) {
        (None, Some(limit)) if !limits::shows_sometimes(limit) => {
            Verdict::Failed(format!("it passes: limit {limit} does not hold"))
        }
        (Some(_), Some(limit)) => Verdict::Limit(limit),
        (problem, _) => Verdict::from_problem(problem),
    }
}

/// The finding of `tracer doctor`.
const TASKS: &str = "tasks of runtimes";

/// What the daemon said that its programs do without.
fn left_out(result: &Value) -> Option<String> {
    let lines = result.get("left_out").and_then(Value::as_array)?;
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn all_tasks_read(result: &Value) -> bool {
    !left_out(result).is_some_and(|lines| lines.contains("tasks are not read of"))
}

/// Holds what `tracer doctor` said against the kernel's type information and against what the daemon then did.
fn doctor_problem(release: &str, line: &Value, results: &[(&str, &Value)]) -> Option<String> {
    let report = line.get("doctor")?;
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    if text(report, "kernel") != release {
        return Some(format!("it says that this is {}", text(report, "kernel")));
    }
    let can_run = report.get("can_run").and_then(Value::as_bool)?;
    let exit = line.get("exit").and_then(Value::as_i64);
    if (exit == Some(0)) != can_run {
        return Some(format!("can_run is {can_run}, the exit code {exit:?}"));
    }
    let findings = || {
        report
            .get("findings")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    for finding in findings() {
        let name = text(finding, "name");
        let truth = line
            .pointer("/hooks")
            .and_then(|hooks| hooks.get(&name)?.as_bool());
        if truth.is_some_and(|truth| truth != (text(finding, "status") == "ok")) {
            return Some(format!("it is not so: {finding}"));
        }
    }
    let chosen = text(report, "backend");
    if can_run == chosen.is_empty() {
        return Some(format!("can_run is {can_run}, the back end {chosen:?}"));
    }
    results.iter().find_map(|(backend, result)| {
        let runs = result.get("refused").is_none();
        let said = result.get("refused").and_then(Value::as_str).unwrap_or_default();
        let line = format!("capture back end {backend}");
        let promised = findings().any(|f| text(f, "name") == line && text(f, "status") == "ok");
        if promised != runs {
            Some(format!(
                "of {backend} it says {promised}; whether it starts: {runs} {said}"
            ))
        } else if chosen == **backend && !runs {
            Some(format!("it chooses {backend}, which does not start: {said}"))
        } else if chosen == **backend
            && findings()
                .any(|f| text(f, "name") == TASKS && (text(f, "status") == "ok") != all_tasks_read(result))
        {
            Some(format!(
                "whether tasks of runtimes are read is not so: {:?}",
                left_out(result)
            ))
        } else if !can_run && runs {
            Some(format!("it says that nothing can run, but {backend} does"))
        } else {
            None
        }
    })
}

/// What is wrong with the ledger, or with the number of spans as a whole, of which limits explain that so many are `lacking`.
fn ledger_problem(result: &Value, lacking: u64) -> Option<String> {
    let Some(line) = result.get("ledger").and_then(Value::as_str) else {
        return Some("there is none".to_owned());
    };
    let field = |name: &str| -> u64 {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            .unwrap_or(0)
    };
    let number = |name: &str| result.get(name).and_then(Value::as_u64).unwrap_or(u64::MAX);
    let lost = [
        "kernel.ring_full",
        "kernel.map_full",
        "kernel.payload_fault",
        "kernel.missed_runs",
    ];
    let wrong = field("seen") != field("exported")
        || field("open") != 0
        || field("exported") != number("spans")
        || line.contains(" dropped.")
        || lost.iter().any(|name| field(name) != 0);
    if wrong {
        return Some(format!("{line}; {} spans", number("spans")));
    }
    let expected = number("expected").saturating_sub(lacking);
    if number("spans") != expected {
        return Some(format!("{} spans, expected {expected}", number("spans")));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kernel(release: &str) -> Kernel {
        Kernel {
            release: release.to_owned(),
            image: "vmlinuz".into(),
        }
    }

    fn doctor(release: &str, can_run: bool, tracepoint: bool) -> Value {
        let status = if tracepoint { "ok" } else { "missing" };
        json!({"exit": if can_run { 0 } else { 3 }, "hooks": {"tracepoint sock_send_length": tracepoint}, "doctor": {
            "kernel": release, "can_run": can_run, "backend": can_run.then_some("tracepoint"),
            "findings": [{"name": "tracepoint sock_send_length", "status": status},
                         {"name": "capture back end tracepoint", "status": status}]}})
    }

    fn good() -> Value {
        json!({"cases": {"a": null}, "spans": 10, "expected": 10, "ledger": "ledger: seen=10 exported=10 open=0 kernel.ring_full=0"})
    }

    fn check(release: &str, doctor: Value, result: Value, row: (&str, &str), expected: Option<Verdict>) {
        let told = [
            doctor,
            json!({"backend": "tracepoint", "result": result}),
            json!({"done": true}),
        ];
        let verdicts = judge(Arch::X86_64, &kernel(release), &told);
        let found = verdicts.get(&(row.0.to_owned(), row.1.to_owned()));
        match expected {
            Some(verdict) => assert_eq!(found, Some(&verdict), "{row:?}"),
            None => assert!(matches!(found, Some(Verdict::Failed(_))), "{row:?}: {found:?}"),
        }
    }

    #[test]
    fn cells_are_judged() {
        let (new, old) = ("6.12.1-cloud-amd64", "5.10.0-1-cloud-amd64");
        let yes = || Some(Verdict::Passed);
        let limit = || Some(Verdict::Limit(1));
        let refused = || json!({"refused": "no such tracepoint"});
        for row in [
            ("", DOCTOR),
            ("tracepoint", LOADS),
            ("tracepoint", "a"),
            ("tracepoint", LEDGER),
        ] {
            check(new, doctor(new, true, true), good(), row, yes());
        }
        check(
            old,
            doctor(old, false, false),
            refused(),
            ("tracepoint", LOADS),
            limit(),
        );
        check(old, doctor(old, false, false), refused(), ("", DOCTOR), yes());
        // Refused where it must run; runs where it cannot.
        check(
            new,
            doctor(new, true, true),
            refused(),
            ("tracepoint", LOADS),
            None,
        );
        check(new, doctor(new, true, true), refused(), ("", DOCTOR), None);
        check(
            old,
            doctor(old, false, false),
            good(),
            ("tracepoint", LOADS),
            None,
        );
        check(old, doctor(old, false, false), good(), ("", DOCTOR), None);
        // What the programs do without must be known, and told.
        let without = json!({"left_out": ["tasks are not read of Python: too large"], "cases": {}});
        check(
            new,
            doctor(new, true, true),
            without.clone(),
            ("tracepoint", WHOLE),
            None,
        );
        check(new, doctor(new, true, true), good(), ("tracepoint", WHOLE), yes());
        for (status, expected) in [("missing", yes()), ("ok", None)] {
            let mut told = doctor(new, true, true);
            let findings = told["doctor"]["findings"].as_array_mut().expect("findings");
            findings.push(json!({"name": TASKS, "status": status}));
            check(new, told, without.clone(), ("", DOCTOR), expected);
        }
        // A doctor that errs.
        check(new, doctor(old, true, true), good(), ("", DOCTOR), None);
        let mut wrong = doctor(new, true, true);
        wrong["hooks"]["tracepoint sock_send_length"] = false.into();
        check(new, wrong, good(), ("", DOCTOR), None);
    }

    #[test]
    fn a_guest_that_does_not_end_fails() {
        let new = "6.12.1-cloud-amd64";
        let kept = json!({"backend": "tracepoint", "result": good()});
        for (last, passes) in [
            (json!({"done": true}), true),
            (json!({"error": "it fell silent"}), false),
            (kept.clone(), false),
        ] {
            let told = [doctor(new, true, true), kept.clone(), last];
            let verdicts = judge(Arch::X86_64, &kernel(new), &told);
            let of = |backend: &str, row: &str| {
                verdicts.get(&(backend.to_owned(), row.to_owned())) == Some(&Verdict::Passed)
            };
            assert_eq!(of("", ENDS), passes, "{told:?}");
            assert!(of("tracepoint", LEDGER), "{told:?}");
        }
    }

    #[test]
    fn losses_are_seen() {
        for (key, value) in [
            ("ledger", json!("ledger: seen=11 exported=10 open=1")),
            (
                "ledger",
                json!("ledger: seen=11 exported=10 open=0 dropped.malformed=1"),
            ),
            (
                "ledger",
                json!("ledger: seen=10 exported=10 open=0 kernel.ring_full=1"),
            ),
            ("ledger", Value::Null),
            ("spans", json!(9)),
            ("expected", json!(12)),
            (
                "ledger",
                json!("ledger: seen=10 exported=10 open=0 kernel.missed_runs=1"),
            ),
        ] {
            let mut result = good();
            assert_eq!(ledger_problem(&result, 0), None);
            result[key] = value;
            assert!(ledger_problem(&result, 0).is_some(), "{result}");
        }
    }

    #[test]
    fn a_limit_that_shows_sometimes_may_be_absent() {
        for (release, problem, expected) in [
            ("7.3.4-cloud-amd64", json!("no span"), "limit"),
            ("7.3.4-cloud-amd64", Value::Null, "passed"),
            ("6.12.1-cloud-amd64", json!("no span"), "failed"),
        ] {
            let mut result = good();
            result["cases"] = json!({ "a": problem });
            let told = [json!({"backend": "syscall", "result": result})];
            let verdicts = judge(Arch::X86_64, &kernel(release), &told);
            let found = match &verdicts[&("syscall".to_owned(), "a".to_owned())] {
                Verdict::Passed => "passed",
                Verdict::Failed(_) => "failed",
                Verdict::Limit(_) => "limit",
            };
            assert_eq!(found, expected, "{release} {problem}");
        }
    }

    #[test]
    fn what_a_limit_lacks_is_lacking_exactly() {
        for (spans, problem, row, expected) in [
            (9, json!("no span"), "older", Some(Verdict::Limit(2))),
            (9, json!("no span"), LEDGER, Some(Verdict::Passed)),
            (8, json!("no span"), LEDGER, None),
            (10, json!("no span"), LEDGER, None),
            // The limit does not hold.
            (10, Value::Null, "older", None),
            (9, Value::Null, LEDGER, None),
        ] {
            let mut result = good();
            result["cases"] = json!({ "older": problem });
            result["spans"] = spans.into();
            result["ledger"] = format!("ledger: seen={spans} exported={spans} open=0").into();
            let told = [json!({"backend": "fentry", "result": result})];
            let verdicts = judge(Arch::X86_64, &kernel("6.12.1-cloud-amd64"), &told);
            let found = verdicts.get(&("fentry".to_owned(), row.to_owned()));
            match expected {
                Some(verdict) => assert_eq!(found, Some(&verdict), "{row}, {spans} spans"),
                None => assert!(
                    matches!(found, Some(Verdict::Failed(_))),
                    "{row}, {spans} spans: {found:?}"
                ),
            }
        }
    }
}
