//! What every exporter says about a span, whatever the protocol: its kind, its addresses, its times, its parent's evidence.
//! The protocol's own attributes come first and win.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as semconv;

use super::buffer::Cursor;
use crate::model::{Address, Attributes, Confidence, Conn, Exchange, Key, Nanos, Outcome, Span, Value};

/// Milliseconds from the request's first byte to the response's first byte.
pub(super) const TIME_TO_FIRST_BYTE: Key = "tracer.time_to_first_byte";
/// Milliseconds that the request waited in the socket buffer before its first read.
pub(super) const QUEUE_TIME: Key = "tracer.queue_time";
/// `likely` or `inferred`, where the parent is not certain.
pub(super) const PARENT_CONFIDENCE: Key = "tracer.parent.confidence";
/// The rule that chose the parent.
pub(super) const PARENT_EVIDENCE: Key = "tracer.parent.evidence";
/// Bytes of the request on the wire, where the protocol gives no size of its own.
pub(super) const REQUEST_BYTES: Key = "tracer.request.bytes";
/// Bytes of the response on the wire, where the protocol gives no size of its own.
pub(super) const RESPONSE_BYTES: Key = "tracer.response.bytes";
/// Why a span is linked.
pub(super) const LINK_REASON: Key = "tracer.link.reason";

/// An attribute's value; times stay whole numbers for exporters that write text.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Item<'a> {
    /// As the model has it.
    Plain(Value<'a>),
    /// A time, shown in milliseconds.
    Millis(Nanos),
}

/// Ends of connections that are remembered: so many sets, by address, of so many each.
const SETS: usize = 256;
const WAYS: usize = 4;

/// Which of the shared attributes the protocol has set, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Said(u16);

impl Said {
    const SERVER_ADDRESS: u16 = 1;
    const SERVER_PORT: u16 = 1 << 1;
    const CLIENT_ADDRESS: u16 = 1 << 2;
    const PEER_ADDRESS: u16 = 1 << 3;
    const PEER_PORT: u16 = 1 << 4;
    const TRANSPORT: u16 = 1 << 5;
    const TYPE: u16 = 1 << 6;
    /// Everything that the connection decides.
    const CONNECTION: u16 = (1 << 7) - 1;
    const ERROR_TYPE: u16 = 1 << 8;
    const REQUEST_SIZE: u16 = 1 << 9;
    const RESPONSE_SIZE: u16 = 1 << 10;

    /// Lengths differ for nearly all of these names, so most keys cost one comparison.
    #[inline(always)]
    fn note(&mut self, key: Key) {
        let bit = |name: Key, bit: u16| if key == name { bit } else { 0 };
        self.0 |= match key.len() {
            10 => bit(semconv::ERROR_TYPE, Self::ERROR_TYPE),
            11 => bit(semconv::SERVER_PORT, Self::SERVER_PORT),
            12 => bit(semconv::NETWORK_TYPE, Self::TYPE),
            14 => {
                bit(semconv::SERVER_ADDRESS, Self::SERVER_ADDRESS)
                    | bit(semconv::CLIENT_ADDRESS, Self::CLIENT_ADDRESS)
            }
            17 => {
                bit(semconv::NETWORK_TRANSPORT, Self::TRANSPORT)
                    | bit(semconv::NETWORK_PEER_PORT, Self::PEER_PORT)
            }
            20 => bit(semconv::NETWORK_PEER_ADDRESS, Self::PEER_ADDRESS),
            22 => bit(semconv::HTTP_REQUEST_BODY_SIZE, Self::REQUEST_SIZE),
            23 => bit(semconv::HTTP_RESPONSE_BODY_SIZE, Self::RESPONSE_SIZE),
            27 => bit(semconv::MESSAGING_MESSAGE_BODY_SIZE, Self::REQUEST_SIZE),
            _ => 0,
        };
    }

    #[inline(always)]
    fn of_connection(self) -> u16 {
        self.0 & Self::CONNECTION
    }

    #[inline]
    fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// The form that an exporter writes attributes in.
pub(super) trait Form {
    /// Appends one attribute; `None` where there is no room for it.
    fn write(&mut self, out: &mut Cursor<'_>, key: Key, item: Item<'_>) -> Option<()>;
}

/// The attributes of the last exchange on a connection, encoded. Those of the connection are the same for every exchange on it, and
/// those of the protocol often are: pooled connections repeat statements, clients ask for the same things again.
struct Last {
    conn: Arc<Conn>,
    said: Said,
    attributes: Attributes,
    /// First the protocol's, then the connection's.
    bytes: Vec<u8>,
    /// Where the connection's begin.
    split: usize,
}

/// A few ends of connections. What they are is kept apart, so that looking for one touches little memory.
#[derive(Default)]
struct Set {
    ends: [End; WAYS],
    last: [Option<Box<Last>>; WAYS],
    /// Which is replaced next.
    next: usize,
}

/// One end of a connection: where it lies, which no other has while it is remembered, and whether it is the server's.
type End = (usize, bool);

/// Writes a span's attributes in one form. Remembers a bounded number of connections.
pub(super) struct Shape {
    sets: Box<[Set]>,
    ip: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            sets: std::iter::repeat_with(Set::default).take(SETS).collect(),
            ip: String::new(),
        }
    }
}

