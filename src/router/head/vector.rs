//! From hashed features to numbers: which buckets count, how much each, and both parts brought to one length.

use std::collections::HashMap;

use super::features::{Bucket, features};

/// The buckets that a head knows, with their inverse document frequencies.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vectorizer {
    /// Sorted, each once.
    pub buckets: Vec<Bucket>,
    /// `1 + ln((1 + n) / (1 + df))` of each bucket.
    pub idf: Vec<f32>,
}

/// A sparse vector: rows and their values. Rows of the word part first, each part sorted.
pub type Sparse = Vec<(u32, f32)>;

impl Vectorizer {
    /// Looks at texts: keeps the buckets that occur in at least `least` of them.
    pub fn fit<'t>(texts: impl Iterator<Item = &'t str>, least: u32) -> Self {
        let mut frequencies: HashMap<Bucket, u32> = HashMap::new();
        let mut count = 0u32;
        for text in texts {
            count = count.saturating_add(1);
            for (bucket, _) in features(text).iter().flatten() {
                *frequencies.entry(*bucket).or_insert(0) += 1;
            }
        }
        let mut kept: Vec<(Bucket, u32)> = frequencies.into_iter().filter(|(_, df)| *df >= least).collect();
        kept.sort_unstable();
        let idf = |df: u32| 1.0 + ((1.0 + count as f32) / (1.0 + df as f32)).ln();
        Self {
            buckets: kept.iter().map(|(bucket, _)| *bucket).collect(),
            idf: kept.iter().map(|(_, df)| idf(*df)).collect(),
        }
    }

    /// A text as rows of the known buckets. Each part has the length `weight`, or is empty.
    pub fn transform(&self, text: &str, weight: f32) -> Sparse {
        let mut all = Sparse::new();
        for part in features(text) {
            let from = all.len();
            for (bucket, count) in part {
                if let Ok(row) = self.buckets.binary_search(&bucket) {
                    all.push((row as u32, count * self.idf.get(row).copied().unwrap_or(0.0)));
                }
            }
            let part = all.get_mut(from..).unwrap_or_default();
            let length = part.iter().map(|(_, value)| value * value).sum::<f32>().sqrt();
            if length > 0.0 {
                part.iter_mut().for_each(|(_, value)| *value *= weight / length);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_weigh_more_and_unknown_ones_nothing() {
        let texts = ["pay the bill", "pay the rent", "pay the tax"];
        let vectorizer = Vectorizer::fit(texts.into_iter(), 1);
        let x = vectorizer.transform("pay rent zzz", 0.5);
        let length: f32 = x.iter().map(|(_, v)| v * v).sum();
        assert!((length - 0.5).abs() < 1e-5, "two parts of length one half each: {length}");
        assert_eq!(vectorizer.transform("§§§", 1.0), Vec::new());
        assert!(Vectorizer::fit(texts.into_iter(), 2).buckets.len() < vectorizer.buckets.len());
    }
}
