//! Training a head: softmax regression by AdaGrad in shuffled batches, with a seed, stopped early on held-back rows.

use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::vector::{Sparse, Vectorizer};

/// How to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Of the shuffle.
    pub seed: u64,
    /// Most passes over the data.
    pub epochs: usize,
    /// Passes without a better loss on the held-back rows before the training ends.
    pub patience: usize,
    /// Rows in a batch.
    pub batch: usize,
    /// The first step.
    pub rate: f32,
    /// Pull of the weights towards zero.
    pub decay: f32,
    /// Length of each of the two word parts beside the embedding's length of one.
    pub words: f32,
    /// Share of the probability given to all classes alike.
    pub smoothing: f32,
}

impl Default for Plan {
    fn default() -> Self {
        Self { seed: 0, epochs: 30, patience: 4, batch: 32, rate: 0.1, decay: 1e-6, words: 0.5, smoothing: 0.0 }
    }
}

/// One row to learn from.
#[derive(Clone, Debug)]
pub struct Row {
    /// The text's embedding.
    pub dense: Array1<f32>,
    /// Its words.
    pub sparse: Sparse,
    /// What it is an example of.
    pub class: usize,
}

/// Weights of a linear head.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Dimensions by classes.
    pub dense: Array2<f32>,
    /// Known buckets by classes.
    pub sparse: Array2<f32>,
    /// One for each class.
    pub bias: Array1<f32>,
}

impl Weights {
    fn zeros(dim: usize, buckets: usize, classes: usize) -> Self {
        Self {
            dense: Array2::zeros((dim, classes)),
            sparse: Array2::zeros((buckets, classes)),
            bias: Array1::zeros(classes),
        }
    }

    /// What each class gets.
    pub fn logits(&self, dense: ArrayView1<'_, f32>, sparse: &[(u32, f32)]) -> Array1<f32> {
        let mut logits = dense.dot(&self.dense) + &self.bias;
        for (row, value) in sparse {
            logits.scaled_add(*value, &self.sparse.row(*row as usize));
        }
        logits
    }
}

/// How a training went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// Passes made.
    pub epochs: usize,
    /// The best pass.
    pub best: usize,
    /// Mean loss on the training rows in the best pass.
    pub train_loss: f32,
    /// Mean loss on the held-back rows after it; the training loss where none were held back.
    pub held_loss: f32,
}

/// Trains. With held-back rows, the weights of the best pass are given; without, `plan.epochs` passes are made.
pub fn train(rows: &[Row], held: &[Row], vectorizer: &Vectorizer, classes: usize, plan: &Plan) -> (Weights, Course) {
    let dim = rows.first().map_or(0, |row| row.dense.len());
    let mut weights = Weights::zeros(dim, vectorizer.buckets.len(), classes);
    let mut squares = Weights::zeros(dim, vectorizer.buckets.len(), classes);
    let mut best = (f32::INFINITY, weights.clone());
    let mut course = Course::default();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let mut random = Shuffle(plan.seed);
    for epoch in 1..=plan.epochs {
        random.shuffle(&mut order);
        let mut sum = 0.0;
        for batch in order.chunks(plan.batch.max(1)) {
            sum += step(rows, batch, &mut weights, &mut squares, plan);
        }
        let train_loss = sum / rows.len().max(1) as f32;
        course.epochs = epoch;
        let loss = if held.is_empty() { train_loss } else { mean_loss(held, &weights) };
        if held.is_empty() || loss < best.0 {
            (course.best, course.train_loss, course.held_loss) = (epoch, train_loss, loss);
            best.0 = loss;
            if !held.is_empty() {
                best.1.clone_from(&weights);
            }
        } else if epoch - course.best >= plan.patience {
            break;
        }
    }
    (if held.is_empty() { weights } else { best.1 }, course)
}

/// One step down the gradient of a batch; gives the sum of its losses.
fn step(rows: &[Row], batch: &[usize], weights: &mut Weights, squares: &mut Weights, plan: &Plan) -> f32 {
    let classes = weights.bias.len();
    let scale = 1.0 / batch.len() as f32;
    let mut loss = 0.0;
    let mut dense = Array2::<f32>::zeros((batch.len(), weights.dense.nrows()));
    let mut errors = Array2::<f32>::zeros((batch.len(), classes));
    for (at, index) in batch.iter().enumerate() {
        if let Some(row) = rows.get(*index) {
            dense.row_mut(at).assign(&row.dense);
        }
    }
    let logits = dense.dot(&weights.dense);
    for (at, index) in batch.iter().enumerate() {
        let Some(row) = rows.get(*index) else { continue };
        let mut p = &logits.row(at) + &weights.bias;
        for (feature, value) in &row.sparse {
            p.scaled_add(*value, &weights.sparse.row(*feature as usize));
        }
        softmax(&mut p);
        loss -= p.get(row.class).copied().unwrap_or(1.0).max(1e-12).ln();
        p -= plan.smoothing / classes as f32;
        if let Some(right) = p.get_mut(row.class) {
            *right -= 1.0 - plan.smoothing;
        }
        errors.row_mut(at).assign(&(p * scale));
    }
    let rate = plan.rate;
    let gradient = dense.t().dot(&errors);
    ndarray::Zip::from(&mut weights.dense).and(&mut squares.dense).and(&gradient).for_each(|w, s, g| {
        adagrad(w, s, *g + plan.decay * *w, rate);
    });
    let gradient = errors.sum_axis(Axis(0));
    ndarray::Zip::from(&mut weights.bias).and(&mut squares.bias).and(&gradient).for_each(|w, s, g| {
        adagrad(w, s, *g, rate);
    });
    for (at, index) in batch.iter().enumerate() {
        let Some(row) = rows.get(*index) else { continue };
        let error = errors.row(at);
        for (feature, value) in &row.sparse {
            let feature = *feature as usize;
            ndarray::Zip::from(weights.sparse.row_mut(feature))
                .and(squares.sparse.row_mut(feature))
                .and(error)
                .for_each(|w, s, e| adagrad(w, s, e * value + plan.decay * *w, rate));
        }
    }
    loss
}

/// AdaGrad (Duchi and others, 2011).
fn adagrad(weight: &mut f32, squares: &mut f32, gradient: f32, rate: f32) {
    *squares += gradient * gradient;
    *weight -= rate * gradient / (squares.sqrt() + 1e-7);
}

fn mean_loss(rows: &[Row], weights: &Weights) -> f32 {
    let one = |row: &Row| {
        let mut p = weights.logits(row.dense.view(), &row.sparse);
        softmax(&mut p);
        -p.get(row.class).copied().unwrap_or(1.0).max(1e-12).ln()
    };
    rows.iter().map(one).sum::<f32>() / rows.len().max(1) as f32
}

/// Logits to probabilities.
pub fn softmax(logits: &mut Array1<f32>) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    logits.mapv_inplace(|logit| (logit - most).exp());
    let sum = logits.sum();
    if sum > 0.0 {
        *logits /= sum;
    }
}

/// A shuffle that is the same for the same seed (SplitMix64, Fisher and Yates).
#[derive(Clone, Debug)]
pub struct Shuffle(pub u64);

impl Shuffle {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            list.swap(last, (self.draw() % (last as u64 + 1)) as usize);
        }
    }
}
