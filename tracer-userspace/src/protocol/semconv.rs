//! Attribute names of the semantic conventions that protocols use. The official constants live in a crate that only
//! `export/` may name; a test there can hold these against them.

/// Names for HTTP.
pub mod http {
    use crate::model::Key;

    /// The method, or `_OTHER`.
    pub const REQUEST_METHOD: Key = "http.request.method";
    /// The method as sent, where [`REQUEST_METHOD`] is `_OTHER`.
    pub const REQUEST_METHOD_ORIGINAL: Key = "http.request.method_original";
    /// Status code.
    pub const RESPONSE_STATUS_CODE: Key = "http.response.status_code";
    /// Bytes of the request's content, as transferred.
    pub const REQUEST_BODY_SIZE: Key = "http.request.body.size";
    /// Bytes of the response's content, as transferred.
    pub const RESPONSE_BODY_SIZE: Key = "http.response.body.size";
    /// The path with its variable parts replaced.
    pub const ROUTE: Key = "http.route";
    /// Path of the target.
    pub const URL_PATH: Key = "url.path";
    /// Query of the target, redacted.
    pub const URL_QUERY: Key = "url.query";
    /// Scheme of the target.
    pub const URL_SCHEME: Key = "url.scheme";
    /// The whole URL, redacted (client ends).
    pub const URL_FULL: Key = "url.full";
    /// Who the request was for.
    pub const SERVER_ADDRESS: Key = "server.address";
    /// Port of [`SERVER_ADDRESS`].
    pub const SERVER_PORT: Key = "server.port";
    /// Who asked, where the connection does not tell.
    pub const CLIENT_ADDRESS: Key = "client.address";
    /// The `User-Agent` field.
    pub const USER_AGENT_ORIGINAL: Key = "user_agent.original";
    /// `http`, or what carries it.
    pub const NETWORK_PROTOCOL_NAME: Key = "network.protocol.name";
    /// `1.0` or `1.1` of HTTP.
    pub const NETWORK_PROTOCOL_VERSION: Key = "network.protocol.version";

    /// Every name above.
    pub const ALL: &[Key] = &[
        REQUEST_METHOD,
        REQUEST_METHOD_ORIGINAL,
        RESPONSE_STATUS_CODE,
        REQUEST_BODY_SIZE,
        RESPONSE_BODY_SIZE,
        ROUTE,
        URL_PATH,
        URL_QUERY,
        URL_SCHEME,
        URL_FULL,
        SERVER_ADDRESS,
        SERVER_PORT,
        CLIENT_ADDRESS,
        USER_AGENT_ORIGINAL,
        NETWORK_PROTOCOL_NAME,
        NETWORK_PROTOCOL_VERSION,
    ];
}

/// Names for DNS.
pub mod dns {
    use crate::model::Key;

    /// The name asked for.
    pub const QUESTION_NAME: Key = "dns.question.name";
    /// The type of the records asked for (`A`). Not in the conventions.
    pub const QUESTION_TYPE: Key = "dns.question.type";
    /// Name of the response code (`NXDOMAIN`). Not in the conventions.
    pub const RESPONSE_CODE: Key = "dns.response_code";
    /// Records in the answer. Not in the conventions.
    pub const ANSWERS_COUNT: Key = "dns.answers.count";
    /// The answer was cut off.
    pub const TRUNCATED: Key = "tracer.dns.truncated";
    /// `udp`.
    pub const NETWORK_TRANSPORT: Key = "network.transport";
}
