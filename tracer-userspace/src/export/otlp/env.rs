//! The standard `OTEL_EXPORTER_OTLP_*` variables (OpenTelemetry specification, "OTLP Exporter Configuration"), each
//! also as `OTEL_EXPORTER_OTLP_TRACES_*`, which wins. An empty variable counts as unset.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{anyhow, bail};
use opentelemetry_otlp as otel;

use super::config::{Otlp, parse_protocol};
use crate::export::config::{Compression, Headers};

const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_";
const METRICS: &str = "OTEL_EXPORTER_OTLP_METRICS_";

// The OpenTelemetry crate names no constants for the TLS files.
const CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
];
const CLIENT_CERTIFICATE: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
];
const CLIENT_KEY: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
];

impl Otlp {
    /// The same section as metrics see it: they have the same variables under their own names.
    ///
    /// # Errors
    /// As [`Config::apply_env`](crate::export::Config::apply_env).
    pub(in crate::export) fn for_metrics(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let of_metrics = |name: &str| match name.strip_prefix(TRACES) {
            Some(rest) => env(&format!("{METRICS}{rest}")),
            None => env(name),
        };
        let mut section = self.clone();
        section
            .apply_standard(&of_metrics)
            .map_err(|error| anyhow!(error.to_string().replace(TRACES, METRICS)))?;
        Ok(section)
    }

    /// Lays the environment over what the file said.
    ///
    /// # Errors
    /// Names the variable, its value and what to write instead.
    pub(super) fn apply_standard(&mut self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let get = |name: &'static str| env(name).filter(|value| !value.trim().is_empty());
        let first = |names: [&'static str; 2]| {
            names
                .into_iter()
                .find_map(|name| get(name).map(|value| (name, value.trim().to_owned())))
        };
        let otlp = self;

        let traces = get(otel::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT);
        let base = get(otel::OTEL_EXPORTER_OTLP_ENDPOINT);
        if traces.is_some() || base.is_some() {
            // A URL for traces in the file must not outlive the environment's base URL.
            otlp.traces_endpoint = traces.map(|url| url.trim().to_owned());
            otlp.endpoint = base.map(|url| url.trim().to_owned()).or(otlp.endpoint.take());
        }
        if let Some((name, value)) = first([
            otel::OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
            otel::OTEL_EXPORTER_OTLP_PROTOCOL,
        ]) {
            let protocol = parse_protocol(&value)
                .map_err(|remedy| anyhow!("{name}={value} is not an OTLP protocol: {remedy}"))?;
            otlp.protocol = Some(protocol);
        }
        if let Some((name, value)) = first([
            otel::OTEL_EXPORTER_OTLP_TRACES_HEADERS,
            otel::OTEL_EXPORTER_OTLP_HEADERS,
        ]) {
            otlp.headers = headers(name, &value)?;
        }
        if let Some((name, value)) = first([
            otel::OTEL_EXPORTER_OTLP_TRACES_COMPRESSION,
            otel::OTEL_EXPORTER_OTLP_COMPRESSION,
        ]) {
            otlp.compression = Compression::parse(&value).ok_or_else(|| {
                anyhow!("{name}={value} is not a compression of OTLP: use gzip, zstd or none")
            })?;
        }
        if let Some((name, value)) = first([
            otel::OTEL_EXPORTER_OTLP_TRACES_TIMEOUT,
            otel::OTEL_EXPORTER_OTLP_TIMEOUT,
        ]) {
            let millis: u64 = value.parse().ok().filter(|&millis| millis > 0).ok_or_else(|| {
                anyhow!("{name}={value} is not a time-out: write milliseconds as a whole number above 0, 10000 for 10 s")
            })?;
            otlp.timeout = Duration::from_millis(millis);
        }
        if let Some((name, value)) = first([
            otel::OTEL_EXPORTER_OTLP_TRACES_INSECURE,
            otel::OTEL_EXPORTER_OTLP_INSECURE,
        ]) {
            otlp.insecure = match value.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                _ => bail!("{name}={value} is neither true nor false: write one of them"),
            };
        }
        for (names, file) in [
            (CERTIFICATE, &mut otlp.certificate),
            (CLIENT_CERTIFICATE, &mut otlp.client_certificate),
            (CLIENT_KEY, &mut otlp.client_key),
        ] {
            if let Some((_, path)) = first(names) {
                *file = Some(path.into());
            }
        }
        Ok(())
    }
}

/// `key1=value1,key2=value2`, in W3C Baggage form: percent-encoded, without properties.
fn headers(name: &str, text: &str) -> anyhow::Result<Headers> {
    let mut all = BTreeMap::new();
    for (index, pair) in text
        .split(',')
        .enumerate()
        .filter(|(_, pair)| !pair.trim().is_empty())
    {
        // The value may be a secret, so errors give the pair's place and key only.
        let number = index + 1;
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            anyhow!("{name}: entry {number} has no `=`: write key=value, joined by commas (a comma in a value is %2C)")
        })?;
        let key = key.trim();
        http::HeaderName::from_bytes(key.as_bytes()).map_err(|_| {
            anyhow!("{name}: `{key}` is not the name of a header: use letters, digits and `-`")
        })?;
        let value = percent_encoding::percent_decode_str(value.trim())
            .decode_utf8()
            .map_err(|_| {
                anyhow!("{name}: the value of `{key}` is not UTF-8 once its %-escapes are undone")
            })?;
        http::HeaderValue::from_str(&value)
            .map_err(|_| anyhow!("{name}: the value of `{key}` has bytes that no header may carry"))?;
        all.insert(key.to_ascii_lowercase(), value.into_owned());
    }
    Ok(Headers(all))
}

#[cfg(test)]
mod tests;
