//! A set of tokens, one bit per token of the vocabulary.

/// The tokens that may come next.
///
/// Token `id` is bit `id % 32` of word `id / 32`. Bits past the vocabulary are zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    /// An empty set with room for `tokens` tokens.
    pub fn empty(tokens: usize) -> Self {
        TokenMask { words: vec![0; tokens.div_ceil(32)] }
    }

    /// The set of all of `tokens` tokens.
    pub(super) fn all(tokens: usize) -> Self {
        TokenMask::from_words(&vec![u32::MAX; tokens.div_ceil(32)], tokens)
    }

    /// The set in the words of another bit set with the same layout. Bits from `tokens` on are cleared.
    pub(super) fn from_words(words: &[u32], tokens: usize) -> Self {
        let mut mask = TokenMask::empty(tokens);
        let shared = words.len().min(mask.words.len());
        mask.words[..shared].copy_from_slice(&words[..shared]);
        let spare = tokens % 32;
        if spare != 0
            && let Some(last) = mask.words.last_mut()
        {
            *last &= (1 << spare) - 1;
        }
        mask
    }

    /// Whether `id` is in the set. `false` for ids outside the vocabulary.
    pub fn allows(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 != 0)
    }

    /// The tokens of the set, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_where(|_| u32::MAX)
    }

    /// The tokens that are also in another set, given by its words.
    pub(super) fn iter_where<'a>(&'a self, words: impl Fn(usize) -> u32 + 'a) -> impl Iterator<Item = u32> + 'a {
        self.words.iter().enumerate().flat_map(move |(index, &word)| {
            let mut rest = word & words(index);
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                (bit < 32).then(|| {
                    rest &= rest - 1;
                    index as u32 * 32 + bit
                })
            })
        })
    }

    /// Whether no token is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// How many tokens are in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The raw words, 32 tokens each, lowest token in the lowest bit.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Adds `id`. Ids outside the vocabulary are ignored.
    pub(super) fn insert(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut(id as usize / 32) {
            *word |= 1 << (id % 32);
        }
    }

    /// Removes `id`.
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut(id as usize / 32) {
            *word &= !(1 << (id % 32));
        }
    }

    /// Adds every token of `other`, a set over the same vocabulary.
    pub(super) fn union(&mut self, other: &TokenMask) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }
}
