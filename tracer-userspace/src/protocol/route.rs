//! Routes: paths with their variable parts replaced, so that their number stays low without configuration.

use std::sync::OnceLock;

/// Most segments that a route keeps; the rest becomes `*`.
const MAX_SEGMENTS: usize = 12;

/// Segments shorter than this can be neither hashes of letters nor long titles.
const PLAIN_SEGMENT: usize = 16;

/// Longest literal segment.
const MAX_LITERAL: usize = 64;

/// What users say about their routes.
#[derive(Clone, Debug, Default)]
pub struct RouteRules {
    patterns: Vec<Box<str>>,
}

static RULES: OnceLock<RouteRules> = OnceLock::new();

/// Sets the rules for the life of the process. False if they were set already.
pub fn configure(rules: RouteRules) -> bool {
    RULES.set(rules).is_ok()
}

impl RouteRules {
    /// Rules from patterns such as `/users/{name}/posts/*`: a segment in braces or `*` matches any one segment, a last
    /// segment `**` any rest. The first pattern that matches a path is its route.
    #[must_use]
    pub fn new(patterns: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self {
            patterns: patterns.into_iter().map(Into::into).collect(),
        }
    }

    /// Appends the route of `path` (without its query).
    pub fn write(&self, path: &str, route: &mut String) {
        match self.patterns.iter().find(|pattern| matches(pattern, path)) {
            Some(pattern) => route.push_str(pattern),
            None => guess(path, route),
        }
    }
}

/// Appends the route of `path` by the configured rules.
pub fn write(path: &str, route: &mut String) {
    match RULES.get() {
        Some(rules) => rules.write(path, route),
        None => guess(path, route),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        if wanted == "**" {
            return segments.next().is_some();
        }
        let Some(segment) = segments.next() else {
            return false;
        };
        let any = wanted == "*" || (wanted.starts_with('{') && wanted.ends_with('}'));
        if (any && segment.is_empty()) || (!any && wanted != segment) {
            return false;
        }
    }
    segments.next().is_none()
}

/// Bytes that say nothing about a segment: small letters and the usual marks between them.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte] = matches!(byte as u8, b'a'..=b'z' | b'.' | b'-' | b'_' | b'~');
        byte += 1;
    }
    plain
};

/// Whether every segment is a short word of plain bytes, as most are.
fn is_plain(path: &str) -> bool {
    let (mut segments, mut len) = (0, 0);
    for byte in path.bytes() {
        if byte == b'/' {
            (segments, len) = (segments + 1, 0);
            continue;
        }
        len += 1;
        if !PLAIN[usize::from(byte)] || len >= PLAIN_SEGMENT {
            return false;
        }
    }
    segments <= MAX_SEGMENTS
}

fn guess(path: &str, route: &mut String) {
    if is_plain(path) {
        route.push_str(path);
        return;
    }
    let mut rest = path;
    for _ in 0..=MAX_SEGMENTS {
        let (segment, after) = split(rest, b'/');
        write_segment(segment, route);
        let Some(next) = after else {
            return;
        };
        route.push('/');
        rest = next;
    }
    route.push('*');
}

/// What is before the first `mark`, and what is behind it. Segments are short: a plain loop beats setting up a search.
fn split(text: &str, mark: u8) -> (&str, Option<&str>) {
    let end = text.bytes().position(|byte| byte == mark).unwrap_or(text.len());
    let (before, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    (before, rest.get(1..))
}

fn write_segment(segment: &str, route: &mut String) {
    // Matrix parameters (`;jsessionid=…`) are no part of a route.
    let (segment, _) = split(segment, b';');
    if segment.len() < PLAIN_SEGMENT && segment.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        route.push_str(segment);
        return;
    }
    if let Some(placeholder) = classify(segment) {
        route.push_str(placeholder);
        return;
    }
    // `123.json`, `123:activate`: the variable part comes first.
    if let Some(at) = segment.rfind(['.', ':'])
        && let Some((stem, suffix)) = segment.split_at_checked(at)
        && suffix.len() <= 16
        && suffix.bytes().skip(1).all(|b| b.is_ascii_alphabetic())
        && let Some(placeholder) = classify(stem)
    {
        route.push_str(placeholder);
        route.push_str(suffix);
        return;
    }
    route.push_str(segment);
}