impl Shape {
    /// Appends every attribute of the span, the protocol's first; no key comes twice unless the protocol repeats it.
    #[inline(always)]
    pub fn attributes(&mut self, out: &mut Cursor<'_>, span: &Span, form: &mut impl Form) -> Option<()> {
        let exchange = &*span.exchange;
        let said = self.repeated(out, exchange, form)?;
        if let (Outcome::Error { kind, .. }, false) = (&exchange.outcome, said.has(Said::ERROR_TYPE)) {
            form.write(out, semconv::ERROR_TYPE, text(kind))?;
        }
        if let Some((evidence, confidence)) = span.evidence {
            if confidence != Confidence::Certain {
                form.write(out, PARENT_CONFIDENCE, text(confidence.as_str()))?;
            }
            form.write(out, PARENT_EVIDENCE, text(evidence.as_str()))?;
        }
        if !said.has(Said::REQUEST_SIZE) && exchange.request_bytes != 0 {
            form.write(out, REQUEST_BYTES, int(exchange.request_bytes))?;
        }
        if !said.has(Said::RESPONSE_SIZE) && exchange.response_bytes != 0 {
            form.write(out, RESPONSE_BYTES, int(exchange.response_bytes))?;
        }
        if let Some(first) = exchange.first_byte {
            let wait = first.ts.saturating_sub(exchange.start.ts);
            form.write(out, TIME_TO_FIRST_BYTE, Item::Millis(wait))?;
        }
        if let Some(wait) = exchange.queue_time {
            form.write(out, QUEUE_TIME, Item::Millis(wait))?;
        }
        Some(())
    }

    /// The attributes that may be the same as last time: the protocol's and the connection's.
    #[inline(always)]
    fn repeated(&mut self, out: &mut Cursor<'_>, exchange: &Exchange, form: &mut impl Form) -> Option<Said> {
        let Self { sets, ip } = self;
        let is_inbound = exchange.role.is_inbound();
        let at = Arc::as_ptr(&exchange.conn) as usize;
        let hash = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let set = sets.get_mut((hash >> 56) as usize % SETS)?;
        let end = (at, is_inbound);
        let way = set.ends.iter().position(|known| *known == end);
        let last = way.and_then(|way| set.last.get(way)?.as_deref());
        if let Some(last) = last
            && last.attributes == exchange.attributes
        {
            out.copy(&last.bytes)?;
            return Some(last.said);
        }
        let mut said = Said::default();
        let mut split = 0;
        let written = out.recorded(|out| {
            let total = out.rest.len();
            for (key, value) in exchange.attributes.iter() {
                said.note(key);
                form.write(out, key, Item::Plain(value))?;
            }
            split = total - out.rest.len();
            match last.filter(|last| last.said.of_connection() == said.of_connection()) {
                Some(last) => out.copy(last.bytes.get(last.split..)?),
                None => out.call(|out| connection(out, &exchange.conn, is_inbound, said, form, ip)),
            }
        })?;
        remember(set, way, end, exchange, said, written, split);
        Some(said)
    }
}

#[inline(never)]
fn remember(
    set: &mut Set,
    way: Option<usize>,
    end: End,
    exchange: &Exchange,
    said: Said,
    written: &[u8],
    split: usize,
) {
    let way = way.unwrap_or_else(|| {
        set.next = (set.next + 1) % WAYS;
        set.next
    });
    let (Some(known), Some(last)) = (set.ends.get_mut(way), set.last.get_mut(way)) else {
        return;
    };
    *known = end;
    let last = last.get_or_insert_with(|| {
        Box::new(Last {
            conn: Arc::clone(&exchange.conn),
            said,
            attributes: Attributes::default(),
            bytes: Vec::new(),
            split,
        })
    });
    if !Arc::ptr_eq(&last.conn, &exchange.conn) {
        last.conn = Arc::clone(&exchange.conn);
    }
    (last.said, last.split) = (said, split);
    last.attributes.copy_from(&exchange.attributes);
    last.bytes.clear();
    last.bytes.extend_from_slice(written);
}

