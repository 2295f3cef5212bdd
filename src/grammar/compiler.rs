//! From a source to a compiled grammar, with a cache in between.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::compiled::Compiled;
use super::error::GrammarError;
use super::limits::Limits;
use super::schema::{KeyOrder, SchemaMode};
use super::tools::ToolCalls;
use super::vocabulary::Vocabulary;
use super::{engine, formats, gbnf, guided, network, regex};

/// What a request may bring.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A ready format by name, with parameters where it takes some: `json`, `choice(yes, no)`, or as JSON with `name`
    /// and `params`. See [`format_names`](super::format_names) and [`parameterised`](super::parameterised).
    Named(String),
    /// GBNF text, the language of llama.cpp.
    Gbnf(String),
    /// JSON Schema as JSON text.
    JsonSchema(String),
    /// The same; what cannot be enforced token by token is checked when the answer is complete, see
    /// [`Compiled::schema`](super::Compiled::schema).
    CheckedSchema(String),
    /// JSON Schema as JSON text, with choices.
    Schema {
        /// The schema.
        text: String,
        /// What to do with what cannot be enforced.
        mode: SchemaMode,
        /// In which order keys come.
        order: KeyOrder,
    },
    /// A regular expression that the whole answer must match.
    Regex(String),
    /// Calls of tools, see [`ToolRequest`](super::tools::ToolRequest).
    ToolCalls(ToolCalls),
}

impl Source {
    /// GBNF text as it comes out of a file.
    ///
    /// # Errors
    /// [`GrammarError::Syntax`] with the place of the first byte that is not UTF-8.
    pub fn gbnf(bytes: Vec<u8>) -> Result<Self, GrammarError> {
        gbnf::decode("grammar", bytes).map(Source::Gbnf)
    }

    /// The same JSON Schema with other choices, where given; `None` if it is no JSON Schema.
    #[must_use]
    pub fn with_schema_options(self, mode: Option<SchemaMode>, order: Option<KeyOrder>) -> Option<Self> {
        let (text, old_mode, old_order) = match self {
            Source::JsonSchema(text) => (text, SchemaMode::Strict, KeyOrder::default()),
            Source::CheckedSchema(text) => (text, SchemaMode::Check, KeyOrder::default()),
            Source::Schema { text, mode, order } => (text, mode, order),
            Source::Named(_) | Source::Gbnf(_) | Source::Regex(_) | Source::ToolCalls(_) => return None,
        };
        Some(Source::Schema { text, mode: mode.unwrap_or(old_mode), order: order.unwrap_or(old_order) })
    }

    /// Identity of the source: kind and text. Independent of the vocabulary.
    pub fn digest(&self) -> [u8; 32] {
        let calls;
        let (kind, text) = match self {
            Source::Named(text) => (b"named", text),
            Source::Gbnf(text) => (b"gbnf ", text),
            Source::JsonSchema(text) => (b"jsons", text),
            Source::CheckedSchema(text) => (b"check", text),
            Source::Schema { text, mode: SchemaMode::Strict, order: KeyOrder::Any } => (b"jsons", text),
            Source::Schema { text, mode: SchemaMode::Check, order: KeyOrder::Any } => (b"check", text),
            Source::Schema { text, mode: SchemaMode::Strict, order: KeyOrder::Schema } => (b"jsono", text),
            Source::Schema { text, mode: SchemaMode::Check, order: KeyOrder::Schema } => (b"chcko", text),
            Source::Regex(text) => (b"regex", text),
            Source::ToolCalls(value) => {
                calls = format!("{value:?}");
                (b"calls", &calls)
            }
        };
        let mut hash = blake3::Hasher::new();
        hash.update(kind);
        hash.update(text.as_bytes());
        *hash.finalize().as_bytes()
    }
}

/// Compiles sources for one vocabulary. Shared between threads; keeps the last grammars used.
pub struct Compiler {
    vocabulary: Arc<Vocabulary>,
    limits: Limits,
    cache: Mutex<Cache>,
}

impl Compiler {
    /// A compiler with the default [`Limits`].
    pub fn new(vocabulary: Arc<Vocabulary>) -> Self {
        Compiler::with_limits(vocabulary, Limits::default())
    }

