//! Where a request goes, and which cached prefix it may reuse. Pure.
//!
//! A cached prefix was computed under adapter sets, and its keys and values are right for those only. So it is reused as
//! far as the sets of its positions, scales included, are equal: this is the one place where that is decided.

use crate::adapter::Timeline;
use crate::engine::{Token, VIRTUAL};

/// What a slot's sequence holds.
#[derive(Clone, Copy, Debug)]
pub struct Cached<'a> {
    /// Which slot.
    pub slot: usize,
    /// Tokens evaluated in it, in order.
    pub tokens: &'a [Token],
    /// The sets they were evaluated under.
    pub sets: &'a Timeline,
    /// Whether a new request may take the slot.
    pub free: bool,
    /// When it was last used: larger is later.
    pub used: u64,
}

/// What a slot that is still reading its prompt will hold.
#[derive(Clone, Copy, Debug)]
pub struct InFlight<'a> {
    /// All tokens of its prompt.
    pub prompt: &'a [Token],
    /// How many of them are evaluated.
    pub evaluated: usize,
    /// Its sets.
    pub sets: &'a Timeline,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The slot it takes.
    pub slot: usize,
    /// Leading tokens that need not be evaluated again.
    pub reuse: usize,
    /// The slot whose cells hold them, when it is another one.
    pub share_from: Option<usize>,
}

/// A prefix shorter than this is evaluated again rather than waited for.
const WORTH_WAITING: usize = 64;

