//! The field's words for adapters, as enums: size classes, specializations, tiers, kinds.

use std::fmt;
use std::str::FromStr;

use crate::gguf::AdapterKind;

/// A text that is none of the words of an enum here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not a {what}; expected one of: {expected}")]
pub struct UnknownWord {
    /// What was asked for: `specialization`, `tier`, ...
    pub what: &'static str,
    /// What was given, escaped.
    pub given: String,
    /// All the words, separated by commas.
    pub expected: String,
}

/// Declares an enum of words: `Display`, `FromStr`, serde by the same words, and `ALL`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $what:literal { $($(#[$word_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$word_doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|word| word.name() == text).ok_or_else(|| UnknownWord {
                    what: $what,
                    given: text.chars().take(40).flat_map(char::escape_debug).collect(),
                    expected: [$($word,)*].join(", "),
                })
            }
        }
    };
}

words! {
    /// The size class of an adapter, by its number of parameters.
    Granularity, "granularity" {
        /// Below 1,000.
        Pico = "pico",
        /// 1,000 to 10,000.
        Nano = "nano",
        /// 10,000 to 100,000.
        Micro = "micro",
        /// 100,000 to 1 million.
        Mini = "mini",
        /// 1 to 10 million.
        Small = "small",
        /// 10 to 100 million.
        Medium = "medium",
        /// 100 million and more.
        Large = "large",
    }
}

impl Granularity {
    /// The class of an adapter with so many parameters. A border belongs to the class above it.
    pub const fn of(parameters: u64) -> Self {
        match parameters {
            0..1_000 => Self::Pico,
            1_000..10_000 => Self::Nano,
            10_000..100_000 => Self::Micro,
            100_000..1_000_000 => Self::Mini,
            1_000_000..10_000_000 => Self::Small,
            10_000_000..100_000_000 => Self::Medium,
            _ => Self::Large,
        }
    }
}

words! {
    /// What an adapter is for.
    Specialization, "specialization" {
        /// A field of knowledge: law, medicine.
        Domain = "domain",
        /// A task: summarise, translate, write SQL.
        Task = "task",
        /// A language.
        Language = "language",
        /// A way of writing.
        Style = "style",
        /// A character that speaks.
        Persona = "persona",
        /// An ability: arithmetic, planning.
        Skill = "skill",
        /// A time: a season, a year.
        Temporal = "temporal",
        /// Refusals, privacy, tone.
        Safety = "safety",
        /// Shorter or cheaper answers.
        Efficiency = "efficiency",
        /// None of these.
        Custom = "custom",
    }
}

words! {
    /// How much an adapter may cost to apply, as its owner sees it.
    Tier, "tier" {
        /// Cheap enough for every request.
        Ultralight = "ultralight",
        /// Ordinary.
        Medium = "medium",
        /// Worth it for few requests.
        Heavy = "heavy",
    }
}

words! {
    /// What the stored bytes are.
    Kind, "kind of adapter" {
        /// Low-rank pairs.
        Lora = "lora",
        /// Low-rank pairs that begin at invocation tokens.
        ActivatedLora = "alora",
        /// Gains of outputs, with low-rank pairs or without: DoRA, IA3.
        Gain = "gain",
        /// Directions added to the residual stream.
        ControlVector = "control-vector",
        /// Embeddings in front of the prompt.
        SoftPrompt = "soft-prompt",
        /// Messages in front of the request's, perhaps with the state they leave.
        PrefixState = "prefix",
        /// A mix or a chain of other adapters.
        Composition = "composition",
    }
}

impl From<&AdapterKind> for Kind {
    fn from(kind: &AdapterKind) -> Self {
        match kind {
            AdapterKind::Lora => Self::Lora,
            AdapterKind::Alora => Self::ActivatedLora,
            AdapterKind::Gain => Self::Gain,
            AdapterKind::SoftPrompt { .. } => Self::SoftPrompt,
            AdapterKind::ControlVector { .. } => Self::ControlVector,
            AdapterKind::PrefixState { .. } => Self::PrefixState,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_classed_by_powers_of_ten() {
        let table = [
            (0, "pico"),
            (999, "pico"),
            (1_000, "nano"),
            (9_999, "nano"),
            (10_000, "micro"),
            (100_000, "mini"),
            (1_000_000, "small"),
            (10_000_000, "medium"),
            (99_999_999, "medium"),
            (100_000_000, "large"),
            (u64::MAX, "large"),
        ];
        for (parameters, name) in table {
            assert_eq!(Granularity::of(parameters).name(), name, "{parameters}");
        }
    }

    #[test]
    fn every_word_reads_back() {
        assert_eq!(Specialization::ALL.len(), 10);
        for word in Specialization::ALL {
            assert_eq!(word.name().parse(), Ok(*word));
            let json = serde_json::to_string(word).expect("written");
            assert_eq!(json, format!("\"{word}\""));
        }
        let error = "Lawyer\n".parse::<Specialization>().expect_err("unknown").to_string();
        assert!(error.starts_with("'Lawyer\\n' is not a specialization; expected one of: domain, task"), "{error}");
    }
}
