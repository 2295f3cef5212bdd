//! `smoa run --jsonl`: one request per line in, one result per line out, in order; a bad line harms no other.
//!
//! A thread reads and submits lines; this one waits for their answers in order and prints them. Lines in flight are
//! bounded, and a line that is too long is passed over without being kept, so memory stays flat.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::exit::Outcome;
use super::run::RunArgs;
use super::signals::Signals;
use super::{Context, start};
use crate::error::{Code, Failure};
use crate::pipeline::{Pipeline, Ticket};
use crate::request::Request;
use crate::scheduler::CancelToken;
use crate::wire;

/// Most bytes of a line, as of an HTTP body.
pub const MAX_LINE: usize = 8 << 20;

/// Lines that may be under way beyond the sequences that run: they are prepared while others decode.
const AHEAD: usize = 64;

/// A line under way.
enum Line {
    Asked { id: Value, ticket: Box<Ticket>, return_tokens: bool },
    Refused { id: Value, failure: Failure },
}

/// The cancel tokens of the lines under way.
type Running = Arc<Mutex<HashMap<u64, CancelToken>>>;

/// Runs the lines of standard input.
///
/// # Errors
/// [`Code::SomeLinesFailed`] when a line failed; a failed write or a signal.
pub fn run(args: &RunArgs, defaults: Request, context: &Context) -> Result<(), Outcome> {
    let running = Running::default();
    let to_cancel = running.clone();
    let signals = Signals::watch(move || cancel_all(&to_cancel))
        .map_err(|e| Failure::new(Code::Other, format!("signals: {e}")))?;
    let pipeline = Arc::new(start::start(&args.model, &args.adapters.library, 4, &context.printer, &signals)?);
    let (lines, results) = sync_channel(AHEAD);
    // Both threads hold the pipeline: the engine must outlive the last answer, not only the last line.
    let reader =
        Reader { pipeline: pipeline.clone(), defaults, lines, running: running.clone(), signals: signals.clone() };
    std::thread::Builder::new()
        .name("lines".into())
        .spawn(move || reader.run(io::stdin().lock()))
        .map_err(|e| Failure::new(Code::Other, format!("no thread to read lines: {e}")))?;
    let outcome = print_results(&results, context, &running, &signals);
    if outcome.is_err() {
        cancel_all(&running);
    }
    drop(pipeline);
    if let Some(code) = signals.code() {
        return Err(Outcome::Silent(code));
    }
    match outcome? {
        0 => Ok(()),
        failed => {
            context.printer.note(&format!("{failed} lines failed; each result says why"));
            Err(Outcome::Silent(Code::SomeLinesFailed))
        }
    }
}

/// Prints results in the order of their lines; gives the number of failed ones.
fn print_results(
    results: &Receiver<Line>,
    context: &Context,
    running: &Running,
    signals: &Signals,
) -> Result<usize, Outcome> {
    let mut failed = 0;
    for (number, line) in results.iter().enumerate() {
        let (value, ok) = match line {
            Line::Refused { id, failure } => (wire::error_value(&id, &failure), false),
            Line::Asked { id, ticket, return_tokens } => {
                let (adapters, route) = (ticket.adapters.clone(), ticket.route.clone());
                let compositions = ticket.compositions.clone();
                let result = match ticket.wait(|_| ()) {
                    Ok(answer) => {
                        let ok = wire::cut(&answer).is_none();
                        let value = wire::result_value(Some(&id), &answer, &adapters, return_tokens);
                        let value = wire::with_route(value, route.as_deref());
                        (wire::with_compositions(value, &compositions, &answer.finished), ok)
                    }
                    Err(failure) => (wire::error_value(&id, &failure), false),
                };
                lock(running).remove(&(number as u64));
                result
            }
        };
        if signals.code().is_some() {
            break;
        }
        failed += usize::from(!ok);
        context.printer.line(&value.to_string())?;
    }
    Ok(failed)
}

