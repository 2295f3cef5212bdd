//! Ed25519 keys as text: 64 hexadecimal digits for a public one, PKCS#8 in hexadecimal digits for a private one.

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// Why a key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not hexadecimal digits, or not as many as a key has.
    #[error("is not a key: give hexadecimal digits as `smoa adapter key` writes them")]
    Text,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A key that signatures are checked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`KeyError::Text`].
    pub fn read(text: &str) -> Result<Self, KeyError> {
        unhex(text.trim()).and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(KeyError::Text)
    }

    /// Whether this is the signature of these bytes by the owner of the key.
    pub fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(bytes, signature).is_ok()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// A key that signs. Not shown.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new key, as text to be kept.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<(Self, String), KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        let text = hex(document.as_ref());
        Ok((Self::read(&text)?, text))
    }

    /// Reads what [`SigningKey::generate`] gave.
    ///
    /// # Errors
    /// [`KeyError::Text`].
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let bytes = unhex(text.trim()).ok_or(KeyError::Text)?;
        Ed25519KeyPair::from_pkcs8(&bytes).map(Self).map_err(|_| KeyError::Text)
    }

    /// The key to check with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(self.0.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        PublicKey(bytes)
    }

    /// The signature of bytes.
    pub(super) fn sign(&self, bytes: &[u8]) -> String {
        hex(self.0.sign(bytes).as_ref())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || text.len() > 4096 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