/// Places a request, or `None` when no slot is free.
///
/// The slot that keeps most of its cache is taken when the request goes on from it; else the least recently used
/// one, with the longest matching prefix shared from wherever it is. The last prompt token is always evaluated
/// again, since its logits are needed.
///
/// `least`: a prefix of fewer tokens is not used; `usize::MAX` for none at all.
pub fn place(slots: &[Cached<'_>], prompt: &[Token], sets: &Timeline, least: usize) -> Option<Placement> {
    let common = |c: &Cached<'_>| Some(reusable(c.tokens, c.sets, prompt, sets)).filter(|n| *n >= least).unwrap_or(0);
    let free = || slots.iter().filter(|c| c.free);
    let here = free().max_by_key(|c| (common(c), std::cmp::Reverse(c.used)));
    if let Some(c) = here
        && common(c) * 2 >= c.tokens.len()
        && common(c) > 0
    {
        return Some(Placement { slot: c.slot, reuse: common(c), share_from: None });
    }
    let target = free().min_by_key(|c| (!c.tokens.is_empty(), c.used))?;
    let source = slots.iter().max_by_key(|c| (common(c), c.slot == target.slot)).filter(|c| common(c) > 0);
    Some(match source {
        Some(c) if c.slot == target.slot => Placement { slot: c.slot, reuse: common(c), share_from: None },
        Some(c) => Placement { slot: target.slot, reuse: common(c), share_from: Some(c.slot) },
        None => Placement { slot: target.slot, reuse: 0, share_from: None },
    })
}

/// Whether another request is about to evaluate a prefix of this prompt, so that waiting a few steps saves work.
pub fn worth_waiting(in_flight: &[InFlight<'_>], prompt: &[Token], sets: &Timeline) -> bool {
    in_flight.iter().any(|f| {
        let common = reusable(f.prompt, f.sets, prompt, sets);
        common >= WORTH_WAITING && common > f.evaluated
    })
}

/// How many positions of what was evaluated as `tokens` under `held` a request for `prompt` under `sets` can go on from.
/// The last prompt token is never among them.
pub fn reusable(tokens: &[Token], held: &Timeline, prompt: &[Token], sets: &Timeline) -> usize {
    common_prefix(tokens, prompt).min(held.agrees(sets)).min(prompt.len().saturating_sub(1))
}

/// Which parts of `tokens` behind their `common` beginning stand in `prompt` too, in the same order and under equal sets, each of
/// at least `least` tokens: the positions to forget, in turn, so that each part comes to its place (later ones are counted
/// after the earlier ones are gone), and how long the beginning is then. The keys and values of such a part were
/// computed behind another beginning, so answers are not quite those of a prompt that is read: only where it was asked for.
pub fn chunks(
    tokens: &[Token],
    held: &Timeline,
    prompt: &[Token],
    sets: &Timeline,
    common: usize,
    least: usize,
) -> (Vec<(usize, usize)>, usize) {
    let (mut at, mut length, mut gaps) = (common, common, Vec::new());
    let end = prompt.len().saturating_sub(1);
    // Another owner, or another set from the first position on.
    if held.agrees(sets) == 0 {
        return (gaps, length);
    }
    let fits = |at: usize, to: usize| tokens[at] == prompt[to] && tokens[at] < VIRTUAL && held.at(at) == sets.at(to);
    let mut gone = 0;
    while at < tokens.len() && length < end {
        let most = (tokens.len() - at).min(end - length);
        let n = (0..most).take_while(|i| fits(at + i, length + i)).count();
        if n < least.max(1) {
            at += 1;
            continue;
        }
        if at - gone > length {
            gaps.push((length, at - gone));
            gone = at - length;
        }
        (at, length) = (at + n, length + n);
    }
    (gaps, length)
}

fn common_prefix(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterDigest, AdapterSet, Scale};

    fn set(n: u8, scale: f32) -> Timeline {
        let scale = Scale::new(scale).expect("in range");
        Timeline::always(AdapterSet::new(vec![(AdapterDigest::of(&[n]), scale)]).expect("valid"))
    }

    const P: &[Token] = &[1, 2, 3, 4];

    fn cached<'a>(slot: usize, tokens: &'a [Token], sets: &'a Timeline, free: bool) -> Cached<'a> {
        Cached { slot, tokens, sets, free, used: slot as u64 }
    }

    #[test]
    fn a_prefix_of_another_set_is_never_reused() {
        let (a, a_half, b, base) = (set(1, 1.0), set(1, 0.5), set(2, 1.0), Timeline::default());
        for (holder, wanted) in [(&a, &b), (&a, &a_half), (&a, &base), (&base, &a)] {
            let slots = [cached(0, P, holder, true)];
            let placed = place(&slots, P, wanted, 0).expect("a free slot");
            assert_eq!(placed, Placement { slot: 0, reuse: 0, share_from: None }, "{holder:?} {wanted:?}");
        }
        let slots = [cached(0, P, &a, true)];
        assert_eq!(place(&slots, P, &a, 0).expect("a free slot").reuse, 3, "the same set is");
        assert_eq!(place(&slots, P, &a, usize::MAX).expect("a free slot").reuse, 0, "unless reuse is off");
    }

    #[test]
    fn a_running_sequence_shares_its_prefix() {
        let base = Timeline::default();
        let slots = [cached(0, &[1, 2, 9], &base, false), cached(1, &[], &base, true)];
        let placed = place(&slots, P, &base, 0).expect("a free slot");
        assert_eq!(placed, Placement { slot: 1, reuse: 2, share_from: Some(0) });
    }

    #[test]
    fn a_long_cache_is_not_destroyed_for_a_short_overlap() {
        let base = Timeline::default();
        let slots = [cached(0, &[1, 2, 8, 8, 8, 8, 8], &base, true), cached(1, &[7, 7], &base, true)];
        let placed = place(&slots, P, &base, 0).expect("a free slot");
        assert_eq!(placed, Placement { slot: 0, reuse: 2, share_from: None }, "least recently used");
        let slots = [cached(3, &[1, 2, 8, 8, 8, 8, 8], &base, true), cached(1, &[7, 7], &base, true)];
        let placed = place(&slots, P, &base, 0).expect("a free slot");
        assert_eq!(placed, Placement { slot: 1, reuse: 2, share_from: Some(3) });
    }

    #[test]
    fn parts_of_a_prompt_are_found_behind_what_is_left_out() {
        let (a, b, base) = (set(1, 1.0), set(2, 1.0), Timeline::default());
        let held: Vec<Token> = vec![1, 2, 8, 8, 3, 4, 5, 9, 6, 7];
        let prompt: Vec<Token> = vec![1, 2, 3, 4, 5, 6, 7, 0];
        assert_eq!(chunks(&held, &base, &prompt, &base, 2, 2), (vec![(2, 4), (5, 6)], 7));
        assert_eq!(chunks(&held, &base, &prompt, &base, 2, 3), (vec![(2, 4)], 5), "short ones are read again");
        assert_eq!(chunks(&held, &a, &prompt, &a, 2, 2).1, 7);
        let (mine, yours) = (base.clone().owned(7), base.clone().owned(8));
        for (one, other) in [(&a, &b), (&base, &a), (&mine, &yours)] {
            assert_eq!(chunks(&held, one, &prompt, other, 2, 2), (vec![], 2), "another set or another key: {other:?}");
        }
        assert_eq!(chunks(&prompt, &base, &prompt, &base, 7, 1), (vec![], 7), "the last token is always read");
    }

    #[test]
    fn no_free_slot_is_no_place() {
        assert_eq!(place(&[cached(0, P, &Timeline::default(), false)], P, &Timeline::default(), 0), None);
    }

    #[test]
    fn waiting_pays_only_for_a_long_prefix_of_the_same_set_not_yet_there() {
        let long: Vec<Token> = (0..200).collect();
        let (a, b) = (set(1, 1.0), set(2, 1.0));
        let flight = |evaluated| [InFlight { prompt: &long, evaluated, sets: &a }];
        assert!(worth_waiting(&flight(10), &long, &a));
        assert!(!worth_waiting(&flight(199), &long, &a));
        assert!(!worth_waiting(&flight(10), &long, &b));
        assert!(!worth_waiting(&flight(10), &long[..32], &a));
    }
}
