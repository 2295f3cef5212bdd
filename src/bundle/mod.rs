//! Adapters to be given away: one file with a manifest, the adapters' bytes, and perhaps a signature.
//!
//! ```text
//! manifest.json     {"format": 1, "adapters": [{"name", "digest", "bytes", "card", "measured"}, ..]}
//! signature.json    {"algorithm": "ed25519", "key", "signature"}: of the bytes of manifest.json; where it is signed
//! adapters/DIGEST   each adapter once, as it lies in a library
//! ```
//!
//! It is a zip archive without compression, the same bytes for the same content. The manifest holds the BLAKE3 of each
//! adapter, so a signature of the manifest covers all of them. What is read is checked: sizes before memory is taken,
//! digests, the signature. Bytes in, bytes out.

mod index;
mod key;
mod read;
mod write;

pub use index::{INDEX, Index, ListedAdapter, ListedBundle, MAX_BUNDLE, MAX_INDEX};
pub use key::{KeyError, PublicKey, SigningKey};
pub use read::{Bundle, Packed, read};
pub use write::{Item, write};

use serde::{Deserialize, Serialize};

use crate::adapter::AdapterDigest;
use crate::library::{Card, Measured};

/// The version of manifests.
pub const FORMAT: u32 = 1;
/// Most adapters in a bundle.
pub const MAX_ADAPTERS: usize = 10_000;
/// Most bytes of a manifest.
pub const MAX_MANIFEST: u64 = 64 << 20;
/// Most bytes of one adapter.
pub const MAX_ADAPTER: u64 = 4 << 30;

const MANIFEST: &str = "manifest.json";
const SIGNATURE: &str = "signature.json";
const FOLDER: &str = "adapters/";

/// What `manifest.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    adapters: Vec<Listed>,
}

/// What the manifest says of one adapter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    digest: String,
    bytes: u64,
    card: Card,
    measured: Measured,
}

/// What `signature.json` says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    algorithm: String,
    key: String,
    signature: String,
}

/// Why a bundle is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not such an archive.
    #[error("is not a bundle: {0}")]
    Archive(String),
    /// A member that is missing, too large or malformed.
    #[error("{member}: {reason}")]
    Member {
        /// Which.
        member: String,
        /// What is wrong.
        reason: String,
    },
    /// An adapter's bytes are not what the manifest says.
    #[error("adapter '{name}': its content is {found}, the manifest says {said}; the bundle is damaged or was changed")]
    Digest {
        /// Which.
        name: String,
        /// What the manifest says.
        said: String,
        /// What it is.
        found: AdapterDigest,
    },
    /// The signature is not of this manifest.
    #[error("the signature is not that of {0}; the bundle is damaged or was changed")]
    Signature(String),
}

fn member(member: &str, reason: impl std::fmt::Display) -> BundleError {
    BundleError::Member { member: member.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
