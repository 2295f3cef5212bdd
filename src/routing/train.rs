//! Training: a head from the library's example prompts (and what else is given), the weight of its word beside the
//! evidence, and for each strategy the curve from signals to confidence. All judged on prompts held back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ndarray::Array1;
use serde_json::{Value, json};

use super::rerank::{self, Question};
use super::{FAVOURITE, RoutingError, Tuned, gather, profile};
use crate::adapter::AdapterDigest;
use crate::library::{Filter, Judged, Library};
use crate::router::embed::Embedder;
use crate::router::head::{self, CLASSES, Head, Plan, Row, Shuffle, Vectorizer};
use crate::router::index::{self, Gate, Index, Profile};
use crate::router::measure::{self, Outcome};
use crate::router::{Calibration, Evidence, Judgement, Policy, Signals, Strategy, Tuning, Weights, rank};

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
    /// Each adapter's prompts are parted into so many, each part in turn held back to judge by; of many prompts only
    /// the first part is.
    pub parts: usize,
    /// The share of requests out of scope that is expected in use.
    pub out_of_scope: f64,
    /// Keep the head even if the hybrid does better.
    pub force: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { seed: 0, parts: 5, out_of_scope: 0.15, force: false }
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
    /// Judged requests that were learned from.
    pub judged: usize,
    /// Judged requests that no training sees: what the new router and the old one are compared on.
    pub judged_held: usize,
    /// The share of those that were decided as people judged them: by the router that was in use, and by the new one.
    pub judged_right: [f64; 2],
    /// Whether the new router takes the place of the old one.
    pub replaced: bool,
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
            "judged": self.judged, "judged_held": self.judged_held, "judged_before": self.judged_right[0],
            "judged_after": self.judged_right[1], "replaced": self.replaced,
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

impl Class {
    /// A part of the prompts, and the rest. Of few prompts, one stays in the rest.
    fn split(&self, part: usize, parts: usize) -> (Vec<&Prompt>, Vec<&Prompt>) {
        let parts = parts.min(self.prompts.len());
        let (mine, rest): (Vec<_>, Vec<_>) = self.prompts.iter().enumerate().partition(|(n, _)| n % parts == part);
        let prompts = |list: Vec<(usize, _)>| list.into_iter().map(|(_, prompt)| prompt).collect();
        (prompts(mine), prompts(rest))
    }
}

#[derive(Clone)]
struct Prompt {
    text: String,
    /// The embedder's.
    vector: Vec<f32>,
    /// What a head looks at.
    dense: Vec<f32>,
    /// Whether the index in use has it, too; judged requests are for the head alone.
    indexed: bool,
}

impl Prompt {
    fn new(text: &str, embedder: &dyn Embedder) -> Self {
        let vector = embedder.embed(text);
        Self { dense: head::dense(&vector, text, embedder), vector, text: text.to_owned(), indexed: true }
    }
}

/// A prompt with what is said of it by those who never saw it.
struct Held {
    evidence: Vec<Evidence>,
    /// The right adapter; `None` out of scope.
    right: Option<AdapterDigest>,
    /// Out of scope because its own adapter was left out.
    orphan: bool,
    text: String,
}

/// Prompts above which one part is judged, not all.
const MANY: usize = 4000;
/// Classes are parted into so many to see what requests look like whose adapter is not there.
const ABSENT: usize = 3;
/// Prompts of absent classes that are asked about.
const ORPHANS: usize = 1500;

