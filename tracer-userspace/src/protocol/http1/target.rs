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
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match authority.split_once(':') {
            // More colons: an IPv6 address without brackets.
            Some((_, rest)) if rest.contains(':') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let digits = |port: &&str| port.bytes().all(|b| b.is_ascii_digit());
    (host, port.filter(digits).and_then(|port| port.parse().ok()))
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
