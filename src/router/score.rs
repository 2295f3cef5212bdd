//! What each strategy makes of the evidence. Pure arithmetic; the weights are values.

use super::{Evidence, Facts, Strategy};

/// Weights of the evidence for adapters with about equally much text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// Of the best cosine.
    pub semantic: f32,
    /// Of the centroid's cosine.
    pub centroid: f32,
    /// Of the name's cosine.
    pub name: f32,
    /// Of the words.
    pub keyword: f32,
}

/// Weights of the re-ranking by a trained head; units are those of logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rerank {
    /// Of the head's log probability.
    pub learned: f32,
    /// Of the best cosine.
    pub semantic: f32,
    /// Of the centroid's cosine.
    pub centroid: f32,
    /// Of the name's cosine.
    pub name: f32,
    /// Of the words.
    pub keyword: f32,
    /// For an adapter that the head does not know, instead of its log probability.
    pub unknown: f32,
    /// Of the mean cosine of its nearest example prompts.
    pub close: f32,
    /// Of what people said of the adapter's answers ([`Tuning::standing`](super::Tuning::standing)).
    pub standing: f32,
}

/// All weights of all strategies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// [`Strategy::Hybrid`] for adapters of which only a name and a description are known, for those with a few
    /// example prompts (up to [`FEW`]), and for those with more.
    pub hybrid: [Blend; 3],
    /// Turns hybrid scores into shares.
    pub sharpness: f32,
    /// [`Strategy::Learned`].
    pub rerank: Rerank,
}

/// Example prompts that are few.
const FEW: usize = 8;
/// The least log probability of a head that counts.
const FLOOR: f32 = -12.0;

impl Default for Weights {
    /// Chosen on the developer parts of CLINC150 and BANKING77; see docs/routing.md.
    fn default() -> Self {
        Self {
            hybrid: [
                Blend { semantic: 0.85, centroid: 0.0, name: 0.0, keyword: 0.15 },
                Blend { semantic: 0.25, centroid: 0.40, name: 0.15, keyword: 0.20 },
                Blend { semantic: 0.40, centroid: 0.35, name: 0.0, keyword: 0.25 },
            ],
            sharpness: 20.0,
            rerank: Rerank {
                learned: 1.0,
                semantic: 3.0,
                centroid: 0.0,
                name: 0.0,
                keyword: 2.0,
                unknown: -3.0,
                close: 0.0,
                standing: 0.0,
            },
        }
    }
}

impl Weights {
    /// What an adapter gets from words and meaning together.
    pub fn hybrid(&self, e: &Evidence) -> f32 {
        let examples = e.vectors.saturating_sub(2);
        let b = match examples {
            0 => &self.hybrid[0],
            1..=FEW => &self.hybrid[1],
            _ => &self.hybrid[2],
        };
        b.semantic * e.semantic + b.centroid * e.centroid + b.name * e.name + b.keyword * e.keyword
    }

    /// What an adapter gets from a trained head and the evidence together.
    pub fn learned(&self, e: &Evidence) -> f32 {
        let r = &self.rerank;
        let head = e.learned.map_or(r.unknown, |log| r.learned * log.max(FLOOR));
        head + r.semantic * e.semantic
            + r.centroid * e.centroid
            + r.name * e.name
            + r.keyword * e.keyword
            + r.close * e.nearest()
    }

    /// What an adapter gets, for the strategies that look at one adapter at a time.
    pub fn score(&self, strategy: Strategy, e: &Evidence) -> f32 {
        let score = match strategy {
            // Words that occur in no text, or in all alike, leave meaning to decide.
            Strategy::Keyword => e.keyword + 1e-3 * e.semantic,
            Strategy::Semantic => 0.5 * (e.semantic + e.centroid),
            Strategy::Learned => self.learned(e),
            Strategy::Task | Strategy::Hybrid | Strategy::Hierarchical | Strategy::Mixture => self.hybrid(e),
        };
        if score.is_finite() { score } else { f32::MIN }
    }

    /// What turns scores of a strategy into shares.
    pub fn sharpness(&self, strategy: Strategy) -> f32 {
        if strategy == Strategy::Learned { 1.0 } else { self.sharpness }
    }
}

