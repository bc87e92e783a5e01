//! Removes secrets from command lines before they leave the host.

/// What stands in a secret's place.
pub const REDACTED: &str = "REDACTED";

/// Arguments kept of one command line, and bytes of each.
const MAX_ARGS: usize = 64;
const MAX_ARG: usize = 512;

/// Parts of a key that say that its value is a secret. Compared in lower case, without `-` and `_`.
const SECRET_KEYS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "auth",
    "cookie",
    "signature",
    "connectionstring",
    "sas",
    "jwt",
    "bearer",
    "encryptionkey",
    "masterkey",
    "signingkey",
];
/// Keys that hold such a part and are none.
const HARMLESS_KEYS: &[&str] = &[
    "author",
    "authority",
    "authmode",
    "authtype",
    "authenticationdatabase",
    "tokenizer",
    "sasl",
];
/// How known kinds of secrets begin.
const SECRET_VALUES: &[&str] = &[
    "eyJ",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "sk-",
    "sk_live_",
    "rk_live_",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "ASIA",
    "AIza",
    "-----BEGIN",
];

/// The arguments as they may be exported (`process.command_args`).
#[must_use]
pub fn redact(args: &[String]) -> Vec<Box<str>> {
    let mut out = Vec::with_capacity(args.len().min(MAX_ARGS));
    let mut secret_follows = false;
    for arg in args.iter().take(MAX_ARGS) {
        let bare = arg.trim_start_matches('-');
        if std::mem::take(&mut secret_follows) && !arg.starts_with("--") {
            out.push(REDACTED.into());
            continue;
        }
        // `--password x`, `-u user:password` (curl), `-a password` (redis-cli), `-H 'Authorization: …'`.
        let is_option = arg.starts_with('-') && !arg.contains(['=', ' ', ':', '/']);
        secret_follows = is_option
            && (is_secret_key(bare) || matches!(arg.as_str(), "-u" | "--user" | "-a" | "-H" | "--header"));
        out.push(cut(&redact_arg(arg)).into());
    }
    out
}

/// One argument, which may be a whole command line (a process title, the code of `sh -c`).
fn redact_arg(arg: &str) -> String {
    if arg.contains(' ') {
        let words: Vec<String> = arg.split(' ').map(str::to_owned).collect();
        let mut out = String::with_capacity(arg.len());
        let mut secret_follows = false;
        for word in &words {
            if !out.is_empty() {
                out.push(' ');
            }
            if std::mem::take(&mut secret_follows) && !word.is_empty() {
                out.push_str(REDACTED);
                secret_follows = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
                continue;
            }
            let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
            secret_follows =
                (word.starts_with('-') || word.ends_with(':')) && !word.contains('=') && is_secret_key(bare);
            out.push_str(&redact_word(word));
        }
        return out;
    }
    redact_word(arg)
}

fn redact_word(word: &str) -> String {
    if let Some((key, value)) = word.split_once('=') {
        let name = key
            .rsplit(['.', ':', '?', '&', ',', ';'])
            .next()
            .unwrap_or(key)
            .trim_start_matches('-');
        if !value.is_empty() && (is_secret_key(name) || is_secret_key(key)) {
            return format!("{key}={REDACTED}");
        }
        // `-e KEY=value`, `--dsn=user=x;password=y`: what follows is judged on its own.
        return format!("{key}={}", redact_word(value));
    }
    // `-Dpassword:x`; MySQL's `-psecret` cannot be told from `-port`, so only what its clients use is removed.
    if SECRET_VALUES
        .iter()
        .any(|start| word.trim_start_matches(['"', '\'']).starts_with(start))
    {
        return REDACTED.to_owned();
    }
    redact_url(word)
}

/// Removes `user:password@` and secret query values from a URL.
fn redact_url(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{REDACTED}@{host}"),
        None => authority.to_owned(),
    };
    let path = match path.split_once('?') {
        Some((before, query)) => {
            let query: Vec<String> = query.split('&').map(redact_word).collect();
            format!("{before}?{}", query.join("&"))
        }
        None => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

fn is_secret_key(key: &str) -> bool {
    let plain: String = key
        .chars()
        .filter(|c| *c != '-' && *c != '_')
        .flat_map(char::to_lowercase)
        .collect();
    SECRET_KEYS.iter().any(|k| plain.contains(k)) && !HARMLESS_KEYS.iter().any(|k| plain.contains(k))
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_ARG);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_and_the_rest_stays() {
        let rows: &[(&[&str], &[&str])] = &[
            (&["nginx", "-g", "daemon off;"], &["nginx", "-g", "daemon off;"]),
            (
                &["x", "--password", "s3cret", "y"],
                &["x", "--password", "REDACTED", "y"],
            ),
            (&["x", "--password=s3cret"], &["x", "--password=REDACTED"]),
            (&["x", "--api-key", "s3cret"], &["x", "--api-key", "REDACTED"]),
            (&["x", "--db_passwd=s3cret"], &["x", "--db_passwd=REDACTED"]),
            (
                &["java", "-Dspring.datasource.password=s3cret"],
                &["java", "-Dspring.datasource.password=REDACTED"],
            ),
            (&["x", "PGPASSWORD=s3cret"], &["x", "PGPASSWORD=REDACTED"]),
            (
                &["x", "postgres://u:s3cret@db:5432/shop"],
                &["x", "postgres://REDACTED@db:5432/shop"],
            ),
            (
                &["x", "--dsn=postgres://u:s3cret@db/shop"],
                &["x", "--dsn=postgres://REDACTED@db/shop"],
            ),
            (
                &["x", "http://h/p?a=1&token=s3cret"],
                &["x", "http://h/p?a=1&token=REDACTED"],
            ),
            (
                &["curl", "-u", "me:s3cret", "http://h/"],
                &["curl", "-u", "REDACTED", "http://h/"],
            ),
            (
                &["curl", "-H", "Authorization: Bearer s3cret"],
                &["curl", "-H", "REDACTED"],
            ),
            (
                &["sh", "-c", "run --password s3cret --port 1"],
                &["sh", "-c", "run --password REDACTED --port 1"],
            ),
            (&["x", "eyJhbGciOiJIUzI1NiJ9.s3cret"], &["x", "REDACTED"]),
            (
                &["x", "--author=me", "--sasl-mechanism=PLAIN"],
                &["x", "--author=me", "--sasl-mechanism=PLAIN"],
            ),
            (&["x", "--secret", "--verbose"], &["x", "--secret", "--verbose"]),
            (
                &["x", "Server=h;Password=s3cret"],
                &["x", "Server=h;Password=REDACTED"],
            ),
        ];
        for (args, expected) in rows {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            let got = redact(&args);
            assert!(!got.concat().contains("s3cret"), "{got:?}");
            assert_eq!(got.iter().map(|a| &**a).collect::<Vec<_>>(), *expected);
        }
    }

    #[test]
    fn long_command_lines_are_cut() {
        let args: Vec<String> = (0..1_000).map(|_| "é".repeat(1_000)).collect();
        let got = redact(&args);
        assert_eq!((got.len(), got[0].len()), (MAX_ARGS, MAX_ARG));
    }
}
