//! DNS over UDP and over TCP (RFC 1035, RFC 6891, RFC 7766). Each lookup is one exchange, seen from the end that asks; servers' ends give none.
//!
//! What a datagram or a stream is, its contents tell, whatever the port. Queries sent again belong to the same lookup; one that nobody answers
//! within ten seconds has failed. Only the question and what kind of answer it got are kept.

mod message;
mod records;
mod session;
mod stream;

use std::sync::Arc;

use super::{Detect, Prefix, Protocol, Session, Side, Transport};
use crate::model::Conn;
use message::{Flaw, Message};

/// The protocol, in datagrams.
pub struct Dns;

impl Protocol for Dns {
    fn name(&self) -> &'static str {
        NAME
    }

    fn transport(&self) -> Transport {
        Transport::Datagrams
    }

    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        match Message::looks(prefix.bytes) {
            Ok(message) => Detect::Yes {
                sender: message.header.sender(),
            },
            Err(Flaw::Short) => Detect::NeedMore,
            Err(Flaw::Malformed) => Detect::No,
        }
    }

    fn open(&self, conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(session::DatagramSession::new(conn, local))
    }
}

/// The protocol, in streams. Exchanges are the same.
pub struct DnsOverTcp;

impl Protocol for DnsOverTcp {
    fn name(&self) -> &'static str {
        "dns_tcp"
    }

    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        stream::detect(prefix.bytes)
    }

    fn open(&self, conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(stream::StreamSession::new(conn, local))
    }
}

const NAME: &str = "dns";
