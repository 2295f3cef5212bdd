//! Making a bundle.

use std::collections::HashSet;
use std::io::{Seek, Write};

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

use super::key::SigningKey;
use super::{BundleError, FOLDER, FORMAT, Listed, MANIFEST, MAX_ADAPTERS, Manifest, SIGNATURE, Signature, member};
use crate::adapter::AdapterDigest;
use crate::library::Metadata;

/// An adapter to be packed.
pub struct Item<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its whole file.
    pub bytes: &'a [u8],
    /// What is known of it.
    pub metadata: &'a Metadata,
}

/// Writes a bundle, signed where there is a key.
///
/// # Errors
/// Too many adapters; the disk refuses.
pub fn write(to: impl Write + Seek, items: &[Item<'_>], key: Option<&SigningKey>) -> Result<(), BundleError> {
    if items.len() > MAX_ADAPTERS {
        return Err(member(MANIFEST, format!("{} adapters, at most {MAX_ADAPTERS} are possible", items.len())));
    }
    let listed = |item: &Item<'_>| Listed {
        name: item.name.to_owned(),
        digest: AdapterDigest::of(item.bytes).to_hex(),
        bytes: item.bytes.len() as u64,
        card: item.metadata.card.clone(),
        measured: item.metadata.measured.clone(),
    };
    let manifest = Manifest { format: FORMAT, adapters: items.iter().map(listed).collect() };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| member(MANIFEST, e))?;
    // No time of day: equal content gives equal bytes.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(true);
    let mut zip = ZipWriter::new(to);
    let mut put = |name: &str, bytes: &[u8]| -> Result<(), BundleError> {
        zip.start_file(name, options).map_err(|e| member(name, e))?;
        zip.write_all(bytes).map_err(|e| member(name, e))
    };
    put(MANIFEST, &text)?;
    if let Some(key) = key {
        let signature =
            Signature { algorithm: "ed25519".into(), key: key.public().to_string(), signature: key.sign(&text) };
        put(SIGNATURE, &serde_json::to_vec_pretty(&signature).map_err(|e| member(SIGNATURE, e))?)?;
    }
    let mut written = HashSet::new();
    for (item, listed) in items.iter().zip(&manifest.adapters) {
        if written.insert(listed.digest.as_str()) {
            put(&format!("{FOLDER}{}", listed.digest), item.bytes)?;
        }
    }
    zip.finish().map(drop).map_err(|e| BundleError::Archive(e.to_string()))
}
