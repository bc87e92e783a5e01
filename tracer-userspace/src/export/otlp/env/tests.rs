use opentelemetry_otlp::Protocol::{Grpc, HttpBinary};

use super::*;
use crate::export::Config;
use crate::export::registry::Exporter as _;

fn apply(variables: &[(&str, &str)]) -> anyhow::Result<Config> {
    apply_over(Config::default(), variables)
}

fn apply_over(mut config: Config, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
    for (name, _) in variables {
        assert!(name.starts_with("OTEL_EXPORTER_OTLP_"), "{name}");
    }
    config.apply_env(&|name| {
        variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    })?;
    Ok(config)
}

#[test]
fn each_variable_and_its_form_for_traces() {
    type Get = fn(&Config) -> String;
    // (name after OTEL_EXPORTER_OTLP_[TRACES_], value, other value, what is read)
    let table: &[(&str, &str, &str, Get)] = &[
        ("PROTOCOL", "grpc", "http/protobuf", |c| match c.otlp.protocol {
            Some(Grpc) => "grpc".into(),
            Some(HttpBinary) => "http/protobuf".into(),
            other => format!("{other:?}"),
        }),
        ("HEADERS", "a=1", "b=2", |c| {
            c.otlp
                .headers
                .0
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(",")
        }),
        ("COMPRESSION", "gzip", "zstd", |c| {
            c.otlp.compression.name().unwrap_or("none").into()
        }),
        ("TIMEOUT", "250", "3000", |c| {
            c.otlp.timeout.as_millis().to_string()
        }),
        ("INSECURE", "true", "false", |c| c.otlp.insecure.to_string()),
        ("CERTIFICATE", "/a.pem", "/b.pem", |c| {
            c.otlp.certificate.clone().unwrap().display().to_string()
        }),
        ("CLIENT_CERTIFICATE", "/a.pem", "/b.pem", |c| {
            c.otlp.client_certificate.clone().unwrap().display().to_string()
        }),
        ("CLIENT_KEY", "/a.pem", "/b.pem", |c| {
            c.otlp.client_key.clone().unwrap().display().to_string()
        }),
    ];
    for (name, one, other, get) in table {
        let (all, traces) = (
            format!("OTEL_EXPORTER_OTLP_{name}"),
            format!("OTEL_EXPORTER_OTLP_TRACES_{name}"),
        );
        for value in [one, other] {
            assert_eq!(get(&apply(&[(&all, value)]).unwrap()), *value, "{all}");
            assert_eq!(get(&apply(&[(&traces, value)]).unwrap()), *value, "{traces}");
            assert_eq!(
                get(&apply(&[(&all, &format!("  {value} "))]).unwrap()),
                *value,
                "blanks around {all}"
            );
        }
        assert_eq!(
            get(&apply(&[(&all, one), (&traces, other)]).unwrap()),
            *other,
            "{traces} wins"
        );
        assert_eq!(
            get(&apply(&[(&all, one), (&traces, "")]).unwrap()),
            *one,
            "empty {traces} is unset"
        );
        // The environment wins over the file, and what it does not name stays.
        let file = apply(&[(&all, one)]).unwrap();
        assert_eq!(get(&apply_over(file.clone(), &[(&all, other)]).unwrap()), *other);
        assert_eq!(apply_over(file.clone(), &[]).unwrap(), file);
    }
}

#[test]
fn endpoints() {
    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let endpoints = |config: &Config| (config.otlp.endpoint.clone(), config.otlp.traces_endpoint.clone());
    let pair = |base: &str, traces: &str| {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        (text(base), text(traces))
    };
    assert!(!apply(&[]).unwrap().otlp.is_set());
    assert!(!apply(&[(BASE, "")]).unwrap().otlp.is_set());
    assert_eq!(
        endpoints(&apply(&[(BASE, "http://b")]).unwrap()),
        pair("http://b", "")
    );
    assert_eq!(
        endpoints(&apply(&[(TRACES, "http://t")]).unwrap()),
        pair("", "http://t")
    );
    assert_eq!(
        endpoints(&apply(&[(BASE, "http://b"), (TRACES, "http://t")]).unwrap()),
        pair("http://b", "http://t")
    );
    let mut file = Config::default();
    file.otlp.traces_endpoint = Some("http://file".into());
    let mut config = apply_over(file, &[(BASE, "http://b")]).unwrap();
    assert_eq!(
        endpoints(&config),
        pair("http://b", ""),
        "the file's URL for traces does not hide the environment"
    );
    config.otlp.traces_endpoint = Some("http://env".into());
    config.otlp.set_endpoint("http://flag");
    assert_eq!(
        endpoints(&config),
        pair("http://flag", ""),
        "a flag wins over everything"
    );
}

#[test]
fn headers_are_percent_encoded_pairs() {
    let read = |text| {
        apply(&[("OTEL_EXPORTER_OTLP_HEADERS", text)])
            .unwrap()
            .otlp
            .headers
            .0
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    for (text, expected) in [
        ("a=b", pairs(&[("a", "b")])),
        (
            "Api-Key = secret , x=1,",
            pairs(&[("api-key", "secret"), ("x", "1")]),
        ),
        (
            "authorization=Bearer%20abc%3D%3D",
            pairs(&[("authorization", "Bearer abc==")]),
        ),
        ("token=abc==", pairs(&[("token", "abc==")])),
        ("a=x%2Cy", pairs(&[("a", "x,y")])),
        ("a=", pairs(&[("a", "")])),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
}

#[test]
fn mistakes_name_the_variable_and_the_remedy() {
    for (name, value, parts) in [
        (
            "PROTOCOL",
            "http/xml",
            &["http/xml", "use grpc, http/protobuf or http/json"][..],
        ),
        (
            "TRACES_PROTOCOL",
            "thrift",
            &["thrift", "grpc, http/protobuf or http/json"],
        ),
        ("COMPRESSION", "br", &["br", "gzip, zstd or none"]),
        ("TIMEOUT", "10s", &["10s", "milliseconds"]),
        ("TRACES_TIMEOUT", "-1", &["-1", "milliseconds"]),
        ("TIMEOUT", "0", &["0", "above 0"]),
        ("INSECURE", "yes", &["yes", "true nor false"]),
        ("HEADERS", "a=1,secret", &["entry 2", "key=value"]),
        ("HEADERS", "a b=secret", &["`a b`", "letters"]),
        ("HEADERS", "a=%FF", &["`a`", "UTF-8"]),
        ("TRACES_HEADERS", "a=x%0Asecret", &["`a`", "header"]),
    ] {
        let name = format!("OTEL_EXPORTER_OTLP_{name}");
        let error = apply(&[(&name, value)]).unwrap_err().to_string();
        for part in parts.iter().chain([&name.as_str()]) {
            assert!(error.contains(part), "{name}={value}: {error}");
        }
        assert!(
            !error.contains("secret"),
            "header values stay out of errors: {error}"
        );
    }
}
