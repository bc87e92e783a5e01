//! Names and values (FastCGI Specification 1.0, section 3.4), and what the CGI variables among them tell (RFC 3875 section 4.1).

use crate::protocol::context::Carrier;

/// Longest name of a header field that could carry trace context.
const MAX_NAME: usize = 32;

/// The pairs of a `PARAMS` stream, as far as they are whole.
pub struct Pairs<'a>(pub &'a [u8]);

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = length(self.0)?;
        let (value, rest) = length(rest)?;
        let (name, rest) = rest.split_at_checked(name)?;
        let (value, rest) = rest.split_at_checked(value)?;
        self.0 = rest;
        Some((name, value))
    }
}

/// A length in one byte, or in four whose highest bit is set.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let (&[a, b, c, d], rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes([a & 0x7f, b, c, d]) as usize, rest))
}

/// The variables that matter.
#[derive(Clone, Default, Debug)]
pub struct Params<'a> {
    /// `REQUEST_METHOD`.
    pub method: Option<&'a [u8]>,
    /// `REQUEST_URI`: the target as the client sent it (no variable of RFC 3875, but every server has it).
    pub uri: Option<&'a [u8]>,
    /// `SCRIPT_NAME`.
    pub script: &'a [u8],
    /// `PATH_INFO`.
    pub path_info: &'a [u8],
    /// `QUERY_STRING`.
    pub query: &'a [u8],
    /// `HTTP_HOST`, else `SERVER_NAME`.
    pub host: Option<&'a [u8]>,
    /// `HTTP_USER_AGENT`.
    pub user_agent: Option<&'a [u8]>,
    /// `REMOTE_ADDR`.
    pub client: Option<&'a [u8]>,
    /// `CONTENT_LENGTH`.
    pub content_length: Option<u64>,
    /// `HTTPS`, or `REQUEST_SCHEME`.
    pub is_https: bool,
    /// Trace context.
    pub trace: Carrier<'a>,
}

impl<'a> Params<'a> {
    /// Reads a stream.
    #[must_use]
    pub fn read(stream: &'a [u8]) -> Self {
        let mut params = Self::default();
        let mut server_name = None;
        for (name, value) in Pairs(stream) {
            let some = (!value.is_empty()).then_some(value);
            match name {
                b"REQUEST_METHOD" => params.method = some,
                b"REQUEST_URI" => params.uri = some,
                b"SCRIPT_NAME" => params.script = value,
                b"PATH_INFO" => params.path_info = value,
                b"QUERY_STRING" => params.query = value,
                b"HTTP_HOST" => params.host = some,
                b"SERVER_NAME" => server_name = some,
                b"HTTP_USER_AGENT" => params.user_agent = some,
                b"REMOTE_ADDR" => params.client = some,
                b"CONTENT_LENGTH" => {
                    params.content_length = std::str::from_utf8(value)
                        .ok()
                        .and_then(|digits| digits.parse().ok());
                }
                b"HTTPS" => params.is_https |= !value.is_empty() && !value.eq_ignore_ascii_case(b"off"),
                b"REQUEST_SCHEME" => params.is_https |= value.eq_ignore_ascii_case(b"https"),
                _ => {
                    if let Some(field) = name.strip_prefix(b"HTTP_") {
                        params.field(field, value);
                    }
                }
            }
        }
        params.host = params.host.or(server_name);
        params
    }

    /// A header field of the request: its name with `_` for `-`.
    fn field(&mut self, name: &[u8], value: &'a [u8]) {
        let mut buffer = [0; MAX_NAME];
        let Some(field) = buffer.get_mut(..name.len()) else {
            return;
        };
        for (to, from) in field.iter_mut().zip(name) {
            *to = if *from == b'_' { b'-' } else { *from };
        }
        self.trace.offer(field, value.trim_ascii());
    }

    /// The target, as the client sent it or put together again.
    #[must_use]
    pub fn target(&self) -> std::borrow::Cow<'a, [u8]> {
        if let Some(uri) = self.uri {
            return uri.into();
        }
        let mut target = [self.script, self.path_info].concat();
        if !self.query.is_empty() {
            target.push(b'?');
            target.extend_from_slice(self.query);
        }
        target.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        let long = [&b"\x01\x80\0\0\x80a"[..], &[b'b'; 128]].concat();
        for (stream, expected) in [
            (&b""[..], vec![]),
            (b"\x01\x02abc", vec![(&b"a"[..], &b"bc"[..])]),
            (b"\x01\0a\0\x01b", vec![(b"a", b""), (b"", b"b")]),
            (&long, vec![(b"a", &[b'b'; 128])]),
            (b"\x01\x02ab", vec![]),
            (b"\x01\xff\xff\xff\xffab", vec![]),
            (b"\x01\x80\0\0", vec![]),
            (b"\x01", vec![]),
        ] {
            let found: Vec<_> = Pairs(stream).collect();
            assert_eq!(found, expected, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn targets_are_put_together() {
        for (uri, script, info, query, expected) in [
            ("/a?b", "/index.php", "", "b", "/a?b"),
            ("", "/index.php", "", "", "/index.php"),
            ("", "/a.php", "/b", "c=d", "/a.php/b?c=d"),
        ] {
            let params = Params {
                uri: (!uri.is_empty()).then_some(uri.as_bytes()),
                script: script.as_bytes(),
                path_info: info.as_bytes(),
                query: query.as_bytes(),
                ..Params::default()
            };
            assert_eq!(params.target(), expected.as_bytes());
        }
    }
}
