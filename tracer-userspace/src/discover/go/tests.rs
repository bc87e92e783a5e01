//! The offsets against what Go itself reports: goroutines that stay on their thread in a system call print their ids and
//! their thread pointers; the same ids must stand where the table says.

use super::*;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const MAIN: &str = r#"package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"
)

func park(lines chan string) {
	runtime.LockOSThread()
	stack := make([]byte, 4096)
	stack = stack[:runtime.Stack(stack, false)]
	text := string(stack)
	id := strings.Fields(text)[1]
	parent := strings.TrimSpace(text[strings.LastIndex(text, "in goroutine ")+13:])
	parent = strings.Fields(parent)[0]
	var base uint64
	// arch_prctl(ARCH_GET_FS)
	syscall.RawSyscall(syscall.SYS_ARCH_PRCTL, 0x1003, uintptr(unsafe.Pointer(&base)), 0)
	lines <- fmt.Sprintf("%d %s %s", base, id, parent)
	var b [1]byte
	syscall.Read(0, b[:])
}

func main() {
	lines := make(chan string)
	for i := 0; i < 3; i++ {
		go func() {
			go park(lines)
		}()
	}
	for i := 0; i < 3; i++ {
		fmt.Println(<-lines)
	}
	fmt.Println("end")
	select {}
	os.Exit(0)
}
"#;

fn build(directory: &Path, name: &str, flags: &[&str]) -> PathBuf {
    let binary = directory.join(name);
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .args(flags)
        .arg(".")
        .current_dir(directory)
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .status()
        .expect("go runs");
    assert!(status.success(), "go build {flags:?}");
    binary
}

fn check(binary: &Path) -> GoBinary {
    let elf = Elf::open(File::open(binary).unwrap()).expect("ELF");
    let go = GoBinary::read(&elf).expect("a Go program");
    let offsets = match &go.tasks {
        Ok(entry) => entry.go,
        Err(why) => panic!("{why}: verify it and add a row"),
    };
    let mut child = Command::new(binary)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let memory = File::open(format!("/proc/{}/mem", child.id())).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    let mut checked = 0;
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|l| l != "end")
    {
        let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
        let [base, goid, parent] = numbers[..] else {
            panic!("{line}")
        };
        let slot = base.wrapping_add_signed(i64::from(offsets.g_tls));
        // Between the line and the system call the thread may run its scheduler for a moment, whose goroutine has id 0.
        let found = (0..2_000).map(|_| {
            (
                word(slot),
                std::thread::sleep(std::time::Duration::from_millis(5)),
            )
                .0
        });
        let g = found
            .into_iter()
            .find(|&g| word(g + u64::from(offsets.goid)) == goid);
        let g = g.unwrap_or_else(|| panic!("{}: goroutine {goid} is not where the table says", go.version));
        assert_eq!(
            word(g + u64::from(offsets.parent_goid)),
            parent,
            "parentGoid, {}",
            go.version
        );
        // The stack of a goroutine holds its frames: the bounds are addresses, the upper one above the lower one.
        let (low, high) = (word(g), word(g + u64::from(offsets.stack_hi)));
        assert!(low < high && high - low <= 1 << 20, "stack {low:x}..{high:x}");
        checked += 1;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(checked, 3);
    go
}

/// Why this machine's Go can't be used: the table begins with Go 1.21, the first whose goroutines know their parents.
fn no_recent_go() -> Option<String> {
    let Ok(output) = Command::new("go")
        .args(["env", "GOVERSION"])
        .env("GOTOOLCHAIN", "local")
        .output()
    else {
        return Some("needs Go".to_owned());
    };
    let version = String::from_utf8_lossy(&output.stdout);
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    });
    let old = minor.is_some_and(|minor| minor < 21);
    old.then(|| format!("needs Go 1.21, this is {}", version.trim()))
}

/// Says so, and lists it where `cargo xtask test` reads what did not run.
fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("TRACER_TEST_SKIPS") {
        let file = File::options().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{test}: {reason}"))
            .expect("record the skip");
    }
}

#[test]
fn goroutine_ids_stand_where_the_table_says() {
    if let Some(reason) = no_recent_go() {
        skip("goroutine_ids_stand_where_the_table_says", &reason);
        return;
    }
    let directory = std::env::temp_dir().join(format!("tracer-go-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(
        directory.join("go.mod"),
        "module example.com/acme/shop\n\ngo 1.21\n",
    )
    .unwrap();
    std::fs::write(directory.join("main.go"), MAIN).unwrap();
    let plain = check(&build(&directory, "plain", &[]));
    assert!(plain.version.starts_with("go1."), "{}", plain.version);
    assert_eq!(plain.main_package.as_deref(), Some("example.com/acme/shop"));
    let stripped = check(&build(&directory, "stripped", &["-trimpath", "-ldflags=-s -w"]));
    // The place of the waiting goroutines is told by a symbol.
    assert!(plain.semtable.is_some() && stripped.semtable.is_none());
    assert_eq!(
        stripped,
        GoBinary {
            semtable: None,
            ..plain
        }
    );
    check(&build(
        &directory,
        "pie",
        &["-buildmode=pie", "-trimpath", "-ldflags=-s -w"],
    ));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn broken_build_information_is_no_panic() {
    let mut blob = MAGIC.to_vec();
    blob.extend([8, 2]);
    blob.resize(32, 0);
    blob.extend([8]);
    blob.extend(b"go1.26.8");
    blob.extend([0]);
    assert_eq!(parse(&blob).unwrap().version, "go1.26.8");
    for cut in 0..blob.len() {
        let _ = parse(blob.get(..cut).unwrap());
        let mut wild = blob.clone();
        wild[cut] = 0xff;
        let _ = parse(&wild);
    }
}
