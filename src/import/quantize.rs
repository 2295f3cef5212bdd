//! Numbers into stored bytes, block formats included, and GGUF adapters stored anew.

use half::f16;
use ndarray::Axis;

use super::dequant::{Matrix, decode};
use super::error::ImportError;
use super::limits::MAX_ROUNDING_ERROR;
use super::number;
use super::pack::Storage;
use super::safetensors::Dtype;
use crate::gguf::{Gguf, GgufWriter, OwnedValue, TensorInfo, TensorType};

/// Numbers in one block of the formats that are written.
const BLOCK: usize = 32;

/// A matrix as it goes into a file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) kind: TensorType,
    pub(super) bytes: Vec<u8>,
}

/// Two factors as they go into a file.
pub(super) struct StoredPair {
    pub(super) a: Stored,
    pub(super) b: Stored,
    /// The squared norm of what storing changed in the product.
    pub(super) lost: f64,
    /// The squared norm of the product.
    pub(super) whole: f64,
    /// A 16-bit format was asked for and would have lost too much.
    pub(super) widened: bool,
}

/// The factors of one base tensor, and how they lie in a file.
#[derive(Clone, Copy)]
pub(super) struct Factors<'m> {
    /// `[rank, inputs]`.
    pub(super) a: &'m Matrix,
    /// `[outputs, rank]`.
    pub(super) b: &'m Matrix,
    /// A lies in the file as `[inputs, rank]`: the token embedding.
    pub(super) transposed: bool,
}

/// Stores a pair, in 32 bits where 16 would lose too much: where numbers are so small or so large that F16 has few
/// bits for them.
pub(super) fn store_pair(factors: Factors<'_>, storage: Storage, source: Dtype) -> StoredPair {
    let kind = match (storage, source) {
        (Storage::F16, _) | (Storage::Source, Dtype::F16) => TensorType::F16,
        (Storage::Source, Dtype::BF16) => TensorType::BF16,
        (Storage::F32 | Storage::Source, _) => TensorType::F32,
        (Storage::Q8_0, _) => TensorType::Q8_0,
        (Storage::Q4_0, _) => TensorType::Q4_0,
    };
    let pair = store_as(factors, kind, TensorType::F16);
    let short = [pair.a.kind, pair.b.kind].iter().all(|kind| matches!(*kind, TensorType::F16 | TensorType::BF16));
    let limit = f64::from(MAX_ROUNDING_ERROR).powi(2) * pair.whole;
    // NaN: infinities of F16 against each other.
    let lossy = pair.lost.is_nan() || (short && pair.lost > limit);
    if lossy && kind != TensorType::F32 {
        let wide = store_as(factors, if short { TensorType::F32 } else { kind }, TensorType::F32);
        return StoredPair { widened: true, ..wide };
    }
    pair
}

/// Stores a pair in one format; matrices whose rows are no whole blocks in the other.
fn store_as(factors: Factors<'_>, kind: TensorType, ragged: TensorType) -> StoredPair {
    let Factors { a, b, transposed } = factors;
    let lies: Matrix = if transposed { a.t().as_standard_layout().into_owned() } else { a.clone() };
    let (stored_a, back_a) = store(&lies, kind, ragged);
    let back_a = if transposed { back_a.reversed_axes() } else { back_a };
    let (stored_b, back_b) = store(b, kind, ragged);
    // B A - B' A' = (B - B') A + B' (A - A'), as one product of twice the rank.
    let wide = ndarray::concatenate(Axis(1), &[(b - &back_b).view(), back_b.view()]);
    let high = ndarray::concatenate(Axis(0), &[a.view(), (a - &back_a).view()]);
    let lost = wide.ok().zip(high.ok()).map_or(f64::NAN, |(b, a)| product_norm(&b, &a));
    StoredPair { a: stored_a, b: stored_b, lost, whole: product_norm(b, a), widened: false }
}

