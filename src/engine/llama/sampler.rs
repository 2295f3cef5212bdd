//! llama.cpp's samplers, chained in the order a request asks for.

use std::sync::Arc;

use llama_cpp_2::sampling::LlamaSampler;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::token::data::LlamaTokenData;
use llama_cpp_2::token::data_array::LlamaTokenDataArray;
use llama_cpp_2::token::logit_bias::LlamaLogitBias;

use super::model::Model;
use crate::engine::{EngineError, Sampler, Token, Tokenizer};
use crate::prompt::Prompt;
use crate::sampling::{BiasTarget, Mirostat, SamplerKind, Sampling};

/// A sampler chain of one request.
pub(super) struct Chain {
    chain: LlamaSampler,
    candidates: LlamaTokenDataArray,
    /// Tokens that may never be chosen; few.
    forbidden: Vec<Token>,
    /// The best allowed logit is the choice: the chain is not asked.
    plain_greedy: bool,
    /// Draws in the chain's place.
    adaptive: Option<Adaptive>,
}

/// Adaptive-p: draws tokens whose probability is near a target, which moves against what was drawn lately. After
/// llama.cpp's sampler of this name (<https://github.com/ggml-org/llama.cpp/pull/17927>), whose constants these are.
struct Adaptive {
    target: f32,
    decay: f32,
    /// The probabilities of drawn tokens, and their weights, summed with `decay`.
    sum: f32,
    weight: f32,
    /// What was drawn last and has not been accepted yet, with its probability.
    drawn: Option<(Token, f32)>,
    draw: LlamaSampler,
}

impl Adaptive {
    /// How far from the target a probability is half as good, the logit at the target, and how fast it falls.
    const WIDTH: f32 = 0.3;
    const PEAK: f32 = 5.0;
    const SHARPNESS: f32 = 10.0;

    fn new(target: f32, decay: f32, seed: u32) -> Self {
        let weight = 1.0 / (1.0 - decay);
        Self { target, decay, sum: target * weight, weight, drawn: None, draw: LlamaSampler::dist(seed) }
    }

    fn draw(&mut self, candidates: &mut LlamaTokenDataArray) {
        let max = candidates.data.iter().map(LlamaTokenData::logit).fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = candidates.data.iter().map(|d| (d.logit() - max).exp()).sum();
        let probability = |d: &LlamaTokenData| (d.logit() - max).exp() / total;
        let target = (2.0 * self.target - self.sum / self.weight).clamp(0.0, 1.0);
        let before: Vec<f32> = candidates.data.iter().map(probability).collect();
        for (d, p) in candidates.data.iter_mut().zip(&before) {
            if d.logit() > f32::NEG_INFINITY {
                let far = (p - target).abs() / Self::WIDTH;
                d.set_logit(Self::PEAK - Self::SHARPNESS * far * far / (1.0 + far));
            }
        }
        candidates.sorted = false;
        let ids: Vec<i32> = candidates.data.iter().map(|d| d.id().0).collect();
        self.draw.apply(candidates);
        let chosen = candidates.selected.and_then(|i| candidates.data.get(i)).map(|d| d.id().0);
        let of = chosen.and_then(|id| ids.iter().position(|other| *other == id)).map(|at| before[at]);
        self.drawn = chosen.map(|id| id as Token).zip(of);
    }

    fn accept(&mut self, token: Token) {
        if let Some((_, p)) = self.drawn.take().filter(|(drawn, _)| *drawn == token) {
            self.sum = p + self.decay * self.sum;
            self.weight = 1.0 + self.decay * self.weight;
        }
    }
}

impl Chain {
    /// Builds the chain as llama.cpp's `common_sampler_init` does. `context` stands for "-1" look-backs.
    pub(super) fn new(model: &Model, tokenizer: &Arc<dyn Tokenizer>, s: &Sampling, context: usize) -> Self {
        let n_vocab = model.safe().n_vocab();
        let vocab = model.safe().vocab();
        let mut forbidden: Vec<Token> = vocab.suppress_tokens().iter().map(|t| t.0 as Token).collect();
        if s.ignore_eos {
            forbidden.extend(vocab.tokens().filter(|t| vocab.is_eog(*t)).map(|t| t.0 as Token));
        }
        let look_back = |n: i32| {
            if n < 0 { i32::try_from(context).unwrap_or(i32::MAX) } else { n }
        };
        let seed = s.seed.unwrap_or_else(random_seed);
        let mut steps = Vec::new();
        let mut biases = Vec::new();
        for b in &s.logit_bias {
            let tokens = match &b.target {
                BiasTarget::Token(id) => vec![*id],
                BiasTarget::Text(text) => tokenizer.tokenize(&Prompt::raw(text.clone()), false),
            };
            biases.extend(tokens.iter().map(|t| LlamaLogitBias::new(LlamaToken(*t as i32), b.bias)));
        }
        if !biases.is_empty() {
            steps.push(LlamaSampler::logit_bias(n_vocab, &biases));
        }
        match s.mirostat {
            Mirostat::Off => {
                steps.extend(s.order.iter().filter_map(|kind| step(*kind, model, s, seed, look_back)));
                if !s.is_adaptive() {
                    steps.push(LlamaSampler::dist(seed));
                }
            }
            Mirostat::V1 => {
                steps.push(LlamaSampler::temp(s.temperature));
                steps.push(LlamaSampler::mirostat(n_vocab, seed, s.mirostat_tau, s.mirostat_eta, 100));
            }
            Mirostat::V2 => {
                steps.push(LlamaSampler::temp(s.temperature));
                steps.push(LlamaSampler::mirostat_v2(seed, s.mirostat_tau, s.mirostat_eta));
            }
        }
        Self {
            chain: LlamaSampler::chain(steps, true),
            candidates: LlamaTokenDataArray::new(Vec::with_capacity(usize::try_from(n_vocab).unwrap_or(0)), false),
            forbidden,
            plain_greedy: s.is_plain_greedy(),
            adaptive: s.is_adaptive().then(|| Adaptive::new(s.adaptive_target, s.adaptive_decay, seed)),
        }
    }
}