/// The placeholder of a variable segment; `None` for a literal.
fn classify(segment: &str) -> Option<&'static str> {
    if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("{id}");
    }
    let shape = Shape::of(segment.as_bytes());
    let len = segment.len();
    if is_uuid(segment.as_bytes()) {
        return Some("{uuid}");
    }
    if shape.hex == len && ((len >= 7 && shape.digits > 0) || len >= 16) {
        return Some("{hash}");
    }
    if is_date(segment.as_bytes()) {
        return Some("{date}");
    }
    if is_email(segment) {
        return Some("{email}");
    }
    let numeric = shape.digits + shape.number_marks == len && shape.digits > 0;
    // `1.2` and `1.2.3` are versions; `51.5074` and `1,2,3` are values, and so is `10.0.0.1`.
    let version = shape.digits <= 6
        && shape.number_marks <= 2
        && segment.bytes().all(|b| b == b'.' || b.is_ascii_digit());
    if numeric && !version {
        return Some("{id}");
    }
    let scattered = shape.digits >= 2 && shape.digit_turns >= 4;
    // Words joined by capitals have few of them; random letters have as many as small ones.
    let random = len >= 16 && shape.upper >= len / 3 && shape.lower >= len / 4 && shape.case_turns >= len / 4;
    let slug = shape.separators >= 6 && len >= PLAIN_SEGMENT;
    let foreign = shape.escapes >= 3 || shape.other > 0;
    (shape.digits >= 4 || scattered || random || slug || foreign || len > MAX_LITERAL).then_some("{id}")
}

/// What a segment is made of.
#[derive(Default)]
struct Shape {
    digits: usize,
    hex: usize,
    upper: usize,
    lower: usize,
    /// `.`, `,`, `+`, `-`
    number_marks: usize,
    /// `-`, `_`
    separators: usize,
    /// `%`
    escapes: usize,
    /// Not ASCII.
    other: usize,
    /// Changes between digits and letters.
    digit_turns: usize,
    /// Changes between upper and lower case.
    case_turns: usize,
}

impl Shape {
    fn of(segment: &[u8]) -> Self {
        let mut shape = Self::default();
        let mut before = 0u8;
        for &byte in segment {
            shape.hex += usize::from(byte.is_ascii_hexdigit());
            shape.digit_turns += usize::from(
                (byte.is_ascii_digit() && before.is_ascii_alphabetic())
                    || (byte.is_ascii_alphabetic() && before.is_ascii_digit()),
            );
            shape.case_turns += usize::from(
                (byte.is_ascii_uppercase() && before.is_ascii_lowercase())
                    || (byte.is_ascii_lowercase() && before.is_ascii_uppercase()),
            );
            match byte {
                b'0'..=b'9' => shape.digits += 1,
                b'A'..=b'Z' => shape.upper += 1,
                b'a'..=b'z' => shape.lower += 1,
                b'-' => {
                    shape.separators += 1;
                    shape.number_marks += 1;
                }
                b'_' => shape.separators += 1,
                b'.' | b',' | b'+' => shape.number_marks += 1,
                b'%' => shape.escapes += 1,
                0x80.. => shape.other += 1,
                _ => {}
            }
            before = byte;
        }
        shape
    }
}

