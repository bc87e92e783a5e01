//! Where requests go: the endpoint rules of the OTLP exporter's specification.

use anyhow::{Context, bail};
use opentelemetry_otlp::Protocol;

use crate::export::config::Otlp;

/// The port that OTLP reserves for gRPC.
const GRPC_PORT: &str = ":4317";

/// A URL and the protocol spoken there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::export) struct Endpoint {
    pub url: http::Uri,
    pub protocol: Protocol,
    pub signal: Signal,
}

/// What is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::export) enum Signal {
    /// Spans.
    Traces,
    /// Metrics.
    Metrics,
}

impl Signal {
    /// Appended to a base URL over HTTP.
    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }
}

impl Signal {
    /// Method of the service over gRPC.
    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// Applies the rules. The signal's own endpoint is `traces_endpoint`, whatever the signal.
///
/// # Errors
/// Names the endpoint and what to write instead.
pub(in crate::export) fn resolve(config: &Otlp, signal: Signal) -> anyhow::Result<Endpoint> {
    let (given, is_base) = match (&config.traces_endpoint, &config.endpoint) {
        (Some(url), _) => (url.as_str(), false),
        (None, Some(url)) => (url.as_str(), true),
        (None, None) => bail!("no OTLP endpoint is set"),
    };
    let authority = given.split_once("://").map_or(given, |(_, rest)| rest);
    let authority = authority.split(['/', '?']).next().unwrap_or_default();
    let protocol = config.protocol.unwrap_or(if authority.ends_with(GRPC_PORT) {
        Protocol::Grpc
    } else {
        Protocol::HttpBinary
    });
    let url = match (given.split_once("://"), protocol) {
        (Some(("http" | "https", _)), _) => given.to_owned(),
        (None, Protocol::Grpc) if config.insecure => format!("http://{given}"),
        (None, Protocol::Grpc) => format!("https://{given}"),
        _ => bail!("OTLP endpoint `{given}`: write it as http://host:port or https://host:port"),
    };
    let url = match protocol {
        Protocol::HttpBinary | Protocol::HttpJson if is_base => {
            let (address, query) = url
                .split_once('?')
                .map_or((url.as_str(), None), |(a, q)| (a, Some(q)));
            let query = query.map(|query| format!("?{query}")).unwrap_or_default();
            format!("{}{}{query}", address.trim_end_matches('/'), signal.path())
        }
        _ => url,
    };
    let url: http::Uri = url
        .parse()
        .with_context(|| format!("OTLP endpoint `{given}` is not a URL: write it as http://host:port"))?;
    if url.host().is_none_or(str::is_empty) {
        bail!("OTLP endpoint `{given}` names no host: write it as http://host:port");
    }
    Ok(Endpoint {
        url,
        protocol,
        signal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Grpc, HttpBinary};

    #[test]
    fn endpoints_follow_the_specification() {
        // (endpoint, endpoint for traces, protocol, insecure) -> (url, protocol)
        for (base, traces, protocol, insecure, url, spoken) in [
            (
                Some("http://c:4318"),
                None,
                None,
                false,
                "http://c:4318/v1/traces",
                HttpBinary,
            ),
            (
                Some("http://c:4318/"),
                None,
                None,
                false,
                "http://c:4318/v1/traces",
                HttpBinary,
            ),
            (
                Some("https://c/otlp/"),
                None,
                None,
                false,
                "https://c/otlp/v1/traces",
                HttpBinary,
            ),
            (
                Some("https://c/otlp?k=v"),
                None,
                None,
                false,
                "https://c/otlp/v1/traces?k=v",
                HttpBinary,
            ),
            (
                Some("http://c:4318"),
                Some("http://t/mine"),
                None,
                false,
                "http://t/mine",
                HttpBinary,
            ),
            (
                None,
                Some("http://t:9999"),
                None,
                false,
                "http://t:9999/",
                HttpBinary,
            ),
            (Some("http://c:4317"), None, None, false, "http://c:4317/", Grpc),
            (
                Some("http://c:4317"),
                None,
                Some(HttpBinary),
                false,
                "http://c:4317/v1/traces",
                HttpBinary,
            ),
            (
                Some("http://c:4318"),
                None,
                Some(Grpc),
                false,
                "http://c:4318/",
                Grpc,
            ),
            (Some("c:4317"), None, None, true, "http://c:4317/", Grpc),
            (Some("c:4317"), None, None, false, "https://c:4317/", Grpc),
            (
                Some("http://[::1]:4317"),
                None,
                None,
                false,
                "http://[::1]:4317/",
                Grpc,
            ),
        ] {
            let config = Otlp {
                endpoint: base.map(Into::into),
                traces_endpoint: traces.map(Into::into),
                protocol,
                insecure,
                ..Otlp::default()
            };
            let got = resolve(&config, Signal::Traces).unwrap();
            assert_eq!(
                (got.url.to_string().as_str(), got.protocol),
                (url, spoken),
                "{base:?} {traces:?}"
            );
        }
    }

    #[test]
    fn metrics_have_a_path_of_their_own() {
        let config = Otlp {
            endpoint: Some("http://c:4318".into()),
            ..Otlp::default()
        };
        let got = resolve(&config, Signal::Metrics).unwrap();
        assert_eq!(got.url.to_string(), "http://c:4318/v1/metrics");
    }

    #[test]
    fn what_is_no_endpoint_is_named() {
        for given in [
            "localhost:4318",
            "ftp://c:4318",
            "http://",
            "http://a b",
            "",
            "unix:///run/otlp.sock",
        ] {
            let config = Otlp {
                endpoint: Some(given.into()),
                ..Otlp::default()
            };
            let error = resolve(&config, Signal::Traces).unwrap_err().to_string();
            assert!(
                error.contains(&format!("`{given}`")) && error.contains("http://host:port"),
                "{error}"
            );
        }
    }
}
