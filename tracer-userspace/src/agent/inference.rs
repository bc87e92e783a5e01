//! The thread that answers the correlator's questions (E8): that takes milliseconds, for which the correlator must not stand still.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::correlate::{Answers, Correlator, Question};

/// After each question the thread rests this many times as long as it took: it takes a tenth of a core at most.
const REST: u32 = 9;
/// How long the last answers are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Questions on their way to the thread, and answers on their way back.
pub struct Inference {
    questions: SyncSender<Question>,
    answers: Receiver<Answers>,
}

impl Inference {
    /// Starts the thread. It ends when this is dropped.
    ///
    /// # Errors
    /// The thread can't be started.
    pub fn start() -> std::io::Result<Self> {
        let (questions, asked) = sync_channel::<Question>(1);
        let (told, answers) = channel();
        thread::Builder::new()
            .name("inference".to_owned())
            .spawn(move || {
                for question in asked {
                    let start = Instant::now();
                    if told.send(question.solve()).is_err() {
                        break;
                    }
                    thread::sleep(start.elapsed() * REST);
                }
            })?;
        Ok(Self { questions, answers })
    }

    /// Brings answers in, and questions out. What there is no time for is given up.
    pub fn exchange(&self, correlator: &mut Correlator) {
        for answers in self.answers.try_iter() {
            correlator.answer(answers);
        }
        while let Some(question) = correlator.take_question() {
            if let Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) =
                self.questions.try_send(question)
            {
                correlator.answer(question.give_up());
            }
        }
    }

    /// Nothing comes any more: answers what is left, as long as patience lasts.
    pub fn finish(self, correlator: &mut Correlator) {
        let deadline = Instant::now() + PATIENCE;
        drop(self.questions);
        while correlator.awaits_answers() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(answers) = self.answers.recv_timeout(left) else {
                break;
            };
            correlator.answer(answers);
        }
        correlator.ask_all();
        while let Some(question) = correlator.take_question() {
            let is_late = Instant::now() >= deadline;
            correlator.answer(if is_late {
                question.give_up()
            } else {
                question.solve()
            });
        }
    }
}
