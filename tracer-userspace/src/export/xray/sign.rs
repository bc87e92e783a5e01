//! Signature Version 4 by AWS's own crates.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Mutex;

use crate::export::http::{Authorise, Authorised, Outgoing};

/// The service's name in signatures.
const SERVICE: &str = "xray";
/// Credentials are asked for again so long before they expire.
const AHEAD: Duration = Duration::from_secs(300);
/// Credentials that never expire are asked for again after that: a file may have been changed.
const FOREVER: Duration = Duration::from_secs(300);

/// Signs requests with credentials that it keeps until they are about to expire.
pub(super) struct Signer {
    provider: SharedCredentialsProvider,
    region: String,
    /// The credentials, and when to ask again.
    held: Mutex<Option<(Credentials, SystemTime)>>,
}

impl Signer {
    pub fn new(provider: SharedCredentialsProvider, region: String) -> Self {
        Self {
            provider,
            region,
            held: Mutex::default(),
        }
    }

    async fn credentials(&self, now: SystemTime) -> anyhow::Result<Credentials> {
        let mut held = self.held.lock().await;
        if let Some((credentials, until)) = &*held
            && now < *until
        {
            return Ok(credentials.clone());
        }
        let fresh = self.provider.provide_credentials().await;
        let fresh = fresh.context("AWS credentials (environment, profile, container and instance role)")?;
        let until = fresh.expiry().map_or(now + FOREVER, |expiry| {
            expiry
                .checked_sub(AHEAD)
                .filter(|ahead| *ahead > now)
                .unwrap_or(expiry)
        });
        *held = Some((fresh.clone(), until));
        Ok(fresh)
    }

    /// The headers that sign a request at that time.
    pub(super) async fn headers(&self, request: &Outgoing<'_>, now: SystemTime) -> anyhow::Result<HeaderMap> {
        let identity = self.credentials(now).await?.into();
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(SERVICE)
            .time(now)
            .settings(settings)
            .build()
            .context("signing")?
            .into();
        let constant = request
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let body = request.body.joined();
        let signable = SignableRequest::new("POST", request.url, constant, SignableBody::Bytes(&body));
        let (instructions, _) = sign(signable.context("signing")?, &params)
            .context("signing")?
            .into_parts();
        let mut headers = HeaderMap::new();
        for (name, value) in instructions.headers() {
            let mut value = HeaderValue::from_str(value)?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_bytes(name.as_bytes())?, value);
        }
        Ok(headers)
    }
}

impl Authorise for Signer {
    fn authorise<'a>(&'a self, request: &'a Outgoing<'a>) -> Authorised<'a> {
        Box::pin(self.headers(request, SystemTime::now()))
    }
}
