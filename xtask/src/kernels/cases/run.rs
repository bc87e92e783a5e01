//! The two processes of a case.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

use anyhow::{Context as _, bail, ensure};

use super::wire::{self, Family, checked};
use super::{Case, Shape};
use crate::guest::init;

/// What a case that is started early prints when its connection is there; it goes on when a line comes in.
pub const fn hold_word() -> &'static str {
    "ready"
}

/// Runs one case to its end.
pub fn run(case: &Case) -> anyhow::Result<()> {
    if case.shape == Shape::Namespace {
        // SAFETY: the process has one thread.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) } as isize, "unshare")?;
        init::loopback_up()?;
    }
    match case.shape {
        Shape::Refused => refused(case),
        Shape::ShortLived => {
            (0..case.connections).try_for_each(|_| in_child(|| pair(case, 1)).and_then(wait))
        }
        _ => pair(case, case.connections),
    }
}

/// A server in a child, and the client.
fn pair(case: &Case, connections: u32) -> anyhow::Result<()> {
    let listener = Listener::new(case.family)?;
    let server = in_child(|| serve(case, &listener, connections))?;
    for _ in 0..connections {
        let fd = listener.connect(case.family)?;
        for number in 0..case.requests {
            if case.shape == Shape::Older && number == 0 {
                ask(case, fd, "early/0")?;
                hold()?;
            }
            ask(case, fd, &format!("{}/{number}", case.name))?;
        }
        close(fd);
    }
    wait(server)
}

fn refused(case: &Case) -> anyhow::Result<()> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    for _ in 0..case.connections {
        ensure!(
            TcpStream::connect(address).is_err(),
            "somebody listens on {address}"
        );
    }
    Ok(())
}

fn serve(case: &Case, listener: &Listener, connections: u32) -> anyhow::Result<()> {
    for _ in 0..connections {
        let fd = listener.accept()?;
        match case.shape {
            Shape::ForkedServer => wait(in_child(|| answer_all(case, fd))?)?,
            Shape::Passed => {
                let (mine, theirs) = UnixStream::pair()?;
                let child = in_child(|| answer_all(case, receive_descriptor(theirs.as_raw_fd())?))?;
                pass_descriptor(mine.as_raw_fd(), fd)?;
                wait(child)?;
            }
            _ => answer_all(case, fd)?,
        }
        close(fd);
    }
    Ok(())
}

fn answer_all(case: &Case, fd: RawFd) -> anyhow::Result<()> {
    let (receive, send) = case.server;
    let body = vec![b'r'; case.response_body];
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    while message(fd, receive, case.request_body)? {
        wire::send(fd, send, head.as_bytes(), &body)?;
    }
    Ok(())
}

fn ask(case: &Case, fd: RawFd, path: &str) -> anyhow::Result<()> {
    let (send, receive) = case.client;
    let body = vec![b'q'; case.request_body];
    let head = if body.is_empty() {
        format!("GET /{path} HTTP/1.1\r\nHost: case\r\n\r\n")
    } else {
        let size = body.len();
        format!("POST /{path} HTTP/1.1\r\nHost: case\r\nContent-Length: {size}\r\n\r\n")
    };
    wire::send(fd, send, head.as_bytes(), &body)?;
    ensure!(message(fd, receive, case.response_body)?, "no answer");
    Ok(())
}

/// Receives a head and a body of that size; `false` at the end of the stream.
fn message(fd: RawFd, way: wire::Receiving, body: usize) -> anyhow::Result<bool> {
    let mut buffer = vec![0; 65_536];
    let mut seen = Vec::new();
    loop {
        let moved = wire::receive(fd, way, &mut buffer)?;
        if moved == 0 {
            ensure!(seen.is_empty(), "the stream ended within a message");
            return Ok(false);
        }
        seen.extend_from_slice(buffer.get(..moved).unwrap_or_default());
        let head = seen.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let size = head + 4 + body;
            ensure!(seen.len() <= size, "{} bytes too many", seen.len() - size);
            if seen.len() == size {
                return Ok(true);
            }
        }
    }
}

