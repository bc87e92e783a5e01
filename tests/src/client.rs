//! An HTTP/1.1 client that keeps its connection and writes down what it did: the truth that spans are held against.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One request as the client saw it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Method.
    pub method: String,
    /// Path with query.
    pub target: String,
    /// Status of the response.
    pub status: u16,
    /// Bytes of the request's body.
    pub sent: u64,
    /// Bytes of the response's body.
    pub received: u64,
    /// UNIX nanoseconds before the first byte was written.
    pub started: u64,
    /// UNIX nanoseconds after the last byte was read.
    pub ended: u64,
    /// The client's own port, 0 on Unix sockets.
    pub port: u16,
}

/// UNIX nanoseconds now.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One kept connection; made anew before a request if the server has announced to close it.
pub struct Client {
    stream: BufReader<Box<dyn Stream>>,
    port: u16,
    /// Where to connect again when the server has closed the connection after its response.
    address: Option<SocketAddr>,
    closed: bool,
}

/// Longest wait for a byte; the tests' slowest answer takes a few seconds.
const TIMEOUT: Option<Duration> = Some(Duration::from_secs(30));

impl Client {
    /// Connects to a port of 127.0.0.1.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn connect(port: u16) -> Self {
        Self::to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Connects to an address.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(TIMEOUT).expect("a read time-out");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        let port = stream.local_addr().map_or(0, |a| a.port());
        Self {
            stream: BufReader::new(Box::new(stream)),
            port,
            address: Some(address),
            closed: false,
        }
    }

    /// Connects to a Unix socket.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        stream.set_read_timeout(TIMEOUT).expect("a read time-out");
        Self {
            stream: BufReader::new(Box::new(stream)),
            port: 0,
            address: None,
            closed: false,
        }
    }

    /// GET without further headers.
    ///
    /// # Panics
    /// If there is no proper response.
    pub fn get(&mut self, target: &str) -> Record {
        self.request("GET", target, &[], &[])
    }

    /// POST of a body.
    ///
    /// # Panics
    /// If there is no proper response.
    pub fn post(&mut self, target: &str, body: &[u8]) -> Record {
        self.request("POST", target, &[], body)
    }

    /// Any request.
    ///
    /// # Panics
    /// If there is no proper response.
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Record {
        let mut head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: tracer-tests\r\n",
            self.host()
        );
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        if let Some(address) = self.address.filter(|_| self.closed) {
            *self = Self::to(address);
        }
        let started = now();
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send(&bytes);
        let (status, received) = self
            .response(method)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"));
        Record {
            method: method.to_owned(),
            target: target.to_owned(),
            status,
            sent: body.len() as u64,
            received,
            started,
            ended: now(),
            port: self.port,
        }
    }

    /// What belongs into the `Host` header.
    fn host(&self) -> String {
        self.address.map_or("localhost".to_owned(), |address| {
            format!("localhost:{}", address.port())
        })
    }

    /// Writes raw bytes.
    ///
    /// # Panics
    /// If the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("write to the server");
    }

    /// Reads that many bytes and forgets them.
    ///
    /// # Panics
    /// If the connection ends before.
    pub fn read(&mut self, bytes: u64) {
        self.body(bytes).expect("read from the server");
    }

    /// Reads a response's head and returns its lines.
    ///
    /// # Panics
    /// If the connection ends before.
    pub fn head(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().expect("a line of a head") {
                line if line.is_empty() => return lines,
                line => lines.push(line),
            }
        }
    }

    /// Reads one response: its status and the number of bytes in its body.
    ///
    /// # Errors
    /// If the connection breaks or the response is not HTTP/1.1.
    pub fn response(&mut self, method: &str) -> io::Result<(u16, u64)> {
        let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        loop {
            let line = self.line()?;
            let status: u16 = line
                .split(' ')
                .nth(1)
                .and_then(|code| code.parse().ok())
                .ok_or_else(|| malformed(&line))?;
            let mut length = None;
            let mut chunked = false;
            loop {
                let line = self.line()?.to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse::<u64>().ok();
                } else if let Some(value) = line.strip_prefix("transfer-encoding:") {
                    chunked = value.contains("chunked");
                } else if line.starts_with("connection:") && line.contains("close") {
                    self.closed = true;
                }
            }
            if status < 200 {
                continue;
            }
            let received = match (method, status, length) {
                ("HEAD", _, _) | (_, 204 | 304, _) => 0,
                _ if chunked => self.chunks()?,
                (_, _, Some(length)) => self.body(length)?,
                _ => io::copy(&mut self.stream, &mut io::sink())?,
            };
            return Ok((status, received));
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    fn body(&mut self, length: u64) -> io::Result<u64> {
        let read = io::copy(&mut (&mut self.stream).take(length), &mut io::sink())?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }

    fn chunks(&mut self) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or(""), 16)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line))?;
            self.body(size)?;
            self.line()?;
            if size == 0 {
                return Ok(total);
            }
            total += size;
        }
    }
}

/// Calls `request(client, n)` for every `n` of `numbers`, from `concurrency` threads with one kept connection each, and
/// returns all records.
///
/// # Panics
/// If one of the requests fails.
pub fn drive(
    port: u16,
    concurrency: usize,
    numbers: std::ops::Range<u64>,
    request: impl Fn(&mut Client, u64) -> Record + Sync,
) -> Vec<Record> {
    let numbers = Mutex::new(numbers);
    let next = || numbers.lock().expect("no thread panics with the lock").next();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..concurrency)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(port);
                    let mut records = Vec::new();
                    while let Some(n) = next() {
                        records.push(request(&mut client, n));
                    }
                    records
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client thread"))
            .collect()
    })
}
