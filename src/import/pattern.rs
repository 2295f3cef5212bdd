//! `rank_pattern` and `alpha_pattern`: a number for the modules that a pattern matches, the first match counts.
//!
//! PEFT matches each key with `re.match(rf"(.*\.)?({key})$", module)`: a plain name matches the end of the module's
//! path at a dot, and keys may be regular expressions.

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::error::ImportError;
use super::limits::{MAX_PATTERN_BYTES, MAX_PATTERNS};

/// Patterns with their numbers, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    /// Reads a field of the configuration. Numbers must be finite and above 0.
    pub(super) fn parse(field: &str, map: &Map<String, Value>) -> Result<Self, ImportError> {
        if map.len() > MAX_PATTERNS {
            let reason = format!("has {} entries, the limit is {MAX_PATTERNS}", map.len());
            return Err(ImportError::config(field, reason));
        }
        let mut patterns = Vec::with_capacity(map.len());
        for (key, value) in map {
            let Some(number) = value.as_f64().filter(|number| number.is_finite() && *number > 0.0) else {
                let reason = format!("has '{key}': {value}, expected a number above 0");
                return Err(ImportError::config(field, reason));
            };
            let pattern = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{key})$")).size_limit(MAX_PATTERN_BYTES).build();
            let Ok(pattern) = pattern else {
                let reason = format!("has the pattern '{key}', which this program's regular expressions cannot match");
                return Err(ImportError::config(field, reason));
            };
            patterns.push((pattern, number));
        }
        Ok(Self(patterns))
    }

    /// The number for a module, if a pattern matches.
    pub(super) fn get(&self, module: &str) -> Option<f64> {
        let (_, number) = self.0.iter().find(|(pattern, _)| pattern.is_match(module))?;
        Some(*number)
    }
}
