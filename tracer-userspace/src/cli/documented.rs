//! What the documents tell people to copy works: every `tracer …` line is a valid command line, every block of YAML a valid file.

use super::parse_from;

const DOCUMENTS: [(&str, &str); 5] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/backends.md", include_str!("../../../docs/backends.md")),
    ("docs/kernels.md", include_str!("../../../docs/kernels.md")),
    ("docs/metrics.md", include_str!("../../../docs/metrics.md")),
    ("docs/sampling.md", include_str!("../../../docs/sampling.md")),
];

/// The text of the fenced blocks of a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let parts = document.split(fence.as_str()).skip(1);
    parts
        .filter_map(|part| Some(part.split_once("\n```")?.0))
        .collect()
}

/// Parses a line of shell that runs the tracer; `None` if it runs something else.
fn run(line: &str) -> Option<Result<(), String>> {
    let words = line.split(" #").next().unwrap_or_default();
    let words = words.split_whitespace().map(|word| word.replace(['"', '\''], ""));
    let mut words = words.skip_while(|word| word == "sudo" || word == "-E").peekable();
    let mut variables = Vec::new();
    while let Some((name, value)) = words.peek().and_then(|word| word.split_once('=')) {
        variables.push((name.to_owned(), value.to_owned()));
        words.next();
    }
    if words.peek()? != "tracer" {
        return None;
    }
    let arguments: Vec<String> = words.take_while(|word| word != ">" && word != "|").collect();
    let of = |name: &str| {
        variables
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
    };
    let parsed = parse_from(arguments, &of);
    Some(
        parsed
            .map(drop)
            .or_else(|exit| if exit.code == 0 { Ok(()) } else { Err(exit.message) }),
    )
}

#[test]
fn command_lines() {
    let mut found = 0;
    for (name, document) in DOCUMENTS {
        for block in blocks(document, "sh") {
            for line in block.replace("\\\n", " ").lines() {
                if let Some(Err(why)) = run(line) {
                    panic!("{name}: {line}: {why}");
                }
                found += usize::from(run(line).is_some());
            }
        }
    }
    assert!(found > 20, "{found} lines");
    assert!(run("sudo A=b tracer --no-such-flag").is_some_and(|parsed| parsed.is_err()));
}

#[test]
fn configurations() {
    let mut found = 0;
    for (name, document) in DOCUMENTS {
        for block in blocks(document, "yaml") {
            // Other programs have files in YAML, too.
            if block.starts_with("scrape_configs:") {
                continue;
            }
            let path = std::env::temp_dir().join(format!("tracer-documented-{}.yaml", std::process::id()));
            std::fs::write(&path, block).expect("a file");
            let parsed = parse_from(["tracer", "--config", &path.display().to_string()], &|_| None);
            let _ = std::fs::remove_file(&path);
            assert!(parsed.is_ok(), "{name}: {block}\n{parsed:?}");
            found += 1;
        }
    }
    assert!(found > 2, "{found} blocks");
}
