//! Moving bytes by one way or another. A failure of these calls ends the process: a case whose own calls fail says nothing about
//! the daemon.

use std::io;
use std::os::fd::RawFd;

use anyhow::{Context as _, ensure};

/// How two sockets are connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
    /// IPv4 client, IPv6 listener.
    Mapped,
    Unix,
    Abstract,
}

/// How bytes are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    Write,
    Send,
    Writev,
    Sendmsg,
    Sendmmsg,
    /// The head by `write`.
    Sendfile,
    /// The head by `write`.
    Splice,
    /// Non-blocking, with a small socket buffer.
    Partial,
}

/// How bytes are received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiving {
    Read,
    Recv,
    Readv,
    Recvmsg,
    Recvmmsg,
    Peek,
}

/// What a system call said, or its error.
pub fn checked(result: isize, what: &'static str) -> anyhow::Result<usize> {
    usize::try_from(result).map_err(|_| anyhow::Error::new(io::Error::last_os_error()).context(what))
}

/// Sends a message that has a head and a body.
pub fn send(fd: RawFd, way: Sending, head: &[u8], body: &[u8]) -> anyhow::Result<()> {
    match way {
        Sending::Write => write_all(fd, &[head, body].concat(), libc_write),
        Sending::Send => write_all(fd, &[head, body].concat(), libc_send),
        Sending::Writev | Sending::Sendmsg | Sending::Sendmmsg => vectored(fd, way, head, body),
        Sending::Sendfile => {
            write_all(fd, head, libc_write)?;
            sendfile(fd, body)
        }
        Sending::Splice => {
            write_all(fd, head, libc_write)?;
            splice(fd, body)
        }
        Sending::Partial => partial(fd, &[head, body].concat()),
    }
}

/// Receives at most the buffer; 0 at the end.
pub fn receive(fd: RawFd, way: Receiving, buffer: &mut [u8]) -> anyhow::Result<usize> {
    let (at, size) = (buffer.as_mut_ptr().cast::<libc::c_void>(), buffer.len());
    let half = size / 2;
    // SAFETY: half is within the buffer.
    let middle = unsafe { buffer.as_mut_ptr().add(half) };
    let mut parts = [(at, half), (middle.cast(), size - half)]
        .map(|(iov_base, iov_len)| libc::iovec { iov_base, iov_len });
    let result = match way {
        // SAFETY: the buffer has that many bytes.
        Receiving::Read => unsafe { libc::read(fd, at, size) },
        // SAFETY: the buffer has that many bytes.
        Receiving::Recv => unsafe { libc::recv(fd, at, size, 0) },
        Receiving::Peek => {
            // SAFETY: the buffer has that many bytes.
            let seen = unsafe { libc::recv(fd, at, size, libc::MSG_PEEK) };
            checked(seen, "recv with MSG_PEEK")?;
            // SAFETY: the buffer has that many bytes.
            unsafe { libc::read(fd, at, size) }
        }
        // SAFETY: two vectors within the buffer.
        Receiving::Readv => unsafe { libc::readv(fd, parts.as_ptr(), 2) },
        Receiving::Recvmsg => {
            let mut message = message(&mut parts);
            // SAFETY: the message's vectors lie within the buffer.
            unsafe { libc::recvmsg(fd, &raw mut message, 0) }
        }
        Receiving::Recvmmsg => {
            let mut header = libc::mmsghdr {
                msg_hdr: message(&mut parts),
                msg_len: 0,
            };
            // SAFETY: one message whose vectors lie within the buffer.
            let count = unsafe { libc::recvmmsg(fd, &raw mut header, 1, 0, std::ptr::null_mut()) };
            if count < 0 { -1 } else { header.msg_len as isize }
        }
    };
    checked(result, "receiving")
}

fn message(parts: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: zeroes are a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message
}

fn libc_write(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: the slice has that many bytes.
    unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) }
}

