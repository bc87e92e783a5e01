//! Removes credentials from URLs before they become attributes.

/// What stands in place of a secret (the word of the semantic conventions).
pub const REDACTED: &str = "REDACTED";

/// Names of query parameters whose values are secret, in lower case.
const SECRET_NAMES: &[&str] = &[
    "auth",
    "authorization",
    "code",
    "cred",
    "creds",
    "jwt",
    "key",
    "otp",
    "pass",
    "passphrase",
    "pin",
    "pwd",
    "session",
    "sessionid",
    "sid",
    "sig",
    "ticket",
];

/// Parts of such names.
const SECRET_PARTS: &[&str] = &[
    "token",
    "secret",
    "password",
    "passwd",
    "signature",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "accesskey",
    "access_key",
    "access-key",
    "private_key",
    "jsessionid",
    "phpsessid",
];

/// Longest parameter name that is looked at in full.
const MAX_NAME: usize = 64;

/// Appends `query` (without its `?`) with the values of secret parameters replaced.
pub fn write_query(query: &str, out: &mut String) {
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name) => {
                out.push_str(name);
                out.push('=');
                out.push_str(REDACTED);
            }
            _ => out.push_str(pair),
        }
    }
}

/// Appends `path` with the values of secret matrix parameters (`;jsessionid=…`) replaced.
pub fn write_path(path: &str, out: &mut String) {
    let mut rest = path;
    // Most paths have none: a plain loop over few bytes beats setting up a search.
    if !path.bytes().any(|byte| byte == b';') {
        out.push_str(path);
        return;
    }
    while let Some(at) = memchr::memchr(b';', rest.as_bytes()) {
        let (before, parameter) = rest.split_at_checked(at + 1).unwrap_or((rest, ""));
        out.push_str(before);
        let end = parameter.find([';', '/']).unwrap_or(parameter.len());
        let (parameter, after) = parameter.split_at_checked(end).unwrap_or((parameter, ""));
        write_query(parameter, out);
        rest = after;
    }
    out.push_str(rest);
}

/// Appends the authority of a URL with user name and password replaced.
pub fn write_authority(authority: &str, out: &mut String) {
    match authority.rsplit_once('@') {
        Some((user, host)) => {
            out.push_str(REDACTED);
            if user.contains(':') {
                out.push(':');
                out.push_str(REDACTED);
            }
            out.push('@');
            out.push_str(host);
        }
        None => out.push_str(authority),
    }
}

/// Whether a parameter of this name (percent-encoded, any case) holds a secret.
fn is_secret(name: &str) -> bool {
    let mut buffer = [0u8; MAX_NAME];
    let mut len = 0;
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                let (high, low) = (digit(), digit());
                match (high, low) {
                    (Some(high), Some(low)) => (high * 16 + low) as u8,
                    _ => b'%',
                }
            }
            other => other,
        };
        let Some(free) = buffer.get_mut(len) else {
            break;
        };
        *free = byte.to_ascii_lowercase();
        len += 1;
    }
    let name = buffer.get(..len).unwrap_or_default();
    // `user[password]`, `X-Amz-Signature`, `AWSAccessKeyId` are found by their parts.
    SECRET_NAMES.iter().any(|secret| name == secret.as_bytes())
        || SECRET_PARTS.iter().any(|part| contains(name, part.as_bytes()))
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: fn(&str, &mut String), rows: &[(&str, &str)]) {
        for (text, wanted) in rows {
            let mut out = String::new();
            write(text, &mut out);
            let wanted = if *wanted == "=" { text } else { wanted };
            assert_eq!(&out, wanted, "{text}");
        }
    }

    #[test]
    fn queries() {
        check(
            write_query,
            &[
                ("", "="),
                ("a=1&b=2", "="),
                ("a", "="),
                ("a=&&=b", "="),
                ("token=abc", "token=REDACTED"),
                ("a=1&access_token=abc&b=2", "a=1&access_token=REDACTED&b=2"),
                ("Password=x", "Password=REDACTED"),
                ("pass%77ord=x", "pass%77ord=REDACTED"),
                ("user%5Bpassword%5D=x", "user%5Bpassword%5D=REDACTED"),
                ("user[password]=x", "user[password]=REDACTED"),
                (
                    "api_key=1&API-KEY=2&apiKey=3",
                    "api_key=REDACTED&API-KEY=REDACTED&apiKey=REDACTED",
                ),
                (
                    "X-Amz-Signature=1&X-Amz-Date=2",
                    "X-Amz-Signature=REDACTED&X-Amz-Date=2",
                ),
                (
                    "X-Amz-Security-Token=1&X-Amz-Credential=2",
                    "X-Amz-Security-Token=REDACTED&X-Amz-Credential=REDACTED",
                ),
                (
                    "AWSAccessKeyId=1&Signature=2&X-Goog-Signature=3&sig=4",
                    "AWSAccessKeyId=REDACTED&Signature=REDACTED&X-Goog-Signature=REDACTED&sig=REDACTED",
                ),
                ("code=1&state=2", "code=REDACTED&state=2"),
                ("client_secret=1", "client_secret=REDACTED"),
                ("key=1&keyword=2&monkey=3", "key=REDACTED&keyword=2&monkey=3"),
                ("signal=1&sid=2&side=3", "signal=1&sid=REDACTED&side=3"),
                ("token=", "="),
                ("token=a=b", "token=REDACTED"),
                ("token", "="),
                ("pass%zzword=x", "="),
                ("jwt=eyJh", "jwt=REDACTED"),
            ],
        );
    }

    #[test]
    fn paths() {
        check(
            write_path,
            &[
                ("/a/b", "="),
                ("/a;v=1/b", "="),
                ("/a;jsessionid=1A2B/b", "/a;jsessionid=REDACTED/b"),
                ("/a;JSESSIONID=1A2B;v=2", "/a;JSESSIONID=REDACTED;v=2"),
                ("/a;", "="),
                (";;", "="),
            ],
        );
    }

    #[test]
    fn authorities() {
        check(
            write_authority,
            &[
                ("example.org:80", "="),
                ("ann@example.org", "REDACTED@example.org"),
                ("ann:pw@example.org:80", "REDACTED:REDACTED@example.org:80"),
                ("a:b@c@example.org", "REDACTED:REDACTED@example.org"),
            ],
        );
    }
}
