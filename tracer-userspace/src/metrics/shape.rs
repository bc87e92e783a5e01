//! Which metric an exchange gives, and which of its attributes make its series.

use std::hash::{BuildHasher, Hasher};

use super::instruments as all;
use crate::model::{Attributes, Instrument, Key, Label, Role, Value};

macro_rules! attributes {
    ($($id:ident = $key:literal),* $(,)?) => {
        /// Attributes that series are told apart by.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Attribute { $($id),* }

        impl Attribute {
            const KEYS: &[Key] = &[$($key),*];

            /// Finds the attribute by its key. Lengths tell most apart.
            #[inline]
            pub fn of(key: Key) -> Option<Self> {
                $(if key.len() == $key.len() && key == $key {
                    return Some(Self::$id);
                })*
                None
            }
        }
    };
}

attributes! {
    Method = "http.request.method",
    Scheme = "url.scheme",
    Status = "http.response.status_code",
    Route = "http.route",
    ProtocolName = "network.protocol.name",
    ProtocolVersion = "network.protocol.version",
    ErrorType = "error.type",
    ServerAddress = "server.address",
    ServerPort = "server.port",
    DbSystem = "db.system.name",
    DbNamespace = "db.namespace",
    DbCollection = "db.collection.name",
    DbOperation = "db.operation.name",
    DbStatus = "db.response.status_code",
    DbSummary = "db.query.summary",
    DbProcedure = "db.stored_procedure.name",
    RpcSystem = "rpc.system.name",
    RpcMethod = "rpc.method",
    RpcStatus = "rpc.response.status_code",
    MessagingSystem = "messaging.system",
    MessagingOperation = "messaging.operation.name",
    MessagingType = "messaging.operation.type",
    MessagingDestination = "messaging.destination.name",
    MessagingGroup = "messaging.consumer.group.name",
    DnsQuestion = "dns.question.name",
    RequestSize = "http.request.body.size",
    ResponseSize = "http.response.body.size",
}

const ATTRIBUTES: usize = Attribute::KEYS.len();

impl Attribute {
    /// Its name.
    pub fn key(self) -> Key {
        Self::KEYS.get(self as usize).copied().unwrap_or_default()
    }
}

/// What is measured of an exchange.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A request that a server answered.
    HttpServer,
    /// A request that a client sent.
    HttpClient,
    /// A query, at its client.
    DbClient,
    /// A call, at its server.
    RpcServer,
    /// A call, at its client.
    RpcClient,
    /// A message sent or received.
    Messaging,
    /// A look-up, at its client.
    Dns,
}

impl Kind {
    /// How long it took.
    pub const fn duration(self) -> &'static Instrument {
        match self {
            Self::HttpServer => &all::HTTP_SERVER,
            Self::HttpClient => &all::HTTP_CLIENT,
            Self::DbClient => &all::DB_CLIENT,
            Self::RpcServer => &all::RPC_SERVER,
            Self::RpcClient => &all::RPC_CLIENT,
            Self::Messaging => &all::MESSAGING,
            Self::Dns => &all::DNS,
        }
    }

    /// The sizes of request and response.
    pub const fn sizes(self) -> Option<[&'static Instrument; 2]> {
        match self {
            Self::HttpServer => Some([&all::HTTP_SERVER_REQUEST, &all::HTTP_SERVER_RESPONSE]),
            Self::HttpClient => Some([&all::HTTP_CLIENT_REQUEST, &all::HTTP_CLIENT_RESPONSE]),
            _ => None,
        }
    }

    /// The attributes that the conventions ask for, those that are opt-in left out.
    const fn attributes(self) -> &'static [Attribute] {
        use Attribute as A;
        match self {
            Self::HttpServer => &[
                A::Method,
                A::Scheme,
                A::ErrorType,
                A::Status,
                A::Route,
                A::ProtocolName,
                A::ProtocolVersion,
            ],
            Self::HttpClient => &[
                A::Method,
                A::ServerAddress,
                A::ServerPort,
                A::ErrorType,
                A::Status,
                A::ProtocolName,
                A::ProtocolVersion,
            ],
            Self::DbClient => &[
                A::DbSystem,
                A::DbCollection,
                A::DbNamespace,
                A::DbOperation,
                A::DbStatus,
                A::ErrorType,
                A::ServerAddress,
                A::ServerPort,
                A::DbSummary,
                A::DbProcedure,
            ],
            Self::RpcServer | Self::RpcClient => &[
                A::RpcSystem,
                A::RpcMethod,
                A::RpcStatus,
                A::ErrorType,
                A::ServerAddress,
                A::ServerPort,
            ],
            Self::Messaging => &[
                A::MessagingSystem,
                A::MessagingOperation,
                A::MessagingType,
                A::MessagingDestination,
                A::MessagingGroup,
                A::ErrorType,
                A::ServerAddress,
                A::ServerPort,
            ],
            Self::Dns => &[A::DnsQuestion, A::ErrorType],
        }
    }
}

