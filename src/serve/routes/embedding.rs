//! Vectors of texts, and documents ordered by them or by a reranker.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request as HttpRequest, State as StateOf};
use axum::response::Response;

use super::super::abort::{Abort, AbortOnDrop};
use super::super::reply::{Refusal, Reply, ok};
use super::super::state::State;
use super::ollama::told;
use super::{Shared, aside, read};
use crate::engine::Token;
use crate::engine::encoder::{Encoder, Pooling, batches};
use crate::error::{Code, Failure};
use crate::wire::{self, Problem, VectorCall, VectorRoute};

/// POST `/embedding`, `/embeddings`.
pub async fn native(state: Shared, request: HttpRequest) -> Reply {
    vectors(state, request, VectorRoute::Native).await
}

/// POST `/v1/embeddings`.
pub async fn openai(state: Shared, request: HttpRequest) -> Reply {
    vectors(state, request, VectorRoute::OpenAi).await
}

/// POST `/api/embed`.
pub async fn ollama(state: Shared, request: HttpRequest) -> Response {
    told(vectors(state, request, VectorRoute::Ollama).await)
}

/// POST `/api/embeddings`.
pub async fn ollama_old(state: Shared, request: HttpRequest) -> Response {
    told(vectors(state, request, VectorRoute::OllamaOld).await)
}

async fn vectors(StateOf(state): Shared, request: HttpRequest, route: VectorRoute) -> Reply {
    let (body, _) = read(&state, request).await?;
    working(state, move |state, encoder, abort| {
        let started = Instant::now();
        let call = wire::vectors(body, route)?;
        let facts = encoder.facts();
        if facts.pooling == Pooling::Rank {
            return Err(
                Problem::not_supported("This server ranks documents: its model gives scores, not vectors").into()
            );
        }
        if facts.pooling == Pooling::None && call.route != VectorRoute::Native {
            let message = "Pooling type 'none' is not OAI compatible. Please use a different pooling type (--pooling)";
            return Err(Problem::invalid(message).into());
        }
        if let Some(n) = call.dimensions.filter(|n| *n == 0 || *n > facts.dim) {
            return Err(Problem::invalid(format!("dimensions: must be from 1 to {}, not {n}", facts.dim)).into());
        }
        let texts = call.inputs.iter().map(|parts| tokens(encoder, parts, call.truncate)).collect::<Vec<_>>();
        let count = texts.iter().map(Vec::len).sum();
        let found = encode(encoder, texts, abort, "input")?;
        let shaped: Vec<Vec<Vec<f32>>> = found.into_iter().map(|v| shaped(state, facts, &call, v)).collect();
        state.metrics.encoded(count, started.elapsed());
        let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        ok(&wire::vectors_value(&call, &shaped, count, took))
    })
    .await
}

/// Cuts a text's numbers into vectors of the wanted size and length.
fn shaped(
    state: &State,
    facts: &crate::engine::encoder::EncoderFacts,
    call: &VectorCall,
    numbers: Vec<f32>,
) -> Vec<Vec<f32>> {
    // Vectors of tokens are left as they are, as in llama-server.
    let kind = match facts.pooling {
        Pooling::None => -1,
        _ => call.normalise.unwrap_or(state.options.normalise),
    };
    let one = |v: &[f32]| {
        let mut v = v[..call.dimensions.unwrap_or(facts.dim).min(v.len())].to_vec();
        wire::normalise(&mut v, kind);
        v
    };
    numbers.chunks(facts.dim).map(one).collect()
}

/// The tokens of a text in parts; a text that is too long keeps its beginning and its last token, where asked to.
fn tokens(encoder: &dyn Encoder, parts: &[wire::Part], truncate: bool) -> Vec<Token> {
    let mut all = match parts {
        [wire::Part::Text(text)] => encoder.tokens(text),
        parts => {
            let one = |part: &wire::Part| match part {
                wire::Part::Token(token) => vec![*token],
                wire::Part::Text(text) => encoder.tokens(text),
            };
            parts.iter().flat_map(one).collect()
        }
    };
    let limit = encoder.facts().limit;
    if truncate && all.len() > limit {
        let last = all.last().copied();
        all.truncate(limit - 1);
        all.extend(last);
    }
    all
}