/// Trains. `live` is the library's own index, for adapters without example prompts that compete with the others;
/// `folder` is where indexes over training parts are made for as long as they are needed.
pub fn train(
    library: &Library,
    live: &Index,
    folder: &Path,
    embedder: &dyn Embedder,
    data: &[Labelled],
    options: &TrainOptions,
    notice: &mut dyn FnMut(String),
) -> Result<(Tuned, Report), RoutingError> {
    let started = Instant::now();
    let said = Judgements::of(library)?;
    let (mut classes, strangers, unknown) = collect(library, embedder, data, &said.learned)?;
    let prompts: usize = classes.iter().map(|class| class.prompts.len()).sum();
    let mut report = Report { unknown, classes: classes.len(), prompts, ..Report::default() };
    report.judged = said.learned.len();
    notice(format!("training: {} prompts of {} adapters", report.prompts, report.classes));
    for (number, class) in classes.iter_mut().enumerate() {
        Shuffle(options.seed ^ (number as u64) << 20).shuffle(&mut class.prompts);
    }
    let plan = Plan { seed: options.seed, ..Plan::default() };
    let ground = Ground { classes: &classes, strangers: &strangers, live, folder, embedder, plan };

    let parts = options.parts.clamp(2, 20);
    let rounds = if prompts > MANY { 1 } else { parts };
    let judged = in_parallel(rounds, |part| ground.judge_part(part, parts))?;
    let mut epochs: Vec<usize> =
        judged.iter().filter(|(held, _)| !held.is_empty()).map(|(_, epochs)| *epochs).collect();
    epochs.sort_unstable();
    report.epochs = epochs.get(epochs.len() / 2).copied().unwrap_or(1).max(1);
    let mut held: Vec<Held> = judged.into_iter().flat_map(|(held, _)| held).collect();
    report.held = held.iter().filter(|h| h.right.is_some()).count();
    let rounds = if prompts > MANY { 1 } else { ABSENT };
    if classes.len() >= 2 * ABSENT {
        held.extend(
            in_parallel(rounds, |group| ground.judge_absent(group, rounds, report.epochs, parts))?
                .into_iter()
                .flatten(),
        );
    }

    let mut tuning = Tuning { standing: said.standing(library, &classes)?, ..Tuning::default() };
    report.hybrid = accuracy(&held, Strategy::Hybrid, &tuning);
    report.learned = cross_fitted(&held, &mut tuning);
    report.kept = options.force || report.learned > report.hybrid;
    for strategy in Strategy::ALL {
        let (scope, curve, threshold) = calibrate(&held, strategy, &tuning, options);
        tuning.scopes.extend(scope.map(|curve| (strategy, curve)));
        tuning.calibrations.extend(curve.map(|curve| (strategy, curve)));
        report.thresholds.extend(threshold.map(|threshold| (strategy, threshold)));
    }
    let all: Vec<(usize, &Class, Vec<&Prompt>)> =
        classes.iter().enumerate().map(|(number, class)| (number, class, class.prompts.iter().collect())).collect();
    let head = report.kept.then(|| Arc::new(ground.head(&all, &[], report.epochs).0));
    report.seconds = started.elapsed().as_secs_f64();
    let thresholds = report.thresholds.iter().map(|(strategy, value)| (*strategy, *value)).collect();
    Ok((Tuned { tuning, thresholds, head }, report))
}

