//! Names of adapters: what people type, and what must never reach a path or a shell unseen.

use std::fmt;

/// The name of an adapter in a library: a mutable alias of a digest.
///
/// 1 to [`AdapterName::MAX`] bytes of `A-Z a-z 0-9 . _ -`, starting with a letter or a digit, and none of the words
/// that mean something else in a request ([`AdapterName::RESERVED`], in any case). So a name is never a path, a flag,
/// a weight (`NAME=0.5`) or a list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterName(String);

/// Why a text cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("an adapter name must not be empty")]
    Empty,
    /// Too many bytes.
    #[error("an adapter name has at most {max} bytes, not {0}", max = AdapterName::MAX)]
    TooLong(usize),
    /// A letter outside the alphabet, at a byte position.
    #[error("adapter name '{}': {:?} at byte {at} is not allowed (letters, digits, '.', '_' and '-' are)", shown(.name), .letter)]
    Letter {
        /// The refused text.
        name: String,
        /// The letter.
        letter: char,
        /// Its position in bytes.
        at: usize,
    },
    /// It starts with a dot, a dash or an underscore.
    #[error("adapter name '{0}' must start with a letter or a digit")]
    Start(String),
    /// A word with a meaning of its own.
    #[error("'{0}' cannot name an adapter: it has a meaning of its own in requests")]
    Reserved(String),
}

impl AdapterName {
    /// The most bytes.
    pub const MAX: usize = 128;
    /// Words that a request reads as something else.
    pub const RESERVED: [&str; 5] = ["auto", "none", "base", "all", "default"];

    /// Checks a name.
    ///
    /// # Errors
    /// See [`NameError`].
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let name: String = text.into();
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > Self::MAX {
            return Err(NameError::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if let Some((at, letter)) = name.char_indices().find(|(_, c)| !allowed(*c)) {
            return Err(NameError::Letter { name, letter, at });
        }
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(NameError::Start(name));
        }
        if Self::RESERVED.iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return Err(NameError::Reserved(name));
        }
        Ok(Self(name))
    }

    /// A name made of a file's or a folder's name: letters outside the alphabet become `-`. Not for what a person
    /// typed as a name, which must be refused instead.
    ///
    /// # Errors
    /// Nothing usable is left, or too much.
    pub fn from_label(label: &str) -> Result<Self, NameError> {
        let replaced: String = label
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect();
        Self::new(replaced.trim_start_matches(['.', '_', '-']).trim_end_matches('-'))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A refused text for a message: short and without control letters.
fn shown(name: &str) -> String {
    name.chars().take(40).flat_map(char::escape_debug).collect()
}

impl fmt::Display for AdapterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AdapterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdapterName({})", self.0)
    }
}

impl std::str::FromStr for AdapterName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for AdapterName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path_a_flag_or_a_word_of_requests() {
        let long = "x".repeat(300);
        for bad in [
            "",
            "../x",
            "a/b",
            "a\\b",
            ".",
            "..",
            ".hidden",
            "-rf",
            "_x",
            "a b",
            "a=1",
            "a,b",
            "a\0b",
            "a\nb",
            "ä",
            "auto",
            "None",
            "BASE",
            "all",
            "a\u{202e}b",
            &long,
        ] {
            let error = AdapterName::new(bad).expect_err(bad).to_string();
            assert!(!error.contains(['\n', '\0', '\u{202e}']), "{error}");
        }
        for good in ["a", "1", "legal.v2", "sql-EU_3", "autopilot", &"x".repeat(128)] {
            assert_eq!(AdapterName::new(good).expect("accepted").as_str(), good);
        }
    }

    #[test]
    fn a_label_becomes_a_name_where_it_can() {
        assert_eq!(AdapterName::from_label("My LoRA (v2)").expect("made").as_str(), "My-LoRA--v2");
        assert_eq!(AdapterName::from_label("../x").expect("made").as_str(), "x");
        assert!(AdapterName::from_label("///").is_err());
    }
}