fn hold() -> anyhow::Result<()> {
    println!("{}", hold_word());
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, UnixAddr),
}

impl Listener {
    fn new(family: Family) -> anyhow::Result<Self> {
        let name = format!("case-{}", std::process::id());
        Ok(match family {
            Family::V4 => Self::Tcp(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?),
            Family::V6 => Self::Tcp(TcpListener::bind((Ipv6Addr::LOCALHOST, 0))?),
            Family::Mapped => Self::Tcp(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?),
            Family::Unix | Family::Abstract => {
                let address = if family == Family::Unix {
                    UnixAddr::from_pathname(format!("/tmp/{name}"))?
                } else {
                    UnixAddr::from_abstract_name(name)?
                };
                Self::Unix(UnixListener::bind_addr(&address)?, address)
            }
        })
    }

    fn connect(&self, family: Family) -> anyhow::Result<RawFd> {
        match self {
            Self::Tcp(listener) => {
                let mut address = listener.local_addr()?;
                if family == Family::Mapped {
                    address = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
                }
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Ok(stream.into_raw_fd())
            }
            Self::Unix(_, address) => Ok(UnixStream::connect_addr(address)?.into_raw_fd()),
        }
    }

    fn accept(&self) -> anyhow::Result<RawFd> {
        match self {
            Self::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Ok(stream.into_raw_fd())
            }
            Self::Unix(listener, _) => Ok(listener.accept()?.0.into_raw_fd()),
        }
    }
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor is ours and is not used again.
    unsafe { libc::close(fd) };
}

/// Runs `body` in a forked child, which ends with it.
fn in_child(body: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<libc::pid_t> {
    // SAFETY: the process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let result = body();
        if let Err(error) = &result {
            eprintln!("case: {error:#}");
        }
        // SAFETY: ends the child without running what belongs to its parent.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    checked(child as isize, "fork")?;
    Ok(child)
}

fn wait(child: libc::pid_t) -> anyhow::Result<()> {
    let mut status = 0;
    // SAFETY: the status is written.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    checked(ended as isize, "waitpid")?;
    ensure!(status == 0, "a process of the case ended with status {status:#x}");
    Ok(())
}

const DESCRIPTOR: usize = size_of::<RawFd>();

/// A byte and a descriptor (unix(7), SCM_RIGHTS), one way or the other.
fn with_rights(
    passed: Option<RawFd>,
    call: impl FnOnce(&mut libc::msghdr) -> isize,
) -> anyhow::Result<RawFd> {
    let mut byte = [b'x'];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: 1,
    };
    let mut control = [0_u64; 8];
    // SAFETY: zeroes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: a pure function of the size.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(DESCRIPTOR as u32) } as _;
    // SAFETY: the message has a control buffer with room for one header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: it lies in the control buffer, which is aligned and zeroed.
    let header = unsafe { &mut *header };
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: a pure function of the size.
    header.cmsg_len = unsafe { libc::CMSG_LEN(DESCRIPTOR as u32) } as _;
    // SAFETY: the header lies in the control buffer, with its data behind it.
    let data = unsafe { libc::CMSG_DATA(header) }.cast::<RawFd>();
    if let Some(passed) = passed {
        // SAFETY: room for one descriptor.
        unsafe { data.write_unaligned(passed) };
    }
    checked(call(&mut message), "passing a descriptor")?;
    if message.msg_controllen == 0 {
        bail!("no descriptor came");
    }
    // SAFETY: written above, or by the kernel.
    Ok(unsafe { data.read_unaligned() })
}

fn pass_descriptor(over: RawFd, fd: RawFd) -> anyhow::Result<()> {
    // SAFETY: the message is whole.
    with_rights(Some(fd), |message| unsafe { libc::sendmsg(over, message, 0) })
        .map(drop)
        .context("sending")
}

fn receive_descriptor(over: RawFd) -> anyhow::Result<RawFd> {
    // SAFETY: the message is whole.
    with_rights(None, |message| unsafe { libc::recvmsg(over, message, 0) }).context("receiving")
}
