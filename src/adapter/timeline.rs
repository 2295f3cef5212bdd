//! Which set applies at which position of a sequence.

use super::AdapterSet;

/// The adapter sets of a sequence's positions: one set up to a position, another from there on, and so on.
///
/// Most sequences have one set throughout. An activated LoRA (aLoRA, <https://arxiv.org/abs/2504.12397>) acts from its
/// invocation tokens on, so that what stands before them is the base's and can be shared with it; a composition may change
/// its set inside an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    first: AdapterSet,
    /// Each set with the position from which it applies: positions rise, and no set equals the one before it.
    changes: Vec<(usize, AdapterSet)>,
    owner: u64,
}

impl Timeline {
    /// One set at every position.
    pub fn always(set: AdapterSet) -> Self {
        Self { first: set, changes: Vec::new(), owner: 0 }
    }

    /// `first` at the positions below `from`, `then` at the others.
    pub fn switching(first: AdapterSet, from: usize, then: AdapterSet) -> Self {
        let mut timeline = Self::always(first);
        timeline.change(from, then);
        timeline
    }

    /// From this position on another set applies, whatever was to apply there.
    pub fn change(&mut self, from: usize, set: AdapterSet) {
        self.changes.retain(|(at, _)| *at < from);
        match from {
            0 => self.first = set,
            usize::MAX => (), // never
            _ if *self.last() != set => self.changes.push((from, set)),
            _ => (),
        }
    }

    /// The same in a cache of somebody's own: what one owner's requests left is of no use to another's, so that neither
    /// tokens nor times tell what the other asked. 0 is nobody's, and everybody's.
    #[must_use]
    pub fn owned(self, owner: u64) -> Self {
        Self { owner, ..self }
    }

    /// Whose it is.
    pub fn owner(&self) -> u64 {
        self.owner
    }

    /// The set of the first positions, and the others with the positions from which they apply.
    pub fn parts(&self) -> (&AdapterSet, &[(usize, AdapterSet)]) {
        (&self.first, &self.changes)
    }

    /// All its sets.
    pub fn sets(&self) -> impl Iterator<Item = &AdapterSet> {
        std::iter::once(&self.first).chain(self.changes.iter().map(|(_, set)| set))
    }

    /// The set at a position.
    pub fn at(&self, position: usize) -> &AdapterSet {
        self.changes.iter().rev().find(|(from, _)| *from <= position).map_or(&self.first, |(_, set)| set)
    }

    /// How many positions from `position` on have the same set.
    pub fn run(&self, position: usize) -> usize {
        self.changes.iter().find(|(from, _)| *from > position).map_or(usize::MAX, |(from, _)| from - position)
    }

    /// The set at the end.
    pub fn last(&self) -> &AdapterSet {
        self.changes.last().map_or(&self.first, |(_, set)| set)
    }

    /// How many leading positions have the same set in both; none when they belong to two owners.
    pub fn agrees(&self, other: &Timeline) -> usize {
        if self.owner != other.owner && self.owner != 0 && other.owner != 0 {
            return 0;
        }
        let mut position = 0;
        while position < usize::MAX && self.at(position) == other.at(position) {
            position = position.saturating_add(self.run(position).min(other.run(position)));
        }
        position
    }

