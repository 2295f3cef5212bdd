//! Adapters made up for measuring: descriptions out of topics, things, deeds and manners. The same for the same seed.

use crate::adapter::AdapterDigest;

/// Topics and the things in them, a line each.
const TOPICS: &str = include_str!("topics.txt");
const DEEDS: [&str; 48] = [
    "summarises",
    "translates",
    "classifies",
    "extracts",
    "rewrites",
    "drafts",
    "reviews",
    "explains",
    "answers questions about",
    "compares",
    "plans",
    "checks",
    "ranks",
    "estimates",
    "labels",
    "simplifies",
    "proofreads",
    "schedules",
    "recommends",
    "detects",
    "tracks",
    "troubleshoots",
    "prices",
    "compiles",
    "annotates",
    "predicts",
    "diagnoses",
    "describes",
    "converts",
    "corrects",
    "generates",
    "negotiates",
    "cancels",
    "books",
    "prioritises",
    "validates",
    "indexes",
    "quotes",
    "interprets",
    "teaches",
    "critiques",
    "localises",
    "redacts",
    "merges",
    "monitors",
    "visualises",
    "transcribes",
    "scores",
];
const MANNERS: [&str; 36] = [
    "formal",
    "friendly",
    "terse",
    "detailed",
    "step by step",
    "playful",
    "plain-language",
    "technical",
    "empathetic",
    "bilingual",
    "careful",
    "fast",
    "conservative",
    "bullet-point",
    "child-safe",
    "legalistic",
    "witty",
    "neutral",
    "persuasive",
    "academic",
    "conversational",
    "structured",
    "up-to-date",
    "offline",
    "low-latency",
    "evidence-based",
    "rhyming",
    "diplomatic",
    "strict",
    "encouraging",
    "old-fashioned",
    "minimal",
    "table-based",
    "JSON-only",
    "multi-turn",
    "sceptical",
];
const AUDIENCES: [&str; 40] = [
    "beginners",
    "experts",
    "students",
    "parents",
    "small firms",
    "call centres",
    "engineers",
    "nurses",
    "lawyers",
    "travellers",
    "retirees",
    "teachers",
    "journalists",
    "start-ups",
    "auditors",
    "farmers",
    "developers",
    "analysts",
    "volunteers",
    "tenants",
    "managers",
    "researchers",
    "children",
    "clinicians",
    "gamers",
    "drivers",
    "shoppers",
    "investors",
    "musicians",
    "editors",
    "field crews",
    "public servants",
    "coaches",
    "night shifts",
    "newcomers",
    "collectors",
    "hobbyists",
    "buyers",
    "sellers",
    "families",
];
const TONGUES: [&str; 24] = [
    "English",
    "German",
    "French",
    "Spanish",
    "Italian",
    "Polish",
    "Dutch",
    "Swedish",
    "Turkish",
    "Arabic",
    "Hindi",
    "Japanese",
    "Korean",
    "Mandarin",
    "Portuguese",
    "Greek",
    "Czech",
    "Finnish",
    "Hebrew",
    "Thai",
    "Vietnamese",
    "Ukrainian",
    "Swahili",
    "Danish",
];
const SOURCES: [&str; 20] = [
    "emails",
    "phone calls",
    "scanned forms",
    "chat messages",
    "spreadsheets",
    "web pages",
    "reports",
    "meeting notes",
    "manuals",
    "receipts",
    "tweets",
    "log files",
    "survey answers",
    "photographs",
    "handwritten notes",
    "contracts",
    "transcripts",
    "tickets",
    "product sheets",
    "textbooks",
];
const REGIONS: [&str; 5] = ["eu", "us", "apac", "latam", "mea"];
const SEASONS: [&str; 4] = ["spring", "summer", "autumn", "winter"];
const SEGMENTS: [&str; 3] = ["consumer", "business", "public"];
/// Tenants among whom made-up adapters are shared out: each has one in a hundred.
const TENANTS: u64 = 100;

/// A unit vector for a text without any embedder: each word has one of its own, and so have its first four letters, so
/// that texts with words in common, or like words, are near. For measuring where no embedder is at hand.
pub fn vector(text: &str, dim: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dim];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let word = word.to_lowercase();
        let stem = word.get(..4).unwrap_or(&word);
        for (part, weight) in [(&*word, 1.0), (stem, 0.5)] {
            let hash = AdapterDigest::of(part.as_bytes());
            let seed =
                hash.as_bytes().iter().take(8).fold(part.len() as u64, |seed, byte| seed << 8 ^ u64::from(*byte));
            let mut numbers = Numbers(seed);
            vector.iter_mut().for_each(|x| *x += weight * ((numbers.draw() >> 40) as f32 / (1 << 23) as f32 - 1.0));
        }
    }
    let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm.max(f32::MIN_POSITIVE));
    vector
}

/// A made-up adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distractor {
    /// Digest of its number and seed.
    pub digest: AdapterDigest,
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Tenant, region, season, segment and language; some have no season or segment.
    pub attributes: Vec<(String, String)>,
    /// `topic/thing/deed`.
    pub path: String,
}

