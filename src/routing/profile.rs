//! What the index keeps of an adapter: made from its card.

use crate::library::Entry;
use crate::router::embed::Embedder;
use crate::router::index::MAX_VECTORS;

/// The attribute that holds the fingerprint of the base model an adapter is for.
pub const BASE: &str = "smoa.base";

/// An adapter as the index wants it.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The words it is found by.
    pub text: String,
    /// Name and description, centroid, example prompts.
    pub vectors: Vec<Vec<f32>>,
    /// What a gate looks at.
    pub attributes: Vec<(String, String)>,
    /// Its place in the tree.
    pub path: String,
}

/// Makes the profile of an adapter.
pub fn make(entry: &Entry, embedder: &dyn Embedder) -> Made {
    let card = &entry.metadata.card;
    let prompts: Vec<&str> = card.examples.iter().map(String::as_str).collect();
    Made {
        text: text(entry),
        vectors: vectors(&described(entry), &prompts, embedder),
        attributes: attributes(entry),
        path: card.path.clone().unwrap_or_default(),
    }
}

/// Name and description as a sentence, without the marks that join words in names.
pub fn described(entry: &Entry) -> String {
    let card = &entry.metadata.card;
    let name = spoken(entry.name.as_str());
    let title = card.title.as_deref().map(spoken).filter(|title| *title != name);
    let about = card.description.clone();
    let parts: Vec<String> = [Some(name), title, about].into_iter().flatten().filter(|part| !part.is_empty()).collect();
    parts.join(": ")
}

/// The vectors of a profile: `[0]` of the description, `[1]` the centroid of the prompts, then prompts, spread evenly
/// over all there are.
pub fn vectors(described: &str, prompts: &[&str], embedder: &dyn Embedder) -> Vec<Vec<f32>> {
    parts(embedder.embed(described), prompts.iter().map(|prompt| embedder.embed(prompt)).collect())
}

/// The same of vectors that are known.
pub fn parts(described: Vec<f32>, examples: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut vectors = vec![described];
    if !examples.is_empty() {
        vectors.push(centroid(&examples));
        let most = MAX_VECTORS - 2;
        let kept = examples.len().min(most);
        vectors.extend((0..kept).filter_map(|n| examples.get(n * examples.len() / kept)).cloned());
    }
    vectors
}

/// The mean direction.
fn centroid(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vectors.first().map_or_else(Vec::new, |first| vec![0.0f32; first.len()]);
    for vector in vectors {
        sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
    }
    let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|x| *x /= length);
    }
    sum
}

/// All texts of a card that speak of what it is for, one a line.
fn text(entry: &Entry) -> String {
    let prompts = entry.metadata.card.examples.iter().map(String::as_str);
    std::iter::once(words(entry).as_str()).chain(prompts).collect::<Vec<_>>().join("\n")
}

/// The same without the example prompts.
pub fn words(entry: &Entry) -> String {
    let card = &entry.metadata.card;
    let mut lines = vec![described(entry)];
    for list in [&card.keywords, &card.tags, &card.domains, &card.skills, &card.tasks] {
        lines.extend(list.iter().map(|word| spoken(word)));
    }
    lines.extend(card.path.as_deref().map(spoken));
    lines.join("\n")
}

/// The card's attributes, its tags of all kinds under the names that requests use for them, and its base model.
fn attributes(entry: &Entry) -> Vec<(String, String)> {
    let card = &entry.metadata.card;
    let mut all: Vec<(String, String)> = card.attributes.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    let lists = [("domain", &card.domains), ("skill", &card.skills), ("task", &card.tasks), ("tag", &card.tags)];
    for (key, list) in lists {
        all.extend(list.iter().map(|value| (key.to_owned(), value.clone())));
    }
    all.extend(entry.metadata.measured.base.iter().map(|base| (BASE.to_owned(), base.clone())));
    all.sort();
    all.dedup();
    all
}

/// `card_arrival` and `BookRestaurant` as words.
fn spoken(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    let mut before = ' ';
    for c in name.chars() {
        let joint = matches!(c, '_' | '-' | '/' | '.' | ':');
        if joint || (c.is_uppercase() && before.is_lowercase()) {
            out.push(' ');
        }
        if !joint {
            out.extend(c.to_lowercase());
        }
        before = c;
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_words() {
        for (name, expected) in [
            ("card_arrival", "card arrival"),
            ("BookRestaurant", "book restaurant"),
            ("law/contracts-review.v2", "law contracts review v2"),
            ("reverted_card_payment?", "reverted card payment?"),
            ("SQL", "sql"),
        ] {
            assert_eq!(spoken(name), expected);
        }
    }

    #[test]
    fn a_centroid_has_unit_length_or_none() {
        let mean = centroid(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!((mean.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(centroid(&[vec![0.0, 0.0]]), [0.0, 0.0]);
    }
}