    /// A compiler with limits of your own.
    pub fn with_limits(vocabulary: Arc<Vocabulary>, limits: Limits) -> Self {
        Compiler { vocabulary, limits, cache: Mutex::default() }
    }

    /// The vocabulary all grammars of this compiler are for.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.vocabulary
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Compiles `source`, or finds it in the cache.
    ///
    /// # Errors
    /// [`GrammarError`] if the source is malformed, too large, can never be finished, or asks for what cannot be
    /// enforced. Refused sources are not cached.
    pub fn compile(&self, source: &Source) -> Result<Arc<Compiled>, GrammarError> {
        let key = source.digest();
        // Nothing in here can leave the cache half changed, so a poisoned lock is still good.
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = lock().get(&key) {
            return Ok(found);
        }
        // Compiled outside the lock: a slow grammar must not hold up other requests.
        let compiled = Arc::new(self.build(source)?);
        lock().put(key, &compiled, self.limits.cache_bytes);
        Ok(compiled)
    }

    /// Bytes of all grammars in the cache.
    pub fn cached_bytes(&self) -> usize {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.bytes
    }

    fn build(&self, source: &Source) -> Result<Compiled, GrammarError> {
        match source {
            Source::Named(name) => {
                let text = formats::format_text(name)?;
                let shown: String = name.chars().take(60).collect();
                self.build_gbnf(&format!("format '{shown}'"), &text)
            }
            Source::Gbnf(text) => self.build_gbnf("grammar", text),
            Source::JsonSchema(text) => self.build_schema(text, SchemaMode::Strict, KeyOrder::default()),
            Source::CheckedSchema(text) => self.build_schema(text, SchemaMode::Check, KeyOrder::default()),
            Source::Schema { text, mode, order } => self.build_schema(text, *mode, *order),
            Source::Regex(text) => {
                let grammar = regex::parse(text, &self.limits)?;
                self.build_network(&grammar)
            }
            Source::ToolCalls(calls) => {
                let template = guided::from_calls(calls, &self.vocabulary, &self.limits)?;
                Ok(Compiled::guided(template, None))
            }
        }
    }

    fn build_gbnf(&self, origin: &str, text: &str) -> Result<Compiled, GrammarError> {
        let grammar = gbnf::parse(origin, text, &self.limits)?;
        self.build_network(&grammar)
    }

    fn build_schema(&self, text: &str, mode: SchemaMode, order: KeyOrder) -> Result<Compiled, GrammarError> {
        let (template, report) = guided::from_schema(text, mode, order, &self.limits, &self.vocabulary)?;
        Ok(Compiled::guided(template, Some(report)))
    }

    fn build_network(&self, grammar: &gbnf::Grammar) -> Result<Compiled, GrammarError> {
        let network = network::build(grammar, &self.vocabulary, &self.limits)?;
        let program = engine::Program::new(network, Arc::clone(&self.vocabulary), &self.limits);
        Ok(Compiled::network(Arc::new(program)))
    }
}

impl std::fmt::Debug for Compiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compiler")
            .field("vocabulary", &self.vocabulary)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Compiled grammars by digest of their source; the least recently used leave first.
#[derive(Default)]
struct Cache {
    entries: HashMap<[u8; 32], Entry>,
    bytes: usize,
    clock: u64,
}

struct Entry {
    compiled: Arc<Compiled>,
    bytes: usize,
    used: u64,
}

impl Cache {
    fn get(&mut self, key: &[u8; 32]) -> Option<Arc<Compiled>> {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.compiled))
    }

    fn put(&mut self, key: [u8; 32], compiled: &Arc<Compiled>, limit: usize) {
        // Two threads may have compiled the same source; the first one in stays.
        if self.entries.contains_key(&key) {
            return;
        }
        let bytes = compiled.bytes();
        while self.bytes + bytes > limit {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some(oldest) = oldest.map(|(key, _)| *key) else {
                return; // larger than the whole cache
            };
            if let Some(entry) = self.entries.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(key, Entry { compiled: Arc::clone(compiled), bytes, used: self.clock });
    }
}
