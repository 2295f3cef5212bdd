//! What can go wrong with a template, in one line each.

/// Why a template was refused or did not finish.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The text is not a template.
    #[error("chat template, line {line}: {reason}")]
    Syntax {
        /// Line of the template, from 1; 0 when not known.
        line: usize,
        /// What the parser said.
        reason: String,
    },

    /// The text is longer than any template in use.
    #[error("chat template of {bytes} bytes is larger than the limit of {limit}")]
    SourceTooLarge {
        /// Size of the template.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },

    /// The template refused the conversation, with `raise_exception`.
    #[error("the chat template refuses this conversation: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },

    /// The template did something that failed.
    #[error("chat template, line {line}: {reason}")]
    Failed {
        /// Line of the template, from 1; 0 when not known.
        line: usize,
        /// What failed.
        reason: String,
    },

    /// The template took more steps than any honest one needs.
    #[error("chat template stopped after {steps} steps")]
    TooManySteps {
        /// Instructions it was allowed.
        steps: u64,
    },

    /// The template built more text than allowed.
    #[error("chat template stopped: it builds more than {limit} bytes of text")]
    TooLarge {
        /// Bytes it was allowed.
        limit: usize,
    },

    /// The system gave no thread to render on.
    #[error("no thread to render the chat template on: {reason}")]
    NoThread {
        /// What the system said.
        reason: String,
    },
}
