//! What is known of an adapter: its card, which people write, and its measures, which come from the tensors.
//!
//! A card comes from three places, the first that says something wins: what was given explicitly, a sidecar file in
//! TOML, the GGUF's own keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::terms::{Granularity, Kind, Specialization, Tier};
use super::{LibraryError, limits};
use crate::gguf::{AdapterFacts, Gguf, Value};

/// The version of cards, in sidecar files and in the catalog.
pub const CARD_FORMAT: u32 = 1;

/// What people say of an adapter. Everything is optional; an empty card is a card.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// A name for people, free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub specialization: Option<Specialization>,
    /// What it may cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Its place in a tree: `domain/specialty/task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Free tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Domain tags: `law`, `medicine`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Skill tags: `arithmetic`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// Task tags: `summarise`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// Words that call for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// Prompts that it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// Free facts to filter by: `region = "eu"`, `season = "winter"`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The ready format its answers have unless a request says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_format: Option<String>,
    /// Its licence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Figures of evaluations by name: `accuracy = 0.91`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub evaluation: BTreeMap<String, f64>,
    /// The adapters it was made of: names or digests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Where it comes from: a file, an address, a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// What the tensors say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// What the bytes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The architecture of the base model: `llama`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The base model's [`base_fingerprint`](super::base_fingerprint).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Elements in all tensors.
    pub parameters: u64,
    /// Smallest rank; 0 where there is none.
    pub rank_min: u32,
    /// Largest rank; 0 where there is none.
    pub rank_max: u32,
    /// LoRA alpha.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f32>,
    /// The kinds of linears adapted: `attn_q`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// The relative error of a conversion that was not exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relative_error: Option<f64>,
}

/// All that is known of an adapter apart from its name and bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// What people say.
    pub card: Card,
    /// What the tensors say.
    pub measured: Measured,
}

impl Card {
    /// The keys a sidecar file may have.
    pub const FIELDS: [&'static str; 17] = [
        "title",
        "description",
        "specialization",
        "tier",
        "path",
        "tags",
        "domains",
        "skills",
        "tasks",
        "keywords",
        "examples",
        "attributes",
        "default_format",
        "licence",
        "evaluation",
        "parents",
        "origin",
    ];

