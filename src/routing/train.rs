//! Training: a head from the library's example prompts (and what else is given), the weight of its word beside the
//! evidence, and for each strategy the curve from signals to confidence. All judged on prompts held back.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ndarray::Array1;
use serde_json::{Value, json};

use super::rerank::{self, Question};
use super::{RoutingError, Tuned, gather, profile};
use crate::adapter::AdapterDigest;
use crate::library::{Filter, Library};
use crate::router::embed::Embedder;
use crate::router::head::{self, CLASSES, Head, Plan, Row, Shuffle, Vectorizer};
use crate::router::index::{self, Gate, Index, Profile};
use crate::router::measure::{self, Outcome};
use crate::router::{Calibration, Evidence, Policy, Signals, Strategy, Tuning, Weights, rank};

/// The label of requests that no adapter is for.
pub const OUT_OF_SCOPE: &str = "oos";

/// A request of which the right adapter is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The request.
    pub text: String,
    /// The adapter's name, or [`OUT_OF_SCOPE`].
    pub label: String,
}

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOptions {
    /// Of every draw.
    pub seed: u64,
    /// The share of each adapter's prompts that is held back to judge by.
    pub held: f64,
    /// The share of requests out of scope that is expected in use.
    pub out_of_scope: f64,
    /// Keep the head even if the hybrid does better.
    pub force: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { seed: 0, held: 0.2, out_of_scope: 0.15, force: false }
    }
}

/// What came of a training.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Adapters the head knows.
    pub classes: usize,
    /// Prompts it was trained on in the end.
    pub prompts: usize,
    /// Prompts held back.
    pub held: usize,
    /// Passes over the data.
    pub epochs: usize,
    /// Accuracy of the hybrid on the held-back prompts.
    pub hybrid: f64,
    /// Accuracy of the head with the evidence on the held-back prompts.
    pub learned: f64,
    /// Whether the head is kept.
    pub kept: bool,
    /// For each strategy the confidence at which 98 % of the answered requests are right, with the expected share of
    /// requests out of scope.
    pub thresholds: BTreeMap<Strategy, f32>,
    /// Labels of the data that no adapter has, and rows with them.
    pub unknown: BTreeMap<String, usize>,
    /// Seconds.
    pub seconds: f64,
}

impl Report {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let thresholds: serde_json::Map<String, Value> =
            self.thresholds.iter().map(|(strategy, value)| (strategy.name().to_owned(), json!(value))).collect();
        json!({
            "classes": self.classes, "prompts": self.prompts, "held": self.held, "epochs": self.epochs,
            "hybrid_accuracy": self.hybrid, "learned_accuracy": self.learned, "kept": self.kept,
            "thresholds_98": thresholds, "unknown_labels": self.unknown, "seconds": self.seconds,
        })
    }
}

/// One adapter with what it is to be learned from.
struct Class {
    digest: AdapterDigest,
    described: String,
    words: String,
    prompts: Vec<Prompt>,
}

#[derive(Clone)]
struct Prompt {
    text: String,
    vector: Vec<f32>,
}

/// A held-back prompt with what is said of it.
struct Held {
    evidence: Vec<Evidence>,
    /// The right adapter; `None` out of scope.
    right: Option<AdapterDigest>,
    text: String,
}