fn step(
    kind: SamplerKind,
    model: &Model,
    s: &Sampling,
    seed: u32,
    look_back: impl Fn(i32) -> i32,
) -> Option<LlamaSampler> {
    let n_vocab = model.safe().n_vocab();
    Some(match kind {
        // It draws, so it comes after the chain.
        SamplerKind::AdaptiveP => return None,
        SamplerKind::Penalties => LlamaSampler::penalties(
            n_vocab,
            look_back(s.repeat_last_n),
            s.repeat_penalty,
            s.frequency_penalty,
            s.presence_penalty,
        ),
        SamplerKind::Dry => LlamaSampler::dry(
            model.safe(),
            s.dry_multiplier,
            s.dry_base,
            s.dry_allowed_length,
            look_back(s.dry_penalty_last_n),
            &s.dry_sequence_breakers,
        ),
        SamplerKind::TopNSigma => LlamaSampler::top_n_sigma(s.top_n_sigma),
        SamplerKind::TopK => LlamaSampler::top_k(s.top_k),
        SamplerKind::TypicalP => LlamaSampler::typical(s.typical_p, s.min_keep),
        SamplerKind::TopP => LlamaSampler::top_p(s.top_p, s.min_keep),
        SamplerKind::MinP => LlamaSampler::min_p(s.min_p, s.min_keep),
        SamplerKind::Xtc => LlamaSampler::xtc(s.xtc_probability, s.xtc_threshold, s.min_keep, seed),
        SamplerKind::Temperature => LlamaSampler::temp_ext(s.temperature, s.dynatemp_range, s.dynatemp_exponent),
    })
}

impl Sampler for Chain {
    fn choose(&mut self, logits: &[f32], allowed: Option<&dyn Fn(Token) -> bool>) -> Result<Token, EngineError> {
        if self.plain_greedy {
            let best = best(logits);
            if best.is_some_and(|t| !self.forbidden.contains(&t) && allowed.is_none_or(|ok| ok(t))) {
                return best.ok_or(EngineError::NoCandidate);
            }
        }
        let forbidden = &self.forbidden;
        let data = &mut self.candidates.data;
        data.clear();
        let candidate = |(id, logit): (usize, &f32)| {
            let id = id as Token;
            let ok = logit.is_finite() && !forbidden.contains(&id) && allowed.is_none_or(|ok| ok(id));
            ok.then(|| LlamaTokenData::new(LlamaToken(id as i32), *logit, 0.0))
        };
        data.extend(logits.iter().enumerate().filter_map(candidate));
        self.candidates.selected = None;
        self.candidates.sorted = false;
        if self.candidates.data.is_empty() {
            return Err(EngineError::NoCandidate);
        }
        if self.plain_greedy {
            let data = &self.candidates.data;
            let better =
                |a: &&LlamaTokenData, b: &&LlamaTokenData| a.logit().total_cmp(&b.logit()).then(b.id().cmp(&a.id()));
            return data.iter().max_by(better).map(|d| d.id().0 as Token).ok_or(EngineError::NoCandidate);
        }
        self.chain.apply(&mut self.candidates);
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.draw(&mut self.candidates);
        }
        let selected = self.candidates.selected.and_then(|i| self.candidates.data.get(i));
        match selected {
            Some(d) if d.logit() > f32::NEG_INFINITY => Ok(d.id().0 as Token),
            _ => Err(EngineError::NoCandidate),
        }
    }

    fn accept(&mut self, token: Token) {
        if !self.plain_greedy {
            self.chain.accept(LlamaToken(token as i32));
            self.adaptive.iter_mut().for_each(|adaptive| adaptive.accept(token));
        }
    }
}

/// The first token with the greatest logit. The maximum is found lane by lane, which compilers vectorise; `None`
/// when there is no finite logit.
fn best(logits: &[f32]) -> Option<Token> {
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = logits.chunks_exact(LANES);
    let mut max = f32::NEG_INFINITY;
    for x in chunks.remainder() {
        max = if *x > max { *x } else { max };
    }
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = if *x > *lane { *x } else { *lane };
        }
    }
    max = lanes.into_iter().fold(max, f32::max);
    if !max.is_finite() {
        return None;
    }
    logits.iter().position(|x| *x == max).map(|i| i as Token)
}

fn random_seed() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now()) as u32
}

#[cfg(test)]
mod tests {
    use super::best;

    #[test]
    fn best_is_the_first_of_the_greatest() {
        let mut logits = vec![-1.0f32; 100];
        assert_eq!(best(&logits), Some(0));
        logits[37] = 2.0;
        logits[80] = 2.0;
        assert_eq!(best(&logits), Some(37));
        logits[99] = 3.0;
        assert_eq!(best(&logits), Some(99));
        logits[5] = f32::NAN;
        assert_eq!(best(&logits), Some(99), "not-a-number is never chosen");
        assert_eq!(best(&[f32::NEG_INFINITY; 20]), None);
        assert_eq!(best(&[]), None);
    }
}
