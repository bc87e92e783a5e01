use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::*;
use crate::export::http::Outgoing;

/// Signatures that botocore 1.40 (`SigV4Auth`) gives for the same requests; made by `xtask/src/backends/judge/sigv4.py`.
#[test]
fn signatures_are_those_of_botocore() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // (session token, body, url) -> signature
    for (token, body, url, signature) in include!("signatures.in") {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            (!token.is_empty()).then(|| token.to_owned()),
            None,
            "test",
        );
        let signer = Signer::new(SharedCredentialsProvider::new(credentials), "eu-central-1".into());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let request = Outgoing {
            url,
            headers: &headers,
            body: &Bytes::from(body).into(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let signed = runtime.block_on(signer.headers(&request, now)).unwrap();
        let authorization = signed["authorization"].to_str().unwrap();
        assert_eq!(authorization, signature, "{url} {body:?}");
        assert_eq!(signed["x-amz-date"], "20231114T221320Z");
        assert_eq!(signed.contains_key("x-amz-security-token"), !token.is_empty());
    }
}

#[test]
fn the_end_point_is_that_of_the_region() {
    let credentials = || SharedCredentialsProvider::new(Credentials::new("a", "b", None, None, "test"));
    let mut xray = Xray::default();
    let (section, wishes) = xray.section("eu-central-1", credentials());
    let url = "https://xray.eu-central-1.amazonaws.com/v1/traces";
    assert_eq!(section.traces_endpoint.as_deref(), Some(url));
    assert!(wishes.auth.is_some());
    xray.set_target("http://localhost:1/v1/traces");
    let (section, _) = xray.section("eu-central-1", credentials());
    assert_eq!(
        section.traces_endpoint.as_deref(),
        Some("http://localhost:1/v1/traces")
    );
}
