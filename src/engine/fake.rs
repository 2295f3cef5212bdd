//! A scripted, deterministic engine: the decode loop, the queue and the front ends are tested with it.
//!
//! Its "model" is arithmetic: the next token depends on the last tokens of the sequence AND on the adapters under
//! which every one of those tokens was evaluated. A decode loop that reuses a prefix computed under another adapter
//! set gets other answers, so such a mistake fails a test. Tokens are bytes (0 to 255) plus one end token (256).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use super::saved::Stamp;
use super::{Batching, Engine, EngineError, EngineFacts, Row, Sampler, Sequence, Token, Tokenizer};
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::grammar::Vocabulary;
use crate::prompt::{Piece, Prompt};
use crate::sampling::Sampling;

/// The end-of-generation token.
pub const END: Token = 256;
const N_VOCAB: usize = 257;

/// The fake engine.
#[derive(Debug)]
pub struct FakeEngine {
    facts: EngineFacts,
    tokenizer: Arc<FakeTokenizer>,
    scripts: Vec<(String, String)>,
    /// Per sequence: each cached token with the state after it.
    cells: Vec<Vec<Cell>>,
    outputs: HashMap<usize, Vec<f32>>,
    /// What was decoded: the number of rows of each step and its adapter sets.
    pub steps: Vec<(usize, Vec<AdapterSet>)>,
    alone: Option<fn(&AdapterSet) -> bool>,
    /// How far back the token stands that comes again.
    echo: Option<usize>,
    draws: bool,
    second: Option<Box<FakeEngine>>,
}

/// A cached token. `state` is a hash of everything evaluated so far, adapters included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    token: Token,
    state: u64,
}

impl FakeEngine {
    /// An engine with `context` cells and `sequences` sequences.
    pub fn new(context: usize, sequences: usize) -> Self {
        let facts = EngineFacts {
            model: "fake".into(),
            context,
            sequence_context: context,
            context_trained: context,
            batch: 64,
            micro_batch: 16,
            sequences,
            vocabulary: N_VOCAB,
            prefix_reuse: true,
            shift: true,
            generates: true,
            batching: Batching::Lanes,
        };
        Self {
            facts,
            tokenizer: Arc::new(FakeTokenizer::default()),
            scripts: Vec::new(),
            cells: vec![Vec::new(); sequences],
            outputs: HashMap::new(),
            steps: Vec::new(),
            alone: None,
            echo: None,
            draws: false,
            second: None,
        }
    }

    /// Sets of which `alone` is true share no step with other sets.
    pub fn alone(mut self, alone: fn(&AdapterSet) -> bool) -> Self {
        self.alone = Some(alone);
        self
    }

    /// Most tokens are the one that stands so many back, so that texts repeat themselves for a while.
    pub fn echo(mut self, back: usize) -> Self {
        self.echo = Some(back);
        self
    }

    /// Every fourth token or so is drawn by the seed of its request, and by what was drawn before.
    pub fn drawing(mut self) -> Self {
        self.draws = true;
        self
    }

    /// Another one guesses for it.
    pub fn guessed_by(mut self, second: FakeEngine) -> Self {
        self.second = Some(Box::new(second));
        self
    }

    /// Whether a suffix of a sequence can be removed.
    pub fn prefix_reuse(mut self, can: bool) -> Self {
        self.facts.prefix_reuse = can;
        self
    }

    /// After a text that ends with `prompt`, the plain base answers `answer` and ends.
    pub fn scripted<const N: usize>(mut self, scripts: [(&str, &str); N]) -> Self {
        self.scripts = scripts.map(|(p, a)| (p.to_string(), a.to_string())).to_vec();
        self
    }

    fn used(&self) -> usize {
        self.cells.iter().map(Vec::len).sum()
    }

