//! What an answer means: delivered, try again, or give up. OTLP specification, "Failures" and "Throttling".

use std::time::{Duration, SystemTime};

use tonic::Code;

use super::config;

/// The backend's answer to one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::export) enum Answer {
    /// Taken; `rejected` spans were not, and the backend may say something.
    Taken {
        /// Spans that the backend refused.
        rejected: u64,
        /// What it says, may be empty.
        message: String,
    },
    /// Not taken, but it may be later, no earlier than `after`.
    Later {
        /// The wait that the backend asked for.
        after: Option<Duration>,
        /// For the log.
        why: String,
    },
    /// Refused because it is larger than the backend takes.
    TooLarge {
        /// For the log.
        why: String,
    },
    /// Refused for good.
    Refused {
        /// For the log.
        why: String,
    },
}

/// Sorts a gRPC status; `retry_after` is what its `RetryInfo` says, `None` without one.
pub(super) fn grpc(code: Code, retry_after: Option<Duration>, why: String) -> Answer {
    match code {
        Code::ResourceExhausted | Code::OutOfRange if is_too_large(&why) => Answer::TooLarge { why },
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Answer::Later {
            after: retry_after,
            why,
        },
        // Retryable only if the server says that it can recover.
        Code::ResourceExhausted if retry_after.is_some() => Answer::Later {
            after: retry_after,
            why,
        },
        _ => Answer::Refused { why },
    }
}

/// gRPC has no code of its own for it; these are the words of grpc-go, tonic and grpc-java.
fn is_too_large(why: &str) -> bool {
    ["larger than max", "length too large", "exceeds maximum size"]
        .iter()
        .any(|words| why.contains(words))
}

/// Sorts an HTTP status other than 2xx; `retry_after` is the header's text.
pub(super) fn http(status: u16, retry_after: Option<&str>, now: SystemTime, why: String) -> Answer {
    match status {
        429 | 502 | 503 | 504 => Answer::Later {
            after: retry_after.and_then(|text| parse_retry_after(text, now)),
            why,
        },
        413 => Answer::TooLarge { why },
        // Go's `http.MaxBytesReader`, as the Collector and Jaeger answer.
        400 if why.contains("request body too large") => Answer::TooLarge { why },
        _ => Answer::Refused { why },
    }
}

/// `Retry-After`: seconds or a date (RFC 9110 section 10.2.3).
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// Exponential back-off with jitter: waits are between half and all of the step.
pub(in crate::export) struct Backoff {
    step: Duration,
    max: Duration,
    left: Duration,
}

impl Backoff {
    pub fn new(config: &config::Retry) -> Self {
        // Never zero, or a dead backend would be asked in a busy loop.
        let initial = config.initial.max(Duration::from_millis(1));
        Self {
            step: initial,
            max: config.max.max(initial),
            left: config.give_up,
        }
    }

    /// The next wait, or `None` if it is time to give up. `asked` is the backend's own wish; `random` in 0..1.
    pub fn next(&mut self, asked: Option<Duration>, random: f64) -> Option<Duration> {
        let jittered = self.step.mul_f64(0.5 + random / 2.0);
        // The backend's wish is a lower bound, never an invitation to ask without pause.
        let wait = asked.map_or(jittered, |asked| asked.max(jittered));
        self.step = self.step.saturating_mul(2).min(self.max);
        self.left = self.left.checked_sub(wait)?;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn grpc_codes_are_sorted_as_the_specification_says() {
        for code in (0..=16).map(Code::from) {
            let later = matches!(grpc(code, None, String::new()), Answer::Later { .. });
            let expected = [
                Code::Cancelled,
                Code::DeadlineExceeded,
                Code::Aborted,
                Code::OutOfRange,
                Code::Unavailable,
                Code::DataLoss,
            ];
            assert_eq!(later, expected.contains(&code), "{code:?}");
        }
        let exhausted = grpc(Code::ResourceExhausted, Some(SECOND), String::new());
        assert_eq!(
            exhausted,
            Answer::Later {
                after: Some(SECOND),
                why: String::new()
            }
        );
    }

    #[test]
    fn http_codes_are_sorted_as_the_specification_says() {
        for status in 300..600 {
            let answer = http(status, None, SystemTime::UNIX_EPOCH, String::new());
            let later = matches!(answer, Answer::Later { .. });
            assert_eq!(later, [429, 502, 503, 504].contains(&status), "{status}");
        }
    }

    #[test]
    fn what_is_too_large_is_told_in_several_ways() {
        for (status, why, expected) in [
            (413, "", true),
            (400, "HTTP 400 Bad Request   http: request body too large", true),
            (400, "HTTP 400 Bad Request", false),
        ] {
            let answer = http(status, None, SystemTime::UNIX_EPOCH, why.to_owned());
            assert_eq!(
                matches!(answer, Answer::TooLarge { .. }),
                expected,
                "{status} {why}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(
                parse_retry_after(text, now),
                expected.map(Duration::from_secs),
                "{text:?}"
            );
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_end() {
        let config = config::Retry {
            initial: SECOND,
            max: 4 * SECOND,
            give_up: 16 * SECOND,
        };
        let mut backoff = Backoff::new(&config);
        let waits: Vec<_> = std::iter::from_fn(|| backoff.next(None, 1.0))
            .map(|wait| wait.as_secs())
            .collect();
        assert_eq!(
            waits,
            [1, 2, 4, 4, 4],
            "1 + 2 + 4 + 4 + 4 = 15, a sixth wait would pass 16"
        );
        let mut backoff = Backoff::new(&config);
        assert_eq!(backoff.next(None, 0.0), Some(SECOND / 2));
        assert_eq!(
            backoff.next(Some(5 * SECOND), 0.5),
            Some(5 * SECOND),
            "the backend's wish"
        );
        assert_eq!(backoff.next(Some(100 * SECOND), 0.5), None, "longer than we try");
        assert!(Backoff::new(&config).next(Some(Duration::ZERO), 0.5) > Some(Duration::ZERO));
    }
}
