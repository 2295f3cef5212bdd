//! Where typed text comes from: the seam between the conversation and a terminal, a pipe or a test's script.

use super::multiline::{self, State};
use crate::error::Failure;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A text, without the line break that ended it.
    Text(String),
    /// Ctrl-C, or another reason to look at the signals.
    Interrupted {
        /// Whether there was a text, which is given up.
        had_text: bool,
    },
    /// There is no more.
    End,
}

/// A source of typed text.
pub trait Lines {
    /// Reads a text after showing the prompt, given plain and with colors.
    ///
    /// # Errors
    /// A text is refused (too long, no UTF-8) and passed over, or reading failed.
    fn next(&mut self, prompt: (&str, &str)) -> Result<Typed, Failure>;

    /// Whether somebody sits there.
    fn interactive(&self) -> bool;

    /// Gives `text` as the beginning of the next one, to be edited. False where that cannot be done.
    fn offer(&mut self, _text: &str) -> bool {
        false
    }

    /// Keeps a message for later sessions. Gives a line to warn with, at most once.
    fn remember(&mut self, _message: &str) -> Option<String> {
        None
    }
}

/// Reads a whole message, over several lines where its marks ask for it.
///
/// # Errors
/// As [`Lines::next`]; what had been typed of the message is given up.
pub fn read_message(lines: &mut dyn Lines, prompt: (&str, &str)) -> Result<Typed, Failure> {
    let mut text = String::new();
    let mut goes_on = false;
    loop {
        match lines.next(if goes_on { ("... ", "... ") } else { prompt })? {
            Typed::Text(line) => text += &line,
            Typed::Interrupted { .. } if goes_on => return Ok(Typed::Interrupted { had_text: true }),
            Typed::End if goes_on => {
                let (State::Whole(message) | State::Open(message) | State::Continued(message)) =
                    multiline::state(&text);
                return Ok(Typed::Text(message));
            }
            other => return Ok(other),
        }
        match multiline::state(&text) {
            State::Whole(message) => return Ok(Typed::Text(message)),
            State::Open(_) => (),
            State::Continued(before) => text = before,
        }
        text.push('\n');
        goes_on = true;
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A script of what is typed.
    pub struct Script(pub VecDeque<Typed>);

    impl Script {
        /// These lines.
        pub fn of(lines: &[&str]) -> Self {
            Self(lines.iter().map(|l| Typed::Text((*l).into())).collect())
        }
    }

    impl Lines for Script {
        fn next(&mut self, _: (&str, &str)) -> Result<Typed, Failure> {
            Ok(self.0.pop_front().unwrap_or(Typed::End))
        }

        fn interactive(&self) -> bool {
            true
        }
    }

    #[test]
    fn lines_become_messages() {
        let mut script = Script::of(&["one", "a\\", "b \\", "c", "\"\"\"", "x", "", "y\"\"\"", "last\\"]);
        let mut read = || read_message(&mut script, (">", ">")).expect("read");
        for expected in ["one", "a\nb \nc", "x\n\ny", "last\n"] {
            let Typed::Text(text) = read() else { panic!("a message") };
            assert_eq!(text.trim_end(), expected.trim_end());
        }
        assert_eq!(read(), Typed::End);
    }

    #[test]
    fn an_interrupt_gives_up_the_message_under_way() {
        let mut script = Script::of(&["\"\"\"", "x"]);
        script.0.push_back(Typed::Interrupted { had_text: false });
        script.0.push_back(Typed::Text("next".into()));
        assert_eq!(read_message(&mut script, ("", "")), Ok(Typed::Interrupted { had_text: true }));
        assert_eq!(read_message(&mut script, ("", "")), Ok(Typed::Text("next".into())));
    }
}