    /// The token that follows, by script for the base, else by arithmetic on the state.
    fn next(&self, cells: &[Cell], set: &AdapterSet) -> Token {
        let state = cells.last().map_or(0, |c| c.state);
        if set.is_base() && !self.scripts.is_empty() {
            let text: Vec<u8> = cells.iter().filter_map(|c| u8::try_from(c.token).ok()).collect();
            let text = String::from_utf8_lossy(&text).into_owned();
            for (prompt, answer) in &self.scripts {
                if let Some(at) = text.rfind(prompt.as_str()) {
                    let said = &text[at + prompt.len()..];
                    if let Some(rest) = answer.strip_prefix(said) {
                        return rest.bytes().next().map_or(END, Token::from);
                    }
                }
            }
        }
        let place = self.echo.filter(|_| !state.is_multiple_of(9)).and_then(|back| cells.len().checked_sub(back));
        place.and_then(|at| cells.get(at)).map_or(Token::from(b'a') + (state % 26) as Token, |cell| cell.token)
    }
}

/// Mixes one token and the set it was evaluated under into a state.
fn mix(state: u64, token: Token, set: &AdapterSet) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (state, token, set).hash(&mut hasher);
    hasher.finish()
}

impl Engine for FakeEngine {
    fn facts(&self) -> &EngineFacts {
        &self.facts
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        self.tokenizer.clone()
    }

    fn sampler(&self, sampling: &Sampling) -> Result<Box<dyn Sampler>, EngineError> {
        let seed = sampling.seed.filter(|_| self.draws).map(u64::from);
        Ok(Box::new(BestAllowed { ignore_end: sampling.ignore_eos, seed }))
    }

    fn load_adapters(
        &mut self,
        _files: &[Arc<AdapterFile>],
        _in_use: &HashSet<AdapterDigest>,
    ) -> Result<(), EngineError> {
        Ok(())
    }

    fn take_second(&mut self) -> Option<Box<dyn Engine>> {
        self.second.take().map(|second| second as Box<dyn Engine>)
    }

    fn mixes(&self, set: &AdapterSet) -> bool {
        self.alone.is_none_or(|alone| !alone(set))
    }

    fn decode(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        let mut used: Vec<AdapterSet> = Vec::new();
        for row in rows {
            let set = sets.get(row.set).ok_or_else(|| EngineError::Misuse("a row without a set".into()))?;
            if !used.contains(set) {
                used.push(set.clone());
            }
        }
        if used.len() > 1 && used.iter().any(|set| !self.mixes(set)) {
            return Err(EngineError::Misuse("a set that must be alone shares a step".into()));
        }
        if rows.is_empty() || rows.len() > self.facts.batch {
            return Err(EngineError::Misuse(format!("{} rows in a step", rows.len())));
        }
        if self.used() + rows.len() > self.facts.context {
            return Err(EngineError::ContextFull);
        }
        self.outputs.clear();
        for (index, row) in rows.iter().enumerate() {
            let cells = self.cells.get_mut(row.sequence).ok_or_else(|| EngineError::Misuse("sequence".into()))?;
            if row.position != cells.len() || row.token as usize >= N_VOCAB {
                return Err(EngineError::Misuse(format!("row {row:?} after {} cells", cells.len())));
            }
            let set = &sets[row.set];
            let state = mix(cells.last().map_or(0, |c| c.state), row.token, set);
            cells.push(Cell { token: row.token, state });
            if row.logits {
                let next = self.next(&self.cells[row.sequence], set);
                let logits = (0..N_VOCAB).map(|t| if t == next as usize { 10.0 } else { -(t as f32) / 100.0 });
                self.outputs.insert(index, logits.collect());
            }
        }
        self.steps.push((rows.len(), used));
        Ok(())
    }

    fn logits(&self, index: usize) -> Result<&[f32], EngineError> {
        self.outputs
            .get(&index)
            .map(Vec::as_slice)
            .ok_or_else(|| EngineError::Misuse(format!("no logits of row {index}")))
    }

    fn truncate(&mut self, sequence: Sequence, from: usize) -> bool {
        self.cells[sequence].truncate(from);
        true
    }

    fn share(&mut self, from: Sequence, to: Sequence, length: usize) {
        let prefix = self.cells[from][..length].to_vec();
        self.cells[to] = prefix;
    }

