//! `index.json`: what the bundles of a folder hold, so that the folder behind any web server or object store is a catalogue.
//!
//! ```text
//! {"format": 1, "bundles": [{"file": "sql.smoa", "bytes": 123, "digest": BLAKE3, "signer": KEY or nothing,
//!   "adapters": [{"name", "digest", "bytes", "kind", "base", "licence", "description", "tags"}, ..]}, ..]}
//! ```
//!
//! The index says what to fetch and is believed no further: the file's bytes must have its digest, and the bundle is checked
//! as any other.

use serde::{Deserialize, Serialize};

use super::{Bundle, BundleError, member};
use crate::adapter::AdapterDigest;
use crate::library::Kind;

/// The name of the file.
pub const INDEX: &str = "index.json";
/// Most bytes of it.
pub const MAX_INDEX: u64 = 64 << 20;
/// Most bytes of a bundle that is fetched.
pub const MAX_BUNDLE: u64 = 16 << 30;
const FORMAT: u32 = 1;

/// What a catalogue has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Index {
    format: u32,
    /// Its bundles.
    pub bundles: Vec<ListedBundle>,
}

/// A bundle of a catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedBundle {
    /// Its file, beside the index.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// The BLAKE3 of the file.
    pub digest: String,
    /// The key that signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// What is in it.
    pub adapters: Vec<ListedAdapter>,
}

/// An adapter of a catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListedAdapter {
    /// Its name.
    pub name: String,
    /// Of its content.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// The fingerprint of its base model.
    #[serde(default)]
    pub base: Option<String>,
    /// Its licence.
    #[serde(default)]
    pub licence: Option<String>,
    /// What it does.
    #[serde(default)]
    pub description: Option<String>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

impl Default for Index {
    fn default() -> Self {
        Self { format: FORMAT, bundles: Vec::new() }
    }
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// It is malformed, of another format, or names a file that is not a plain name.
    pub fn read(text: &[u8]) -> Result<Self, BundleError> {
        let index: Self = serde_json::from_slice(text).map_err(|e| member(INDEX, e))?;
        if index.format != FORMAT {
            return Err(member(INDEX, format!("format {} is not known, this program reads {FORMAT}", index.format)));
        }
        for bundle in &index.bundles {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.+".contains(&b);
            if bundle.file.is_empty() || bundle.file.starts_with('.') || !bundle.file.bytes().all(plain) {
                return Err(member(INDEX, format!("file {:?} is not a plain name", bundle.file)));
            }
            if bundle.bytes > MAX_BUNDLE {
                let message = format!("{}: {} bytes, at most {MAX_BUNDLE} are read", bundle.file, bundle.bytes);
                return Err(member(INDEX, message));
            }
        }
        Ok(index)
    }

    /// Lists a bundle that was read from this file.
    pub fn list<R>(&mut self, file: &str, (bytes, digest): (u64, AdapterDigest), bundle: &Bundle<R>) {
        let adapters = bundle.adapters.iter().map(|packed| {
            let (card, measured) = (&packed.metadata.card, &packed.metadata.measured);
            ListedAdapter {
                name: packed.name.to_string(),
                digest: packed.digest.clone(),
                bytes: packed.bytes,
                kind: measured.kind,
                base: measured.base.clone(),
                licence: card.licence.clone(),
                description: card.description.clone(),
                tags: card.tags.clone(),
            }
        });
        self.bundles.push(ListedBundle {
            file: file.to_owned(),
            bytes,
            digest: digest.to_hex(),
            signer: bundle.signer.map(|key| key.to_string()),
            adapters: adapters.collect(),
        });
    }

    /// The bundles with these adapters for a base model, each with those of the names that it is fetched for. Of several
    /// adapters with a name, the first that fits.
    ///
    /// # Errors
    /// A name that is not there, or only for other base models.
    pub fn wanted(&self, names: &[String], base: &str) -> Result<Vec<(&ListedBundle, Vec<String>)>, String> {
        let mut wanted: Vec<(&ListedBundle, Vec<String>)> = Vec::new();
        for name in names {
            let all = || self.bundles.iter().flat_map(|b| b.adapters.iter().map(move |a| (b, a)));
            let mut named = all().filter(|(_, adapter)| adapter.name == *name);
            let fits = |adapter: &ListedAdapter| adapter.base.as_ref().is_none_or(|of| of == base);
            let found = named.clone().find(|(_, adapter)| fits(adapter));
            let (bundle, _) =
                found.ok_or_else(|| match named.next().and_then(|(_, adapter)| adapter.base.as_deref()) {
                    Some(of) => format!("'{name}' is for base model {of}, this one is {base}"),
                    None => format!("there is no adapter '{name}'"),
                })?;
            match wanted.iter_mut().find(|(known, _)| std::ptr::eq(*known, bundle)) {
                Some((_, names)) if names.contains(name) => (),
                Some((_, names)) => names.push(name.clone()),
                None => wanted.push((bundle, vec![name.clone()])),
            }
        }
        Ok(wanted)
    }
}