/// The attributes of one exchange that series may be told apart by.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    values: [Option<Value<'a>>; ATTRIBUTES],
}

impl<'a> Facts<'a> {
    /// Reads the protocol's attributes.
    pub fn read(attributes: &'a Attributes) -> Self {
        let mut facts = Self {
            values: [None; ATTRIBUTES],
        };
        for (key, value) in attributes.iter() {
            if let Some(attribute) = Attribute::of(key) {
                facts.set(attribute, value);
            }
        }
        facts
    }

    /// Adds what the protocol does not know, or replaces it.
    pub fn set(&mut self, attribute: Attribute, value: Value<'a>) {
        if let Some(place) = self.values.get_mut(attribute as usize) {
            *place = Some(value);
        }
    }

    /// One value.
    pub fn get(&self, attribute: Attribute) -> Option<Value<'a>> {
        self.values.get(attribute as usize).copied().flatten()
    }

    /// One value, if it is a number that is not negative.
    pub fn number(&self, attribute: Attribute) -> Option<u64> {
        match self.get(attribute)? {
            Value::Int(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    /// What is measured; the protocol does not matter, only what it says. What runs inside something else comes first.
    pub fn kind(&self, role: Role) -> Option<Kind> {
        let has = |attribute| self.get(attribute).is_some();
        let inbound = role.is_inbound();
        if has(Attribute::RpcSystem) {
            Some(if inbound { Kind::RpcServer } else { Kind::RpcClient })
        } else if has(Attribute::DbSystem) {
            (!inbound).then_some(Kind::DbClient)
        } else if has(Attribute::MessagingSystem) {
            Some(Kind::Messaging)
        } else if has(Attribute::DnsQuestion) {
            (!inbound).then_some(Kind::Dns)
        } else if has(Attribute::Method) {
            Some(if inbound {
                Kind::HttpServer
            } else {
                Kind::HttpClient
            })
        } else {
            None
        }
    }

    /// The attributes of the series, in order.
    fn of(&self, kind: Kind) -> impl Iterator<Item = (Attribute, Value<'a>)> {
        kind.attributes().iter().filter_map(|&attribute| {
            let value = self.get(attribute)?;
            // The conventions want the protocol's name only where it is another.
            let is_plain = attribute == Attribute::ProtocolName && value == Value::Str("http");
            (!is_plain).then_some((attribute, value))
        })
    }

    /// A hash of the attributes of the series.
    pub fn hash(&self, kind: Kind, by: &impl BuildHasher) -> u64 {
        let mut hasher = by.build_hasher();
        for (attribute, value) in self.of(kind) {
            hasher.write_u8(attribute as u8);
            match value {
                Value::Str(text) => hasher.write(text.as_bytes()),
                Value::Int(number) => hasher.write_i64(number),
                Value::Double(number) => hasher.write_u64(number.to_bits()),
                Value::Bool(truth) => hasher.write_u8(truth.into()),
            }
        }
        hasher.finish()
    }

    /// Whether these are the attributes of that series.
    pub fn are(&self, kind: Kind, labels: &[(Key, Label)]) -> bool {
        let mut labels = labels.iter();
        for (attribute, value) in self.of(kind) {
            let Some((key, label)) = labels.next() else {
                return false;
            };
            if *key != attribute.key() || !is(label, value) {
                return false;
            }
        }
        labels.next().is_none()
    }

    /// The attributes of a new series.
    pub fn labels(&self, kind: Kind) -> Vec<(Key, Label)> {
        self.of(kind)
            .map(|(attribute, value)| {
                let label = match value {
                    Value::Str(text) => Label::Text(text.into()),
                    Value::Int(number) => Label::Int(number),
                    Value::Double(number) => Label::Text(number.to_string().into()),
                    Value::Bool(truth) => Label::Bool(truth),
                };
                (attribute.key(), label)
            })
            .collect()
    }
}

fn is(label: &Label, value: Value<'_>) -> bool {
    match (label, value) {
        (Label::Text(one), Value::Str(another)) => **one == *another,
        (Label::Static(one), Value::Str(another)) => *one == another,
        (Label::Int(one), Value::Int(another)) => *one == another,
        (Label::Bool(one), Value::Bool(another)) => *one == another,
        (Label::Text(one), Value::Double(another)) => **one == another.to_string(),
        _ => false,
    }
}
