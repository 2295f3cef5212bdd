//! Failures as an HTTP client sees them: a status, and llama-server's error object.

use serde_json::{Value, json};

use crate::error::{Code, Failure};

/// A status with llama-server's name for the kind of error, and one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// `type` of the error object.
    pub kind: &'static str,
    /// What is wrong.
    pub message: String,
}

impl Problem {
    /// A problem of `kind`.
    pub fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, "not_found_error", message)
    }

    /// The model or this server cannot do it.
    pub fn not_supported(message: impl Into<String>) -> Self {
        Self::new(501, "not_supported_error", message)
    }

    /// The body: llama-server's error object.
    pub fn body(&self) -> Value {
        json!({"error": {"code": self.status, "message": self.message, "type": self.kind}})
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let (status, kind) = match failure.code {
            Code::Usage | Code::FormatRejected => (400, "invalid_request_error"),
            Code::NotFound => (404, "not_found_error"),
            Code::InvalidFile => (422, "invalid_file_error"),
            Code::Busy => (429, "rate_limit_error"),
            Code::OutOfMemory | Code::Interrupted | Code::Terminated => (503, "unavailable_error"),
            Code::Other | Code::FormatCut | Code::SomeLinesFailed => (500, "server_error"),
        };
        Self::new(status, kind, failure.message)
    }
}

/// llama-server's error for a prompt that does not fit, as clients look for it.
pub fn context_error(prompt: usize, context: usize) -> Value {
    let message = format!(
        "the request exceeds the available context size: the prompt has {prompt} tokens, the context holds {context}"
    );
    json!({"error": {
        "code": 400,
        "message": message,
        "type": "exceed_context_size_error",
        "n_prompt_tokens": prompt,
        "n_ctx": context,
    }})
}

/// The same error in Anthropic's envelope, which its clients expect.
pub fn anthropic_error(status: u16, body: &Value) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    let message = body.pointer("/error/message").cloned().unwrap_or(Value::Null);
    json!({"type": "error", "error": {"type": kind, "message": message, "code": status}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status() {
        for code in Code::ALL {
            let problem = Problem::from(Failure::new(code, "x"));
            assert!((400..600).contains(&problem.status), "{code:?}");
            assert_eq!(problem.body()["error"]["code"], problem.status);
        }
        assert_eq!(anthropic_error(404, &json!({"error": {"message": "m"}}))["error"]["type"], "not_found_error");
    }
}
