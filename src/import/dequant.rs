//! The base model's weights as numbers, for conversions that depend on them.

use half::f16;

use super::error::ImportError;
use super::limits::MAX_MATRIX;
use super::number;
use crate::gguf::{Gguf, TensorType};

/// A matrix of 32-bit floats, `[outputs, inputs]`, row after row.
pub type Matrix = ndarray::Array2<f32>;

/// The numbers of a base model.
pub trait BaseWeights: Sync {
    /// A tensor of the model by its GGUF name, as rows of outputs and columns of inputs.
    fn dequantized(&self, tensor: &str) -> Result<Matrix, ImportError>;
}

/// The weights of a GGUF model in memory or mapped, in one file or several parts.
#[derive(Clone, Copy, Debug)]
pub struct GgufWeights<'g, 'a> {
    parts: &'g [Gguf<'a>],
}

impl<'g, 'a> GgufWeights<'g, 'a> {
    /// The weights of a model whose parts were read.
    pub fn new(parts: &'g [Gguf<'a>]) -> Self {
        Self { parts }
    }
}

impl BaseWeights for GgufWeights<'_, '_> {
    fn dequantized(&self, tensor: &str) -> Result<Matrix, ImportError> {
        let found = self.parts.iter().find_map(|part| Some((part, part.tensor(tensor)?)));
        let Some((part, info)) = found else {
            return Err(ImportError::base(tensor, "is missing from the weights"));
        };
        if info.elements() > MAX_MATRIX || info.dims[2] != 1 || info.dims[3] != 1 {
            return Err(ImportError::base(tensor, format!("has shape {:?}, too large for a conversion", info.dims)));
        }
        let Some(numbers) = decode(info.kind, part.tensor_bytes(info)) else {
            let names: Vec<_> = DECODED.iter().map(|kind| kind.name()).collect();
            let reason = format!(
                "is stored as {}; a conversion reads {} and the K-quants Q4_K, Q5_K and Q6_K. Take another file of the \
                 model",
                info.kind,
                names.join(", ")
            );
            return Err(ImportError::base(tensor, reason));
        };
        // Both are at most MAX_MATRIX.
        let shape = (info.dims[1] as usize, info.dims[0] as usize);
        let matrix = Matrix::from_shape_vec(shape, numbers)
            .map_err(|error| ImportError::base(tensor, format!("has a bad shape: {error}")))?;
        if !matrix.iter().all(|number| number.is_finite()) {
            return Err(ImportError::base(tensor, "holds NaN or infinite weights"));
        }
        Ok(matrix)
    }
}

/// The formats that [`decode`] reads and that have a name in [`TensorType`].
const DECODED: [TensorType; 8] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q8_0,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
];

/// The numbers of stored bytes (`dequantize_row_*` in `ggml/src/ggml-quants.c`); `None` for other formats.
pub(crate) fn decode(kind: TensorType, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match kind {
        TensorType::F32 => number::from_f32(bytes).collect(),
        TensorType::F16 => number::from_f16(bytes).collect(),
        TensorType::BF16 => number::from_bf16(bytes).collect(),
        TensorType::Q8_0 => blocks(bytes, q8_0),
        TensorType::Q4_0 => blocks(bytes, q4_0),
        TensorType::Q4_1 => blocks(bytes, q4_1),
        TensorType::Q5_0 => blocks(bytes, q5_0),
        TensorType::Q5_1 => blocks(bytes, q5_1),
        _ => match kind.name() {
            "Q4_K" => blocks(bytes, q4_k),
            "Q5_K" => blocks(bytes, q5_k),
            "Q6_K" => blocks(bytes, q6_k),
            _ => return None,
        },
    })
}

/// Decodes block after block: `N` bytes to `M` numbers.
fn blocks<const N: usize, const M: usize>(bytes: &[u8], block: impl Fn(&[u8; N]) -> [f32; M]) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().flat_map(block).collect()
}

fn half_at(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

fn q8_0(block: &[u8; 34]) -> [f32; 32] {
    let d = half_at(block[0], block[1]);
    std::array::from_fn(|at| f32::from(block[2 + at] as i8) * d)
}

/// The 4-bit number of a block of 32: low halves first.
fn nibble(quants: &[u8], at: usize) -> u8 {
    let byte = quants[at % 16];
    if at < 16 { byte & 15 } else { byte >> 4 }
}

fn q4_0(block: &[u8; 18]) -> [f32; 32] {
    let d = half_at(block[0], block[1]);
    std::array::from_fn(|at| (f32::from(nibble(&block[2..], at)) - 8.0) * d)
}

fn q4_1(block: &[u8; 20]) -> [f32; 32] {
    let (d, m) = (half_at(block[0], block[1]), half_at(block[2], block[3]));
    std::array::from_fn(|at| f32::from(nibble(&block[4..], at)) * d + m)
}

/// The fifth bit of a number, in its place.
fn fifth(bits: &[u8], at: usize) -> u8 {
    (bits[at / 8] >> (at % 8) & 1) << 4
}

fn q5_0(block: &[u8; 22]) -> [f32; 32] {
    let d = half_at(block[0], block[1]);
    std::array::from_fn(|at| (f32::from(nibble(&block[6..], at) | fifth(&block[2..6], at)) - 16.0) * d)
}

fn q5_1(block: &[u8; 24]) -> [f32; 32] {
    let (d, m) = (half_at(block[0], block[1]), half_at(block[2], block[3]));
    std::array::from_fn(|at| f32::from(nibble(&block[8..], at) | fifth(&block[4..8], at)) * d + m)
}

/// The 6-bit scale and minimum of a group of 32 (`get_scale_min_k4`).
fn scale_min(scales: &[u8], group: usize) -> (f32, f32) {
    let (scale, min) = if group < 4 {
        (scales[group] & 63, scales[group + 4] & 63)
    } else {
        (scales[group + 4] & 15 | scales[group - 4] >> 6 << 4, scales[group + 4] >> 4 | scales[group] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8; 144]) -> [f32; 256] {
    let (d, dmin) = (half_at(block[0], block[1]), half_at(block[2], block[3]));
    std::array::from_fn(|at| {
        let (scale, min) = scale_min(&block[4..16], at / 32);
        let byte = block[16 + at / 64 * 32 + at % 32];
        let quant = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
        d * scale * f32::from(quant) - dmin * min
    })
}

fn q5_k(block: &[u8; 176]) -> [f32; 256] {
    let (d, dmin) = (half_at(block[0], block[1]), half_at(block[2], block[3]));
    std::array::from_fn(|at| {
        let (scale, min) = scale_min(&block[4..16], at / 32);
        let byte = block[48 + at / 64 * 32 + at % 32];
        let quant = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
        let high = block[16 + at % 32] >> (at / 32) & 1;
        d * scale * f32::from(quant | high << 4) - dmin * min
    })
}

fn q6_k(block: &[u8; 210]) -> [f32; 256] {
    let d = half_at(block[208], block[209]);
    std::array::from_fn(|at| {
        let (half, within) = (at / 128, at % 128);
        let (quarter, lane) = (within / 32, within % 32);
        let low = block[half * 64 + quarter % 2 * 32 + lane];
        let low = if quarter < 2 { low & 15 } else { low >> 4 };
        let high = block[128 + half * 32 + lane] >> (2 * quarter) & 3;
        let scale = block[192 + half * 8 + quarter * 2 + lane / 16] as i8;
        d * f32::from(scale) * (f32::from(low | high << 4) - 32.0)
    })
}
