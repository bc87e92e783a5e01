//! OTLP in JSON (OTLP specification, "JSON Protobuf Encoding"): written by the official types out of the protobuf bytes, so
//! that both say the same.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::{Deserialize, Serialize};

use super::endpoint::Signal;
use crate::export::retry::Answer;

/// The same request in JSON, on one line.
pub(in crate::export) fn of(signal: Signal, protobuf: &Bytes) -> Bytes {
    match signal {
        Signal::Traces => written::<ExportTraceServiceRequest>(protobuf),
        Signal::Metrics => {
            let written = written::<ExportMetricsServiceRequest>(protobuf);
            let mut request = serde_json::from_slice(&written).unwrap_or_default();
            without_nulls(&mut request);
            serde_json::to_vec(&request).unwrap_or_default().into()
        }
    }
}

/// The official types write what is not set as `null`; the Collector does not take that for a number (`min`, `max`).
fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

fn written<T: Message + Default + Serialize>(protobuf: &Bytes) -> Bytes {
    // What our own encoder wrote can be decoded, and these types can be written.
    let request = T::decode(protobuf.clone()).unwrap_or_default();
    serde_json::to_vec(&request).unwrap_or_default().into()
}

/// What an answer without an error says. All signals name the same fields, but for the word in `rejectedSpans`.
pub(super) fn taken(body: &[u8]) -> Result<Answer, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Response {
        #[serde(default)]
        partial_success: Option<Partial>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Partial {
        #[serde(default, alias = "rejectedDataPoints", alias = "rejectedLogRecords")]
        rejected_spans: serde_json::Value,
        #[serde(default)]
        error_message: String,
    }
    let response: Response = serde_json::from_slice(body)?;
    let partial = response.partial_success.unwrap_or_default();
    // 64-bit numbers are text in this encoding; readers must take both.
    let rejected = match &partial.rejected_spans {
        serde_json::Value::String(text) => text.parse().unwrap_or_default(),
        number => number.as_u64().unwrap_or_default(),
    };
    Ok(Answer::Taken {
        rejected,
        message: partial.error_message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_in_json() {
        for (body, rejected, message) in [
            ("{}", 0, ""),
            (r#"{"partialSuccess":{}}"#, 0, ""),
            (r#"{"partialSuccess":null}"#, 0, ""),
            (
                r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"old"}}"#,
                3,
                "old",
            ),
            (r#"{"partialSuccess":{"rejectedSpans":3,"future":[1]}}"#, 3, ""),
            (r#"{"partialSuccess":{"rejectedSpans":-1}}"#, 0, ""),
        ] {
            let expected = Answer::Taken {
                rejected,
                message: message.into(),
            };
            assert_eq!(taken(body.as_bytes()).unwrap(), expected, "{body}");
        }
        assert!(taken(b"<html>").is_err());
    }

    #[test]
    fn what_is_not_set_is_left_out() {
        let mut value = serde_json::json!({"a": null, "b": [{"min": null, "sum": 0.5}], "c": {"d": null}});
        without_nulls(&mut value);
        assert_eq!(value, serde_json::json!({"b": [{"sum": 0.5}], "c": {}}));
    }
}
