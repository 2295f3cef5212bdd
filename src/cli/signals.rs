//! SIGINT and SIGTERM: the first asks the running request to end, the second ends the process. In a conversation a
//! SIGINT ends an answer, as often as it comes, and SIGTERM the conversation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

    /// Watches for signals in a conversation: `on_signal` is called for each. A third SIGINT that nobody took notice
    /// of (see [`Signals::forget_interrupt`]) ends the process, and so does a second SIGTERM.
    pub fn watch_each(on_signal: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let seen = Self::default();
        let mine = seen.clone();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut unheard = 0;
            while let Some(signal) = signals.forever().next() {
                let before = mine.0.swap(usize::try_from(signal).unwrap_or(0), Ordering::Relaxed);
                unheard = if before == 0 { 1 } else { unheard + 1 };
                on_signal();
                if signal == SIGTERM {
                    leave(signals);
                }
                if unheard >= 3 {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        })?;
        Ok(seen)
    }

    /// Makes ready for the next SIGINT. A SIGTERM stays.
    pub fn forget_interrupt(&self) {
        let interrupt = usize::try_from(SIGINT).unwrap_or(0);
        let _ = self.0.compare_exchange(interrupt, 0, Ordering::Relaxed, Ordering::Relaxed);
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

/// After SIGTERM. A line editor that waits for a key hears no SIGTERM, but ends its line at a SIGINT: so that is said
/// again until the process has gone. A second SIGTERM ends it at once.
fn leave(mut signals: signal_hook::iterator::Signals) -> ! {
    loop {
        let _ = signal_hook::low_level::raise(SIGINT);
        std::thread::sleep(Duration::from_millis(50));
        if signals.pending().any(|signal| signal == SIGTERM) {
            signal_hook::low_level::exit(128 + SIGTERM);
        }
    }
}
