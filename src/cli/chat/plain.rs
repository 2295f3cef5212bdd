//! Lines without an editor: from a pipe, a file, or a terminal that can do nothing (`TERM=dumb`).
//!
//! A thread reads, so that a signal is heard while nothing comes.

use std::io::{self, BufReader};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::lines::{Lines, Typed};
use super::{LineText, MAX_LINE, Printer, read_line};
use crate::error::{Code, Failure};

/// Something to wake up for.
pub enum Wake {
    /// A line, or why it is refused.
    Line(Result<String, Failure>),
    /// A signal came while nothing ran.
    Signal,
    /// There are no more lines.
    End,
}

/// The two ends of what wakes the conversation up. The first goes to the signals too.
pub fn wakes() -> (SyncSender<Wake>, Receiver<Wake>) {
    sync_channel(1)
}

/// Lines of standard input.
pub struct Plain {
    woken: Receiver<Wake>,
    terminal: bool,
    printer: Printer,
}

impl Plain {
    /// Starts reading. A prompt is shown, and Ctrl-C is no end, where standard input is a `terminal`.
    ///
    /// # Errors
    /// No thread.
    pub fn start(
        (wake, woken): (SyncSender<Wake>, Receiver<Wake>),
        terminal: bool,
        printer: Printer,
    ) -> Result<Self, Failure> {
        let builder = std::thread::Builder::new().name("lines".into());
        let spawned = builder.spawn(move || read_all(&wake));
        spawned.map_err(|e| Failure::new(Code::Other, format!("no thread to read lines: {e}")))?;
        Ok(Self { woken, terminal, printer })
    }
}

fn read_all(wake: &SyncSender<Wake>) {
    let mut input = BufReader::new(io::stdin().lock());
    loop {
        let line = match read_line(&mut input, MAX_LINE) {
            Ok(Some(LineText::Text(text))) => Ok(text.strip_suffix('\r').map_or(text.clone(), String::from)),
            Ok(Some(LineText::Blank)) => Ok(String::new()),
            Ok(Some(LineText::Refused(failure))) => Err(failure),
            Ok(None) => break,
            Err(e) => {
                let _ = wake.send(Wake::Line(Err(Failure::new(Code::Other, format!("standard input: {e}")))));
                break;
            }
        };
        if wake.send(Wake::Line(line)).is_err() {
            return;
        }
    }
    let _ = wake.send(Wake::End);
}

impl Lines for Plain {
    fn next(&mut self, prompt: (&str, &str)) -> Result<Typed, Failure> {
        if self.terminal {
            self.printer.prompt(prompt.0);
        }
        match self.woken.recv() {
            Ok(Wake::Line(line)) => line.map(Typed::Text),
            Ok(Wake::Signal) => {
                if self.terminal {
                    // After the ^C that the terminal shows.
                    self.printer.told("");
                }
                Ok(Typed::Interrupted { had_text: false })
            }
            Ok(Wake::End) | Err(_) => Ok(Typed::End),
        }
    }

    fn interactive(&self) -> bool {
        self.terminal
    }
}
