use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::rotate::Rotating;
use crate::export::config::{Config, Queue};
use crate::export::fixtures::{self, EPOCH};
use crate::export::{Clock, Pipeline};
use crate::telemetry::Ledger;

/// A folder that goes away with its value.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-file-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn requests(path: &Path) -> Vec<ExportTraceServiceRequest> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn every_line_is_a_request() {
    let folder = Folder::new("lines");
    let path = folder.0.join("deep/spans.jsonl");
    let mut config = Config {
        queue: Queue {
            batch_spans: 10,
            batch_age: Duration::from_millis(5),
            ..Queue::default()
        },
        ..Config::default()
    };
    config.choose(&[format!("file={}", path.display())]).unwrap();
    // Twice: the second run goes on where the first one ended.
    for run in 1..=2 {
        let ledger = Arc::new(Ledger::default());
        let pipeline = Pipeline::start(&config, Clock::with_offset(EPOCH), Arc::clone(&ledger)).unwrap();
        ledger.seen(25);
        pipeline.send(fixtures::spans(&fixtures::service("shop"), 25));
        pipeline.shutdown(Duration::from_secs(60));
        let snapshot = ledger.snapshot();
        assert_eq!((snapshot.exported, snapshot.open()), (25, 0), "{snapshot}");
        let books = snapshot.exporters["file"];
        assert_eq!((books.delivered, books.failed), (25, 0));
        let requests = requests(&path);
        assert_eq!(requests.len(), 3 * run);
        let spans: Vec<_> = requests
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| &scope.spans)
            .collect();
        assert_eq!(spans.len(), 25 * run);
        for (index, span) in spans.iter().enumerate() {
            let number = (index % 25 + 1) as u64;
            assert_eq!(span.span_id, number.to_be_bytes(), "in order");
            assert_eq!(span.name, "GET /cart/{id}");
            assert!(span.attributes.iter().any(|a| a.key == "http.route"));
        }
    }
}

#[test]
fn full_files_are_numbered_and_the_oldest_goes() {
    let folder = Folder::new("rotate");
    let path = folder.0.join("s");
    // (files, lines of 10 bytes in files of 25) -> what is left, the newest file first
    for (max_files, lines, expected) in [
        (3, 2, vec!["01"]),
        (3, 3, vec!["2", "01"]),
        (3, 9, vec!["8", "67", "45"]),
        (2, 6, vec!["45", "23"]),
        (1, 5, vec!["4"]),
        (0, 5, vec!["4"]),
    ] {
        let _ = std::fs::remove_dir_all(&folder.0);
        let mut file = Rotating::open(&path, 25, max_files).unwrap();
        for line in 0..lines {
            file.append(format!("line-no {line}\n").as_bytes()).unwrap();
        }
        let names: Vec<_> = (0..expected.len())
            .map(|n| if n == 0 { "s".to_owned() } else { format!("s.{n}") })
            .collect();
        assert_eq!(folder.names(), names);
        let left: Vec<_> = names
            .iter()
            .map(|name| {
                let text = std::fs::read_to_string(folder.0.join(name)).unwrap();
                text.lines()
                    .map(|line| line.replace("line-no ", ""))
                    .collect::<String>()
            })
            .collect();
        assert_eq!(left, expected, "{max_files} files, {lines} lines");
    }
}

#[test]
fn what_a_crash_cut_off_stays_alone_and_links_are_not_followed() {
    let folder = Folder::new("crash");
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = folder.0.join("s");
    std::fs::write(&path, "whole\ncut o").unwrap();
    Rotating::open(&path, 100, 2).unwrap().append(b"next\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "whole\ncut o\nnext\n");
    let link = folder.0.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = Rotating::open(&link, 100, 2).map(drop).unwrap_err();
    assert!(format!("{error:#}").contains("cannot write"), "{error:#}");
}