/// Trains. `folder` is where the index over the training part is made for as long as it is needed.
pub fn train(
    library: &Library,
    folder: &Path,
    embedder: &dyn Embedder,
    data: &[Labelled],
    options: &TrainOptions,
    notice: &mut dyn FnMut(String),
) -> Result<(Tuned, Report), RoutingError> {
    let started = Instant::now();
    let (mut classes, strangers, unknown) = collect(library, embedder, data)?;
    let mut report = Report { unknown, classes: classes.len(), ..Report::default() };
    report.prompts = classes.iter().map(|class| class.prompts.len()).sum();
    notice(format!("training: {} prompts of {} adapters", report.prompts, report.classes));

    let held_back = hold_back(&mut classes, options);
    let vectorizer_texts = || classes.iter().flat_map(|c| c.prompts.iter().map(|p| p.text.as_str()));
    let vectorizer = Vectorizer::fit(vectorizer_texts(), least(report.prompts));
    let plan = Plan { seed: options.seed, ..Plan::default() };
    let rows = rows(&classes, &vectorizer, &plan, embedder);
    let held_rows: Vec<Row> = held_back.iter().map(|(class, p)| row(p, *class, &vectorizer, &plan)).collect();
    let (weights, course) = head::train(&rows, &held_rows, &vectorizer, classes.len(), &plan);
    let digests: Vec<AdapterDigest> = classes.iter().map(|class| class.digest).collect();
    let trial = Head::new(embedder.fingerprint(), digests.clone(), vectorizer, &weights, plan.words);

    let scratch = folder.join(format!("trial.{}", std::process::id()));
    let held = judge(&scratch, &classes, &held_back, &strangers, &trial, embedder);
    let _ = fs::remove_dir_all(&scratch);
    let held = held?;
    report.held = held_back.len();
    report.epochs = course.best;

    let mut tuning = Tuning::default();
    report.hybrid = accuracy(&held, Strategy::Hybrid, &tuning);
    report.learned = cross_fitted(&held, &mut tuning);
    report.kept = options.force || report.learned > report.hybrid;
    for strategy in Strategy::ALL {
        let (curve, threshold) = calibrate(&held, strategy, &tuning, options);
        tuning.calibrations.extend(curve.map(|curve| (strategy, curve)));
        report.thresholds.extend(threshold.map(|threshold| (strategy, threshold)));
    }
    let head = report.kept.then(|| {
        for (class, prompt) in held_back {
            if let Some(class) = classes.get_mut(class) {
                class.prompts.push(prompt);
            }
        }
        let texts = classes.iter().flat_map(|c| c.prompts.iter().map(|p| p.text.as_str()));
        let vectorizer = Vectorizer::fit(texts, least(report.prompts));
        let rows = self::rows(&classes, &vectorizer, &plan, embedder);
        let plan = Plan { epochs: course.best.max(1), ..plan };
        let (weights, _) = head::train(&rows, &[], &vectorizer, classes.len(), &plan);
        Arc::new(Head::new(embedder.fingerprint(), digests, vectorizer, &weights, plan.words))
    });
    report.seconds = started.elapsed().as_secs_f64();
    let thresholds = report.thresholds.iter().map(|(strategy, value)| (*strategy, *value)).collect();
    Ok((Tuned { tuning, thresholds, head }, report))
}

/// Occurrences from which on a feature is kept.
fn least(prompts: usize) -> u32 {
    if prompts > 500 { 2 } else { 1 }
}

type Collected = (Vec<Class>, Vec<Prompt>, BTreeMap<String, usize>);

fn collect(library: &Library, embedder: &dyn Embedder, data: &[Labelled]) -> Result<Collected, RoutingError> {
    let mut given: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in data {
        given.entry(row.label.as_str()).or_default().push(&row.text);
    }
    let prompt = |text: &str| Prompt { text: text.to_owned(), vector: embedder.embed(text) };
    let strangers = given.remove(OUT_OF_SCOPE).unwrap_or_default().into_iter().map(prompt).collect();
    let mut classes: Vec<Class> = Vec::new();
    for entry in library.walk(&Filter::default()) {
        let entry = entry?;
        let extra = given.remove(entry.name.as_str()).unwrap_or_default();
        let mut texts: Vec<&str> = entry.metadata.card.examples.iter().map(String::as_str).chain(extra).collect();
        let mut seen = std::collections::HashSet::new();
        texts.retain(|text| seen.insert(*text));
        if texts.len() < 2 || classes.iter().any(|class| class.digest == entry.digest) {
            continue;
        }
        if classes.len() == CLASSES {
            let message = format!("more than {CLASSES} adapters have example prompts; a trained router takes no more");
            return Err(RoutingError::Training(message));
        }
        let described = profile::described(&entry);
        let words = profile::words(&entry);
        let prompts = texts.into_iter().map(prompt).collect();
        classes.push(Class { digest: entry.digest, described, words, prompts });
    }
    if classes.len() < 2 {
        let message = "a trained router needs two adapters with two example prompts each; \
            give `smoa adapter add --example ..` or a file of {\"text\", \"label\"} lines";
        return Err(RoutingError::Training(message.into()));
    }
    let unknown = given.into_iter().map(|(label, rows)| (label.to_owned(), rows.len())).collect();
    Ok((classes, strangers, unknown))
}

