//! Names like a name, for "did you mean".

use rusqlite::Connection;

use super::catalog::{query, words};
use super::{AdapterName, LibraryError};

/// Names told.
const TOLD: usize = 3;
/// Names looked at for each way of finding some, so that a million adapters cost what a thousand do.
const LOOKED_AT: usize = 500;
/// Below this likeness (0 to 1) a name is not worth telling.
const LIKE: f64 = 0.6;

/// Up to three names that may have been meant, nearest first. Looks at names that start alike and at adapters in
/// whose texts similar words occur, not at all names.
pub(super) fn near(db: &Connection, name: &str) -> Result<Vec<AdapterName>, LibraryError> {
    let name: String = name.chars().take(AdapterName::MAX).collect();
    let mut found = Vec::new();
    // From long common starts to short ones: the first are the likeliest.
    let starts = [name.len().saturating_sub(1), name.len() / 2, 3, 1, 0];
    let mut last = usize::MAX;
    for length in starts.into_iter().filter(|length| *length < name.len()) {
        if let Some(start) = name.get(..length).filter(|start| start.is_ascii())
            && length < last
        {
            last = length;
            found.extend(query::names(db, start, LOOKED_AT)?);
        }
    }
    if let Some(question) = words::question_like(&name) {
        found.extend(query::names_about(db, &question, LOOKED_AT)?);
    }
    found.sort_unstable();
    found.dedup();
    let wanted = name.to_lowercase();
    let mut rated: Vec<(f64, String)> = found
        .into_iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, name)| *likeness >= LIKE || name.to_lowercase().starts_with(&wanted))
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(rated.into_iter().filter_map(|(_, name)| AdapterName::new(name).ok()).take(TOLD).collect())
}
