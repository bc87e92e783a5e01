//! Cutting a request in two, for a receiver that takes no larger ones.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use crate::export::body::Body;

/// The first `first` spans and the rest, each with the resources and scopes that they belong to.
pub(super) fn split(body: &Bytes, first: usize) -> Option<(Body, Body)> {
    let mut front = ExportTraceServiceRequest::decode(body.clone()).ok()?;
    let mut back = front.clone();
    keep(&mut front, 0, first);
    keep(&mut back, first, usize::MAX);
    let body = |request: ExportTraceServiceRequest| Body::from(Bytes::from(request.encode_to_vec()));
    Some((body(front), body(back)))
}

/// Keeps the spans with a number from `from` to below `to`, and what is needed for them.
fn keep(request: &mut ExportTraceServiceRequest, from: usize, to: usize) {
    let mut number = 0;
    request.resource_spans.retain_mut(|group| {
        group.scope_spans.retain_mut(|scope| {
            scope.spans.retain(|_| {
                number += 1;
                (from..to).contains(&(number - 1))
            });
            !scope.spans.is_empty()
        });
        !group.scope_spans.is_empty()
    });
}
