//! Adapters as values: what identifies one, and what a weighted set of them is.
//!
//! A set is the scheduling key, the prompt-cache key and the engine's argument in one. It is made of content
//! digests and scales, never of names, paths or indices, so a cache cannot mistake one adapter for another.
//! Knows files (through [`file`]), not the engine and not the router.

mod cache;
pub mod file;
mod open;
mod timeline;

pub use cache::ByteLru;
pub use file::{AdapterError, AdapterFile, HeldBytes};
pub use open::{OpenAdapters, TierStatistics};
pub use timeline::Timeline;

use std::fmt;

/// The BLAKE3 digest of an adapter file's bytes: the adapter's identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterDigest([u8; 32]);

impl AdapterDigest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest with these bytes, as they were stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// All 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

impl fmt::Display for AdapterDigest {
    /// The first 12 hexadecimal digits, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex()[..12])
    }
}

impl fmt::Debug for AdapterDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdapterDigest({self})")
    }
}

/// The weight of an adapter in a set: finite, from 0 to [`Scale::MAX`]. Compared by its bits.
#[derive(Clone, Copy, Debug)]
pub struct Scale(f32);

impl Scale {
    /// The largest weight accepted; beyond it outputs are noise on every adapter seen.
    pub const MAX: f32 = 8.0;
    /// The weight an adapter was trained for.
    pub const ONE: Scale = Scale(1.0);

    /// Checks a weight.
    ///
    /// # Errors
    /// Not a number, infinite, negative or above [`Scale::MAX`].
    pub fn new(value: f32) -> Result<Self, SetError> {
        if value.is_finite() && (0.0..=Self::MAX).contains(&value) {
            Ok(Self(value + 0.0)) // -0.0 becomes 0.0
        } else {
            Err(SetError::Scale(value))
        }
    }

    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }
}

impl PartialEq for Scale {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for Scale {}
impl std::hash::Hash for Scale {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

/// Zero to five adapters with weights, in the order of their digests. The empty set is the plain base.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AdapterSet(Vec<(AdapterDigest, Scale)>);

/// A set that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SetError {
    /// A weight out of range.
    #[error("adapter scale must be a number from 0 to {max}, not {0}", max = Scale::MAX)]
    Scale(f32),
    /// The same content twice, under whatever names.
    #[error("the same adapter ({0}) is named twice in one request; give it once with the summed scale")]
    Twice(AdapterDigest),
    /// Too many adapters for one request.
    #[error("a request may use at most {max} adapters, not {0}", max = AdapterSet::MAX)]
    TooMany(usize),
}

impl AdapterSet {
    /// The most adapters one request may use.
    pub const MAX: usize = 5;

    /// Makes a set. Adapters with weight 0 change nothing and are left out, so such a set equals the base's.
    ///
    /// # Errors
    /// The same digest twice, or more than [`AdapterSet::MAX`] adapters.
    pub fn new(mut members: Vec<(AdapterDigest, Scale)>) -> Result<Self, SetError> {
        if members.len() > Self::MAX {
            return Err(SetError::TooMany(members.len()));
        }
        members.sort_by_key(|(digest, _)| *digest);
        if let Some(pair) = members.windows(2).find(|w| w[0].0 == w[1].0) {
            return Err(SetError::Twice(pair[0].0));
        }
        members.retain(|(_, scale)| scale.get() != 0.0);
        Ok(Self(members))
    }

    /// The plain base model.
    pub fn base() -> Self {
        Self::default()
    }

    /// Whether this is the plain base model.
    pub fn is_base(&self) -> bool {
        self.0.is_empty()
    }

    /// The members, sorted by digest.
    pub fn members(&self) -> &[(AdapterDigest, Scale)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> AdapterDigest {
        AdapterDigest::of(&[n])
    }

    fn set(members: &[(u8, f32)]) -> AdapterSet {
        let members = members.iter().map(|(n, s)| (digest(*n), Scale::new(*s).expect("in range"))).collect();
        AdapterSet::new(members).expect("a valid set")
    }

    #[test]
    fn order_does_not_matter_but_digest_and_scale_do() {
        assert_eq!(set(&[(1, 0.5), (2, 1.0)]), set(&[(2, 1.0), (1, 0.5)]));
        assert_ne!(set(&[(1, 0.5)]), set(&[(1, 1.0)]), "the scale is part of the key");
        assert_ne!(set(&[(1, 1.0)]), set(&[(2, 1.0)]), "the digest is part of the key");
        assert_ne!(set(&[(1, 1.0)]), AdapterSet::base());
    }

    #[test]
    fn weight_zero_is_the_base() {
        assert_eq!(set(&[(1, 0.0)]), AdapterSet::base());
        assert_eq!(set(&[(1, -0.0)]), AdapterSet::base());
    }

    #[test]
    fn bad_weights_duplicates_and_crowds_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, -1.0, 1e30, 8.1] {
            assert!(Scale::new(bad).is_err(), "{bad}");
        }
        let twice = vec![(digest(1), Scale::ONE), (digest(1), Scale::ONE)];
        assert_eq!(AdapterSet::new(twice), Err(SetError::Twice(digest(1))));
        let crowd = (0..6).map(|n| (digest(n), Scale::ONE)).collect();
        assert_eq!(AdapterSet::new(crowd), Err(SetError::TooMany(6)));
    }
}
