//! What is shown of statements: operation | collection | summary. Every row goes through the parser and, where the row does
//! not say otherwise, through the token scan as well: both must say the same.

use super::*;

/// Statements that both ways describe alike.
const BOTH: &str = r#"
SELECT 1 | SELECT | | SELECT
select * from songs | SELECT | songs | SELECT songs
SELECT * FROM songs WHERE artist = 'x' ORDER BY id LIMIT 10 OFFSET 5 | SELECT | songs | SELECT songs
SELECT * FROM songs s, artists AS a | SELECT | | SELECT songs artists
SELECT * FROM a, b c, d | SELECT | | SELECT a b d
SELECT * FROM a JOIN b ON a.id = b.id LEFT JOIN c USING (id) | SELECT | | SELECT a b c
SELECT * FROM a CROSS JOIN b NATURAL JOIN c | SELECT | | SELECT a b c
SELECT * FROM a x JOIN a y ON x.id = y.parent | SELECT | a | SELECT a a
SELECT * FROM public.users | SELECT | public.users | SELECT public.users
SELECT * FROM "Users" | SELECT | Users | SELECT Users
SELECT * FROM "My Schema"."Users" u | SELECT | My Schema.Users | SELECT My Schema.Users
SELECT * FROM ONLY parents | SELECT | parents | SELECT parents
SELECT DISTINCT ON (a) a, b FROM t | SELECT | t | SELECT t
SELECT * FROM songs WHERE artist IN (SELECT id FROM artists) | SELECT | | SELECT songs SELECT artists
SELECT * FROM (SELECT * FROM a) x | SELECT | a | SELECT SELECT a
SELECT * FROM (SELECT * FROM a) x, b | SELECT | | SELECT SELECT a b
SELECT * FROM (a JOIN b ON a.x = b.x) JOIN c ON true | SELECT | | SELECT a b c
SELECT (SELECT max(x) FROM b) FROM a | SELECT | | SELECT SELECT b a
SELECT EXISTS (SELECT 1 FROM t WHERE id = $1) | SELECT | t | SELECT SELECT t
SELECT extract(year FROM created) FROM t | SELECT | t | SELECT t
SELECT substring(name FROM 1 FOR 2) FROM t | SELECT | t | SELECT t
SELECT trim(both 'x' FROM name) FROM t | SELECT | t | SELECT t
SELECT a IS DISTINCT FROM b FROM t | SELECT | t | SELECT t
SELECT * FROM generate_series(1, 10) | SELECT | | SELECT
SELECT * FROM generate_series(1, 10) g, t | SELECT | t | SELECT t
SELECT * FROM t FOR UPDATE | SELECT | t | SELECT t
SELECT * FROM t FOR UPDATE SKIP LOCKED | SELECT | t | SELECT t
SELECT * FROM t FOR NO KEY UPDATE | SELECT | t | SELECT t
SELECT a FROM x UNION ALL SELECT a FROM y | SELECT | | SELECT x SELECT y
SELECT a FROM x UNION SELECT a FROM x | SELECT | x | SELECT x SELECT x
(SELECT a FROM x) INTERSECT (SELECT a FROM y) | SELECT | | SELECT x SELECT y
SELECT count(*) FROM t GROUP BY a HAVING count(*) > 1 | SELECT | t | SELECT t
SELECT sum(x) OVER (PARTITION BY y ORDER BY z) FROM t | SELECT | t | SELECT t
SELECT x FROM t WINDOW w AS (PARTITION BY y) | SELECT | t | SELECT t
SELECT * FROM t WHERE a = $1 AND b = ANY($2) | SELECT | t | SELECT t
SELECT * FROM t WHERE data @> '{"a":1}' | SELECT | t | SELECT t
SELECT data->'a'->>'b' FROM t | SELECT | t | SELECT t
SELECT * FROM t WHERE data ? 'key' | SELECT | t | SELECT t
SELECT 'from x' FROM t | SELECT | t | SELECT t
SELECT $$ from x $$ FROM t | SELECT | t | SELECT t
SELECT * FROM a LEFT JOIN LATERAL (SELECT * FROM b WHERE b.x = a.x) l ON true | SELECT | | SELECT a SELECT b
SELECT CASE WHEN a = 1 THEN 'x' ELSE 'y' END FROM t | SELECT | t | SELECT t
SELECT a AS update, b AS "delete" FROM t | SELECT | t | SELECT t
SELECT t.update FROM t | SELECT | t | SELECT t
WITH x AS (SELECT * FROM a) SELECT * FROM x | SELECT | a | SELECT a SELECT
WITH x AS (SELECT * FROM a), y AS (SELECT * FROM b) SELECT * FROM x JOIN y ON true | SELECT | | SELECT a SELECT b SELECT
WITH x AS MATERIALIZED (SELECT * FROM a) SELECT * FROM x, c | SELECT | | SELECT a SELECT c
WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT * FROM t | SELECT | | SELECT SELECT SELECT
INSERT INTO orders (a, b) VALUES (1, 2) | INSERT | orders | INSERT orders
INSERT INTO orders VALUES (1, 2), (3, 4) RETURNING id | INSERT | orders | INSERT orders
INSERT INTO public.orders AS o (a) VALUES ($1) | INSERT | public.orders | INSERT public.orders
INSERT INTO orders DEFAULT VALUES | INSERT | orders | INSERT orders
INSERT INTO orders SELECT * FROM wishes | INSERT | | INSERT orders SELECT wishes
INSERT INTO orders (a) SELECT a FROM orders | INSERT | orders | INSERT orders SELECT orders
INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = excluded.a | INSERT | t | INSERT t
INSERT INTO t (a) VALUES (1) ON CONFLICT DO NOTHING | INSERT | t | INSERT t
WITH n AS (INSERT INTO t (a) VALUES (1) RETURNING id) SELECT * FROM n | INSERT | t | INSERT t SELECT
UPDATE users SET name = 'x' WHERE id = 5 | UPDATE | users | UPDATE users
UPDATE ONLY users SET name = 'x' | UPDATE | users | UPDATE users
UPDATE users u SET name = (SELECT n FROM names LIMIT 1) | UPDATE | | UPDATE users SELECT names
UPDATE users SET a = b.a FROM b WHERE b.id = users.id | UPDATE | | UPDATE users b
DELETE FROM users | DELETE | users | DELETE users
DELETE FROM users WHERE id = 1 RETURNING * | DELETE | users | DELETE users
DELETE FROM users USING banned b WHERE b.id = users.id | DELETE | | DELETE users banned
DELETE FROM a WHERE x IN (SELECT x FROM b) | DELETE | | DELETE a SELECT b
MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = s.a | MERGE | | MERGE t s
CREATE TABLE t (id int PRIMARY KEY, name text DEFAULT 'x') | CREATE TABLE | t | CREATE TABLE t
CREATE TEMP TABLE IF NOT EXISTS t (id int) | CREATE TABLE | t | CREATE TABLE t
CREATE TABLE t AS SELECT * FROM s | CREATE TABLE | | CREATE TABLE t SELECT s
CREATE UNIQUE INDEX i ON t (a) | CREATE INDEX | t | CREATE INDEX t
CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON public.t USING gin (a) | CREATE INDEX | public.t | CREATE INDEX public.t
DROP TABLE t | DROP TABLE | t | DROP TABLE t
DROP TABLE IF EXISTS a, b CASCADE | DROP TABLE | | DROP TABLE a b
DROP VIEW v | DROP VIEW | v | DROP VIEW v
ALTER TABLE t ADD COLUMN a int | ALTER TABLE | t | ALTER TABLE t
ALTER TABLE IF EXISTS ONLY t DROP COLUMN a | ALTER TABLE | t | ALTER TABLE t
TRUNCATE t | TRUNCATE | t | TRUNCATE t
TRUNCATE TABLE a, b RESTART IDENTITY | TRUNCATE | | TRUNCATE a b
COPY t FROM STDIN | COPY | t | COPY t
COPY t (a, b) TO STDOUT WITH (FORMAT csv) | COPY | t | COPY t
COPY (SELECT * FROM t) TO STDOUT | COPY | t | COPY SELECT t
EXPLAIN SELECT * FROM t | EXPLAIN | t | EXPLAIN SELECT t
EXPLAIN ANALYZE UPDATE t SET a = 1 | EXPLAIN | t | EXPLAIN UPDATE t
BEGIN | BEGIN | | BEGIN
begin isolation level serializable | BEGIN | | BEGIN
START TRANSACTION READ ONLY | START | | START
COMMIT | COMMIT | | COMMIT
ROLLBACK TO SAVEPOINT a | ROLLBACK | | ROLLBACK
SAVEPOINT a | SAVEPOINT | | SAVEPOINT
SET search_path TO x, y | SET | | SET
SHOW server_version | SHOW | | SHOW
RESET ALL | RESET | | RESET
DISCARD ALL | DISCARD | | DISCARD
LISTEN channel | LISTEN | | LISTEN
NOTIFY channel, 'payload' | NOTIFY | | NOTIFY
DEALLOCATE ALL | DEALLOCATE | | DEALLOCATE
EXECUTE q (1, 'x') | EXECUTE | | EXECUTE
PREPARE q AS SELECT * FROM t WHERE a = $1 | PREPARE | t | PREPARE SELECT t
DECLARE c CURSOR FOR SELECT * FROM t | DECLARE | t | DECLARE SELECT t
FETCH FORWARD 10 FROM c | FETCH | | FETCH
VACUUM (ANALYZE) t | VACUUM | | VACUUM
VACUUM ANALYZE t | VACUUM | t | VACUUM t
ANALYZE t | ANALYZE | t | ANALYZE t
LOCK TABLE t IN EXCLUSIVE MODE | LOCK | t | LOCK t
REFRESH MATERIALIZED VIEW CONCURRENTLY v | REFRESH | v | REFRESH v
CREATE EXTENSION IF NOT EXISTS pgcrypto | CREATE EXTENSION | | CREATE EXTENSION
CREATE ROLE r PASSWORD 'secret' | CREATE ROLE | | CREATE ROLE
CREATE VIEW v AS SELECT * FROM t | CREATE VIEW | | CREATE VIEW v SELECT t
CREATE MATERIALIZED VIEW v AS SELECT * FROM t | CREATE VIEW | | CREATE VIEW v SELECT t
CREATE TRIGGER g BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f() | CREATE TRIGGER | t | CREATE TRIGGER t
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT secret FROM s $$ | CREATE FUNCTION | | CREATE FUNCTION
DROP INDEX i | DROP INDEX | | DROP INDEX
GRANT SELECT, INSERT ON t TO u | GRANT | | GRANT
CALL proc(1, 'x') | CALL | | CALL
DO $$ BEGIN DELETE FROM x; END $$ | DO | | DO
COMMENT ON TABLE t IS 'x' | COMMENT | | COMMENT
VALUES (1, 2) | VALUES | | VALUES
-- note\nSELECT 1 FROM t /* x */ | SELECT | t | SELECT t
SELECT * FRM t | SELECT | | SELECT
SELECT * FROM t WHERE a = 'cut of | SELECT | t | SELECT t
SELECT a, b FROM | SELECT | | SELECT
SELEC * FROM t | SELEC | | SELEC
"#;