/// Takes a share of each class's prompts out; at least one stays.
fn hold_back(classes: &mut [Class], options: &TrainOptions) -> Vec<(usize, Prompt)> {
    let mut held = Vec::new();
    for (number, class) in classes.iter_mut().enumerate() {
        Shuffle(options.seed ^ (number as u64) << 20).shuffle(&mut class.prompts);
        let count = (class.prompts.len() as f64 * options.held.clamp(0.0, 0.9)).round() as usize;
        let count = count.max(usize::from(class.prompts.len() > 2)).min(class.prompts.len() - 1);
        held.extend(class.prompts.split_off(class.prompts.len() - count).into_iter().map(|prompt| (number, prompt)));
    }
    held
}

fn row(prompt: &Prompt, class: usize, vectorizer: &Vectorizer, plan: &Plan) -> Row {
    let dense = Array1::from(prompt.vector.clone());
    Row { dense, sparse: vectorizer.transform(&prompt.text, plan.words), class }
}

/// Every prompt of every class, and its name and description as one more.
fn rows(classes: &[Class], vectorizer: &Vectorizer, plan: &Plan, embedder: &dyn Embedder) -> Vec<Row> {
    let one = |(number, class): (usize, &Class)| {
        let named = Prompt { text: class.described.clone(), vector: embedder.embed(&class.described) };
        let all = class.prompts.iter().chain([&named]);
        all.map(|prompt| row(prompt, number, vectorizer, plan)).collect::<Vec<_>>()
    };
    classes.iter().enumerate().flat_map(one).collect()
}

/// Asks an index over the training part, and the head, about every held-back prompt and every stranger.
fn judge(
    scratch: &Path,
    classes: &[Class],
    held_back: &[(usize, Prompt)],
    strangers: &[Prompt],
    trial: &Head,
    embedder: &dyn Embedder,
) -> Result<Vec<Held>, RoutingError> {
    fs::create_dir_all(scratch).map_err(RoutingError::disk("create", scratch))?;
    let index = Index::open(scratch, embedder.fingerprint(), embedder.dim())?;
    for part in classes.chunks(256) {
        let made: Vec<(Vec<Vec<f32>>, String)> = part
            .iter()
            .map(|class| {
                let texts: Vec<&str> = class.prompts.iter().map(|prompt| prompt.text.as_str()).collect();
                let mut text = class.words.clone();
                texts.iter().for_each(|prompt| {
                    text.push('\n');
                    text.push_str(prompt);
                });
                (profile::vectors(&class.described, &texts, embedder), text)
            })
            .collect();
        let changes: Vec<index::Change<'_>> = part
            .iter()
            .zip(&made)
            .map(|(class, (vectors, text))| {
                index::Change::Put(Profile { digest: class.digest, text, vectors, attributes: &[], path: "" })
            })
            .collect();
        index.apply(&changes)?;
    }
    let ask = |prompt: &Prompt, right: Option<AdapterDigest>| Held {
        evidence: gather(&index, &prompt.vector, &prompt.text, &Gate::open(), Some(trial)),
        right,
        text: prompt.text.clone(),
    };
    let mine = held_back.iter().map(|(class, p)| ask(p, classes.get(*class).map(|class| class.digest)));
    Ok(mine.chain(strangers.iter().map(|prompt| ask(prompt, None))).collect())
}

/// Nothing is known of names where only evidence counts.
struct Nameless;

impl crate::router::Catalogue for Nameless {
    fn facts(&self, _: AdapterDigest) -> Option<crate::router::Facts> {
        Some(crate::router::Facts::default())
    }
}

