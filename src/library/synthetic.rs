//! Libraries made up for measuring: adapters of 1,000 to 10,000 parameters with real GGUF content, each another.

use super::{AdapterName, Card, Kind, Library, LibraryError, Measured, Metadata, OnConflict, Specialization, Tier};
use crate::gguf::{AdapterFacts, AdapterKind, GgufError, GgufWriter, TensorType};

/// Width of the network the adapters pretend to be for (that of SmolLM2-135M).
const WIDTH: u64 = 576;
/// Its layers.
const LAYERS: u64 = 30;
/// Adapters to a commit.
const COMMIT: u64 = 50_000;
const DOMAINS: [&str; 12] = [
    "law",
    "medicine",
    "finance",
    "cooking",
    "travel",
    "sports",
    "history",
    "physics",
    "gardening",
    "music",
    "retail",
    "games",
];
const TASKS: [&str; 10] =
    ["summarise", "translate", "classify", "extract", "answer", "rewrite", "plan", "review", "code", "chat"];
const REGIONS: [&str; 5] = ["eu", "us", "apac", "latam", "mea"];
const SEASONS: [&str; 4] = ["spring", "summer", "autumn", "winter"];

/// A sequence of numbers that look random and are the same for the same seed.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    /// The next number (SplitMix64).
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.get(self.below(from.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// The name of adapter `index` of a made-up library.
///
/// # Errors
/// Never, for any index; the type of names leaves no way to say so.
pub fn name(index: u64, seed: u64) -> Result<AdapterName, LibraryError> {
    let mut numbers = Numbers::new(seed ^ index.rotate_left(32));
    let (domain, task) = (numbers.pick(&DOMAINS), numbers.pick(&TASKS));
    Ok(AdapterName::new(format!("{domain}-{task}-{index:07}"))?)
}

/// What the check of an adapter file against its base would give, for adapters whose base is made up.
pub fn facts(rank: u32) -> AdapterFacts {
    AdapterFacts {
        kind: AdapterKind::Lora,
        architecture: "llama".into(),
        name: None,
        task_name: None,
        prompt_prefix: None,
        alpha: rank as f32,
        rank_min: rank,
        rank_max: rank,
        targets: Vec::new(),
        pairs: Vec::new(),
        gains: Vec::new(),
        parameter_count: 1,
        weight_bytes: 1,
        all_zero: false,
        invocation_tokens: Vec::new(),
    }
}

/// Adapter `index`: a whole GGUF file, of 1,152 to 9,216 parameters in half precision, and its metadata.
///
/// # Errors
/// Never, for any index.
pub fn adapter(index: u64, seed: u64) -> Result<(Vec<u8>, Metadata), LibraryError> {
    let mut numbers = Numbers::new(seed ^ index.rotate_left(32));
    let (domain, task) = (numbers.pick(&DOMAINS), numbers.pick(&TASKS));
    let (layer, rank) = (numbers.below(LAYERS), 1 + numbers.below(8));
    let card = Card {
        title: Some(format!("{domain} {task} {index}")),
        description: Some(format!("Answers questions about {domain}; made to {task}. Synthetic, number {index}.")),
        specialization: Specialization::ALL.get(numbers.below(10) as usize).copied(),
        tier: Some(Tier::Ultralight),
        path: Some(format!("{domain}/{task}")),
        domains: vec![domain.into()],
        tasks: vec![task.into()],
        keywords: vec![domain.into(), task.into(), format!("topic{}", numbers.below(10_000))],
        attributes: [("region", numbers.pick(&REGIONS)), ("season", numbers.pick(&SEASONS))]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        ..Card::default()
    };
    let measured = Measured {
        kind: Some(Kind::Lora),
        architecture: Some("llama".into()),
        base: Some("5a1e71c000000000".into()),
        parameters: 2 * WIDTH * rank,
        rank_min: rank as u32,
        rank_max: rank as u32,
        alpha: Some(2.0 * rank as f32),
        targets: vec!["attn_q".into()],
        relative_error: None,
    };
    let bytes = file(layer, rank, &mut numbers)
        .map_err(|source| LibraryError::Field { field: "synthetic".into(), reason: source.to_string() })?;
    Ok((bytes, Metadata { card, measured }))
}

fn file(layer: u64, rank: u64, numbers: &mut Numbers) -> Result<Vec<u8>, GgufError> {
    let mut file = GgufWriter::new();
    file.set("general.type", "adapter")?.set("general.architecture", "llama")?;
    file.set("adapter.type", "lora")?.set("adapter.lora.alpha", 2.0 * rank as f32)?;
    let tensor = format!("blk.{layer}.attn_q.weight");
    file.tensor(&format!("{tensor}.lora_a"), TensorType::F16, &[WIDTH, rank], halves(WIDTH * rank, numbers))?;
    file.tensor(&format!("{tensor}.lora_b"), TensorType::F16, &[rank, WIDTH], halves(WIDTH * rank, numbers))?;
    Ok(file.to_bytes())
}

/// So many numbers in half precision, between 2^-7 and 2^-3 with either sign.
fn halves(count: u64, numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count as usize * 2);
    for _ in 0..count.div_ceil(4) {
        let random = numbers.draw() & 0x8fff_8fff_8fff_8fff;
        bytes.extend_from_slice(&(random | 0x2000_2000_2000_2000).to_le_bytes());
    }
    bytes.truncate(count as usize * 2);
    bytes
}

/// Adds adapters `0..count` that are not there yet, 50,000 to a commit; `progress` hears how many are done.
///
/// # Errors
/// As [`Writer::add`](super::Writer::add) and [`Writer::commit`](super::Writer::commit).
pub fn fill(library: &Library, count: u64, seed: u64, mut progress: impl FnMut(u64)) -> Result<(), LibraryError> {
    let mut done = 0;
    while done < count {
        let mut writer = library.writer()?;
        let end = done.saturating_add(COMMIT).min(count);
        for index in done..end {
            let (bytes, metadata) = adapter(index, seed)?;
            writer.add(&name(index, seed)?, &bytes, &metadata, OnConflict::KeepExisting)?;
        }
        writer.commit()?;
        done = end;
        progress(done);
    }
    Ok(())
}