fn rows(table: &'static str) -> impl Iterator<Item = (String, [&'static str; 3])> {
    table.lines().filter(|l| !l.trim().is_empty()).map(|line| {
        // Operators such as `||` have no blank around a single bar.
        let mut parts: Vec<&str> = line.rsplitn(4, '|').collect();
        parts.reverse();
        let text = parts[0].trim().replace("\\n", "\n");
        (text, [parts[1].trim(), parts[2].trim(), parts[3].trim()])
    })
}

fn by_tokens(text: &str) -> [String; 3] {
    let mut tokens = Vec::new();
    lexer::tokenize(text.as_bytes(), Dialect::PostgreSql, &mut tokens);
    let mut summary = Summary::default();
    let mut count = 0;
    for part in split(&tokens) {
        count += 1;
        scan::scan(text.as_bytes(), part, &mut summary);
    }
    let (operation, collection, summary) = summary.finish(count);
    [
        operation.unwrap_or_default().into(),
        collection.unwrap_or_default().into(),
        summary.into(),
    ]
}

#[test]
fn parser_and_scan_tell_the_same() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (text, expected) in rows(BOTH) {
        count += 1;
        let told = statement(text.as_bytes(), Dialect::PostgreSql);
        let got = [
            told.operation.as_deref().unwrap_or_default().to_owned(),
            told.collection.as_deref().unwrap_or_default().to_owned(),
            told.summary.to_string(),
        ];
        if got != expected {
            wrong.push(format!("parsed:  {text}\n  got {got:?}\n want {expected:?}"));
        }
        let got = by_tokens(&text);
        if got != expected {
            wrong.push(format!("scanned: {text}\n  got {got:?}\n want {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 100, "{count}");
}

#[test]
fn the_parser_does_most_of_the_work() {
    let queries = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "WITH",
        "MERGE",
        "CREATE TABLE",
        "EXPLAIN",
    ];
    for (text, _) in rows(BOTH) {
        if !queries.iter().any(|q| text.starts_with(q)) || text.contains("FRM") || text.contains("'cut") {
            continue;
        }
        // Not in the parser's grammar.
        if text.contains("ONLY") || text.contains("NO KEY") || text.ends_with("FROM") {
            continue;
        }
        let mut summary = Summary::default();
        assert!(parse::parse(&text, Dialect::PostgreSql, &mut summary), "{text}");
    }
}

#[test]
fn names_of_several_statements() {
    for (text, operation, name) in [
        ("BEGIN; SELECT * FROM t; COMMIT", "BEGIN", "BEGIN t"),
        ("SELECT 1; SELECT 2;", "BATCH SELECT", "SELECT SELECT"),
        (
            "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)",
            "BATCH INSERT",
            "BATCH INSERT t",
        ),
        ("SELECT * FROM a, b", "SELECT", "SELECT a b"),
        (";;", "", ""),
        ("", "", ""),
    ] {
        let told = statement(text.as_bytes(), Dialect::PostgreSql);
        assert_eq!(told.operation.as_deref().unwrap_or_default(), operation, "{text}");
        assert_eq!(&*told.name, name, "{text}");
    }
}

#[test]
fn summaries_are_bounded() {
    let tables: Vec<String> = (0..200).map(|n| format!("table_number_{n}")).collect();
    let text = format!("SELECT * FROM {}", tables.join(", "));
    let told = statement(text.as_bytes(), Dialect::PostgreSql);
    assert!(told.summary.len() <= 255);
    assert!(told.summary.starts_with("SELECT table_number_0 table_number_1 "));
    assert!(
        told.summary
            .rsplit(' ')
            .next()
            .is_some_and(|last| tables.iter().any(|t| t == last))
    );
}

#[test]
fn hostile_statements_cost_neither_stack_nor_much_time() {
    let deep = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let texts = [
        format!("SELECT {}", deep("(", ")", 2_000)),
        format!("SELECT {}", deep("f(", ")", 1_000)),
        format!("SELECT {}", "1+".repeat(2_000)),
        format!("SELECT 1{}", "+1".repeat(280)),
        format!("SELECT {}", "NOT ".repeat(1_000)),
        format!("SELECT {}1", "- ".repeat(300)),
        format!("SELECT {}", deep("(SELECT ", ")", 500)),
        format!("SELECT {}", deep("CASE WHEN ", " THEN 1 END", 180)),
        format!("SELECT * FROM {}a{}", "(".repeat(300), ")".repeat(300)),
        format!("SELECT 1{}", " UNION SELECT 1".repeat(250)),
        format!("SELECT 1 {}", "AND a ".repeat(280)),
        format!("{}SELECT 1", "EXPLAIN ".repeat(500)),
        format!("WITH {} SELECT 1", "a AS (SELECT 1), ".repeat(200)),
        format!("SELECT '{}", "'".repeat(4_000)),
        format!("SELECT {}", "/*".repeat(2_000)),
        format!("SELECT {}", "a.".repeat(2_000)),
        format!("SELECT {}", "$".repeat(4_000)),
        ";".repeat(4_000),
    ];
    // As small a stack as threads of the daemon have.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        for text in &texts {
            let _ = statement(text.as_bytes(), Dialect::PostgreSql);
            let _ = statement(text.as_bytes(), Dialect::MySql);
        }
    });
    thread.expect("thread").join().expect("no panic, no overflow");
}

