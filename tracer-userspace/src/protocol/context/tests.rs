use super::*;

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// `format trace span sampled state`, `-` for what is absent; empty if there is no context.
fn parse(fields: &[(&str, &str)]) -> String {
    let mut carrier = Carrier::default();
    for (name, value) in fields {
        carrier.offer(name.as_bytes(), value.as_bytes());
    }
    let Some(context) = carrier.parse() else {
        return String::new();
    };
    let span = context.span_id.map_or("-".into(), |id| text(&id.0));
    let sampled = context.sampled.map_or("-".into(), |s| u8::from(s).to_string());
    format!(
        "{} {} {span} {sampled} {}",
        context.format,
        text(&context.trace_id.0),
        context.trace_state
    )
    .trim_end()
    .to_string()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// One field, its value (`T` stands for a trace id, `S` for a span id) and what is read: `trace span sampled`.
const ROWS: &[(&str, &str, &str)] = &[
    // traceparent, W3C section 3.2
    ("traceparent", "00-T-S-01", "T S 1"),
    ("TraceParent", "00-T-S-00", "T S 0"),
    ("traceparent", "00-T-S-03", "T S 1"),
    ("traceparent", "00-T-S-02", "T S 0"),
    ("traceparent", "00-T-S-ff", "T S 1"),
    ("traceparent", "01-T-S-01", "T S 1"),
    ("traceparent", "cc-T-S-01-what-the-future", "T S 1"),
    ("traceparent", "cc-T-S-01-", "T S 1"),
    ("traceparent", "cc-T-S-01.what", ""),
    ("traceparent", "ff-T-S-01", ""),
    ("traceparent", "00-T-S-01-", ""),
    ("traceparent", "00-T-S-01-more", ""),
    ("traceparent", "00-T-S", ""),
    ("traceparent", "00-T-S-", ""),
    ("traceparent", "00-T-S-1", ""),
    ("traceparent", "00-T-S-0g", ""),
    ("traceparent", "00-T-S-0A", ""),
    ("traceparent", "0-T-S-01", ""),
    ("traceparent", "000-T-S-01", ""),
    ("traceparent", "-00-T-S-01", ""),
    ("traceparent", "00_T_S_01", ""),
    ("traceparent", "00-4BF92F3577B34DA6A3CE929D0E0E4736-S-01", ""),
    ("traceparent", "00-T-00F067AA0BA902B7-01", ""),
    ("traceparent", "00-00000000000000000000000000000000-S-01", ""),
    ("traceparent", "00-T-0000000000000000-01", ""),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473-0S-01", ""),
    ("traceparent", "00-T-00f067aa0ba902b-001", ""),
    ("traceparent", "00-T-00f067aa0ba902b7a-1", ""),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473z-S-01", ""),
    ("traceparent", "", ""),
    ("traceparent", "00", ""),
    // Elastic's, the same format
    ("elastic-apm-traceparent", "00-T-S-01", "T S 1"),
    ("Elastic-Apm-Traceparent", "00-T-S-00", "T S 0"),
    ("elastic-apm-traceparent", "T-S", ""),
    // b3
    ("b3", "T-S-1", "T S 1"),
    ("B3", "T-S-d", "T S 1"),
    ("b3", "T-S-0", "T S 0"),
    ("b3", "T-S", "T S -"),
    ("b3", "T-S-1-05e3ac9a4f6e3b90", "T S 1"),
    (
        "b3",
        "a3ce929d0e0e4736-S-1",
        "0000000000000000a3ce929d0e0e4736 S 1",
    ),
    ("b3", "4BF92F3577B34DA6A3CE929D0E0E4736-S-1", "T S 1"),
    ("b3", "0", ""),
    ("b3", "1", ""),
    ("b3", "d", ""),
    ("b3", "T", ""),
    ("b3", "T-", ""),
    ("b3", "T-S-", ""),
    ("b3", "T-S-x", ""),
    ("b3", "T-S-1-", ""),
    ("b3", "T-S-1-05e3ac9a4f6e3b90-", ""),
    ("b3", "T-S-1-05e3ac9a", ""),
    ("b3", "T-f067aa0ba902b7-1", ""),
    ("b3", "77b34da6a3ce929d0e0e4736-S-1", ""),
    ("b3", "0000000000000000-S-1", ""),
    ("b3", "T-0000000000000000-1", ""),
    // X-B3-TraceId alone
    ("X-B3-TraceId", "T", "T - -"),
    (
        "x-b3-traceid",
        "a3ce929d0e0e4736",
        "0000000000000000a3ce929d0e0e4736 - -",
    ),
    ("x-b3-traceid", "a3ce929d0e0e473", ""),
    ("x-b3-traceid", "00000000000000000000000000000000", ""),
    ("x-b3-spanid", "S", ""),
    // uber-trace-id
    ("uber-trace-id", "T:S:0:1", "T S 1"),
    ("uber-trace-id", "T:S:0:0", "T S 0"),
    ("uber-trace-id", "T:S:0:03", "T S 1"),
    ("Uber-Trace-Id", "T%3AS%3A0%3a1", "T S 1"),
    ("uber-trace-id", "T:f067aa0ba902b7:0:1", "T S 1"),
    (
        "uber-trace-id",
        "abc:f:0:1",
        "00000000000000000000000000000abc 000000000000000f 1",
    ),
    ("uber-trace-id", "T:S:7b:2", "T S 0"),
    ("uber-trace-id", "T:S::1", "T S 1"),
    ("uber-trace-id", "T:S:0", ""),
    ("uber-trace-id", "T:S:0:", ""),
    ("uber-trace-id", "T:S:0:1:2", ""),
    ("uber-trace-id", "T:S:0:g", ""),
    ("uber-trace-id", "T:S:x:1", ""),
    ("uber-trace-id", "0:S:0:1", ""),
    ("uber-trace-id", "T:0:0:1", ""),
    ("uber-trace-id", ":S:0:1", ""),
    ("uber-trace-id", "T%3BS:0:1", ""),
    ("uber-trace-id", "T0:S:0:1", ""),
    ("uber-trace-id", "T:S0:0:1", ""),
    ("uber-trace-id", "T:S:0:+1", ""),
    // X-Cloud-Trace-Context
    ("X-Cloud-Trace-Context", "T/1;o=1", "T 0000000000000001 1"),
    ("x-cloud-trace-context", "T/67667974448284343;o=0", "T S 0"),
    ("x-cloud-trace-context", "T/67667974448284343", "T S -"),
    ("x-cloud-trace-context", "T", "T - -"),
    ("x-cloud-trace-context", "T;o=1", "T - 1"),
    ("x-cloud-trace-context", "T/0;o=1", "T - 1"),
    (
        "x-cloud-trace-context",
        "T/18446744073709551615;o=1",
        "T ffffffffffffffff 1",
    ),
    ("x-cloud-trace-context", "T/18446744073709551616;o=1", ""),
    ("x-cloud-trace-context", "T/S;o=1", ""),
    ("x-cloud-trace-context", "T/;o=1", ""),
    ("x-cloud-trace-context", "T/+1;o=1", ""),
    ("x-cloud-trace-context", "4bf92f35/1;o=1", ""),
    ("x-cloud-trace-context", "00000000000000000000000000000000/1", ""),
    // X-Amzn-Trace-Id
    (
        "X-Amzn-Trace-Id",
        "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=S;Sampled=1",
        "T S 1",
    ),
    (
        "x-amzn-trace-id",
        "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736",
        "T - -",
    ),
    (
        "x-amzn-trace-id",
        "Self=1-67891234-12456789abcdef012345678;Root=1-4bf92f35-77b34da6a3ce929d0e0e4736",
        "T - -",
    ),
    (
        "x-amzn-trace-id",
        "Sampled=0; Parent=S; Root=1-4bf92f35-77b34da6a3ce929d0e0e4736",
        "T S 0",
    ),
    (
        "x-amzn-trace-id",
        "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=S;Sampled=?",
        "T S -",
    ),
    (
        "x-amzn-trace-id",
        "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Lineage=a87bd80c:1|68fd508a:5",
        "T - -",
    ),
    ("x-amzn-trace-id", "Root=2-4bf92f35-77b34da6a3ce929d0e0e4736", ""),
    ("x-amzn-trace-id", "Root=1-4bf92f3577b34da6a3ce929d0e0e4736", ""),
    ("x-amzn-trace-id", "Root=1-4bf92f35-77b34da6a3ce929d0e0e473", ""),
    (
        "x-amzn-trace-id",
        "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=xyz",
        "",
    ),
    ("x-amzn-trace-id", "Parent=S;Sampled=1", ""),
    ("x-amzn-trace-id", "", ""),
    // Not ours
    ("x-request-id", "T", ""),
    ("traceparents", "00-T-S-01", ""),
];

#[test]
fn formats() {
    for (name, value, wanted) in ROWS {
        let fill = |text: &str| text.replace('T', TRACE).replace('S', SPAN);
        // `Sampled`, `Self` are words of Amazon's format.
        let value = match name.to_ascii_lowercase().as_str() {
            "x-amzn-trace-id" => value.replace("Parent=S", &format!("Parent={SPAN}")),
            _ => fill(value),
        };
        let seen = parse(&[(name, &value)]);
        let seen = seen.split_once(' ').map_or("", |(_, ids)| ids);
        assert_eq!(seen, fill(wanted), "{name}: {value}");
    }
}

#[test]
fn several_fields() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let other = "0123456789abcdef0123456789abcdef";
    let b3 = format!("{other}-{SPAN}-0");
    let full = format!("traceparent {TRACE} {SPAN} 1");
    let rows: &[(&[(&str, &str)], &str)] = &[
        // Precedence, and what follows when the first is malformed.
        (&[("b3", &b3), ("traceparent", &w3c)], &full),
        (
            &[("b3", &b3), ("traceparent", "00-x")],
            &format!("b3 {other} {SPAN} 0"),
        ),
        (
            &[
                ("x-amzn-trace-id", "Root=1-01234567-89abcdef0123456789abcdef"),
                ("b3", &b3),
            ],
            &format!("b3 {other} {SPAN} 0"),
        ),
        (
            &[("elastic-apm-traceparent", &w3c), ("b3", &b3)],
            &format!("elastic-apm-traceparent {TRACE} {SPAN} 1"),
        ),
        // X-B3-*
        (
            &[
                ("x-b3-traceid", other),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "1"),
            ],
            &format!("x-b3 {other} {SPAN} 1"),
        ),
        (
            &[
                ("x-b3-traceid", other),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "true"),
            ],
            &format!("x-b3 {other} {SPAN} 1"),
        ),
        (
            &[
                ("x-b3-traceid", other),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "0"),
            ],
            &format!("x-b3 {other} {SPAN} 0"),
        ),
        (
            &[
                ("x-b3-traceid", other),
                ("x-b3-spanid", SPAN),
                ("x-b3-flags", "1"),
            ],
            &format!("x-b3 {other} {SPAN} 1"),
        ),
        (
            &[("x-b3-traceid", other), ("x-b3-spanid", SPAN)],
            &format!("x-b3 {other} {SPAN} -"),
        ),
        (&[("x-b3-traceid", other), ("x-b3-spanid", "zz")], ""),
        // Repeated fields: the same is no contradiction, different ones are.
        (&[("traceparent", &w3c), ("traceparent", &w3c)], &full),
        (
            &[
                ("traceparent", &w3c),
                (
                    "traceparent",
                    "00-0123456789abcdef0123456789abcdef-00f067aa0ba902b7-01",
                ),
            ],
            "",
        ),
        (
            &[("traceparent", &w3c), ("traceparent", "x"), ("b3", &b3)],
            &format!("b3 {other} {SPAN} 0"),
        ),
        // tracestate
        (
            &[("traceparent", &w3c), ("tracestate", "a=1")],
            &format!("{full} a=1"),
        ),
        (
            &[
                ("tracestate", "a=1"),
                ("traceparent", &w3c),
                ("tracestate", "b=2, c=3"),
            ],
            &format!("{full} a=1,b=2,c=3"),
        ),
        (
            &[("traceparent", &w3c), ("tracestate", "a=1,,b=2,")],
            &format!("{full} a=1,b=2"),
        ),
        (
            &[("traceparent", &w3c), ("tracestate", "t@v=x y,z_-*/=~")],
            &format!("{full} t@v=x y,z_-*/=~"),
        ),
        (&[("traceparent", &w3c), ("tracestate", "a=1,B=2")], &full),
        (&[("traceparent", &w3c), ("tracestate", "a=1,b")], &full),
        (&[("traceparent", &w3c), ("tracestate", "a=1,b=")], &full),
        (&[("traceparent", &w3c), ("tracestate", "a=1=2")], &full),
        (&[("traceparent", &w3c), ("tracestate", "a=\u{e9}")], &full),
        (&[("tracestate", "a=1")], ""),
        (
            &[("tracestate", "a=1"), ("b3", &b3)],
            &format!("b3 {other} {SPAN} 0"),
        ),
        (&[], ""),
    ];
    for (fields, wanted) in rows {
        assert_eq!(parse(fields), *wanted, "{fields:?}");
    }
}

#[test]
fn tracestate_is_bounded() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let long: Vec<String> = (0..30).map(|n| format!("k{n}={}", "v".repeat(100))).collect();
    let seen = parse(&[("traceparent", &w3c), ("tracestate", &long.join(","))]);
    let state = seen.rsplit(' ').next().unwrap();
    assert!(
        state.len() <= 512 && state.ends_with(&"v".repeat(100)) && state.starts_with("k0="),
        "{state}"
    );
    let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
    let seen = parse(&[("traceparent", &w3c), ("tracestate", &many.join(","))]);
    assert!(seen.ends_with(" 1"), "33 members are one too many: {seen}");
}