/// Does `work` for 0, 1, 2, .. on as many threads as there are processors; results in order.
fn in_parallel<R: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<R, RoutingError> + Sync,
) -> Result<Vec<R>, RoutingError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count.max(1));
    let work = &work;
    let mut done: Vec<(usize, Result<R, RoutingError>)> = std::thread::scope(|scope| {
        let share = |thread: usize| (thread..count).step_by(threads).map(|n| (n, work(n))).collect::<Vec<_>>();
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        running.into_iter().flat_map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Classes with the prompts of each that may be seen.
type Seen<'a> = [(usize, &'a Class, Vec<&'a Prompt>)];

/// What is trained on and asked about.
struct Ground<'a> {
    classes: &'a [Class],
    strangers: &'a [Prompt],
    live: &'a Index,
    folder: &'a Path,
    embedder: &'a dyn Embedder,
    plan: Plan,
}

impl Ground<'_> {
    /// Holds a part of every class's prompts back and asks about them; about strangers too, the first time. Also the
    /// best number of passes.
    fn judge_part(&self, part: usize, parts: usize) -> Result<(Vec<Held>, usize), RoutingError> {
        let mut asked = Vec::new();
        let mut seen = Vec::new();
        for (number, class) in self.classes.iter().enumerate() {
            let (mine, rest) = class.split(part, parts);
            seen.push((number, class, rest));
            asked.extend(mine.into_iter().map(|prompt| (number, prompt)));
        }
        if asked.is_empty() {
            return Ok((Vec::new(), 0));
        }
        let (head, epochs) = self.head(&seen, &asked, self.plan.epochs);
        let ask = |judge: &Judge<'_>| -> Vec<Held> {
            let digest = |number: usize| self.classes.get(number).map(|class| class.digest);
            let mine = asked.iter().map(|(class, prompt)| judge.ask(prompt, digest(*class), false));
            let strangers = self.strangers.iter().filter(|_| part == 0).map(|prompt| judge.ask(prompt, None, false));
            mine.chain(strangers).collect()
        };
        Ok((self.with_index(&format!("part{part}"), &seen, &head, ask)?, epochs))
    }

    /// Leaves a group of classes out and asks about their prompts. Of the others a part is held back, so that they have
    /// as many prompts as in [`Ground::judge_part`]: how near the nearest are depends on how many there are.
    fn judge_absent(
        &self,
        group: usize,
        rounds: usize,
        epochs: usize,
        parts: usize,
    ) -> Result<Vec<Held>, RoutingError> {
        let (absent, there): (Vec<_>, Vec<_>) =
            self.classes.iter().enumerate().partition(|(number, _)| number % ABSENT == group);
        let seen: Vec<(usize, &Class, Vec<&Prompt>)> =
            there.into_iter().map(|(number, class)| (number, class, class.split(group, parts).1)).collect();
        let (head, _) = self.head(&seen, &[], epochs);
        let each = (ORPHANS / rounds).div_ceil(absent.len().max(1));
        let orphans = absent.into_iter().flat_map(|(_, class)| class.prompts.iter().take(each));
        let orphans: Vec<&Prompt> = orphans.collect();
        let ask = |judge: &Judge<'_>| orphans.iter().map(|prompt| judge.ask(prompt, None, true)).collect();
        self.with_index(&format!("absent{group}"), &seen, &head, ask)
    }

    /// A head trained on what may be seen; the pass that was best for `held`, or all passes without any.
    fn head(&self, seen: &Seen<'_>, held: &[(usize, &Prompt)], epochs: usize) -> (Head, usize) {
        let count = seen.iter().map(|(_, _, prompts)| prompts.len()).sum();
        let texts = seen.iter().flat_map(|(_, _, prompts)| prompts.iter().map(|p| p.text.as_str()));
        let vectorizer = Vectorizer::fit(texts, least(count));
        let plan = Plan { epochs, ..self.plan };
        let place: HashMap<usize, usize> = seen.iter().enumerate().map(|(at, (number, ..))| (*number, at)).collect();
        let mut rows = Vec::with_capacity(count + seen.len());
        for (at, (_, class, prompts)) in seen.iter().enumerate() {
            // Name and description are one more prompt.
            let named = Prompt::new(&class.described, self.embedder);
            rows.extend(prompts.iter().copied().chain([&named]).map(|prompt| row(prompt, at, &vectorizer, &plan)));
        }
        let held =
            held.iter().filter_map(|(number, prompt)| Some(row(prompt, *place.get(number)?, &vectorizer, &plan)));
        let held: Vec<Row> = held.collect();
        let (weights, course) = head::train(&rows, &held, &vectorizer, seen.len(), &plan);
        let digests = seen.iter().map(|(_, class, _)| class.digest).collect();
        (Head::new(head::identity(self.embedder), digests, vectorizer, &weights, plan.words), course.best)
    }

    /// Makes an index over what may be seen, for as long as `ask` takes.
    fn with_index<R>(
        &self,
        name: &str,
        seen: &Seen<'_>,
        head: &Head,
        ask: impl FnOnce(&Judge<'_>) -> R,
    ) -> Result<R, RoutingError> {
        let scratch = self.folder.join(format!("trial.{}.{name}", std::process::id()));
        let asked = self.index(&scratch, seen).map(|index| {
            let known = self.classes.iter().map(|class| class.digest).collect();
            ask(&Judge { index: &index, live: self.live, known, head })
        });
        let _ = fs::remove_dir_all(&scratch);
        asked
    }

    fn index(&self, scratch: &Path, seen: &Seen<'_>) -> Result<Index, RoutingError> {
        fs::create_dir_all(scratch).map_err(RoutingError::disk("create", scratch))?;
        let index = Index::open(scratch, self.embedder.fingerprint(), self.embedder.dim())?;
        for part in seen.chunks(256) {
            let made: Vec<(Vec<Vec<f32>>, String)> = part
                .iter()
                .map(|(_, class, prompts)| {
                    let indexed = || prompts.iter().filter(|prompt| prompt.indexed);
                    let vectors = indexed().map(|prompt| prompt.vector.clone()).collect();
                    let texts = indexed().map(|prompt| prompt.text.as_str());
                    let text = std::iter::once(class.words.as_str()).chain(texts).collect::<Vec<_>>().join("\n");
                    (profile::parts(self.embedder.embed(&class.described), vectors), text)
                })
                .collect();
            let changes: Vec<index::Change<'_>> = part
                .iter()
                .zip(&made)
                .map(|((_, class, _), (vectors, text))| {
                    index::Change::Put(Profile { digest: class.digest, text, vectors, attributes: &[], path: "" })
                })
                .collect();
            index.apply(&changes)?;
        }
        Ok(index)
    }
}