struct Reader {
    pipeline: Arc<Pipeline>,
    defaults: Request,
    lines: SyncSender<Line>,
    running: Running,
    signals: Signals,
}

impl Reader {
    fn run(self, input: impl Read) {
        let mut input = BufReader::with_capacity(1 << 16, input);
        let mut number = 0;
        while self.signals.code().is_none() {
            let line = match read_line(&mut input, MAX_LINE) {
                Ok(None) => return,
                Ok(Some(LineText::Blank)) => continue,
                Ok(Some(LineText::Text(text))) => self.submit(&text, number),
                Ok(Some(LineText::Refused(failure))) => Line::Refused { id: Value::Null, failure },
                Err(e) => {
                    let failure = Failure::new(Code::Other, format!("standard input: {e}"));
                    let _ = self.lines.send(Line::Refused { id: Value::Null, failure });
                    return;
                }
            };
            number += 1;
            if self.lines.send(line).is_err() {
                return;
            }
        }
    }

    fn submit(&self, text: &str, number: u64) -> Line {
        let asked = match wire::parse(text, &self.defaults) {
            Ok(asked) => asked,
            Err(e) => {
                return Line::Refused { id: e.id, failure: e.failure };
            }
        };
        match self.pipeline.submit(asked.request) {
            Ok(ticket) => {
                lock(&self.running).insert(number, ticket.cancel.clone());
                if self.signals.code().is_some() {
                    ticket.cancel.cancel();
                }
                Line::Asked { id: asked.id, ticket: Box::new(ticket), return_tokens: asked.return_tokens }
            }
            Err(failure) => Line::Refused { id: asked.id, failure },
        }
    }
}

fn cancel_all(running: &Running) {
    lock(running).values().for_each(CancelToken::cancel);
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, HashMap<u64, CancelToken>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A line as read.
#[derive(Debug, PartialEq)]
pub enum LineText {
    /// Its text.
    Text(String),
    /// Nothing but blanks.
    Blank,
    /// It is too long or no text.
    Refused(Failure),
}

/// Reads a line of at most `limit` bytes. A longer one is passed over to its end and refused; `None` at the end.
pub fn read_line(input: &mut impl BufRead, limit: usize) -> io::Result<Option<LineText>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    let ended = line.last() == Some(&b'\n');
    if ended {
        line.pop();
    }
    if line.len() > limit || (!ended && read > limit) {
        if !ended {
            skip_line(input)?;
        }
        let message = format!("the line is longer than {limit} bytes");
        return Ok(Some(LineText::Refused(Failure::usage(message))));
    }
    Ok(Some(match String::from_utf8(line) {
        Ok(text) if text.trim().is_empty() => LineText::Blank,
        Ok(text) => LineText::Text(text),
        Err(e) => LineText::Refused(Failure::usage(format!("not UTF-8 text (byte {})", e.utf8_error().valid_up_to()))),
    }))
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|b| *b == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_passed_over_and_the_rest_stays_in_step() {
        let text = format!("ab\n\n{}\n{}\nxyz", "l".repeat(5), "m".repeat(100));
        let mut input = BufReader::with_capacity(3, text.as_bytes());
        let mut seen = Vec::new();
        while let Some(line) = read_line(&mut input, 5).expect("read") {
            seen.push(match line {
                LineText::Text(t) => t,
                LineText::Blank => "(blank)".into(),
                LineText::Refused(f) => f.message,
            });
        }
        assert_eq!(seen, ["ab", "(blank)", "lllll", "the line is longer than 5 bytes", "xyz"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let mut input = BufReader::new(&b"a\xFFb\nc"[..]);
        let refused = read_line(&mut input, 10).expect("read").expect("a line");
        assert_eq!(refused, LineText::Refused(Failure::usage("not UTF-8 text (byte 1)")));
        assert_eq!(read_line(&mut input, 10).expect("read"), Some(LineText::Text("c".into())));
    }
}