    fn shift(&mut self, sequence: Sequence, from: usize, to: usize) {
        self.cells[sequence].drain(from..to);
    }

    fn stamp(&mut self) -> Result<Stamp, EngineError> {
        let text = |text: &str| text.to_owned();
        Ok(Stamp { model: text("fake"), build: text("1"), cache: text("hashes"), positions: text("none") })
    }

    fn save(&mut self, sequence: Sequence) -> Result<Vec<u8>, EngineError> {
        let cells = &self.cells[sequence];
        if cells.is_empty() {
            return Err(EngineError::State("the sequence is empty".into()));
        }
        Ok(cells
            .iter()
            .flat_map(|c| u64::from(c.token).to_le_bytes().into_iter().chain(c.state.to_le_bytes()))
            .collect())
    }

    fn restore(&mut self, sequence: Sequence, length: usize, state: &[u8]) -> Result<(), EngineError> {
        let (words, rest) = state.as_chunks::<8>();
        if !self.cells[sequence].is_empty() || words.len() != 2 * length || !rest.is_empty() {
            return Err(EngineError::State("it is not of so many tokens".into()));
        }
        if self.used() + length > self.facts.context {
            return Err(EngineError::ContextFull);
        }
        let number = |word: &[u8; 8]| u64::from_le_bytes(*word);
        let cell = |pair: &[[u8; 8]]| Cell { token: number(&pair[0]) as Token, state: number(&pair[1]) };
        self.cells[sequence] = words.chunks(2).map(cell).collect();
        Ok(())
    }
}

#[derive(Default, Debug)]
struct FakeTokenizer {
    vocabulary: OnceLock<Arc<Vocabulary>>,
}

impl Tokenizer for FakeTokenizer {
    fn tokenize(&self, prompt: &Prompt, _add_special: bool) -> Vec<Token> {
        prompt
            .pieces()
            .iter()
            .flat_map(|piece| match piece {
                Piece::Template(text) | Piece::Literal(text) => text.bytes().map(Token::from).collect::<Vec<_>>(),
            })
            .collect()
    }

    fn piece(&self, token: Token) -> Vec<u8> {
        u8::try_from(token).map(|b| vec![b]).unwrap_or_default()
    }

    fn spelling(&self, token: Token) -> String {
        if token == END { "<end>".into() } else { String::from_utf8_lossy(&self.piece(token)).into_owned() }
    }

    fn is_end(&self, token: Token) -> bool {
        token == END
    }

    fn vocabulary(&self) -> Arc<Vocabulary> {
        let make = || {
            let pieces = (0..N_VOCAB as Token).map(|t| self.piece(t)).collect();
            let control = (0..N_VOCAB as Token).map(|t| t == END).collect();
            Arc::new(Vocabulary::new(pieces, control, vec![END]))
        };
        self.vocabulary.get_or_init(make).clone()
    }

    fn control_texts(&self) -> &[String] {
        &[]
    }
}

/// Takes the best token; with a seed, one token of four is any other letter.
struct BestAllowed {
    ignore_end: bool,
    seed: Option<u64>,
}

impl BestAllowed {
    fn next(&mut self) -> Option<u64> {
        let seed = self.seed.as_mut()?;
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(*seed >> 33)
    }
}

impl Sampler for BestAllowed {
    fn choose(&mut self, logits: &[f32], allowed: Option<&dyn Fn(Token) -> bool>) -> Result<Token, EngineError> {
        let drawn = self.next().filter(|n| n % 4 == 0).map(|n| Token::from(b'a') + (n / 4 % 26) as Token);
        if let Some(token) = drawn.filter(|t| allowed.is_none_or(|ok| ok(*t))) {
            return Ok(token);
        }
        (0..logits.len() as Token)
            .filter(|t| !(self.ignore_end && *t == END) && allowed.is_none_or(|ok| ok(*t)))
            .max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize]))
            .ok_or(EngineError::NoCandidate)
    }

    fn accept(&mut self, token: Token) {
        if let Some(seed) = &mut self.seed {
            *seed = seed.wrapping_add(u64::from(token));
        }
    }
}