/// Who is asked: a head and an index that saw a part of the prompts, and of the library's own index the adapters that
/// no prompts are known of.
struct Judge<'a> {
    index: &'a Index,
    live: &'a Index,
    known: HashSet<AdapterDigest>,
    head: &'a Head,
}

impl Judge<'_> {
    fn ask(&self, prompt: &Prompt, right: Option<AdapterDigest>, orphan: bool) -> Held {
        let gate = Gate::open();
        let mut evidence = gather(self.index, &prompt.vector, &prompt.text, &gate, Some(self.head));
        if self.live.len() > self.known.len() {
            let others = gather(self.live, &prompt.vector, &prompt.text, &gate, None);
            evidence.extend(others.into_iter().filter(|e| !self.known.contains(&e.digest)));
        }
        Held { evidence, right, orphan, text: prompt.text.clone() }
    }
}

/// What people said of answers whose requests are kept.
pub(super) struct Judgements {
    /// To be learned from.
    pub learned: Vec<Judged>,
    /// Never learned from: one in five, by its text, so that routers of any time can be compared on them.
    pub held: Vec<Judged>,
}

impl Judgements {
    /// Of contents that are still there, or were merged into what their names stand for now. The last word on a text and an
    /// adapter counts.
    pub fn of(library: &Library) -> Result<Self, RoutingError> {
        let now = |digest| -> Option<AdapterDigest> {
            let entry = library.find_digest(digest).ok()?;
            if entry.removed.is_none() {
                return Some(digest);
            }
            let parent = format!("{} {digest}", entry.name);
            let now = library.find(&entry.name).ok()?;
            now.metadata.card.parents.contains(&parent).then_some(now.digest)
        };
        let mut known: HashMap<AdapterDigest, Option<AdapterDigest>> = HashMap::new();
        let mut last: BTreeMap<(String, AdapterDigest), bool> = BTreeMap::new();
        for judged in library.judged()?.into_iter().filter(|judged| !judged.text.trim().is_empty()) {
            if let Some(digest) = *known.entry(judged.digest).or_insert_with(|| now(judged.digest)) {
                last.insert((judged.text, digest), judged.good);
            }
        }
        let all = last.into_iter().map(|((text, digest), good)| Judged { digest, good, text });
        let (held, learned) =
            all.partition(|judged| blake3::hash(judged.text.as_bytes()).as_bytes()[0].is_multiple_of(HELD));
        Ok(Self { learned, held })
    }

