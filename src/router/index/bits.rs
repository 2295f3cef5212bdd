//! A set of small numbers, a bit each.

/// A set of numbers below a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// The empty set, for numbers below `limit`.
    pub fn none(limit: usize) -> Self {
        Self { words: vec![0; limit.div_ceil(64)] }
    }

    /// All numbers below `limit`.
    pub fn all(limit: usize) -> Self {
        let mut words = vec![u64::MAX; limit.div_ceil(64)];
        if let (Some(last), true) = (words.last_mut(), !limit.is_multiple_of(64)) {
            *last = (1 << (limit % 64)) - 1;
        }
        Self { words }
    }

    /// The words, for whole sets at a time.
    pub fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// Whether `number` is in it.
    #[inline]
    pub fn has(&self, number: u32) -> bool {
        self.words.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Puts `number` in, if it is below the limit.
    pub fn put(&mut self, number: u32) {
        if let Some(word) = self.words.get_mut(number as usize / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Keeps what is in `other` too.
    pub fn and(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// Takes out what is in `other`.
    pub fn and_not(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    /// How many are in it.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The numbers in it, upwards.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.words.iter().zip(0_u32..).flat_map(|(word, at)| {
            let mut left = *word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_in_it() {
        for limit in [0, 1, 63, 64, 65, 1000] {
            assert_eq!(Bits::all(limit).count(), limit);
            let mut bits = Bits::none(limit);
            let numbers: Vec<u32> = (0..limit as u32).step_by(7).collect();
            numbers.iter().for_each(|n| bits.put(*n));
            assert_eq!(bits.iter().collect::<Vec<_>>(), numbers);
            assert!(numbers.iter().all(|n| bits.has(*n)) && !bits.has(limit as u32 + 64));
            let mut rest = Bits::all(limit);
            rest.and_not(&bits);
            assert_eq!(rest.count() + numbers.len(), limit);
        }
    }
}