    /// After the positions `from..to` were taken out.
    pub fn forget(&mut self, from: usize, to: usize) {
        let old = std::mem::take(&mut self.changes);
        for (at, set) in old {
            let at = if at >= to { at - (to - from) } else { at.min(from) };
            self.change(at, set);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterDigest, Scale};

    fn set(n: u8) -> AdapterSet {
        AdapterSet::new(vec![(AdapterDigest::of(&[n]), Scale::ONE)]).expect("valid")
    }

    /// The base, then these sets from these positions on.
    fn changing(changes: &[(usize, u8)]) -> Timeline {
        let mut timeline = Timeline::default();
        changes.iter().for_each(|(from, n)| timeline.change(*from, if *n == 0 { AdapterSet::base() } else { set(*n) }));
        timeline
    }

    #[test]
    fn positions_agree_as_long_as_their_sets_do() {
        let base = Timeline::always(AdapterSet::base());
        let a = Timeline::always(set(1));
        let late = |from| Timeline::switching(AdapterSet::base(), from, set(1));
        for (x, y, agree) in [
            (&base, &base, usize::MAX),
            (&base, &a, 0),
            (&late(7), &base, 7),
            (&late(7), &late(7), usize::MAX),
            (&late(7), &late(9), 7),
            (&late(7), &a, 0),
            (&Timeline::switching(AdapterSet::base(), 7, set(2)), &late(7), 7),
            (&late(0), &a, usize::MAX),
            (&late(usize::MAX), &base, usize::MAX),
            (&changing(&[(7, 1), (9, 2)]), &late(7), 9),
            (&changing(&[(7, 1), (9, 2), (12, 3)]), &changing(&[(7, 1), (9, 2), (14, 3)]), 12),
            (&changing(&[(7, 1), (9, 0), (12, 1)]), &late(7), 9),
        ] {
            assert_eq!((x.agrees(y), y.agrees(x)), (agree, agree), "{x:?} {y:?}");
        }
    }

    #[test]
    fn a_change_is_the_end_of_what_was_to_come() {
        let timeline = changing(&[(5, 1), (9, 2)]);
        let at = |position| timeline.at(position);
        assert_eq!([at(4), at(5), at(8), at(9), at(99)], [&AdapterSet::base(), &set(1), &set(1), &set(2), &set(2)]);
        assert_eq!([0, 4, 5, 8, 9].map(|position| timeline.run(position)), [5, 1, 4, 1, usize::MAX]);
        assert_eq!(timeline.sets().count(), 3);
        assert_eq!(changing(&[(5, 1), (9, 2), (7, 3)]), changing(&[(5, 1), (7, 3)]));
        assert_eq!(changing(&[(5, 1), (9, 1)]), changing(&[(5, 1)]), "no change");
        assert_eq!(changing(&[(5, 1), (0, 2)]), Timeline::always(set(2)));
        assert_eq!(changing(&[(usize::MAX, 1)]), Timeline::default(), "never");
    }

    #[test]
    fn owners_share_nothing_but_what_is_nobodys() {
        let [x, y, nobody] = [1, 2, 0].map(|owner| Timeline::always(set(1)).owned(owner));
        for (one, other, agree) in [(&x, &y, 0), (&x, &x, usize::MAX), (&x, &nobody, usize::MAX)] {
            assert_eq!((one.agrees(other), other.agrees(one)), (agree, agree));
        }
        let mut late = Timeline::switching(AdapterSet::base(), 7, set(1)).owned(3);
        late.forget(0, 2);
        assert_eq!(late.owner(), 3);
    }

    #[test]
    fn a_shift_moves_the_switch() {
        for ((from, to), left) in [((0, 4), 6), ((2, 20), 2), ((12, 15), 10), ((4, 10), 4)] {
            let mut t = Timeline::switching(AdapterSet::base(), 10, set(1));
            t.forget(from, to);
            assert_eq!(t.run(0), left, "{from}..{to}");
        }
        for ((from, to), left) in [
            ((0, 4), vec![(2, 1), (5, 2)]),
            ((4, 8), vec![(4, 1), (5, 2)]),
            ((4, 20), vec![(4, 2)]),
            ((0, 20), vec![(0, 2)]),
            ((7, 9), vec![(6, 1), (7, 2)]),
        ] {
            let mut t = changing(&[(6, 1), (9, 2)]);
            t.forget(from, to);
            assert_eq!(t, changing(&left), "{from}..{to}");
        }
    }

    #[test]
    fn a_timeline_says_of_each_position_what_a_list_would() {
        let sets: Vec<AdapterSet> = (0..3).map(|n| if n == 0 { AdapterSet::base() } else { set(n) }).collect();
        for seed in 0..500_usize {
            let mut list = vec![0_usize; 40];
            let mut timeline = Timeline::default();
            for step in 0..4 {
                let draw = seed.wrapping_mul(2_654_435_761).wrapping_add(step * 40_503) >> 3;
                let (at, n) = (draw % list.len(), draw / 64 % 3);
                if step == 2 {
                    let to = (at + draw / 1024 % 9).min(list.len());
                    list.drain(at..to);
                    timeline.forget(at, to);
                } else {
                    list[at..].fill(n);
                    timeline.change(at, sets[n].clone());
                }
            }
            for (position, n) in list.iter().enumerate() {
                assert_eq!(timeline.at(position), &sets[*n], "seed {seed}, position {position}");
                let run = list[position..].iter().take_while(|m| *m == n).count();
                assert!(timeline.run(position) == run || position + run == list.len());
            }
        }
    }
}
