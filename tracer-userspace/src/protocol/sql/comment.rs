//! Trace context that a client has put into a comment (sqlcommenter: `/*traceparent='00-…-…-01'*/`).

use std::sync::Arc;

use crate::model::TraceContext;
use crate::protocol::context::Carrier;

const KEY: &[u8] = b"traceparent='";

/// The W3C trace context in the statement's comment, if it has one. The comment stands at the end of the statement, or at
/// its start with some libraries; elsewhere it could be part of a value.
#[must_use]
pub fn trace_context(text: &[u8]) -> Option<Arc<TraceContext>> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text).trim_ascii_end();
    let comment = if let Some(body) = text.strip_suffix(b"*/") {
        body.get(memchr::memmem::rfind(body, b"/*")?.saturating_add(2)..)?
    } else if let Some(body) = text.strip_prefix(b"/*") {
        body.get(..memchr::memmem::find(body, b"*/")?)?
    } else {
        return None;
    };
    let value = comment.get(memchr::memmem::find(comment, KEY)?.saturating_add(KEY.len())..)?;
    let value = value.get(..memchr::memchr(b'\'', value)?)?;
    let mut carrier = Carrier::default();
    carrier.offer(b"traceparent", value);
    carrier.parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_names_its_trace() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (text, found) in [
            (format!("SELECT 1 /*traceparent='{good}'*/"), true),
            (
                format!("SELECT 1 /*action='a',traceparent='{good}',x='y'*/ ;"),
                true,
            ),
            (format!("/*traceparent='{good}'*/ SELECT 1"), true),
            (format!("SELECT '/*traceparent=''{good}''*/' FROM t"), false),
            (format!("SELECT 1 -- traceparent='{good}'"), false),
            ("SELECT 1 /*traceparent='00-0-0-0'*/".to_owned(), false),
            (
                format!("SELECT 1 /*traceparent='{}'*/", good.replace("00-", "ff-")),
                false,
            ),
            ("SELECT 1 /*traceparent='".to_owned(), false),
            ("/*".to_owned(), false),
            ("*/".to_owned(), false),
            (String::new(), false),
        ] {
            let context = trace_context(text.as_bytes());
            assert_eq!(context.is_some(), found, "{text}");
            if let Some(context) = context {
                assert_eq!(context.trace_id.0[0], 0x0a);
                assert_eq!(context.span_id.map(|s| s.0[7]), Some(0x31));
                assert_eq!(context.sampled, Some(true));
            }
        }
    }
}