#[test]
fn any_bytes_are_a_statement() {
    let mut state = 1_u64;
    let pieces: [&[u8]; 24] = [
        b"SELECT", b" ", b"FROM", b"'", b"\"", b"(", b")", b",", b"$", b"$a$", b"--", b"/*", b"*/", b"\n",
        b"t", b"\xff", b"1", b".", b"::", b"E'", b"\\", b"JOIN", b"AS", b";",
    ];
    for _ in 0..3_000 {
        let mut text = Vec::new();
        for _ in 0..40 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            text.extend_from_slice(pieces[(state >> 33) as usize % pieces.len()]);
        }
        for dialect in [Dialect::PostgreSql, Dialect::MySql] {
            let _ = statement(&text, dialect);
        }
    }
}

/// Whatever stands in a literal or a comment, and wherever the text is cut, no part of it is shown.
#[test]
fn secrets_never_show() {
    for text in [
        "SELECT * FROM t WHERE a = 'hunter2' AND b IN ('hunter2', 'hunter2')",
        "INSERT INTO t VALUES ('hunter2'), ('x hunter2'), (E'\\'hunter2')",
        "SELECT $$hunter2$$, $q$ hunter2 $q$, X'hunter2'",
        "/* hunter2 */ SELECT 1 -- hunter2",
        "ALTER ROLE r WITH PASSWORD 'hunter2'",
        "SELECT 'a''hunter2'",
        "SELECT U&'hunter2' FROM \"t\"",
        "COPY t FROM '/hunter2'",
        "SET app.token = 'hunter2'",
        "SELECT * FROM f('hunter2')",
        "NOTIFY c, 'hunter2'",
        "SELECT 12345678, 1.2345678e5",
    ] {
        for cut in 0..=text.len() {
            let told = statement(
                text.get(..cut).unwrap_or_default().as_bytes(),
                Dialect::PostgreSql,
            );
            let shown = format!("{told:?}");
            assert!(
                !shown.contains("hunt") && !shown.contains("234"),
                "{text} cut at {cut}: {shown}"
            );
        }
    }
}

#[test]
fn the_same_text_is_described_once() {
    let first = statement(b"SELECT * FROM cached WHERE id = 1", Dialect::PostgreSql);
    let again = statement(b"SELECT * FROM cached WHERE id = 1", Dialect::PostgreSql);
    let other = statement(b"SELECT * FROM cached WHERE id = 22", Dialect::PostgreSql);
    assert!(Arc::ptr_eq(&first, &again), "the same text");
    assert!(Arc::ptr_eq(&first, &other), "the same shape");
}
