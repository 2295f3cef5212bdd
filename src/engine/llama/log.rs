//! llama.cpp's log: kept quiet, shown with `-v`, and its last errors quoted in ours.

use std::ffi::{CStr, c_char, c_void};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use llama_cpp_sys_2 as sys;

/// 0: errors are kept for messages only. 1: warnings and errors are printed. 2: everything is.
static VERBOSITY: AtomicU8 = AtomicU8::new(0);
/// The error lines since the last [`take_errors`], at most [`KEPT`].
static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// The level of the line that continuation pieces belong to.
static LAST: AtomicU8 = AtomicU8::new(0);

const KEPT: usize = 8;

/// How much of llama.cpp's own log goes to stderr: 0 nothing, 1 warnings and errors, 2 and more everything.
pub fn set_verbosity(level: u8) {
    VERBOSITY.store(level, Ordering::Relaxed);
}

/// Routes llama.cpp's log through this module. Called once, before the backend starts.
pub(super) fn install() {
    // SAFETY: `receive` is a plain function that lives as long as the program; it ignores the user pointer.
    unsafe { sys::llama_log_set(Some(receive), std::ptr::null_mut()) }
}

/// The error lines llama.cpp has logged since the last call, as one line; empty when there were none.
pub(super) fn take_errors() -> String {
    let mut errors = ERRORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lines = std::mem::take(&mut *errors);
    lines.join("; ")
}

unsafe extern "C" fn receive(level: sys::ggml_log_level, text: *const c_char, _user: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the duration of the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let continued = level == sys::GGML_LOG_LEVEL_CONT;
    let level = if continued { LAST.load(Ordering::Relaxed) } else { level as u8 };
    LAST.store(level, Ordering::Relaxed);
    let is_error = u32::from(level) == sys::GGML_LOG_LEVEL_ERROR;
    let is_warning = u32::from(level) == sys::GGML_LOG_LEVEL_WARN;
    let line = text.trim();
    if is_error && !line.is_empty() {
        let mut errors = ERRORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if errors.len() < KEPT {
            errors.push(line.to_string());
        }
    }
    let shown = match VERBOSITY.load(Ordering::Relaxed) {
        0 => false,
        1 => is_error || is_warning,
        _ => true,
    };
    if shown {
        // A closed stderr must not end the process from inside a C callback.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    }
}
