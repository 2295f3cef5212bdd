//! How well adapters that are given fit a text: their shares in a mix.

use super::{Router, RoutingError, margin_of};
use crate::adapter::AdapterDigest;
use crate::router::embed::Cascade;
use crate::router::index::{Gate, Query};
use crate::router::{Evidence, Strategy, mix};

impl Router {
    /// The shares of these adapters in a mix that is to answer a text, see [`mix`]: by the trained head where there is one,
    /// else by words and meaning. `None` when the index knows none of them. The same library and text give the same.
    ///
    /// # Errors
    /// The library or the index cannot be read.
    pub fn shares(&self, text: &str, adapters: &[AdapterDigest]) -> Result<Option<Vec<f32>>, RoutingError> {
        self.update(&mut |_| ())?;
        let scores = self.scores(text, adapters);
        let mut centroids: Vec<f32> = scores.iter().flatten().map(|(_, centroid)| *centroid).collect();
        centroids.sort_by(|a, b| b.total_cmp(a));
        let unsure = Cascade::default().needs_second_opinion(margin_of(centroids.into_iter()));
        let (router, scores) = match self.second.as_deref().filter(|_| unsure) {
            Some(second) => {
                second.update(&mut |_| ())?;
                (second, second.scores(text, adapters))
            }
            None => (self, scores),
        };
        let tuned = router.tuned();
        let sharpness = tuned.tuning.weights.sharpness(router.usual());
        let scores: Vec<Option<f32>> = scores.into_iter().map(|known| known.map(|(score, _)| score)).collect();
        Ok(mix(&scores, sharpness))
    }

    /// The way to choose where none is asked for.
    pub(super) fn usual(&self) -> Strategy {
        if self.is_trained() { Strategy::Learned } else { Strategy::Hybrid }
    }

    /// Score and cosine of the centroid of each adapter; `None` for one that the index does not have.
    fn scores(&self, text: &str, adapters: &[AdapterDigest]) -> Vec<Option<(f32, f32)>> {
        let (tuned, strategy) = (self.tuned(), self.usual());
        let vector = self.embedder.embed(text);
        let logs = tuned.head.as_deref().map(|head| head.by_digest(&vector, text)).unwrap_or_default();
        let gate = Gate::open();
        let query = Query { vector: &vector, text, gate: &gate, limit: adapters.len() };
        let found = self.with_index(|index| index.look_up(&query, adapters));
        let score = |candidate| {
            let evidence = Evidence::of(candidate, logs.get(&candidate.digest).copied());
            (tuned.tuning.score(strategy, &evidence), evidence.centroid)
        };
        found.into_iter().map(|candidate| candidate.map(score)).collect()
    }
}
