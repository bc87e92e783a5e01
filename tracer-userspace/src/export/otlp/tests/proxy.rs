//! A proxy between the exporter and the collector that injects faults.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// Bytes come in and none go out, in either direction, on old connections and on new ones: the peer is gone without a word, or
    /// accepts and never answers. A connection that this has happened to is dead for good.
    Vanished,
    /// Reset once bytes come in.
    Reset,
    /// Answered with bytes that mean nothing.
    Garbage,
    /// Every piece is held up for a while.
    Slow,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    struck: usize,
}

struct Shared {
    fault: Mutex<Fault>,
    seen: Mutex<Seen>,
    to: SocketAddr,
}

/// A running proxy. Its threads end with the test's process.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            fault: Mutex::new(Fault::None),
            seen: Mutex::default(),
            to,
        });
        let proxy = Self {
            address,
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.seen.lock().unwrap().connections += 1;
                shared.serve(client);
            }
        });
        proxy
    }

    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Connections that were made.
    pub fn connections(&self) -> usize {
        self.shared.seen.lock().unwrap().connections
    }

    /// How often the fault struck.
    pub fn struck(&self) -> usize {
        self.shared.seen.lock().unwrap().struck
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.to) else {
            return;
        };
        for (from, to, is_request) in [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), true),
            (server, client, false),
        ] {
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.forward(from, to, is_request));
        }
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool) {
        let mut piece = [0; 16 << 10];
        let mut is_dead = false;
        while let Ok(n) = from.read(&mut piece) {
            let fault = *self.fault.lock().unwrap();
            if fault != Fault::None && is_request && n > 0 {
                self.seen.lock().unwrap().struck += 1;
            }
            is_dead |= fault == Fault::Vanished;
            if is_dead {
                if n == 0 {
                    return;
                }
                continue;
            }
            match fault {
                Fault::Reset => {
                    // With no time to linger, the last close resets.
                    let client = if is_request { &from } else { &to };
                    let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
                    let _ = if is_request { &to } else { &from }.shutdown(Shutdown::Both);
                    return;
                }
                Fault::Garbage if is_request => {
                    let _ = from.write_all(b"\x00\x00\x01\x7f\xff garbage \r\n\r\n");
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
                Fault::Slow => std::thread::sleep(Duration::from_millis(30)),
                _ => {}
            }
            if n == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if to.write_all(piece.get(..n).unwrap_or_default()).is_err() {
                return;
            }
        }
    }
}
