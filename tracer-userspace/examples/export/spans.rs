//! Spans as the daemon makes them of wrk asking nginx over twenty connections, both ends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tracer_userspace::model::{
    Address, Attributes, Confidence, Conn, ConnId, Endpoint, Evidence, Exchange, ExchangeId, Outcome,
    Resource, Role, Service, Span, SpanId, Stamp, TraceId, Unit,
};

const CONNECTIONS: u64 = 20;

/// Makes spans without end.
pub struct Generator {
    /// Whether every request has a path of its own.
    varied: bool,
    services: [Arc<Service>; 2],
    ends: Vec<[(Arc<Conn>, Attributes); 2]>,
    name: Arc<str>,
    made: u64,
}

impl Generator {
    /// Nothing made yet.
    pub fn new(varied: bool) -> Self {
        let connection = |index| [Role::Client, Role::Server].map(|role| (conn(index, role), head("/file")));
        Self {
            varied,
            services: ["wrk", "nginx"].map(service),
            ends: (0..CONNECTIONS).map(connection).collect(),
            name: "GET /file".into(),
            made: 0,
        }
    }

    /// So many spans.
    #[inline(never)]
    pub fn batch(&mut self, spans: usize) -> Vec<Span> {
        (0..spans).map(|_| self.span()).collect()
    }

    fn span(&mut self) -> Span {
        self.made += 1;
        let request = self.made / 2;
        let is_inbound = self.made.is_multiple_of(2);
        let end = usize::from(is_inbound);
        let (conn, head_of_connection) = &self.ends[(request % CONNECTIONS) as usize][end];
        let mut attributes = if self.varied {
            head(&format!("/file/{request}"))
        } else {
            head_of_connection.clone()
        };
        attributes.push_int("http.response.status_code", 200);
        attributes.push_int("http.request.body.size", 0);
        attributes.push_int("http.response.body.size", 1024);
        let id = self.made.to_be_bytes();
        let stamp = |ts| Stamp {
            ts,
            unit: Unit::default(),
        };
        let start = 1_000_000_000 + self.made * 10_000;
        Span {
            trace_id: TraceId(u128::from(request + 1).to_be_bytes()),
            span_id: SpanId(id),
            parent: is_inbound.then(|| SpanId((self.made - 1).to_be_bytes())),
            parent_is_remote: is_inbound,
            evidence: is_inbound.then_some((Evidence::Message, Confidence::Certain)),
            trace_state: Box::default(),
            links: Vec::new(),
            exchange: Box::new(Exchange {
                id: ExchangeId(self.made),
                conn: Arc::clone(conn),
                protocol: "http1",
                role: if is_inbound { Role::Server } else { Role::Client },
                start: stamp(start),
                first_byte: Some(stamp(start + 61_234)),
                end: stamp(start + 61_234),
                queue_time: is_inbound.then_some(4_321),
                request_bytes: 44,
                response_bytes: 1262,
                name: Arc::clone(&self.name),
                outcome: Outcome::Unset,
                attributes,
                context: None,
            }),
            service: Arc::clone(&self.services[end]),
        }
    }
}

/// What a request head tells.
fn head(path: &str) -> Attributes {
    let mut attributes = Attributes::with_capacity(12, 160);
    attributes.push_static("http.request.method", "GET");
    attributes.push_str("url.path", path);
    attributes.push_static("url.scheme", "http");
    attributes.push_str("server.address", "127.0.0.1");
    attributes.push_int("server.port", 8080);
    attributes.push_static("network.protocol.version", "1.1");
    attributes.share();
    attributes
}

fn conn(index: u64, role: Role) -> Arc<Conn> {
    let end = |port| Endpoint {
        address: Address::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port,
    };
    let (server, client) = (end(8080), end(40_000 + index as u16));
    let (local, remote) = if role.is_inbound() {
        (server, client)
    } else {
        (client, server)
    };
    Arc::new(Conn {
        id: ConnId(index * 2 + u64::from(role.is_inbound())),
        local,
        remote,
        netns: 1,
        tgid: 1,
        joined_late: false,
    })
}

fn service(name: &str) -> Arc<Service> {
    let text = [
        ("service.name", name),
        ("service.instance.id", "4c3f8a52-0d3c-4b39-9a55-3e1bb0a6a6f1"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", "cpp"),
        ("telemetry.distro.name", "tracer"),
        ("host.name", "host-1"),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("process.executable.name", name),
    ];
    Arc::new(Service {
        name: name.into(),
        tgid: 1,
        resource: Resource {
            text: text
                .iter()
                .map(|&(key, value)| (key.into(), value.into()))
                .collect(),
            ints: vec![("process.pid".into(), 1)],
            lists: Vec::new(),
        },
        selected: true,
        ..Service::default()
    })
}
