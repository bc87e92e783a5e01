//! The CGI header of a response (RFC 3875 section 6.3).

/// Where the header ends, its empty line included, looking at bytes from `from` on (those before it were looked at already).
#[must_use]
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    if at == 0 {
        // No field at all.
        match bytes {
            [b'\n', ..] => return Some(1),
            [b'\r', b'\n', ..] => return Some(2),
            _ => {}
        }
    }
    loop {
        at = memchr::memchr(b'\n', bytes.get(at..)?)?
            .checked_add(at)?
            .checked_add(1)?;
        match bytes.get(at..)? {
            [b'\n', ..] => return at.checked_add(1),
            [b'\r', b'\n', ..] => return at.checked_add(2),
            _ => {}
        }
    }
}

/// The status: what `Status` says, else 302 with an absolute `Location`, else 200 with any field. `cut`: the header is not whole.
#[must_use]
pub fn status(head: &[u8], cut: bool) -> Option<u16> {
    let (mut fields, mut redirects, mut local) = (false, false, false);
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = line.split_at_checked(colon)?;
        let value = value.get(1..)?.trim_ascii();
        if name.eq_ignore_ascii_case(b"status") {
            let digits = value
                .first_chunk::<3>()
                .filter(|code| code.iter().all(u8::is_ascii_digit))?;
            return std::str::from_utf8(digits).ok()?.parse().ok();
        }
        if name.eq_ignore_ascii_case(b"location") {
            // The web server answers with another of its own resources itself (section 6.2.2).
            local = value.starts_with(b"/");
            redirects = !local;
        }
        fields = true;
    }
    match (cut || local, redirects, fields) {
        (true, ..) | (_, false, false) => None,
        (_, true, _) => Some(302),
        (_, false, true) => Some(200),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        for (bytes, from, expected) in [
            (&b"a: b\r\n\r\nc"[..], 0, Some(8)),
            (b"a: b\n\nc", 0, Some(6)),
            (b"a: b\r\n\nc", 0, Some(7)),
            (b"\r\nc", 0, Some(2)),
            (b"\nc", 0, Some(1)),
            (b"a: b\r\nc: d", 0, None),
            (b"a: b\r\n\r\n", 5, Some(8)),
            (b"", 0, None),
        ] {
            assert_eq!(end(bytes, from), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn statuses() {
        for (head, cut, expected) in [
            (
                "Status: 404 Not Found\r\nContent-type: text/html\r\n\r\n",
                false,
                Some(404),
            ),
            ("Content-type: text/html\r\nstatus:503\r\n\r\n", false, Some(503)),
            ("Content-type: text/html\r\n\r\n", false, Some(200)),
            ("Location: https://a/\r\n\r\n", false, Some(302)),
            ("Location: /a\r\n\r\n", false, None),
            (
                "Location: https://a/\r\nStatus: 301 Moved\r\n\r\n",
                false,
                Some(301),
            ),
            ("Status: 404 Not Found\r\nX-A: b", true, Some(404)),
            ("X-A: b\r\n", true, None),
            ("Status: x\r\n\r\n", false, None),
            ("\r\n", false, None),
        ] {
            assert_eq!(status(head.as_bytes(), cut), expected, "{head:?}");
        }
    }
}