fn ranked(held: &Held, strategy: Strategy, tuning: &Tuning, without: Option<AdapterDigest>) -> Vec<(f32, Evidence)> {
    let evidence: Vec<Evidence> =
        held.evidence.iter().filter(|e| without.is_none_or(|digest| e.digest != digest)).copied().collect();
    rank(&Policy::of(strategy), tuning, &held.text, &evidence, &Nameless).0
}

fn accuracy(held: &[Held], strategy: Strategy, tuning: &Tuning) -> f64 {
    let inside = held.iter().filter(|h| h.right.is_some());
    let right = inside.clone().filter(|h| ranked(h, strategy, tuning, None).first().map(|(_, e)| e.digest) == h.right);
    right.count() as f64 / inside.count().max(1) as f64
}

/// Fits the weight of the head's word on one half and judges it on the other, both ways; then on all.
fn cross_fitted(held: &[Held], tuning: &mut Tuning) -> f64 {
    let plain = Weights::default().rerank;
    let questions = |part: usize| -> Vec<Question<'_>> {
        let chosen = held.iter().enumerate().filter(|(at, _)| part > 1 || at % 2 == part).map(|(_, held)| held);
        let of = |held: &'_ Held| held.right;
        chosen
            .filter_map(|held| of(held).map(|right| (held, right)))
            .flat_map(|(held, right)| [false, true].map(|as_new| Question { evidence: &held.evidence, right, as_new }))
            .collect()
    };
    let mut sum = 0.0;
    for part in 0..2 {
        tuning.weights.rerank = rerank::fit(&questions(part)).unwrap_or(plain);
        let others: Vec<&Held> = held.iter().enumerate().filter(|(at, _)| at % 2 != part).map(|(_, h)| h).collect();
        let right = others.iter().filter(|h| {
            h.right.is_some() && ranked(h, Strategy::Learned, tuning, None).first().map(|(_, e)| e.digest) == h.right
        });
        sum += right.count() as f64;
    }
    tuning.weights.rerank = rerank::fit(&questions(2)).unwrap_or(plain);
    sum / held.iter().filter(|h| h.right.is_some()).count().max(1) as f64
}

/// The curve of a strategy, and the confidence at which 98 % are right. Out of scope are the strangers, or, without
/// any, every held-back prompt with its own adapter taken away.
fn calibrate(
    held: &[Held],
    strategy: Strategy,
    tuning: &Tuning,
    options: &TrainOptions,
) -> (Option<Calibration>, Option<f32>) {
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for one in held {
        let ranking = ranked(one, strategy, tuning, None);
        let right = one.right.is_some() && ranking.first().map(|(_, e)| e.digest) == one.right;
        match one.right {
            Some(_) => inside.push((Signals::of(&ranking), right)),
            None => outside.push(Signals::of(&ranking)),
        }
    }
    let real = !outside.is_empty();
    if !real {
        outside = held.iter().map(|one| Signals::of(&ranked(one, strategy, tuning, one.right))).collect();
    }
    let share = options.out_of_scope.clamp(0.0, 0.9);
    let weight = (share * inside.len() as f64 / ((1.0 - share) * outside.len().max(1) as f64)) as f32;
    let mut samples: Vec<(Signals, bool, f32)> = inside.iter().map(|(s, right)| (*s, *right, 1.0)).collect();
    samples.extend(outside.iter().map(|signals| (*signals, false, weight)));
    let Some(curve) = Calibration::fit(&samples) else { return (None, None) };
    let outcome = |signals: &Signals, right: bool, in_scope: bool| Outcome {
        rank: right.then_some(0),
        in_scope,
        confidence: curve.confidence(signals),
    };
    let mut outcomes: Vec<(Outcome, f64)> =
        inside.iter().map(|(signals, right)| (outcome(signals, *right, true), 1.0)).collect();
    // Without real requests out of scope none are expected in the threshold either.
    if real {
        outcomes.extend(outside.iter().map(|signals| (outcome(signals, false, false), f64::from(weight))));
    }
    (Some(curve), measure::threshold_for(&outcomes, 0.98))
}