fn is_uuid(segment: &[u8]) -> bool {
    segment.len() == 36
        && segment.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `2026-11-21`, perhaps with a time behind it.
fn is_date(segment: &[u8]) -> bool {
    let Some((date, rest)) = segment.split_at_checked(10) else {
        return false;
    };
    let shaped = date.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    shaped && matches!(rest, [] | [b'T' | b't' | b'_' | b' ' | b'%', ..])
}

fn is_email(segment: &str) -> bool {
    let at = segment.split_once('@').or_else(|| segment.split_once("%40"));
    at.is_some_and(|(user, domain)| !user.is_empty() && domain.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path and route; `=` for the path itself.
    const ROWS: &[(&str, &str)] = &[
        ("/", "="),
        ("", "="),
        ("/users", "="),
        ("/users/", "="),
        ("//", "="),
        ("/users/7", "/users/{id}"),
        ("/users/7/", "/users/{id}/"),
        ("/users/0", "/users/{id}"),
        ("/users/-7", "/users/{id}"),
        ("/users/7/posts/99", "/users/{id}/posts/{id}"),
        ("/v1/users", "="),
        ("/api/v2beta1/things", "="),
        ("/oauth2/token", "="),
        ("/log4j", "="),
        ("/utf-8", "="),
        ("/sha256", "="),
        ("/i18n/en-GB", "="),
        ("/a/123e4567-e89b-12d3-a456-426614174000", "/a/{uuid}"),
        ("/a/123E4567-E89B-12D3-A456-426614174000/b", "/a/{uuid}/b"),
        ("/a/123e4567e89b12d3a456426614174000", "/a/{hash}"),
        ("/commit/9fceb02", "/commit/{hash}"),
        (
            "/commit/9fceb02d0ae598e95dc970b74767f19372d61af8",
            "/commit/{hash}",
        ),
        ("/o/507f1f77bcf86cd799439011", "/o/{hash}"),
        ("/deadbeef", "="),
        ("/deadbeefdeadbeef", "/{hash}"),
        ("/facade", "="),
        ("/2026-11-21", "/{date}"),
        ("/2026-11-21T12:00:00Z", "/{date}"),
        ("/2026/11/21", "/{id}/{id}/{id}"),
        ("/20261121", "/{id}"),
        ("/users/ann@example.org", "/users/{email}"),
        ("/users/ann%40example.org/x", "/users/{email}/x"),
        ("/@ann", "="),
        ("/docs/1.2", "="),
        ("/docs/1.2.3", "="),
        ("/ip/10.0.0.1", "/ip/{id}"),
        ("/at/51.5074/-0.1278", "/at/{id}/{id}"),
        ("/list/1,2,3", "/list/{id}"),
        ("/orders/order-99812", "/orders/{id}"),
        ("/sku12345", "/{id}"),
        ("/x/a1b2c3", "/x/{id}"),
        ("/t/dQw4w9WgXcQ", "/t/{id}"),
        ("/t/aZbYcXdWeVfUgThSiR", "/t/{id}"),
        ("/getUserProfileById", "="),
        ("/com.example.UserService", "="),
        ("/how-to-make-tea-in-five-easy-steps", "/{id}"),
        ("/terms-and-conditions", "="),
        ("/index.html", "="),
        ("/jquery-3.6.0.min.js", "="),
        ("/app.3f2a9c1b4d.js", "/{id}"),
        ("/users/123.json", "/users/{id}.json"),
        ("/users/123:activate", "/users/{id}:activate"),
        ("/users:batchGet", "="),
        ("/a;jsessionid=ABC123DEF/b", "/a/b"),
        ("/%D0%BF%D1%80%D0%B8", "/{id}"),
        ("/caf\u{e9}", "/{id}"),
        ("/a%20b", "="),
        (
            "/1/2/3/4/5/6/7/8/9/10/11/12/13/14",
            "/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/{id}/*",
        ),
        ("/wp-content/plugins", "="),
        ("/.well-known/acme-challenge", "="),
        ("/eyJhbGciOiJIUzI1NiJ9", "/{id}"),
        ("/product_12345_large", "/{id}"),
        ("*", "="),
    ];

    #[test]
    fn variable_segments_are_replaced() {
        for (path, wanted) in ROWS {
            let mut route = String::new();
            RouteRules::default().write(path, &mut route);
            let wanted = if *wanted == "=" { path } else { wanted };
            assert_eq!(&route, wanted, "{path}");
        }
        let mut route = String::new();
        RouteRules::default().write(&format!("/{}", "x".repeat(65)), &mut route);
        assert_eq!(route, "/{id}");
    }

    #[test]
    fn user_patterns_win() {
        let rules = RouteRules::new(["/users/{name}", "/files/**", "/a/*/c", "/exact/42"]);
        let rows = [
            ("/users/ann", "/users/{name}"),
            ("/users/7", "/users/{name}"),
            ("/users/", "/users/"),
            ("/users/7/x", "/users/{id}/x"),
            ("/files/a/b/c", "/files/**"),
            ("/files/", "/files/**"),
            ("/files", "/files"),
            ("/a/b/c", "/a/*/c"),
            ("/a//c", "/a//c"),
            ("/exact/42", "/exact/42"),
            ("/exact/43", "/exact/{id}"),
        ];
        for (path, wanted) in rows {
            let mut route = String::new();
            rules.write(path, &mut route);
            assert_eq!(route, wanted, "{path}");
        }
    }
}
