//! Reading a bundle: nothing is believed that was not checked.

use std::io::{Read, Seek};

use zip::ZipArchive;

use super::key::{PublicKey, unhex};
use super::{
    BundleError, FOLDER, FORMAT, MANIFEST, MAX_ADAPTER, MAX_ADAPTERS, MAX_MANIFEST, Manifest, SIGNATURE, Signature,
    member,
};
use crate::adapter::AdapterDigest;
use crate::library::{AdapterName, Card, Measured, Metadata};

/// An opened bundle whose manifest and signature were checked.
pub struct Bundle<R> {
    archive: ZipArchive<R>,
    /// Its adapters.
    pub adapters: Vec<Packed>,
    /// Who signed it.
    pub signer: Option<PublicKey>,
}

/// An adapter in a bundle.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its name.
    pub name: AdapterName,
    /// What the manifest says of its content.
    pub(super) digest: String,
    pub(super) bytes: u64,
    /// What is known of it.
    pub metadata: Metadata,
}

/// Opens a bundle.
///
/// # Errors
/// Not a bundle, a malformed or too large manifest, a signature that is not of it.
pub fn read<R: Read + Seek>(from: R) -> Result<Bundle<R>, BundleError> {
    let mut archive = ZipArchive::new(from).map_err(|e| BundleError::Archive(e.to_string()))?;
    let text = take(&mut archive, MANIFEST, MAX_MANIFEST)?.ok_or_else(|| member(MANIFEST, "is missing"))?;
    let version = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).ok()?["format"].as_u64();
    match version(&text) {
        Some(version) if version == u64::from(FORMAT) => (),
        Some(other) => {
            return Err(member(MANIFEST, format!("format {other} is not known, this program reads {FORMAT}")));
        }
        None => return Err(member(MANIFEST, "says no format")),
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| member(MANIFEST, e))?;
    if manifest.adapters.len() > MAX_ADAPTERS {
        return Err(member(MANIFEST, format!("{} adapters, at most {MAX_ADAPTERS} are read", manifest.adapters.len())));
    }
    let signer = signer(&mut archive, &text)?;
    let packed = |listed: super::Listed| {
        let name = AdapterName::new(listed.name).map_err(|e| member(MANIFEST, e))?;
        let (card, measured): (Card, Measured) = (listed.card, listed.measured);
        Ok(Packed { name, digest: listed.digest, bytes: listed.bytes, metadata: Metadata { card, measured } })
    };
    let adapters = manifest.adapters.into_iter().map(packed).collect::<Result<_, BundleError>>()?;
    Ok(Bundle { archive, adapters, signer })
}

fn signer<R: Read + Seek>(archive: &mut ZipArchive<R>, manifest: &[u8]) -> Result<Option<PublicKey>, BundleError> {
    let Some(text) = take(archive, SIGNATURE, 1 << 16)? else { return Ok(None) };
    let said: Signature = serde_json::from_slice(&text).map_err(|e| member(SIGNATURE, e))?;
    if said.algorithm != "ed25519" {
        return Err(member(SIGNATURE, format!("algorithm '{}' is not known, ed25519 is", said.algorithm)));
    }
    let key = PublicKey::read(&said.key).map_err(|e| member(SIGNATURE, e))?;
    let signature = unhex(&said.signature).ok_or_else(|| member(SIGNATURE, "signature: not hexadecimal digits"))?;
    match key.verifies(manifest, &signature) {
        true => Ok(Some(key)),
        false => Err(BundleError::Signature(key.to_string())),
    }
}

impl<R: Read + Seek> Bundle<R> {
    /// The bytes of an adapter, hashed.
    ///
    /// # Errors
    /// They are missing, too many, or not what the manifest says.
    pub fn bytes(&mut self, packed: &Packed) -> Result<Vec<u8>, BundleError> {
        let name = format!("{FOLDER}{}", packed.digest);
        if packed.bytes > MAX_ADAPTER {
            return Err(member(&name, format!("{} bytes, at most {MAX_ADAPTER} are read", packed.bytes)));
        }
        let bytes = take(&mut self.archive, &name, packed.bytes)?.ok_or_else(|| member(&name, "is missing"))?;
        match AdapterDigest::of(&bytes) {
            found if found.to_hex() == packed.digest => Ok(bytes),
            found => Err(BundleError::Digest { name: packed.name.to_string(), said: packed.digest.clone(), found }),
        }
    }
}

/// A member of at most so many bytes; none when it is not there. What the archive says of its size is not believed.
fn take<R: Read + Seek>(archive: &mut ZipArchive<R>, name: &str, most: u64) -> Result<Option<Vec<u8>>, BundleError> {
    let found = match archive.by_name(name) {
        Ok(found) => found,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(e) => return Err(member(name, e)),
    };
    let mut bytes = Vec::new();
    found.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| member(name, e))?;
    if bytes.len() as u64 > most {
        return Err(member(name, format!("has more than {most} bytes")));
    }
    Ok(Some(bytes))
}