/// How many of the wanted tags an adapter has, as a share; without wanted ones, the share of its tags that the text
/// names.
pub fn tag_fit(facts: &Facts, wanted: &[String], text: &str) -> f32 {
    let normal = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
    };
    if !wanted.is_empty() {
        let tags: Vec<Vec<String>> = facts.tags.iter().map(|tag| normal(tag)).collect();
        let found = wanted.iter().filter(|tag| tags.contains(&normal(tag))).count();
        return found as f32 / wanted.len() as f32;
    }
    let words = normal(text);
    let named = |tag: &String| {
        let tag = normal(tag);
        !tag.is_empty() && words.windows(tag.len()).any(|window| window == tag)
    };
    let found = facts.tags.iter().filter(|tag| named(tag)).count();
    found as f32 / facts.tags.len().max(1) as f32
}

/// Goes from coarse to fine: at each level of the paths the branch with the best three adapters stays. Gives for each
/// adapter at how many levels its branch stayed.
pub fn descend(adapters: &[(f32, &str)]) -> Vec<usize> {
    let mut stayed = vec![0; adapters.len()];
    let mut inside: Vec<usize> = (0..adapters.len()).collect();
    for level in 1.. {
        let branch = |at: usize| -> Option<String> {
            let path = adapters.get(at).map_or("", |(_, path)| *path);
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).take(level).collect();
            (parts.len() == level).then(|| parts.join("/"))
        };
        let mut branches: Vec<(String, Vec<usize>)> = Vec::new();
        let mut leaves: Vec<usize> = Vec::new();
        for at in &inside {
            match branch(*at) {
                None => leaves.push(*at),
                Some(name) => match branches.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, members)) => members.push(*at),
                    None => branches.push((name, vec![*at])),
                },
            }
        }
        if branches.is_empty() {
            break;
        }
        let value = |members: &[usize]| {
            let mut scores: Vec<f32> = members.iter().filter_map(|at| adapters.get(*at)).map(|(s, _)| *s).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            scores.iter().zip([0.7, 0.2, 0.1]).map(|(score, weight)| score * weight).sum::<f32>()
                + scores.first().map_or(0.0, |best| best * [0.3, 0.1].get(scores.len() - 1).copied().unwrap_or(0.0))
        };
        let best = branches.iter().max_by(|a, b| value(&a.1).total_cmp(&value(&b.1)).then_with(|| b.0.cmp(&a.0)));
        let Some((_, members)) = best else { break };
        // An adapter that ends at this level competes with the branch as a whole.
        let top = value(members);
        let leaf = leaves.iter().filter_map(|at| adapters.get(*at)).map(|(s, _)| *s).fold(f32::MIN, f32::max);
        if leaf > top {
            leaves.iter().for_each(|at| stayed[*at] = level);
            break;
        }
        members.iter().for_each(|at| stayed[*at] = level);
        inside.clone_from(members);
    }
    stayed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_asked_for_or_named() {
        let facts = Facts { tags: vec!["Contract-Review".into(), "law".into()], ..Facts::default() };
        assert_eq!(tag_fit(&facts, &["LAW".into()], ""), 1.0);
        assert_eq!(tag_fit(&facts, &["law".into(), "tax".into()], ""), 0.5);
        assert_eq!(tag_fit(&facts, &[], "please do a contract review for me"), 0.5);
        assert_eq!(tag_fit(&facts, &[], "lawn"), 0.0);
        assert_eq!(tag_fit(&Facts::default(), &[], ""), 0.0);
    }

    #[test]
    fn a_branch_is_judged_by_its_best_three() {
        // One good adapter among strangers against a branch of three good ones.
        let adapters =
            [(0.62, "law/tax"), (0.60, "bank/card"), (0.59, "bank/card"), (0.58, "bank/loan"), (0.1, "law/tax")];
        assert_eq!(descend(&adapters), [0, 2, 2, 1, 0]);
        assert_eq!(descend(&[(0.9, ""), (0.5, "law/tax")]), [1, 0], "without a path, it stands for itself");
        assert_eq!(descend(&[]), Vec::<usize>::new());
    }
}
