//! Distributions of the next token under adapters, by the engine: what a merge is judged by.

use std::path::PathBuf;

use crate::engine::Token;
use crate::error::{Code, Failure};
use crate::optimize::{Distribution, Judged, Limits, judge};
use crate::pipeline::{Pipeline, Ticket};
use crate::prompt::{Message, Role};
use crate::request::{AdapterChoice, Input, Request};
use crate::sampling::Sampling;
use crate::scheduler::JobLimits;

/// Tokens of an answer that positions are taken from.
const ANSWER: usize = 6;
/// Every how many of them a position is compared.
const STRIDE: usize = 2;
/// Probabilities asked for.
const TOP: usize = 64;

/// An adapter, and what is to be compared with it. All as files, so that asking counts as no use of the library's.
pub struct Candidate<'a> {
    /// The file of the adapter itself.
    pub own: &'a [u8],
    /// The file of the merged adapter.
    pub merged: &'a [u8],
    /// The file of a random one of the same norm.
    pub random: &'a [u8],
}

/// Compares adapters by what they would say next.
pub struct Prober<'p> {
    pipeline: &'p Pipeline,
    folder: Scratch,
    /// One question at a time.
    gently: bool,
}

/// A folder that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl<'p> Prober<'p> {
    /// On a loaded model.
    ///
    /// # Errors
    /// There is no place for files.
    pub fn new(pipeline: &'p Pipeline) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("smoa-optimize-{}", std::process::id()));
        std::fs::create_dir_all(&folder)
            .map_err(|e| Failure::new(Code::Other, format!("'{}': {e}", folder.display())))?;
        Ok(Self { pipeline, folder: Scratch(folder), gently: false })
    }

    /// Asks one question at a time, so that it takes one place beside what others ask.
    pub fn gently(self) -> Self {
        Self { gently: true, ..self }
    }

    /// Lets the unmerged adapter begin an answer to each prompt, and compares the distributions along it.
    ///
    /// # Errors
    /// A request failed.
    pub fn judge(&self, candidate: &Candidate<'_>, prompts: &[String], limits: Limits) -> Result<Judged, Failure> {
        let file = |name: &str, bytes: &[u8]| -> Result<AdapterChoice, Failure> {
            // Named by content: what is open of an earlier group is not this one.
            let path = self.folder.0.join(format!("{name}-{}.gguf", crate::adapter::AdapterDigest::of(bytes)));
            std::fs::write(&path, bytes)
                .map_err(|e| Failure::new(Code::Other, format!("'{}': {e}", path.display())))?;
            Ok(AdapterChoice::file(path, 1.0))
        };
        let own = vec![file("own", candidate.own)?];
        let merged = vec![file("merged", candidate.merged)?];
        let random = vec![file("random", candidate.random)?];
        let mut texts: Vec<Vec<Token>> = Vec::new();
        for prompt in prompts {
            let input = Input::chat(vec![Message::new(Role::User, prompt.as_str())]);
            let Ok(tokens) = self.pipeline.tokens(input) else { continue };
            let begun = self.ask(tokens.clone(), &own, ANSWER, 0)?.wait(|_| ())?;
            for at in (0..begun.tokens.len().max(1)).step_by(STRIDE) {
                texts.push(tokens.iter().chain(begun.tokens.iter().take(at)).copied().collect());
            }
        }
        let all = |adapters: &[AdapterChoice]| -> Result<Vec<Distribution>, Failure> {
            if self.gently {
                return texts.iter().map(|text| distribution(self.ask(text.clone(), adapters, 1, TOP)?)).collect();
            }
            let tickets: Vec<Ticket> =
                texts.iter().map(|text| self.ask(text.clone(), adapters, 1, TOP)).collect::<Result<_, _>>()?;
            tickets.into_iter().map(distribution).collect()
        };
        Ok(judge(&all(&own)?, &all(&merged)?, &all(&[])?, &all(&random)?, limits))
    }

    fn ask(&self, tokens: Vec<Token>, adapters: &[AdapterChoice], n: usize, n_probs: usize) -> Result<Ticket, Failure> {
        self.pipeline.submit(Request {
            adapters: adapters.to_vec(),
            sampling: Sampling { temperature: 0.0, ..Sampling::default() },
            limits: JobLimits { max_tokens: Some(n), ..JobLimits::default() },
            n_probs,
            ..Request::new(Input::Tokens(tokens))
        })
    }
}

fn distribution(ticket: Ticket) -> Result<Distribution, Failure> {
    let answer = ticket.wait(|_| ())?;
    let first = answer.probabilities.first().map(|p| p.top.as_slice()).unwrap_or_default();
    Ok(first.iter().map(|c| (c.token, f64::from(c.logprob).exp())).collect())
}
