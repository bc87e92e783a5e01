//! How right the joint inference is on public traces whose parents are known: `cargo xtask accuracy --offline DIR`.
//!
//! Reads every `*.jsonl`, `*.jsonl.zst` and `*.jsonl.xz` (by the program `xz`) of the directories that it is given: one span a
//! line, see [`spans`]. Prints the share of traces whose parents are all right, and that of the questions which the published figures are about
//! ([`spans::Question::is_published`]) next to those.

mod score;
mod spans;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use score::Score;

/// Whole traces in per cent by the algorithms that were published with the sets: first in first out, and the best.
const PUBLISHED: &[(&str, f64, f64)] = &[
    ("hotel-25", 92.3, 99.8),
    ("hotel-100", 57.6, 98.1),
    ("hotel-150", 50.2, 98.4),
    ("media-25", 91.6, 96.1),
    ("node-25", 100.0, 97.7),
    ("node-150", 100.0, 97.1),
];

fn read(path: &Path) -> Result<String> {
    let name = path.to_string_lossy();
    let bytes = if name.ends_with(".zst") {
        zstd::decode_all(fs::File::open(path)?)?
    } else if name.ends_with(".xz") {
        let output = Command::new("xz").arg("-dc").arg(path).output().context("xz")?;
        ensure!(output.status.success(), "xz: {}", output.status);
        output.stdout
    } else {
        fs::read(path)?
    };
    Ok(String::from_utf8(bytes)?)
}

/// The sets of a directory, by name.
fn sets(directory: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut sets = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some((set, rest)) = name.split_once(".jsonl")
            && ["", ".zst", ".xz"].contains(&rest)
        {
            sets.push((set.to_owned(), path.clone()));
        }
    }
    sets.sort();
    Ok(sets)
}

fn print(set: &str, score: &Score) {
    let published = PUBLISHED.iter().find(|(name, ..)| *name == set);
    let published = published.map_or("- | -".to_owned(), |(_, fifo, best)| {
        format!("{fifo:.1} | {best:.1}")
    });
    println!(
        "| {set} | {} | {} | {:.2} | {:.1} | {:.1} | {:.1} | {published} |",
        score.traces,
        score.calls,
        100.0 * score.calls_right as f64 / score.calls as f64,
        score.share(score.traces_right),
        score.share(score.published_right),
        score.share(score.fifo_right),
    );
}

fn main() -> Result<()> {
    let directories: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if directories.is_empty() {
        bail!("usage: offline DIR...");
    }
    println!(
        "| set | traces | calls | calls right % | whole traces % | of the published questions % | by first in, first out % | published: first in, first out % | best % |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut all = Score::default();
    for directory in directories {
        for (set, path) in sets(&directory)? {
            let score = score::score(&spans::parse(&read(&path)?)?);
            print(&set, &score);
            all.add(&score);
        }
    }
    println!("\n| confidence told | calls | right % |\n|---|---|---|");
    for (bucket, (right, count)) in &all.calibration {
        let share = 100.0 * *right as f64 / *count as f64;
        println!("| {} | {count} | {share:.2} |", score::bucket_name(*bucket));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Excerpts of the public sets, with floors a little below what is reached.
    #[test]
    fn excerpts_have_their_parents() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/spans");
        let floors = [("hotel-150", 99.0), ("media-25", 87.0), ("node-150", 100.0)];
        let sets = sets(&directory).unwrap();
        assert_eq!(sets.len(), floors.len());
        for ((set, path), (name, floor)) in sets.iter().zip(floors) {
            assert_eq!(set, name);
            let score = score::score(&spans::parse(&read(path).unwrap()).unwrap());
            assert!(score.traces >= 200, "{set}: {} traces", score.traces);
            let whole = score.share(score.traces_right);
            assert!(whole >= floor, "{set}: {whole:.1}% of traces, floor {floor}");
        }
    }
}
