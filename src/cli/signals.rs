//! SIGINT and SIGTERM: the first asks the running request to end, the second ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::error::Code;

/// Which signal came. Cloneable, shared with whoever must react.
#[derive(Clone, Debug, Default)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Watches for signals on a thread of its own; `on_signal` is called for the first one.
    pub fn watch(on_signal: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let seen = Self::default();
        let mine = seen.clone();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                let number = usize::try_from(signal).unwrap_or(0);
                if mine.0.swap(number, Ordering::Relaxed) != 0 {
                    // The second signal: leave without waiting for the step under way.
                    signal_hook::low_level::exit(128 + signal);
                }
                on_signal();
            }
        })?;
        Ok(seen)
    }

    /// The code of the signal that came, if one did.
    pub fn code(&self) -> Option<Code> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            n if n == usize::try_from(SIGTERM).unwrap_or(15) => Some(Code::Terminated),
            _ => Some(Code::Interrupted),
        }
    }
}
