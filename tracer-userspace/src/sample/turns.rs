//! Follows connections in turns: for some seconds all of them, then none.
//!
//! A turn's first second takes no traces in: requests that were under way when it began are answered, and every connection comes to the
//! beginning of a message. Its last second takes none in either, so that what was taken in is seen to its end. Turns begin at multiples of
//! their period of the wall clock's time, and a longer period is a multiple of a shorter one: so several hosts see the same traces,
//! and what passes over all of them is whole.

use super::shed::Window;
use crate::model::Nanos;

const SECOND: Nanos = 1_000_000_000;
/// How long a turn is, and how much of it at its beginning and its end takes no traces in.
pub const TURN: Nanos = 4 * SECOND;
const LEAD: Nanos = SECOND;
const TRAIL: Nanos = SECOND;
/// Later than that it is too late for a turn.
const LATE: Nanos = LEAD / 2;

/// Whose turn it is.
#[derive(Default)]
pub struct Turns {
    state: State,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Always,
    Followed {
        ends: Nanos,
    },
    Paused,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The turn that goes on closes, and ends, at these times.
    EndTurn(Nanos, Nanos),
    /// Connections are not followed any more.
    Pause,
    /// They are again.
    Resume(Window),
    /// They are from now on.
    Stay,
}

impl Turns {
    /// Whether connections are followed.
    #[must_use]
    pub const fn are_followed(&self) -> bool {
        !matches!(self.state, State::Paused)
    }

    /// Whether they are followed in turns: somebody has to look often.
    #[must_use]
    pub const fn go_on(&self) -> bool {
        !matches!(self.state, State::Always)
    }

    /// What is to be done now, if connections are to be followed for that share of the time. `wall` is nanoseconds of the wall clock.
    pub fn next(&mut self, share: f64, wall: Nanos, now: Nanos) -> Option<Step> {
        let always = share >= 1.0;
        let (state, step) = match self.state {
            State::Always if always => return None,
            State::Always => {
                let ends = now.saturating_add(TRAIL);
                (State::Followed { ends }, Step::EndTurn(now, ends))
            }
            State::Followed { .. } if always => (State::Always, Step::Stay),
            State::Followed { ends } if ends <= now => (State::Paused, Step::Pause),
            State::Followed { .. } => return None,
            State::Paused if always => {
                let window = Window {
                    opens: now.saturating_add(LEAD),
                    closes: Nanos::MAX,
                    ends: Nanos::MAX,
                };
                // `Stay` follows.
                (State::Followed { ends: Nanos::MAX }, Step::Resume(window))
            }
            State::Paused => {
                let period = (TURN as f64 / share).round().max(1.0) as Nanos;
                let since = wall % period;
                if since > LATE {
                    return None;
                }
                let began = now.saturating_sub(since);
                let ends = began.saturating_add(TURN);
                let window = Window {
                    opens: began.saturating_add(LEAD),
                    closes: ends.saturating_sub(TRAIL),
                    ends,
                };
                (State::Followed { ends }, Step::Resume(window))
            }
        };
        self.state = state;
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    /// Looks every 100 ms for so many seconds; the steps, with the seconds (rounded down) at which they were taken.
    fn run(turns: &mut Turns, from: u64, seconds: u64, share: f64) -> Vec<(u64, &'static str)> {
        let mut steps = Vec::new();
        for at in (from * SECOND..(from + seconds) * SECOND).step_by(100 * MS as usize) {
            // The wall clock is ahead of the other by 1,000 periods of 32 seconds.
            let name = match turns.next(share, at + 32_000 * SECOND, at) {
                None => continue,
                Some(Step::EndTurn(closes, ends)) => {
                    assert_eq!((closes, ends), (at, at + TRAIL));
                    "end"
                }
                Some(Step::Pause) => "pause",
                Some(Step::Resume(window)) => {
                    assert!(
                        window.opens >= at + LATE && window.opens < window.closes,
                        "{window:?}"
                    );
                    "resume"
                }
                Some(Step::Stay) => "stay",
            };
            steps.push((at / SECOND, name));
        }
        steps
    }

    #[test]
    fn turns_come_at_the_same_times_everywhere() {
        let mut turns = Turns::default();
        assert_eq!(run(&mut turns, 0, 100, 1.0), []);
        assert_eq!(
            run(&mut turns, 101, 30, 0.5),
            [
                (101, "end"),
                (102, "pause"),
                (104, "resume"),
                (108, "pause"),
                (112, "resume"),
                (116, "pause"),
                (120, "resume"),
                (124, "pause"),
                (128, "resume"),
            ]
        );
        // Fewer of the same.
        assert_eq!(
            run(&mut turns, 131, 60, 0.125),
            [(132, "pause"), (160, "resume"), (164, "pause")]
        );
        assert!(turns.go_on() && !turns.are_followed());
        assert_eq!(run(&mut turns, 191, 9, 1.0), [(191, "resume"), (191, "stay")]);
        assert!(!turns.go_on() && turns.are_followed());
    }

    #[test]
    fn who_looks_too_late_waits_for_the_next_turn() {
        let mut turns = Turns::default();
        assert!(turns.next(0.5, 100 * SECOND, SECOND).is_some());
        assert_eq!(turns.next(0.5, 102 * SECOND, 3 * SECOND), Some(Step::Pause));
        assert_eq!(turns.next(0.5, 104 * SECOND + 600 * MS, 5 * SECOND), None);
        assert!(turns.next(0.5, 112 * SECOND + 400 * MS, 13 * SECOND).is_some());
    }
}