/// The addresses: of the server, the client, and the peer.
#[inline(never)]
fn connection(
    out: &mut Cursor<'_>,
    conn: &Conn,
    is_inbound: bool,
    said: Said,
    form: &mut impl Form,
    ip_text: &mut String,
) -> Option<()> {
    let server = if is_inbound { conn.local } else { conn.remote };
    // Whoever sends datagrams to one and another has no peer of its own: the address is 0 then.
    if let (false, Address::Ip(ip)) = (said.has(Said::SERVER_ADDRESS), server.address)
        && !ip.is_unspecified()
    {
        format_ip(ip_text, ip);
        form.write(out, semconv::SERVER_ADDRESS, text(ip_text))?;
    }
    if let Address::Ip(ip) = conn.remote.address {
        format_ip(ip_text, ip);
        if is_inbound && !said.has(Said::CLIENT_ADDRESS) {
            form.write(out, semconv::CLIENT_ADDRESS, text(ip_text))?;
        }
        if !said.has(Said::PEER_ADDRESS) && !ip.is_unspecified() {
            form.write(out, semconv::NETWORK_PEER_ADDRESS, text(ip_text))?;
        }
        if !said.has(Said::TYPE) {
            form.write(
                out,
                semconv::NETWORK_TYPE,
                text(if ip.is_ipv4() { "ipv4" } else { "ipv6" }),
            )?;
        }
    } else if !said.has(Said::TRANSPORT) {
        // Over IP the socket's kind is the protocol's to say: DNS runs over both.
        form.write(out, semconv::NETWORK_TRANSPORT, text("unix"))?;
    }
    // Port 0 stands for "none": Unix sockets, and ends that were not seen.
    if !said.has(Said::SERVER_PORT) && server.port != 0 {
        form.write(out, semconv::SERVER_PORT, int(server.port.into()))?;
    }
    if !said.has(Said::PEER_PORT) && conn.remote.port != 0 {
        form.write(out, semconv::NETWORK_PEER_PORT, int(conn.remote.port.into()))?;
    }
    Some(())
}

/// `text` becomes the address; IPv4 without the detour over `Display`, for hosts whose clients connect anew for every request.
fn format_ip(text: &mut String, ip: IpAddr) {
    text.clear();
    match ip {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    text.push('.');
                }
                text.push_str(itoa::Buffer::new().format(octet));
            }
        }
        // Writing to a string cannot fail.
        IpAddr::V6(v6) => {
            let _ = write!(text, "{v6}");
        }
    }
}

fn text(value: &str) -> Item<'_> {
    Item::Plain(Value::Str(value))
}

fn int(value: u64) -> Item<'static> {
    Item::Plain(Value::Int(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// Nanoseconds from the first byte to the last, by the kernel's clock alone.
pub(super) fn duration(span: &Span) -> Nanos {
    span.exchange.end.ts.saturating_sub(span.exchange.start.ts)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use opentelemetry_semantic_conventions::attribute as semconv;

    /// Constants of the conventions that the daemon uses: a name that is not there does not compile.
    macro_rules! conventions {
        ($($name:ident)*) => { &[$(semconv::$name),*] };
    }

    const NAMES: &[&str] = conventions! {
        CLIENT_ADDRESS DNS_QUESTION_NAME DB_COLLECTION_NAME DB_NAMESPACE DB_OPERATION_BATCH_SIZE DB_OPERATION_NAME DB_QUERY_SUMMARY DB_QUERY_TEXT
        DB_RESPONSE_RETURNED_ROWS DB_RESPONSE_STATUS_CODE DB_STORED_PROCEDURE_NAME DB_SYSTEM_NAME ERROR_TYPE HTTP_REQUEST_BODY_SIZE
        HTTP_REQUEST_METHOD HTTP_REQUEST_METHOD_ORIGINAL HTTP_RESPONSE_BODY_SIZE HTTP_RESPONSE_STATUS_CODE HTTP_ROUTE
        NETWORK_PEER_ADDRESS NETWORK_PEER_PORT NETWORK_PROTOCOL_NAME NETWORK_PROTOCOL_VERSION NETWORK_TRANSPORT NETWORK_TYPE
        RPC_METHOD RPC_RESPONSE_STATUS_CODE RPC_SYSTEM_NAME SERVER_ADDRESS SERVER_PORT URL_FULL URL_PATH URL_QUERY URL_SCHEME
        USER_AGENT_ORIGINAL
    };

    /// What a lookup has beyond its name, for which the conventions have no names (the Elastic Common Schema's).
    const OTHERS: &[&str] = &["dns.question.type", "dns.response_code", "dns.answers.count"];

    fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, into);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                into.push(path);
            }
        }
    }

    /// Texts of constants: `const NAME: … = "text";`, over one line or two.
    fn constants(source: &str) -> impl Iterator<Item = &str> {
        source.split("const ").skip(1).filter_map(|rest| {
            let (declaration, rest) = rest.split_once('=')?;
            let is_text = declaration.contains("Key") || declaration.contains("str");
            rest.trim_start()
                .strip_prefix('"')
                .filter(|_| is_text)?
                .split('"')
                .next()
        })
    }

    #[test]
    fn attribute_names_are_those_of_the_conventions() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = vec![source.join("export/shape.rs")];
        sources(&source.join("protocol"), &mut files);
        let mut seen = 0;
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for name in constants(&text) {
                // Attribute names are words with dots; other constants are none of our business.
                let is_name = name.contains('.')
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b == b'.' || b == b'_');
                if is_name && !name.starts_with("tracer.") {
                    seen += 1;
                    assert!(
                        NAMES.contains(&name) || OTHERS.contains(&name),
                        "{}: `{name}` is not in the list of names from the conventions: add its constant to \
                         the list, or begin the name with `tracer.`",
                        file.display()
                    );
                }
            }
        }
        assert!(
            seen > 10,
            "only {seen} names found: has the form of the declarations changed?"
        );
    }
}
