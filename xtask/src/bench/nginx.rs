//! The traced application: nginx with one worker and one file of 1 KiB.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Path of the file that the clients ask for.
pub const FILE: &str = "/file";

/// A running nginx.
pub struct Nginx {
    child: Child,
    /// Loopback port.
    pub port: u16,
}

impl Nginx {
    /// Writes the configuration and the file under `dir` and starts `program`.
    pub fn start(program: &Path, dir: &Path, port: u16) -> anyhow::Result<Self> {
        fs::create_dir_all(dir.join("html"))?;
        fs::write(dir.join("html").join("file"), [b'x'; 1024])?;
        fs::write(dir.join("nginx.conf"), configuration(port))?;
        let log = fs::File::create(dir.join("nginx.log"))?;
        let child = Command::new(program)
            .arg("-p")
            .arg(dir)
            .args(["-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting nginx")?;
        let nginx = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = nginx.requests() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(dir.join("nginx.log")).unwrap_or_default();
                bail!("nginx does not answer: {error}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// Its process: there is no master beside it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Requests served so far, by its own account; asking is a request too.
    pub fn requests(&self) -> anyhow::Result<u64> {
        let status = get(self.port, "/status")?;
        // " accepts handled requests\n 31 31 205 \n"
        status
            .lines()
            .skip_while(|line| !line.contains("handled requests"))
            .nth(1)
            .and_then(|line| line.split_whitespace().nth(2)?.parse().ok())
            .with_context(|| format!("not a status page: {status}"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One GET on a connection of its own; the body.
pub fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("GET {path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

fn configuration(port: u16) -> String {
    format!(
        "daemon off;
master_process off;
user root;
error_log stderr warn;
pid nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path tmp_body;
    proxy_temp_path tmp_proxy;
    fastcgi_temp_path tmp_fastcgi;
    uwsgi_temp_path tmp_uwsgi;
    scgi_temp_path tmp_scgi;
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port};
        root html;
        location = /status {{ stub_status; }}
    }}
}}
"
    )
}