/// The squared Frobenius norm of `b a`, from two small matrices: the trace of `(b' b) (a a')`.
pub(super) fn product_norm(b: &Matrix, a: &Matrix) -> f64 {
    let (left, right) = (b.t().dot(b), a.dot(&a.t()));
    let sum: f64 = left.iter().zip(right.iter()).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum();
    // Rounding can leave less than nothing; NaN must stay.
    if sum < 0.0 { 0.0 } else { sum }
}

/// Bytes of a matrix in row-major order, and the numbers that a reader will see.
pub(super) fn store(matrix: &Matrix, kind: TensorType, ragged: TensorType) -> (Stored, Matrix) {
    let whole = matrix.ncols().is_multiple_of(kind.block_elements() as usize);
    let kind = if whole { kind } else { ragged };
    let numbers = matrix.as_standard_layout();
    let numbers = numbers.as_slice().unwrap_or_default();
    let bytes = match kind {
        TensorType::F16 => number::to_f16(numbers),
        TensorType::BF16 => number::to_bf16(numbers),
        TensorType::Q8_0 => blocks(numbers, q8_0),
        TensorType::Q4_0 => blocks(numbers, q4_0),
        _ => number::to_f32(numbers),
    };
    let back = decode(kind, &bytes).and_then(|numbers| Matrix::from_shape_vec(matrix.dim(), numbers).ok());
    (Stored { kind, bytes }, back.unwrap_or_else(|| matrix.clone()))
}

fn blocks<const N: usize>(numbers: &[f32], block: impl Fn(&[f32; BLOCK]) -> [u8; N]) -> Vec<u8> {
    numbers.as_chunks::<BLOCK>().0.iter().flat_map(block).collect()
}

/// `quantize_row_q8_0_ref`.
fn q8_0(numbers: &[f32; BLOCK]) -> [u8; 34] {
    let most = numbers.iter().fold(0.0_f32, |most, number| most.max(number.abs()));
    let d = most / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = [0; 34];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (byte, number) in block[2..].iter_mut().zip(numbers) {
        *byte = (number * inverse).round() as i8 as u8;
    }
    block
}

/// `quantize_row_q4_0_ref`.
fn q4_0(numbers: &[f32; BLOCK]) -> [u8; 18] {
    let most = numbers.iter().fold(0.0_f32, |most, number| if number.abs() > most.abs() { *number } else { most });
    let d = most / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = [0; 18];
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    let quant = |at: usize| ((numbers[at] * inverse + 8.5) as i8).min(15) as u8;
    for (at, byte) in block[2..].iter_mut().enumerate() {
        *byte = quant(at) & 15 | quant(at + BLOCK / 2) << 4;
    }
    block
}

