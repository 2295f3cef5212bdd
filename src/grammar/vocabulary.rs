//! The tokens of a model as bytes, and the two indexes over them that the engines need.

use std::sync::{Arc, OnceLock};

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::error::GrammarError;
use super::guided;
use super::trie::Trie;
use super::unique::Concerned;

/// The tokens of a model as bytes. Built once per model by the engine and shared.
///
/// Making one is cheap; the byte trie and the index for `llguidance` are built on the first use of a grammar.
pub struct Vocabulary {
    pieces: Vec<Vec<u8>>,
    control: Vec<bool>,
    end: Vec<u32>,
    is_end: Vec<bool>,
    digest: OnceLock<[u8; 32]>,
    trie: OnceLock<Trie>,
    single: OnceLock<[bool; 256]>,
    closers: OnceLock<Vec<u32>>,
    concerned: OnceLock<Concerned>,
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl Vocabulary {
    /// Takes the tokens of a model.
    ///
    /// - `pieces[id]`: the exact bytes token `id` adds to the output; empty for tokens that print nothing. For
    ///   control tokens the name (`<think>`), if grammars are to call them by it; it is never matched as text.
    /// - `control[id]`: control and special tokens. A grammar never allows them as text, only by name
    ///   (`<[id]>`). Tokens past the end of `control` count as control.
    /// - `end`: every token that ends generation. Ids outside the vocabulary are ignored.
    pub fn new(pieces: Vec<Vec<u8>>, mut control: Vec<bool>, mut end: Vec<u32>) -> Self {
        control.resize(pieces.len(), true);
        end.retain(|&id| (id as usize) < pieces.len());
        end.sort_unstable();
        end.dedup();
        let mut is_end = vec![false; pieces.len()];
        for &id in &end {
            is_end[id as usize] = true;
        }
        Vocabulary {
            pieces,
            control,
            end,
            is_end,
            digest: OnceLock::new(),
            trie: OnceLock::new(),
            single: OnceLock::new(),
            closers: OnceLock::new(),
            concerned: OnceLock::new(),
            factory: OnceLock::new(),
        }
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there are no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The bytes token `id` prints; empty for tokens that print nothing and for ids outside the vocabulary.
    pub fn piece(&self, id: u32) -> &[u8] {
        self.pieces.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Whether `id` ends generation.
    pub fn is_end(&self, id: u32) -> bool {
        self.is_end.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether `id` is a control token. Ids outside the vocabulary count as control.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).copied().unwrap_or(true)
    }

    /// Every token that ends generation, in rising order.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end
    }

    /// Whether `id` may spell text: it prints something, is not control and does not end generation.
    pub fn is_text(&self, id: u32) -> bool {
        !self.piece(id).is_empty() && !self.is_control(id) && !self.is_end(id)
    }

    /// The first token that prints exactly `bytes`; a control token only if no other does. Searches all tokens.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<u32> {
        let mut found = (0..self.len() as u32).filter(|&id| self.piece(id) == bytes);
        let first = found.next()?;
        std::iter::once(first).chain(found).find(|&id| !self.is_control(id)).or(Some(first))
    }

    /// BLAKE3 over all pieces and flags: equal digests mean equal behaviour of every grammar.
    pub fn digest(&self) -> &[u8; 32] {
        self.digest.get_or_init(|| {
            let mut hash = blake3::Hasher::new();
            for (id, piece) in self.pieces.iter().enumerate() {
                hash.update(&(piece.len() as u32).to_le_bytes());
                hash.update(&[u8::from(self.control[id]), u8::from(self.is_end[id])]);
                hash.update(piece);
            }
            *hash.finalize().as_bytes()
        })
    }

    /// The byte trie over all text tokens.
    pub(super) fn trie(&self) -> &Trie {
        self.trie.get_or_init(|| {
            let text = (0..self.len() as u32).filter(|&id| self.is_text(id));
            Trie::build(text.map(|id| (id, self.pieces[id as usize].as_slice())))
        })
    }

    /// For every byte, whether a text token of that one byte exists.
    pub(super) fn single_bytes(&self) -> &[bool; 256] {
        self.single.get_or_init(|| {
            let mut single = [false; 256];
            for id in 0..self.len() as u32 {
                if let &[byte] = self.piece(id)
                    && self.is_text(id)
                {
                    single[usize::from(byte)] = true;
                }
            }
            single
        })
    }

    /// The token of one byte, if there is one.
    pub(super) fn byte_token(&self, byte: u8) -> Option<u32> {
        self.trie().prefixes(&[byte]).first().copied()
    }

    /// `bytes` cut into tokens, each as long as can be: not the model's own cut, but one it could make. `None` if no
    /// token begins one of the rests.
    pub(super) fn cut(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        let mut tokens = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let token = self.trie().prefixes(rest).last().copied()?;
            tokens.push(token);
            rest = &rest[self.piece(token).len()..];
        }
        Some(tokens)
    }

    /// The fewest tokens that spell `bytes`; `None` if none do.
    pub fn fewest(&self, bytes: &[u8]) -> Option<Vec<u32>> {
        // To each place: how many tokens, and the last of them.
        let mut fewest: Vec<Option<(usize, u32)>> = vec![None; bytes.len() + 1];
        fewest[0] = Some((0, 0));
        for at in 0..bytes.len() {
            let Some((count, _)) = fewest[at] else { continue };
            for token in self.trie().prefixes(&bytes[at..]) {
                let to = &mut fewest[at + self.piece(token).len()];
                if to.is_none_or(|(known, _)| count + 1 < known) {
                    *to = Some((count + 1, token));
                }
            }
        }
        let mut tokens = Vec::new();
        let mut at = bytes.len();
        while at > 0 {
            let (_, token) = fewest[at]?;
            tokens.push(token);
            at -= self.piece(token).len();
        }
        tokens.reverse();
        Some(tokens)
    }

    /// Text tokens of nothing but JSON's closing marks and commas.
    pub(super) fn closers(&self) -> &[u32] {
        self.closers.get_or_init(|| {
            let closes = |byte: &u8| b"\"}],".contains(byte);
            let short = |id: &u32| self.piece(*id).len() <= 3 && self.piece(*id).iter().all(closes);
            (0..self.len() as u32).filter(|id| self.is_text(*id)).filter(short).collect()
        })
    }

    /// The tokens by what they could do to arrays whose items must differ.
    pub(super) fn concerned(&self) -> &Concerned {
        self.concerned.get_or_init(|| Concerned::new(self.pieces.iter().map(Vec::as_slice)))
    }

    /// The same tokens in the form `llguidance` wants.
    ///
    /// # Errors
    /// If there is no end token: it cannot do without.
    pub(super) fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let made = self.factory.get_or_init(|| {
            let &first = self.end.first().ok_or("the model has no end token")?;
            let words: Vec<Vec<u8>> = (0..self.len() as u32)
                .map(|id| match self.is_text(id) {
                    true => self.pieces[id as usize].clone(),
                    false => Vec::new(),
                })
                .collect();
            let info = TokRxInfo::new(words.len() as u32, first);
            let trie = TokTrie::from(&info, &words).with_eos_tokens(&self.end);
            let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            guided::factory(&environment, &SlicedBiasComputer::general_slices())
        });
        made.as_ref().map_err(|message| GrammarError::Engine { message: message.clone() })
    }
}

impl std::fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.len()).field("end", &self.end).finish_non_exhaustive()
    }
}
