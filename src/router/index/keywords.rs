//! Adapters by the words of their texts: postings with the greatest weights first, read until a budget is spent, then
//! the best scored exactly from their own words.

use super::bits::Bits;
use super::bytes::Reader;
use super::draft::Draft;
use super::graph::Ranked;
use super::segment::{Section, Segment};
use super::words;

/// Words of a query that are looked up: those that tell most.
const MAX_WORDS: usize = 24;
/// Postings read for a query in one segment, and behind a gate, where most of them are only passed over.
const BUDGET: usize = 8_192;
const GATED_BUDGET: usize = 24_576;

/// The words of a query, those that tell most first.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// A word, what it tells, and of how much of what all words tell that is.
    pub words: Vec<(String, f32)>,
}

impl Asked {
    /// The words of a text, each with its share of what all of them tell; `having` says how many of `all` adapters
    /// have a word.
    pub fn new(text: &str, all: usize, having: impl Fn(&str) -> usize) -> Self {
        let mut found = words::words(text);
        found.sort_unstable();
        found.dedup();
        let told = |word: String| {
            let tells = words::information(having(&word), all);
            (word, tells)
        };
        let mut words: Vec<(String, f32)> = found.into_iter().map(told).collect();
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(MAX_WORDS);
        let total: f32 = words.iter().map(|(_, tells)| tells).sum();
        words.iter_mut().for_each(|(_, tells)| *tells /= total.max(f32::MIN_POSITIVE) * 255.0);
        Self { words }
    }
}

/// Sums by number, in a table that is small enough for the processor's cache.
#[derive(Debug, Default)]
pub(super) struct Sums {
    slots: Vec<(u32, f32)>,
    used: Vec<u32>,
}

/// A number that none has.
const FREE: u32 = u32::MAX;

impl Sums {
    /// Empties the table and gives it twice the places that `budget` numbers can fill, a power of two.
    fn begin(&mut self, budget: usize) {
        for slot in self.used.drain(..) {
            self.slots[slot as usize].0 = FREE;
        }
        self.slots.resize((2 * budget).next_power_of_two(), (FREE, 0.0));
    }

    #[inline]
    fn add(&mut self, number: u32, more: f32) {
        let mask = self.slots.len() - 1;
        let mut at = (number.wrapping_mul(0x9e37_79b1) >> 15) as usize & mask;
        loop {
            let slot = &mut self.slots[at];
            if slot.0 == number {
                slot.1 += more;
                return;
            }
            if slot.0 == FREE {
                *slot = (number, more);
                self.used.push(at as u32);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * 8 + self.used.capacity() * 4
    }
}

/// How many adapters of a segment have a word.
pub(super) fn having(segment: &Segment, word: &str) -> usize {
    let list = segment.find_text(Section::WordEnds, Section::Words, word);
    let list = list.map(|at| segment.item(Section::PostingEnds, Section::Postings, at));
    list.and_then(|list| Reader(list).varint()).unwrap_or(0) as usize
}

/// Postings of one word that are still to be read: a run of them with one weight.
struct Run<'a> {
    list: Reader<'a>,
    /// What one posting of the run adds.
    more: f32,
    count: u64,
    share: f32,
}

impl<'a> Run<'a> {
    /// The first run of a word, which has the greatest weight.
    fn first(segment: &'a Segment, (word, share): (u32, f32)) -> Option<Self> {
        let mut list = Reader(segment.item(Section::PostingEnds, Section::Postings, word));
        list.varint()?;
        Self { list, more: 0.0, count: 0, share }.next()
    }

