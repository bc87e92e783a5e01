//! Who puts off work in Redis, and who does it later (`apps/jobs`).

use super::*;

/// Flask (threaded) that puts off jobs in Redis: `/celery/<n>`, `/rq/<n>`, `/list/<n>`.
#[must_use]
pub fn shop(setup: Setup) -> App {
    let port = free_port();
    let mut command = setup.command(python(), port);
    command
        .args(["-m", "gunicorn", "--bind", &format!("0.0.0.0:{port}"), "--chdir"])
        .arg(source("jobs"))
        .args([
            "--worker-class",
            "gthread",
            "--threads",
            "8",
            "--keep-alive",
            "60",
        ])
        .arg("shop:app");
    let program = Program::spawn("shop", TempDir::new("shop"), &mut command)
        .listening(port)
        .until("has booted its worker", |log| log.contains("Booting worker"));
    setup.app(program, port)
}

/// A worker of [`shop`]'s jobs: `python -m` those arguments. It prints `done <n>` when a job is done.
///
/// # Panics
/// If it does not print `ready`.
#[must_use]
pub fn worker(setup: Setup, arguments: &[&str], ready: &str) -> App {
    let mut command = setup.command(python(), 0);
    command
        .current_dir(source("jobs"))
        .arg("-m")
        .args(arguments)
        .env("PYTHONPATH", source("jobs"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let program = Program::spawn("worker", TempDir::new("worker"), &mut command)
        .until("is ready", |log| log.contains(ready));
    setup.app(program, 0)
}