    /// What people said of each adapter, without what is held back.
    fn standing(&self, library: &Library, classes: &[Class]) -> Result<BTreeMap<AdapterDigest, f32>, RoutingError> {
        let mut standing = BTreeMap::new();
        for class in classes {
            let said = library.feedback(class.digest)?;
            let held = |good| self.held.iter().filter(|j| j.digest == class.digest && j.good == good).count() as u64;
            let (good, bad) = (said.good.saturating_sub(held(true)), said.bad.saturating_sub(held(false)));
            if good + bad > 0 {
                let said = ((good as f64 + 1.0) / (bad as f64 + 1.0)).ln();
                standing.insert(class.digest, said.clamp(-3.0, 3.0) as f32);
            }
        }
        Ok(standing)
    }
}

/// One judged request in so many is held back.
const HELD: u8 = 5;

/// Occurrences from which on a feature is kept.
fn least(prompts: usize) -> u32 {
    if prompts > 500 { 2 } else { 1 }
}

type Collected = (Vec<Class>, Vec<Prompt>, BTreeMap<String, usize>);

fn collect(
    library: &Library,
    embedder: &dyn Embedder,
    data: &[Labelled],
    judged: &[Judged],
) -> Result<Collected, RoutingError> {
    let mut given: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in data {
        given.entry(row.label.as_str()).or_default().push(&row.text);
    }
    let mut liked: HashMap<AdapterDigest, Vec<&str>> = HashMap::new();
    for judged in judged.iter().filter(|judged| judged.good) {
        liked.entry(judged.digest).or_default().push(&judged.text);
    }
    let prompt = |text: &str| Prompt::new(text, embedder);
    let strangers = given.remove(OUT_OF_SCOPE).unwrap_or_default().into_iter().map(prompt).collect();
    let mut classes: Vec<Class> = Vec::new();
    for entry in library.walk(&Filter::default()) {
        let entry = entry?;
        let extra = given.remove(entry.name.as_str()).unwrap_or_default();
        let texts = entry.metadata.card.examples.iter().map(String::as_str).chain(extra).map(|text| (text, true));
        let liked = liked.remove(&entry.digest).unwrap_or_default();
        let mut texts: Vec<(&str, bool)> = texts.chain(liked.into_iter().map(|text| (text, false))).collect();
        let mut seen = HashSet::new();
        texts.retain(|(text, _)| seen.insert(*text));
        if texts.len() < 2 || classes.iter().any(|class| class.digest == entry.digest) {
            continue;
        }
        if classes.len() == CLASSES {
            let message = format!("more than {CLASSES} adapters have example prompts; a trained router takes no more");
            return Err(RoutingError::Training(message));
        }
        let described = profile::described(&entry);
        let words = profile::words(&entry);
        let prompts = texts.into_iter().map(|(text, indexed)| Prompt { indexed, ..prompt(text) }).collect();
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

fn row(prompt: &Prompt, class: usize, vectorizer: &Vectorizer, plan: &Plan) -> Row {
    let dense = Array1::from(prompt.dense.clone());
    Row { dense, sparse: vectorizer.transform(&prompt.text, plan.words), class }
}

/// Nothing is known of names where only evidence counts.
struct Nameless;

impl crate::router::Catalogue for Nameless {
    fn facts(&self, _: AdapterDigest) -> Option<crate::router::Facts> {
        Some(crate::router::Facts::default())
    }
}

fn ranked(held: &Held, strategy: Strategy, tuning: &Tuning, without: Option<AdapterDigest>) -> Vec<(f32, Evidence)> {
    let there = held.evidence.iter().filter(|e| without.is_none_or(|digest| e.digest != digest));
    // Other strategies ask no head, and see none of its favourites.
    let evidence: Vec<Evidence> = match strategy {
        Strategy::Learned => there.copied().collect(),
        _ => there.filter(|e| e.vectors != FAVOURITE).map(|e| Evidence { learned: None, ..*e }).collect(),
    };
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
    let standing = tuning.standing.clone();
    let questions = |part: usize| -> Vec<Question<'_>> {
        let chosen = held.iter().enumerate().filter(|(at, _)| part > 1 || at % 2 == part).map(|(_, held)| held);
        let of = |held: &'_ Held| held.right;
        chosen
            .filter_map(|held| of(held).map(|right| (held, right)))
            .flat_map(|(held, right)| rerank::variants(&held.evidence, right, &standing))
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

/// Of the weight of requests out of scope, the share of those whose adapter was left out where real ones are given.
const ORPHAN_SHARE: f32 = 0.3;

/// A ranking of a held-back prompt in numbers.
struct Sample {
    scope: Signals,
    right: Signals,
}

impl Sample {
    fn of(ranking: &[(f32, Evidence)]) -> Self {
        Self { scope: Signals::of_scope(ranking), right: Signals::of(ranking) }
    }
}

/// The curves of a strategy (any adapter fits; the best one is right), and the confidence at which 98 % are right. Out
/// of scope are the strangers and the prompts of adapters that were left out; without enough adapters for that, every
/// held-back prompt with its own taken away.
fn calibrate(
    held: &[Held],
    strategy: Strategy,
    tuning: &Tuning,
    options: &TrainOptions,
) -> (Option<Calibration>, Option<Calibration>, Option<f32>) {
    let (mut inside, mut strange, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
    for one in held {
        let ranking = ranked(one, strategy, tuning, None);
        let right = one.right.is_some() && ranking.first().map(|(_, e)| e.digest) == one.right;
        match one.right {
            Some(_) => inside.push((Sample::of(&ranking), right)),
            None if one.orphan => orphans.push(Sample::of(&ranking)),
            None => strange.push(Sample::of(&ranking)),
        }
    }
    if strange.is_empty() && orphans.is_empty() {
        orphans = held.iter().map(|one| Sample::of(&ranked(one, strategy, tuning, one.right))).collect();
    }
    let share = options.out_of_scope.clamp(0.0, 0.9);
    let outside = (share * inside.len() as f64 / (1.0 - share)) as f32;
    let of_orphans = match (strange.is_empty(), orphans.is_empty()) {
        (true, _) => 1.0,
        (_, true) => 0.0,
        _ => ORPHAN_SHARE,
    };
    let each = |samples: &[Sample], share: f32| outside * share / samples.len().max(1) as f32;
    let (of_orphan, of_stranger) = (each(&orphans, of_orphans), each(&strange, 1.0 - of_orphans));
    // Everything with whether it is in scope, whether it is right, and its weight.
    let mut all: Vec<(&Sample, bool, bool, f32)> = inside.iter().map(|(s, right)| (s, true, *right, 1.0)).collect();
    all.extend(orphans.iter().map(|sample| (sample, false, false, of_orphan)));
    all.extend(strange.iter().map(|sample| (sample, false, false, of_stranger)));
    let scope =
        Calibration::fit_rising(&all.iter().map(|(s, inside, _, w)| (s.scope, *inside, *w)).collect::<Vec<_>>());
    let signals = |sample: &Sample| match &scope {
        Some(curve) => sample.right.beside(curve.confidence(&sample.scope)),
        None => sample.right,
    };
    let curve = Calibration::fit(&all.iter().map(|(s, _, right, w)| (signals(s), *right, *w)).collect::<Vec<_>>());
    let Some(curve) = curve else { return (scope, None, None) };
    let outcome = |sample: &Sample, right: bool, in_scope: bool| Outcome {
        rank: right.then_some(0),
        in_scope,
        judged: Judgement { confidence: curve.confidence(&signals(sample)), scope: 0.0 },
    };
    let mut outcomes: Vec<(Outcome, f64)> =
        inside.iter().map(|(sample, right)| (outcome(sample, *right, true), 1.0)).collect();
    // Without real requests out of scope none are expected in the threshold either.
    let weight = f64::from(each(&strange, 1.0));
    outcomes.extend(strange.iter().map(|sample| (outcome(sample, false, false), weight)));
    (scope, Some(curve), measure::threshold_for(&outcomes, 0.98))
}