    /// The run after this one, which has been read.
    fn next(mut self) -> Option<Self> {
        self.more = f32::from(self.list.u8()?) * self.share;
        self.count = u64::from(self.list.varint()?);
        Some(self)
    }
}

/// About the best `keep` adapters of a segment, of those allowed. Few or rare words: exactly the best. `words` are the
/// query's in the segment's numbers, those that tell most first.
///
/// Of all words' postings those that add most are read first, so that a spent budget leaves out what tells least
/// ("score at a time": Anh, de Kretser and Moffat, Vector-space ranking with effective early termination, 2001).
pub(super) fn best(
    segment: &Segment,
    words: &[(u32, f32)],
    allowed: Option<&Bits>,
    keep: usize,
    sums: &mut Sums,
) -> Vec<Ranked> {
    let mut left = if allowed.is_some() { GATED_BUDGET } else { BUDGET };
    sums.begin(left);
    let mut runs: Vec<Run<'_>> = words.iter().filter_map(|word| Run::first(segment, *word)).collect();
    // The later of equals, so that words that tell more come first.
    let most = |runs: &[Run<'_>]| (0..runs.len()).rev().max_by(|a, b| runs[*a].more.total_cmp(&runs[*b].more));
    'all: while let Some(at) = most(&runs) {
        let run = &mut runs[at];
        let mut entry = 0_u32;
        for _ in 0..run.count {
            let Some(step) = run.list.varint().filter(|_| left > 0) else { break 'all };
            left -= 1;
            entry = entry.wrapping_add(step);
            if allowed.is_none_or(|allowed| allowed.has(entry)) {
                sums.add(entry, run.more);
            }
        }
        // In its place, so that equals keep their order.
        let run = runs.remove(at);
        if let Some(next) = run.next() {
            runs.insert(at, next);
        }
    }
    let ranked =
        sums.used.iter().filter_map(|at| sums.slots.get(*at as usize)).map(|(entry, sum)| Ranked::new(*sum, *entry));
    let mut ranked: Vec<Ranked> = ranked.collect();
    if ranked.len() > keep && keep > 0 {
        ranked.select_nth_unstable_by(keep - 1, |a, b| b.cmp(a));
    }
    ranked.truncate(keep);
    ranked
}

/// The query's words as numbers of a segment, with what they tell, in the query's order.
pub(super) fn numbers(segment: &Segment, asked: &Asked) -> Vec<(u32, f32)> {
    let find =
        |(word, share): &(String, f32)| Some((segment.find_text(Section::WordEnds, Section::Words, word)?, *share));
    asked.words.iter().filter_map(find).collect()
}

/// Has the words of some adapters read into the processor's cache, all at once.
pub(super) fn touch(segment: &Segment, entries: &[u32]) {
    let first = |entry: &u32| segment.item(Section::TextEnds, Section::Texts, *entry).first().copied().unwrap_or(0);
    std::hint::black_box(entries.iter().fold(0, |all, entry| all ^ first(entry)));
}

/// The exact score of one adapter; the words upwards by their numbers.
pub(super) fn score(segment: &Segment, entry: u32, numbers: &[(u32, f32)]) -> f32 {
    let mut text = Reader(segment.item(Section::TextEnds, Section::Texts, entry));
    let (mut word, mut sum) = (0_u32, 0.0);
    let mut wanted = numbers.iter().peekable();
    while let (Some(step), Some(weight)) = (text.varint(), text.u8()) {
        word = word.wrapping_add(step);
        while wanted.next_if(|(number, _)| *number < word).is_some() {}
        if let Some((_, share)) = wanted.next_if(|(number, _)| *number == word) {
            sum += f32::from(weight) * share;
        }
    }
    sum
}

/// The query's words as numbers of a draft.
pub(super) fn draft_numbers(draft: &Draft, asked: &Asked) -> Vec<(u32, f32)> {
    asked.words.iter().filter_map(|(word, share)| Some((draft.term_names.find(word)?, *share))).collect()
}

/// How many adapters of a draft have a word.
pub(super) fn draft_having(draft: &Draft, word: &str) -> usize {
    let number = draft.term_names.find(word);
    number.and_then(|number| draft.having.get(number as usize)).copied().unwrap_or(0) as usize
}

/// The exact score of one adapter of a draft.
pub(super) fn draft_score(draft: &Draft, entry: u32, numbers: &[(u32, f32)]) -> f32 {
    let share = |word: u32| numbers.iter().find(|(number, _)| *number == word).map(|(_, share)| *share);
    draft.terms.get(entry).iter().filter_map(|(word, weight)| Some(share(*word)? * f32::from(*weight))).sum()
}
