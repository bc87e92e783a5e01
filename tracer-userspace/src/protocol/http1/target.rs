//! Request targets (RFC 9112 section 3.2) and authorities (RFC 3986 section 3.2).

/// A target taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// Only in absolute form.
    pub scheme: Option<&'a str>,
    /// In absolute and authority form, credentials included.
    pub authority: Option<&'a str>,
    /// `None` in authority form.
    pub path: Option<&'a str>,
    /// Without its `?`.
    pub query: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// Takes `target` apart. `connect` says whether the method is CONNECT, whose target is an authority.
    pub fn parse(target: &'a str, connect: bool) -> Self {
        if connect {
            return Self {
                scheme: None,
                authority: Some(target),
                path: None,
                query: None,
            };
        }
        let (scheme, authority, rest) = match target.starts_with('/') {
            true => (None, None, target),
            false => match target.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
                Some((scheme, rest)) => {
                    let end = rest.find(['/', '?']).unwrap_or(rest.len());
                    let (authority, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
                    (Some(scheme), Some(authority), rest)
                }
                None => (None, None, target),
            },
        };
        let (path, query) =
            match memchr::memchr(b'?', rest.as_bytes()).and_then(|at| rest.split_at_checked(at)) {
                Some((path, query)) => (path, query.get(1..)),
                None => (rest, None),
            };
        let path = if path.is_empty() { "/" } else { path };
        Self {
            scheme,
            authority,
            path: Some(path),
            query: query.filter(|query| !query.is_empty()),
        }
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Host and port of an authority, without credentials and without the brackets of an IPv6 address.
pub fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    // The usual case: a name or an IPv4 address, and perhaps a port.
    let plain = |host: &str| host.bytes().all(|byte| HOST[usize::from(byte)]);
    let digits = authority.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (before, port) = authority
        .split_at_checked(authority.len() - digits)
        .unwrap_or_default();
    match before.strip_suffix(':') {
        Some(host) if plain(host) => return (host, port_number(port)),
        None if plain(before) => return (authority, None),
        _ => {}
    }
    // One pass: what matters is where these stand.
    let (mut at, mut first_colon, mut colons) = (None, None, 0);
    for (index, byte) in authority.bytes().enumerate() {
        match byte {
            b'@' => (at, first_colon, colons) = (Some(index), None, 0),
            b':' => {
                first_colon.get_or_insert(index);
                colons += 1;
            }
            _ => {}
        }
    }
    let start = at.map_or(0, |at| at + 1);
    let host = authority.get(start..).unwrap_or_default();
    let (host, port) = match (host.strip_prefix('['), first_colon) {
        (Some(rest), _) => match rest.split_once(']') {
            Some((inner, rest)) => (inner, rest.strip_prefix(':')),
            None => (host, None),
        },
        (None, Some(colon)) if colons == 1 => (
            authority.get(start..colon).unwrap_or_default(),
            authority.get(colon + 1..),
        ),
        // More colons: an IPv6 address without brackets.
        _ => (host, None),
    };
    (host, port.and_then(port_number))
}

/// Bytes of names and IPv4 addresses.
const HOST: [bool; 256] = {
    let mut host = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        host[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'.' | b'-' | b'_');
        byte += 1;
    }
    host
};

fn port_number(digits: &str) -> Option<u16> {
    if digits.is_empty() {
        return None;
    }
    digits.bytes().try_fold(0u16, |port, byte| {
        let digit = byte.wrapping_sub(b'0');
        port.checked_mul(10)?
            .checked_add((digit < 10).then_some(u16::from(digit))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        // target -> scheme | authority | path | query
        let rows = [
            ("/", "- - / -"),
            ("/a/b", "- - /a/b -"),
            ("/a?b=c", "- - /a b=c"),
            ("/a?", "- - /a -"),
            ("/?a?b", "- - / a?b"),
            ("/a://b", "- - /a://b -"),
            ("//a/b", "- - //a/b -"),
            ("*", "- - * -"),
            ("?a", "- - / a"),
            ("a", "- - a -"),
            ("http://h/p?q", "http h /p q"),
            ("http://h", "http h / -"),
            ("http://h?q", "http h / q"),
            ("https://u:p@h:1/", "https u:p@h:1 / -"),
            ("HTTP://h/", "HTTP h / -"),
            ("://h/", "- - ://h/ -"),
            ("1http://h/", "- - 1http://h/ -"),
        ];
        for (target, wanted) in rows {
            let t = Target::parse(target, false);
            let seen = [t.scheme, t.authority, t.path, t.query]
                .map(|part| part.unwrap_or("-"))
                .join(" ");
            assert_eq!(seen, wanted, "{target}");
        }
        let connect = Target::parse("h:443", true);
        assert_eq!((connect.authority, connect.path), (Some("h:443"), None));
    }

    #[test]
    fn authorities() {
        let rows = [
            ("h", "h", None),
            ("h:80", "h", Some(80)),
            ("h:", "h", None),
            ("h:x", "h", None),
            ("h:+80", "h", None),
            ("h:65536", "h", None),
            ("127.0.0.1:8080", "127.0.0.1", Some(8080)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("[::1", "[::1", None),
            ("::1", "::1", None),
            ("u:p@h:80", "h", Some(80)),
            ("u@[::1]:80", "::1", Some(80)),
            ("", "", None),
        ];
        for (authority, host, port) in rows {
            assert_eq!(host_and_port(authority), (host, port), "{authority}");
        }
    }
}
