//! Captures as seeds.

use std::fs;
use std::path::Path;

use tracer_userspace::protocol::replay::{Capture, script};

/// Writes every capture of a folder into the corpus, from both ends.
pub fn write_all(captures: &Path, corpus: &Path) {
    fs::create_dir_all(corpus).expect("the corpus can be made");
    for entry in fs::read_dir(captures).expect("the captures can be listed") {
        let path = entry.expect("the captures can be listed").path();
        if path.extension().is_some_and(|e| e == "cap") {
            write(&path, corpus);
        }
    }
}

fn write(path: &Path, corpus: &Path) {
    let text = fs::read_to_string(path).expect("a capture can be read");
    let capture = Capture::parse(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let name = path.file_stem().unwrap_or_default().display();
    for how in 0..2u8 {
        let mut script = vec![how];
        script.extend(script::encode(&capture.steps));
        fs::write(corpus.join(format!("{name}-{how}")), script).expect("a seed can be written");
    }
}