/// Encodes texts batch by batch; other requests come in between.
fn encode(encoder: &dyn Encoder, texts: Vec<Vec<Token>>, abort: &Abort, field: &str) -> Result<Vec<Vec<f32>>, Refusal> {
    let facts = encoder.facts();
    for (i, text) in texts.iter().enumerate() {
        let (n, limit) = (text.len(), facts.limit);
        let what = match n {
            0 => "has no tokens".to_string(),
            n if n > limit => {
                format!(
                    "has {n} tokens, which is too large to process: the limit is {limit} (-ub, and the model's own)"
                )
            }
            _ => continue,
        };
        return Err(Problem::invalid(format!("{field}[{i}] {what}")).into());
    }
    let lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    let mut vectors = Vec::with_capacity(texts.len());
    for range in batches(&lengths, facts.rows, facts.texts) {
        if abort.is_aborted() {
            return Err(Failure::new(Code::Interrupted, "the client has gone").into());
        }
        let encoded = encoder.encode(&texts[range]).map_err(|e| match e {
            crate::engine::EngineError::Misuse(what) => Failure::usage(format!("{field}: {what}")),
            e => Failure::new(Code::Other, e.to_string()),
        });
        vectors.extend(encoded?);
    }
    Ok(vectors)
}

/// POST `/rerank`: by the model's own scores, else by how near the vectors are.
pub async fn rerank(StateOf(state): Shared, request: HttpRequest) -> Reply {
    let (body, _) = read(&state, request).await?;
    working(state, move |state, encoder, abort| {
        let started = Instant::now();
        let call = wire::ranking(body)?;
        let (texts, by) = match encoder.facts().pooling {
            Pooling::None => {
                let message = "This server does not support reranking: its vectors are those of tokens (--pooling)";
                return Err(Problem::not_supported(message).into());
            }
            Pooling::Rank => (call.documents.iter().map(|d| encoder.pair(&call.query, d)).collect(), "rank"),
            _ => {
                let texts = std::iter::once(&call.query).chain(&call.documents).map(|t| encoder.tokens(t));
                (texts.collect::<Vec<_>>(), "cosine")
            }
        };
        let count = texts.iter().map(Vec::len).sum();
        let mut found = encode(encoder, texts, abort, "documents")?;
        let scores: Vec<f32> = if by == "rank" {
            found.iter().map(|scores| scores.first().copied().unwrap_or(f32::NAN)).collect()
        } else {
            found.iter_mut().for_each(|v| wire::normalise(v, 2));
            let (query, documents) = found.split_at(1);
            let near = |d: &Vec<f32>| d.iter().zip(&query[0]).map(|(a, b)| a * b).sum();
            documents.iter().map(near).collect()
        };
        state.metrics.encoded(count, started.elapsed());
        ok(&wire::ranking_value(&call, &scores, count, by))
    })
    .await
}

/// Runs `work` away from the HTTP threads while its client listens; no more at once than may wait for an answer.
async fn working(
    state: Arc<State>,
    work: impl FnOnce(&State, &dyn Encoder, &Abort) -> Reply + Send + 'static,
) -> Reply {
    let encoder = state.pipeline()?.encoder().cloned();
    let encoder = encoder.ok_or_else(|| {
        Problem::not_supported("This server does not support embeddings. Start it with `--embeddings`")
    })?;
    let Ok(place) = state.encoding.clone().try_acquire_owned() else {
        return Err(Failure::new(Code::Busy, "too many texts wait for their vectors; try again later").into());
    };
    let abort = Abort::default();
    let _listening = AbortOnDrop(abort.clone());
    aside(move || {
        let _place = place;
        work(&state, &*encoder, &abort)
    })
    .await
}
