//! The process whose messages are measured: a child, because the tracer does not trace itself.

use std::{
    io::{self, BufRead as _, BufReader, IoSlice, IoSliceMut, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _},
        unix::net::UnixStream,
    },
    process::{ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::Context as _;
use tracer_userspace::model::ConnId;

/// What moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Messages of so many bytes over TCP on loopback: `write` and `read`.
    Tcp(usize),
    /// The same, in two vectors of one half each.
    TcpVectors(usize),
    /// Over a Unix stream socket.
    Unix(usize),
    /// Over UDP on loopback.
    Udp(usize),
    /// Nothing: a system call that has nothing to do with sockets.
    Getppid,
}

/// The child's connections, both ends of each.
#[derive(Clone, Copy)]
pub struct Conns {
    tcp: [ConnId; 2],
    unix: [ConnId; 2],
    udp: ConnId,
}

impl Conns {
    /// The one over which such messages go; that of TCP where there is none.
    pub fn of(self, kind: Kind) -> [ConnId; 2] {
        match kind {
            Kind::Unix(_) => self.unix,
            Kind::Udp(_) => [self.udp; 2],
            _ => self.tcp,
        }
    }
}

/// The child, seen from its parent.
pub struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub conns: Conns,
}

impl Child {
    pub fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("traffic")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take().context("no input")?;
        let mut output = BufReader::new(process.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let cookies: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the child said {line:?}"))?;
        let [a, b, c, d, e] = cookies.try_into().ok().context("five cookies")?;
        Ok(Self {
            process,
            input,
            output,
            conns: Conns {
                tcp: [ConnId(a), ConnId(b)],
                unix: [ConnId(c), ConnId(d)],
                udp: ConnId(e),
            },
        })
    }

    /// Lets it move so many messages (one that is sent and received counts as two); its CPU nanoseconds.
    pub fn run(&mut self, kind: Kind, messages: u32) -> anyhow::Result<u64> {
        let (name, size) = match kind {
            Kind::Tcp(size) => ("tcp", size),
            Kind::TcpVectors(size) => ("vectors", size),
            Kind::Unix(size) => ("unix", size),
            Kind::Udp(size) => ("udp", size),
            Kind::Getppid => ("getppid", 0),
        };
        writeln!(self.input, "{name} {size} {messages}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        line.trim()
            .parse()
            .with_context(|| format!("the child said {line:?}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The child itself: says the cookies of its sockets, then obeys until its input ends.
pub fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let mut server = listener.accept()?.0;
    client.set_nodelay(true)?;
    let mut unix = UnixStream::pair()?;
    let udp = UdpSocket::bind(("127.0.0.1", 0))?;
    udp.connect(udp.local_addr()?)?;
    println!(
        "{} {} {} {} {}",
        cookie(&client)?,
        cookie(&server)?,
        cookie(&unix.0)?,
        cookie(&unix.1)?,
        cookie(&udp)?
    );
    for line in io::stdin().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default().to_owned();
        let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
        let size = number().context("a size")?;
        let messages = number().context("a number")?;
        let buffer = vec![b'x'; size];
        let mut received = vec![0; size];
        let before = cpu_ns();
        for _ in 0..messages / 2 {
            match name.as_str() {
                "tcp" => {
                    client.write_all(&buffer)?;
                    server.read_exact(&mut received)?;
                }
                "vectors" => {
                    let (one, two) = buffer.split_at(size / 2);
                    let _ = client.write_vectored(&[IoSlice::new(one), IoSlice::new(two)])?;
                    let (one, two) = received.split_at_mut(size / 2);
                    let _ = server.read_vectored(&mut [IoSliceMut::new(one), IoSliceMut::new(two)])?;
                }
                "unix" => {
                    unix.0.write_all(&buffer)?;
                    unix.1.read_exact(&mut received)?;
                }
                "udp" => {
                    udp.send(&buffer)?;
                    udp.recv(&mut received)?;
                }
                "getppid" => {
                    for _ in 0..2 {
                        // SAFETY: takes nothing.
                        unsafe { libc::getppid() };
                    }
                }
                other => anyhow::bail!("no such traffic: {other}"),
            }
        }
        println!("{}", cpu_ns().wrapping_sub(before));
    }
    Ok(())
}

fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option is a 64-bit number, and there is room for it.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}

/// CPU time of this thread in nanoseconds; in the guest that counts instructions, instructions.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists and the struct is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    (time.tv_sec as u64) * 1_000_000_000 + time.tv_nsec as u64
}