/// A sequence of numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Clone, Debug)]
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from.get(self.below(from.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// Makes adapters.
#[derive(Clone, Debug)]
pub struct Generator {
    topics: Vec<(&'static str, Vec<&'static str>)>,
    seed: u64,
}

impl Generator {
    /// A generator whose adapters are the same for the same seed.
    pub fn new(seed: u64) -> Self {
        let topic = |line: &'static str| {
            let (topic, things) = line.split_once(": ")?;
            Some((topic, things.split_whitespace().collect()))
        };
        Self { topics: TOPICS.lines().filter_map(topic).collect(), seed }
    }

    /// Adapter number `index`.
    pub fn distractor(&self, index: u64) -> Distractor {
        let mut numbers = self.numbers(index, 0);
        let (topic, things) = self.topic(&mut numbers);
        let (thing, other) = (numbers.pick(things), numbers.pick(things));
        let (deed, manner, audience) = (numbers.pick(&DEEDS), numbers.pick(&MANNERS), numbers.pick(&AUDIENCES));
        let (tongue, source) = (numbers.pick(&TONGUES), numbers.pick(&SOURCES));
        let (_, far_things) = self.topic(&mut numbers);
        let far = numbers.pick(far_things);
        let short = deed.split(' ').next().unwrap_or(deed).trim_end_matches('s');
        let name = match numbers.below(4) {
            0 => format!("{topic} {short} {thing}"),
            1 => format!("{thing} {short}"),
            2 => format!("{manner} {topic} {thing}"),
            _ => format!("{short} {thing} {tongue}"),
        };
        let description = match numbers.below(12) {
            0 => format!("{deed} {thing} and {other} in {source}, for {audience}"),
            1 => format!("{manner} {topic} assistant that {deed} {thing}"),
            2 => format!("{deed} {topic} {source} about {thing} in {tongue}"),
            3 => format!("for {audience}: {deed} the {thing} of a {other}, {manner}"),
            4 => format!("a {manner} helper for {topic}; {deed} {thing}, {other} and {far}"),
            5 => thing.to_string(),
            6 => format!("{deed} {other} when the {thing} is wrong, {topic} only"),
            7 => format!("turns {source} into {manner} {thing} notes for {audience} ({tongue})"),
            8 => format!("{deed} {thing} against {far}"),
            9 => format!("{topic}, {thing}, {other}"),
            10 => format!("{manner} style for {topic} {source}, {tongue} to {}", numbers.pick(&TONGUES)),
            _ => format!("{deed} {thing} with {far} in mind, made for {audience} who work with {source}"),
        };
        let mut attributes = vec![
            ("tenant".to_owned(), format!("t{:02}", numbers.below(TENANTS))),
            ("region".to_owned(), numbers.pick(&REGIONS).to_owned()),
            ("language".to_owned(), tongue.to_lowercase()),
        ];
        if numbers.below(2) == 0 {
            attributes.push(("season".to_owned(), numbers.pick(&SEASONS).to_owned()));
        }
        if numbers.below(3) > 0 {
            attributes.push(("segment".to_owned(), numbers.pick(&SEGMENTS).to_owned()));
        }
        let tag = format!("{}/{index}", self.seed);
        Distractor {
            digest: AdapterDigest::of(tag.as_bytes()),
            name: name.replace('-', " "),
            description: description.replace('-', " "),
            attributes,
            path: format!("{topic}/{thing}/{short}"),
        }
    }

    /// A description in other words than [`distractor`](Self::distractor) uses, as somebody looking for one would put it.
    pub fn wish(&self, index: u64) -> String {
        let mut numbers = self.numbers(index, 1);
        let (topic, things) = self.topic(&mut numbers);
        let (thing, other, deed) = (numbers.pick(things), numbers.pick(things), numbers.pick(&DEEDS));
        let (audience, source, manner) = (numbers.pick(&AUDIENCES), numbers.pick(&SOURCES), numbers.pick(&MANNERS));
        let wish = match numbers.below(5) {
            0 => format!("an adapter that {deed} {thing} for {audience}"),
            1 => format!("{manner} {thing} expert, {topic}"),
            2 => format!("{deed} {source} on {thing} and {other}"),
            3 => format!("help with {thing} in {topic}"),
            _ => format!("{audience} need {manner} texts on {other}"),
        };
        wish.replace('-', " ")
    }

    fn numbers(&self, index: u64, stream: u64) -> Numbers {
        let mut numbers = Numbers(self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ index ^ stream << 62);
        numbers.0 = numbers.draw();
        numbers
    }

    /// Topics are not equally frequent: the square of an even draw, as in real libraries few hold much.
    fn topic(&self, numbers: &mut Numbers) -> (&'static str, &[&'static str]) {
        let even = (numbers.draw() >> 40) as f64 / (1_u64 << 24) as f64;
        let at = (even * even * self.topics.len() as f64) as usize;
        self.topics.get(at).map_or(("", &[]), |(topic, things)| (topic, things))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn adapters_are_the_same_for_a_seed_and_mostly_differ_from_each_other() {
        let generator = Generator::new(7);
        assert_eq!(generator.distractor(5), Generator::new(7).distractor(5));
        assert_ne!(generator.distractor(5).digest, Generator::new(8).distractor(5).digest);
        let texts: HashSet<String> =
            (0..10_000).map(|i| generator.distractor(i)).map(|d| d.name + &d.description).collect();
        assert!(texts.len() > 9_900, "{}", texts.len());
        assert!((0..100).all(|i| !generator.wish(i).is_empty()));
    }
}