/// Stores the tensors of a GGUF adapter anew. Gives the file and the relative error: the norm of what changed in
/// `B A`, over the norm of `B A`, over all pairs. Keys stay as they are.
///
/// Gains are kept as they are. Block formats need rows of whole blocks: B of a rank that is not divisible by 32 stays 16 bits wide. With
/// [`Storage::Source`] the file comes back as it was.
pub fn requantize(adapter: &[u8], storage: Storage) -> Result<(Vec<u8>, f32), ImportError> {
    let gguf = Gguf::read(adapter).map_err(ImportError::Gguf)?;
    if storage == Storage::Source {
        return Ok((adapter.to_vec(), 0.0));
    }
    let mut file = GgufWriter::new();
    for (key, value) in gguf.keys().iter().filter(|(key, _)| *key != "general.alignment") {
        file.set(key, OwnedValue::from(*value)).map_err(ImportError::Gguf)?;
    }
    if matches!(storage, Storage::Q8_0 | Storage::Q4_0) {
        file.set("general.quantization_version", 2_u32).map_err(ImportError::Gguf)?;
    }
    let (mut lost, mut whole) = (0.0, 0.0);
    for a in gguf.tensors() {
        if a.name.ends_with(".gain") {
            // One number per output: kept whole.
            file.tensor(a.name, a.kind, &a.dims[..1], gguf.tensor_bytes(a)).map_err(ImportError::Gguf)?;
            continue;
        }
        let Some(base) = a.name.strip_suffix(".lora_a") else {
            match a.name.strip_suffix(".lora_b").map(|base| gguf.tensor(&format!("{base}.lora_a"))) {
                Some(Some(_)) => continue,
                _ => {
                    return Err(ImportError::tensor(
                        a.name,
                        "is no half of a pair; only low-rank adapters are stored anew",
                    ));
                }
            }
        };
        let Some(b) = gguf.tensor(&format!("{base}.lora_b")) else {
            return Err(ImportError::tensor(a.name, "has no matching .lora_b"));
        };
        let transposed = base == "token_embd.weight";
        let (mut all_a, mut all_b) = (Joined::new(a), Joined::new(b));
        let (many_a, many_b) = (matrices(&gguf, a)?, matrices(&gguf, b)?);
        if many_a.len() != many_b.len() {
            return Err(ImportError::tensor(a.name, "stacks another number of experts than its .lora_b"));
        }
        for (a_lies, b) in many_a.iter().zip(&many_b) {
            let a = if transposed { a_lies.t().as_standard_layout().into_owned() } else { a_lies.clone() };
            if a.nrows() != b.ncols() {
                return Err(ImportError::tensor(base, format!("has rank {} in A and {} in B", a.nrows(), b.ncols())));
            }
            // Experts share one tensor, and so one format: nothing is widened here.
            let factors = Factors { a: &a, b, transposed };
            let pair = match many_a.len() {
                1 => store_pair(factors, storage, Dtype::F32),
                _ => store_as(factors, storage.kind(), TensorType::F16),
            };
            if pair.lost.is_nan() {
                return Err(ImportError::tensor(base, format!("has numbers too large for {}", storage.kind())));
            }
            lost += pair.lost;
            whole += pair.whole;
            all_a.push(pair.a);
            all_b.push(pair.b);
        }
        for joined in [all_a, all_b] {
            let Joined { name, dims, kind, bytes } = joined;
            file.tensor(name, kind, dims, bytes).map_err(ImportError::Gguf)?;
        }
    }
    let error = if whole > 0.0 { (lost / whole).sqrt() as f32 } else { 0.0 };
    Ok((file.to_bytes(), error))
}

/// A tensor of one or more matrices, in the making.
struct Joined<'g> {
    name: &'g str,
    dims: &'g [u64],
    kind: TensorType,
    bytes: Vec<u8>,
}

impl<'g> Joined<'g> {
    fn new(tensor: &'g TensorInfo<'_>) -> Self {
        // A file names two dimensions of a matrix even where one is 1.
        let used = if tensor.dims[2] == 1 && tensor.dims[3] == 1 { 2 } else { 3 };
        Self {
            name: tensor.name,
            dims: tensor.dims.get(..used).unwrap_or(&tensor.dims),
            kind: TensorType::F32,
            bytes: Vec::new(),
        }
    }

    fn push(&mut self, stored: Stored) {
        self.kind = stored.kind;
        self.bytes.extend_from_slice(&stored.bytes);
    }
}

/// The matrices of a tensor: one, or one for each expert.
fn matrices(gguf: &Gguf<'_>, tensor: &TensorInfo<'_>) -> Result<Vec<Matrix>, ImportError> {
    let refuse = |reason: &str| Err(ImportError::tensor(tensor.name, reason));
    let Some(numbers) = decode(tensor.kind, gguf.tensor_bytes(tensor)) else {
        return refuse(&format!("is stored as {}, which is not read", tensor.kind));
    };
    if !numbers.iter().all(|number| number.is_finite()) {
        return refuse("holds NaN or infinite weights");
    }
    let [columns, rows, _, 1] = tensor.dims else {
        return refuse("has four dimensions");
    };
    // Both fit: the tensor's numbers are in memory.
    let (columns, rows) = (columns as usize, rows as usize);
    let one = |numbers: &[f32]| Matrix::from_shape_vec((rows, columns), numbers.to_vec());
    match numbers.chunks(rows.saturating_mul(columns).max(1)).map(one).collect() {
        Ok(matrices) => Ok(matrices),
        Err(error) => refuse(&format!("has a bad shape: {error}")),
    }
}
