//! Which set applies at which position of a sequence.

use super::AdapterSet;

/// The adapter sets of a sequence's positions: one set up to a position, another from there on.
///
/// Most sequences have one set throughout. An activated LoRA (aLoRA, <https://arxiv.org/abs/2504.12397>) acts from its
/// invocation tokens on, so that what stands before them is the base's and can be shared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    first: AdapterSet,
    from: usize,
    then: AdapterSet,
    owner: u64,
}

impl Timeline {
    /// One set at every position.
    pub fn always(set: AdapterSet) -> Self {
        Self { first: set.clone(), from: 0, then: set, owner: 0 }
    }

    /// `first` at the positions below `from`, `then` at the others.
    pub fn switching(first: AdapterSet, from: usize, then: AdapterSet) -> Self {
        if first == then || from == 0 { Self::always(then) } else { Self { first, from, then, owner: 0 } }
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

    /// The set of the first positions, the position from which the other applies, and that one. What
    /// [`Timeline::switching`] makes a timeline of.
    pub fn parts(&self) -> (&AdapterSet, usize, &AdapterSet) {
        (&self.first, self.from, &self.then)
    }

    /// The set at a position.
    pub fn at(&self, position: usize) -> &AdapterSet {
        if position < self.from { &self.first } else { &self.then }
    }

    /// How many positions from `position` on have the same set.
    pub fn run(&self, position: usize) -> usize {
        if position < self.from { self.from - position } else { usize::MAX }
    }

    /// The set at the end.
    pub fn last(&self) -> &AdapterSet {
        &self.then
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
        self.from = match self.from {
            at if at >= to => at - (to - from),
            at => at.min(from),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{AdapterDigest, Scale};

    fn set(n: u8) -> AdapterSet {
        AdapterSet::new(vec![(AdapterDigest::of(&[n]), Scale::ONE)]).expect("valid")
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
        ] {
            assert_eq!((x.agrees(y), y.agrees(x)), (agree, agree), "{x:?} {y:?}");
        }
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
    }
}
