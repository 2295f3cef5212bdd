//! Which rows the next step evaluates, and for which party. Pure: a function from what waits to a plan.
//!
//! A party is who can share a step: all whose adapter sets mix, or those with one set that must be alone. Parties take
//! turns. One keeps its turn for [`Policy::quantum`] steps, because changing it costs llama.cpp a new graph reservation;
//! then the one that has waited longest is next, so none waits for ever. Inside a step every decoding sequence comes first; what is
//! left of the budget goes to prompts, in chunks, so a long prompt never holds up a running answer by more than one
//! step.

/// A sequence with tokens to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting<S> {
    /// Which slot.
    pub slot: usize,
    /// Its party.
    pub set: S,
    /// Tokens not yet evaluated: 1 while decoding, more during the prompt.
    pub pending: usize,
    /// Whether the next token it yields is its first.
    pub prefill: bool,
    /// Order of admission: smaller came earlier.
    pub admitted: u64,
    /// The step in which it was last served (or admitted).
    pub served: u64,
}

/// Numbers that shape a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Rows of one step.
    pub budget: usize,
    /// Steps a party keeps its turn while others wait.
    pub quantum: usize,
}

/// The party whose turn it is, and for how many steps it has had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn<S> {
    /// The party.
    pub set: S,
    /// Steps so far.
    pub steps: usize,
}

/// What to evaluate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<S> {
    /// The turn this step belongs to.
    pub turn: Turn<S>,
    /// Slot and number of its pending tokens to evaluate, in row order.
    pub rows: Vec<(usize, usize)>,
}

/// Plans the next step; `None` when nothing waits.
pub fn plan<S: Clone + Eq>(waiting: &[Waiting<S>], turn: Option<&Turn<S>>, policy: Policy) -> Option<Plan<S>> {
    let turn = next_turn(waiting, turn, policy)?;
    let mut mine: Vec<&Waiting<S>> = waiting.iter().filter(|w| w.set == turn.set && w.pending > 0).collect();
    mine.sort_by_key(|w| (w.prefill, w.admitted));
    let mut left = policy.budget;
    let mut rows = Vec::new();
    for w in mine {
        let take = w.pending.min(left);
        if take > 0 {
            rows.push((w.slot, take));
            left -= take;
        }
    }
    Some(Plan { turn, rows })
}

/// Shares `left` rows among sequences that wish for more: as equally as can be, none more than it wishes for.
pub fn share(wishes: &[usize], mut left: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..wishes.len()).collect();
    order.sort_by_key(|at| wishes[*at]);
    let mut given = vec![0; wishes.len()];
    for (done, at) in order.iter().enumerate() {
        given[*at] = wishes[*at].min(left / (wishes.len() - done));
        left -= given[*at];
    }
    given
}

fn next_turn<S: Clone + Eq>(waiting: &[Waiting<S>], turn: Option<&Turn<S>>, policy: Policy) -> Option<Turn<S>> {
    let has_work = |set: &S| waiting.iter().any(|w| w.pending > 0 && w.set == *set);
    if let Some(turn) = turn.filter(|t| has_work(&t.set)) {
        let alone = waiting.iter().all(|w| w.pending == 0 || w.set == turn.set);
        if alone || turn.steps < policy.quantum {
            let steps = if alone { 1 } else { turn.steps + 1 };
            return Some(Turn { set: turn.set.clone(), steps });
        }
    }
    let others = waiting.iter().filter(|w| w.pending > 0 && turn.is_none_or(|t| t.set != w.set));
    let next = others.min_by_key(|w| (w.served, w.admitted)).or_else(|| waiting.iter().find(|w| w.pending > 0))?;
    Some(Turn { set: next.set.clone(), steps: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: Policy = Policy { budget: 8, quantum: 2 };

    fn waiting(slot: usize, set: char, pending: usize, served: u64) -> Waiting<char> {
        Waiting { slot, set, pending, prefill: pending > 1, admitted: slot as u64, served }
    }

    #[test]
    fn decoding_sequences_come_before_prompts_and_prompts_fill_the_rest() {
        let w = [waiting(0, 'a', 100, 0), waiting(1, 'a', 1, 0), waiting(2, 'a', 1, 0)];
        assert_eq!(plan(&w, None, POLICY).expect("work").rows, [(1, 1), (2, 1), (0, 6)]);
    }

    #[test]
    fn two_prompts_share_a_step_in_order_of_admission() {
        let w = [waiting(1, 'a', 5, 0), waiting(0, 'a', 5, 0)];
        assert_eq!(plan(&w, None, POLICY).expect("work").rows, [(0, 5), (1, 3)]);
    }

    #[test]
    fn a_step_holds_one_set_only() {
        let w = [waiting(0, 'a', 1, 0), waiting(1, 'b', 1, 0)];
        let p = plan(&w, None, POLICY).expect("work");
        assert_eq!((p.turn.set, p.rows), ('a', vec![(0, 1)]));
    }

    #[test]
    fn a_set_alone_is_never_interrupted() {
        let w = [waiting(0, 'a', 1, 0)];
        let turn = Turn { set: 'a', steps: 99 };
        assert_eq!(plan(&w, Some(&turn), POLICY).expect("work").turn, Turn { set: 'a', steps: 1 });
    }

    #[test]
    fn nothing_waiting_is_no_plan() {
        assert_eq!(plan::<char>(&[], None, POLICY), None);
    }

    #[test]
    fn what_is_left_is_shared_equally() {
        for (wishes, left, expected) in [
            (&[3, 3][..], 10, &[3, 3][..]),
            (&[9, 9], 10, &[5, 5]),
            (&[9, 2, 9], 10, &[4, 2, 4]),
            (&[9, 9, 9], 10, &[3, 3, 4]),
            (&[5], 0, &[0]),
            (&[], 5, &[]),
        ] {
            assert_eq!(share(wishes, left), expected, "{wishes:?} of {left}");
        }
    }

    proptest! {
        #[test]
        fn every_set_is_served_within_one_round(sets in proptest::collection::vec(0u8..6, 1..12), start in 0u8..6) {
            let mut state: Vec<Waiting<u8>> = sets.iter().enumerate()
                .map(|(slot, set)| Waiting { slot, set: *set, pending: 1, prefill: false, admitted: slot as u64, served: 0 })
                .collect();
            let distinct = sets.iter().collect::<std::collections::HashSet<_>>().len();
            let mut turn = Some(Turn { set: start, steps: 1 });
            let mut gap = vec![0usize; sets.len()];
            for step in 1..=(distinct as u64 * POLICY.quantum as u64 * 4) {
                let p = plan(&state, turn.as_ref(), POLICY).expect("there is work");
                for g in &mut gap { *g += 1; }
                let mut rows = 0;
                for (slot, n) in &p.rows {
                    gap[*slot] = 0;
                    state[*slot].served = step;
                    rows += n;
                }
                prop_assert!(rows <= POLICY.budget && rows > 0);
                prop_assert!(p.rows.iter().all(|(slot, _)| state[*slot].set == p.turn.set));
                // Budget 8 may leave up to 4 of 12 sequences of one set for the next step of its turn.
                prop_assert!(gap.iter().all(|g| *g <= (distinct + 1) * POLICY.quantum * 2), "{gap:?}");
                turn = Some(p.turn);
            }
        }
    }
}