    /// Reads a sidecar file, which says `format = 1` and any of [`Card::FIELDS`].
    ///
    /// # Errors
    /// [`LibraryError::Field`]: not TOML, another format, an unknown key (named), a value out of bounds.
    pub fn from_toml(text: &str) -> Result<Self, LibraryError> {
        let broken = |error: toml::de::Error| limits::refuse("sidecar", error.to_string());
        if text.len() > limits::SIDECAR_BYTES {
            let reason = format!("{} bytes, at most {} are read", text.len(), limits::SIDECAR_BYTES);
            return Err(limits::refuse("sidecar", reason));
        }
        let table: toml::Table = toml::from_str(text).map_err(broken)?;
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(1) => {}
            Some(other) => {
                let reason = format!("{other} is not known, this program reads {CARD_FORMAT}");
                return Err(limits::refuse("format", reason));
            }
            None => return Err(limits::refuse("format", "is missing; write 'format = 1'")),
        }
        for key in table.keys().filter(|key| *key != "format") {
            if !Self::FIELDS.contains(&key.as_str()) {
                let near = Self::FIELDS
                    .iter()
                    .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
                let hint = near.filter(|near| strsim::jaro_winkler(near, key) > 0.8);
                let hint = hint.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
                return Err(limits::refuse(key, format!("is not a key of a sidecar file{hint}")));
            }
        }
        let card: Self = toml::from_str(text).map_err(broken)?;
        limits::check_card(&card)?;
        Ok(card)
    }

    /// What the file says of itself: `general.name`, `.description`, `.license`, `.tags`, `.url`,
    /// `adapter.lora.task_name`, and `smoa.` followed by any of [`Card::FIELDS`] (maps as texts `key=value`).
    ///
    /// # Errors
    /// [`LibraryError::Field`] if a `smoa.` key has another type or a value out of bounds. Other keys that do not fit
    /// are left out: they were not written for us.
    pub fn from_gguf(gguf: &Gguf<'_>) -> Result<Self, LibraryError> {
        let own = Self::from_own_keys(gguf)?;
        let general = |key: &str| gguf.str(key).ok().flatten().map(str::to_owned).filter(|text| !text.is_empty());
        let others = Self {
            title: general("general.name"),
            description: general("general.description"),
            licence: general("general.license"),
            tags: texts(gguf.get("general.tags")).unwrap_or_default(),
            tasks: general("adapter.lora.task_name").into_iter().collect(),
            origin: general("general.url").or_else(|| general("general.source.url")),
            ..Self::default()
        };
        Ok(own.over(others.without_what_does_not_fit()))
    }

    fn from_own_keys(gguf: &Gguf<'_>) -> Result<Self, LibraryError> {
        let mut table = toml::Table::new();
        for (key, value) in gguf.keys() {
            let Some(field) = key.strip_prefix("smoa.").filter(|field| Self::FIELDS.contains(field)) else {
                continue;
            };
            let wrong = || limits::refuse(key, "has another type than a card needs");
            let value = match (field, value) {
                ("attributes" | "evaluation", value) => {
                    let mut pairs = toml::Table::new();
                    for pair in texts(Some(value)).ok_or_else(wrong)? {
                        let (name, text) = pair.split_once('=').ok_or_else(wrong)?;
                        let value = match field {
                            "evaluation" => toml::Value::Float(text.parse().map_err(|_| wrong())?),
                            _ => toml::Value::String(text.to_owned()),
                        };
                        pairs.insert(name.to_owned(), value);
                    }
                    toml::Value::Table(pairs)
                }
                (_, Value::Str(text)) => {
                    toml::Value::String(std::str::from_utf8(text).map_err(|_| wrong())?.to_owned())
                }
                (_, value) => {
                    let list = texts(Some(value)).ok_or_else(wrong)?;
                    toml::Value::Array(list.into_iter().map(toml::Value::String).collect())
                }
            };
            table.insert(field.to_owned(), value);
        }
        let card: Self =
            table.try_into().map_err(|error: toml::de::Error| limits::refuse("smoa.*", error.message()))?;
        limits::check_card(&card)?;
        Ok(card)
    }

    /// This card, with the gaps filled from `other`.
    pub fn over(self, other: Self) -> Self {
        fn list<T>(mine: Vec<T>, other: Vec<T>) -> Vec<T> {
            if mine.is_empty() { other } else { mine }
        }
        fn map<K, V>(mine: BTreeMap<K, V>, other: BTreeMap<K, V>) -> BTreeMap<K, V> {
            if mine.is_empty() { other } else { mine }
        }
        Self {
            title: self.title.or(other.title),
            description: self.description.or(other.description),
            specialization: self.specialization.or(other.specialization),
            tier: self.tier.or(other.tier),
            path: self.path.or(other.path),
            tags: list(self.tags, other.tags),
            domains: list(self.domains, other.domains),
            skills: list(self.skills, other.skills),
            tasks: list(self.tasks, other.tasks),
            keywords: list(self.keywords, other.keywords),
            examples: list(self.examples, other.examples),
            attributes: map(self.attributes, other.attributes),
            default_format: self.default_format.or(other.default_format),
            licence: self.licence.or(other.licence),
            evaluation: map(self.evaluation, other.evaluation),
            parents: list(self.parents, other.parents),
            origin: self.origin.or(other.origin),
        }
    }

    /// The card without fields that [`limits::check_card`] would refuse.
    fn without_what_does_not_fit(mut self) -> Self {
        let fits = |probe: Self| limits::check_card(&probe).is_ok();
        if !fits(Self { title: self.title.clone(), ..Self::default() }) {
            self.title = None;
        }
        if !fits(Self { description: self.description.clone(), ..Self::default() }) {
            self.description = None;
        }
        if !fits(Self { licence: self.licence.clone(), ..Self::default() }) {
            self.licence = None;
        }
        if !fits(Self { origin: self.origin.clone(), ..Self::default() }) {
            self.origin = None;
        }
        self.tags.retain(|tag| limits::is_word(tag));
        self.tags.truncate(limits::TAGS);
        self.tasks.retain(|task| limits::is_word(task));
        self
    }

    /// All tags: free ones, domains, skills and tasks, each once, sorted.
    pub fn all_tags(&self) -> Vec<&str> {
        let lists = [&self.tags, &self.domains, &self.skills, &self.tasks];
        let mut all: Vec<&str> = lists.into_iter().flatten().map(String::as_str).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// The texts of an array, if it is one of UTF-8 texts.
fn texts(value: Option<&Value<'_>>) -> Option<Vec<String>> {
    let Some(Value::Array(array)) = value else { return None };
    if array.kind() != crate::gguf::ValueType::Str || array.len() > limits::KEYWORDS {
        return None;
    }
    array.strings().map(|text| std::str::from_utf8(text).ok().map(str::to_owned)).collect()
}

impl Measured {
    /// The measures of a checked adapter for the base model with `base` as fingerprint.
    pub fn of(facts: &AdapterFacts, base: Option<String>) -> Self {
        Self {
            kind: Some(Kind::from(&facts.kind)),
            architecture: Some(facts.architecture.clone()),
            base,
            parameters: facts.parameter_count,
            rank_min: facts.rank_min,
            rank_max: facts.rank_max,
            alpha: (!facts.pairs.is_empty()).then_some(facts.alpha),
            targets: facts.targets.clone(),
            relative_error: None,
        }
    }

    /// The size class.
    pub fn granularity(&self) -> Granularity {
        Granularity::of(self.parameters)
    }
}

/// The catalog's form, written: one JSON text with its version.
#[derive(Serialize)]
struct Written<'m> {
    format: u32,
    card: &'m Card,
    measured: &'m Measured,
}

/// The catalog's form, read.
#[derive(Deserialize)]
struct Read {
    format: u32,
    card: Card,
    measured: Measured,
}

impl Metadata {
    /// One line of JSON, `format` first.
    pub(super) fn to_json(&self) -> Result<String, LibraryError> {
        serde_json::to_string(&Written { format: CARD_FORMAT, card: &self.card, measured: &self.measured })
            .map_err(|error| limits::refuse("metadata", error.to_string()))
    }

    /// Reads [`Metadata::to_json`] back.
    pub(super) fn from_json(text: &str) -> Result<Self, String> {
        let read: Read = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match read.format {
            CARD_FORMAT => Ok(Self { card: read.card, measured: read.measured }),
            other => Err(format!("metadata format {other} is not known")),
        }
    }
}
