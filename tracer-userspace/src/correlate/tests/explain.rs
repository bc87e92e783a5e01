//! Spans tell who moved their bytes, if asked.

use super::play::{Player, Variant, begin, thread};
use crate::correlate::Config;
use crate::model::{Role, Runs, Stamp, Task, Unit};

#[test]
fn spans_tell_who_moved_their_bytes() {
    for explain in [true, false] {
        let mut player = Player::new(Config {
            explain,
            ..Config::default()
        });
        let reader = Stamp {
            ts: 1_000,
            unit: thread(10, 11),
        };
        let writer = Stamp {
            ts: 2_000,
            unit: Unit {
                runs: Runs::Task(Task {
                    id: 7,
                    ..Task::default()
                }),
                ..thread(10, 12)
            },
        };
        player.begin(begin(1, Role::Server, 1, 0, reader, None, Variant::default()));
        player.done(1, writer);
        player.finish();
        let attributes = &player.spans[&1].exchange.attributes;
        let told = [
            ("thread.id", Some(11)),
            ("tracer.task.id", None),
            ("tracer.response.thread.id", Some(12)),
            ("tracer.response.task.id", Some(7)),
        ];
        for (key, value) in told {
            assert_eq!(attributes.get_int(key), value.filter(|_| explain), "{key}");
        }
    }
}

#[test]
fn calls_tell_who_might_have_made_them() {
    for explain in [true, false] {
        let mut player = Player::new(Config {
            explain,
            ..Config::default()
        });
        let at = |ts, tid| Stamp {
            ts,
            unit: thread(10, tid),
        };
        let done_before = begin(1, Role::Server, 1, 0, at(1_000, 11), None, Variant::default());
        player.begin(done_before);
        player.done(1, at(1_500, 11));
        for (id, conn, tid) in [(2, 2, 11), (3, 3, 12)] {
            let start = at(1_000 + 500 * id, tid);
            player.begin(begin(id, Role::Server, conn, 0, start, None, Variant::default()));
        }
        player.begin(begin(
            4,
            Role::Client,
            4,
            0,
            at(3_000, 12),
            None,
            Variant::default(),
        ));
        for (id, tid, ts) in [(4, 12, 4_000), (3, 12, 5_000), (2, 11, 6_000)] {
            player.done(id, at(ts, tid));
        }
        player.finish();
        let id = |n: u64| {
            player.spans[&n]
                .span_id
                .0
                .map(|byte| format!("{byte:02x}"))
                .concat()
        };
        let call = &player.spans[&4];
        assert_eq!(call.parent, Some(player.spans[&3].span_id));
        let attributes = &call.exchange.attributes;
        let expected = format!("{} {}", id(2), id(3));
        assert_eq!(
            attributes.get_str("tracer.parent.candidates"),
            explain.then_some(&*expected)
        );
        assert_eq!(
            attributes.get_int("tracer.parent.candidates.count"),
            explain.then_some(2)
        );
    }
}