fn libc_send(fd: RawFd, bytes: &[u8]) -> isize {
    // SAFETY: the slice has that many bytes.
    unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) }
}

fn write_all(fd: RawFd, mut bytes: &[u8], call: fn(RawFd, &[u8]) -> isize) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        let moved = checked(call(fd, bytes), "sending")?;
        bytes = bytes.get(moved..).unwrap_or_default();
    }
    Ok(())
}

/// Head, nothing, and body as three vectors of one message.
fn vectored(fd: RawFd, way: Sending, head: &[u8], body: &[u8]) -> anyhow::Result<()> {
    let mut parts = [head, &[], body].map(|part: &[u8]| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    let result = match way {
        Sending::Sendmsg => {
            let message = message(&mut parts);
            // SAFETY: the vectors are the slices.
            unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) }
        }
        Sending::Sendmmsg => {
            let mut header = libc::mmsghdr {
                msg_hdr: message(&mut parts),
                msg_len: 0,
            };
            // SAFETY: one message whose vectors are the slices.
            let count = unsafe { libc::sendmmsg(fd, &raw mut header, 1, 0) };
            if count < 0 { -1 } else { header.msg_len as isize }
        }
        // SAFETY: three vectors, which are the slices.
        _ => unsafe { libc::writev(fd, parts.as_ptr(), 3) },
    };
    let moved = checked(result, "sending vectors")?;
    ensure!(moved == head.len() + body.len(), "only {moved} bytes were taken");
    Ok(())
}

fn sendfile(fd: RawFd, body: &[u8]) -> anyhow::Result<()> {
    let path = format!("/tmp/case-{}", std::process::id());
    std::fs::write(&path, body).context("writing a file")?;
    let file = std::fs::File::open(&path)?;
    std::fs::remove_file(&path)?;
    let mut left = body.len();
    while left > 0 {
        let from = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: no offset is given: the file's own is used.
        let moved = unsafe { libc::sendfile(fd, from, std::ptr::null_mut(), left) };
        left -= checked(moved, "sendfile")?;
    }
    Ok(())
}

fn splice(fd: RawFd, body: &[u8]) -> anyhow::Result<()> {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written.
    checked(unsafe { libc::pipe(ends.as_mut_ptr()) } as isize, "pipe")?;
    let [from, to] = ends;
    // A pipe holds 64 KiB (pipe(7)); less is written at a time.
    for part in body.chunks(16_384) {
        write_all(to, part, libc_write)?;
        let mut left = part.len();
        while left > 0 {
            // SAFETY: no offsets are given.
            let moved =
                unsafe { libc::splice(from, std::ptr::null_mut(), fd, std::ptr::null_mut(), left, 0) };
            left -= checked(moved, "splice")?;
        }
    }
    for end in ends {
        // SAFETY: the descriptor is ours.
        unsafe { libc::close(end) };
    }
    Ok(())
}

fn partial(fd: RawFd, mut bytes: &[u8]) -> anyhow::Result<()> {
    let size: libc::c_int = 16_384;
    let length = size_of_val(&size) as libc::socklen_t;
    // SAFETY: the option is one integer.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const size).cast(),
            length,
        )
    };
    let mut in_parts = false;
    while !bytes.is_empty() {
        // SAFETY: the slice has that many bytes.
        let moved = unsafe {
            libc::send(
                fd,
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if moved < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
            in_parts = true;
            let mut poll = libc::pollfd {
                fd,
                events: libc::POLLOUT,
                revents: 0,
            };
            // SAFETY: one entry.
            unsafe { libc::poll(&raw mut poll, 1, -1) };
            continue;
        }
        bytes = bytes.get(checked(moved, "sending")?..).unwrap_or_default();
        // A reader that is quick enough leaves room for every call, though never for all.
        in_parts |= !bytes.is_empty();
    }
    ensure!(in_parts, "the socket took all at once: nothing was partial");
    Ok(())
}
