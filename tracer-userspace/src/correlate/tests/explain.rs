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
