//! Number formats of stored weights, to and from 32-bit floats.

use half::{bf16, f16};

/// Little-endian F32.
pub(super) fn from_f32(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word))
}

/// Little-endian F64, rounded.
pub(super) fn from_f64(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<8>().0.iter().map(|word| f64::from_le_bytes(*word) as f32)
}

/// Little-endian F16.
pub(super) fn from_f16(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|word| f16::from_le_bytes(*word).to_f32())
}

/// Little-endian BF16.
pub(super) fn from_bf16(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|word| bf16::from_le_bytes(*word).to_f32())
}

/// F32 to bytes.
pub(super) fn to_f32(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// F16 to bytes, rounded to nearest even.
pub(super) fn to_f16(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| f16::from_f32(*number).to_le_bytes()).collect()
}

/// BF16 to bytes, rounded to nearest even.
pub(super) fn to_bf16(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bf16::from_f32(*number).to_le_bytes()).collect()
}
