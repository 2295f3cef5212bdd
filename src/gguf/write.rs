//! A writer of GGUF 3 files: typed metadata and tensors with their data, aligned as llama.cpp demands.
//!
//! It makes files that [`Gguf::read`](super::Gguf::read) accepts, or refuses with the same error type. It knows no
//! file system: it writes to any [`Write`].

use std::borrow::Cow;
use std::io::{self, Write};

use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::limits::{MAX_ALIGNMENT, MAX_DIMS, MAX_KEY_BYTES, MAX_NAME_BYTES, MIN_ALIGNMENT};
use super::tensor::{Shape, TensorType};
use super::value::{Value, ValueType};

use GgufErrorKind::{Invalid, Malformed};

/// Bytes of alignment unless set otherwise.
const DEFAULT_ALIGNMENT: u32 = 32;

/// A metadata value to write, already in the form of the file. Made with `From` from Rust numbers, texts and slices,
/// or from a [`Value`] that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedValue {
    kind: ValueType,
    bytes: Vec<u8>,
}

impl OwnedValue {
    /// The type that the file will name.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// An array of texts that need not be UTF-8, as token texts.
    pub fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut body = Vec::new();
        let mut count = 0_u64;
        for text in texts {
            push_text(&mut body, text.as_ref());
            count += 1;
        }
        Self::array(ValueType::Str, count, &body)
    }

    fn array(kind: ValueType, count: u64, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(body.len() + 12);
        bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(body);
        Self { kind: ValueType::Array, bytes }
    }
}

fn push_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
    bytes.extend_from_slice(text);
}

impl From<&str> for OwnedValue {
    fn from(text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 8);
        push_text(&mut bytes, text.as_bytes());
        Self { kind: ValueType::Str, bytes }
    }
}

impl From<String> for OwnedValue {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<bool> for OwnedValue {
    fn from(flag: bool) -> Self {
        Self { kind: ValueType::Bool, bytes: vec![u8::from(flag)] }
    }
}

impl From<&[bool]> for OwnedValue {
    fn from(flags: &[bool]) -> Self {
        let body: Vec<u8> = flags.iter().map(|flag| u8::from(*flag)).collect();
        Self::array(ValueType::Bool, flags.len() as u64, &body)
    }
}

impl From<&[&str]> for OwnedValue {
    fn from(texts: &[&str]) -> Self {
        Self::texts(texts)
    }
}

/// Scalars and slices of one number type.
macro_rules! from_numbers {
    ($($number:ty => $kind:ident),* $(,)?) => {$(
        impl From<$number> for OwnedValue {
            fn from(number: $number) -> Self {
                Self {
                    kind: ValueType::$kind,
                    bytes: number.to_le_bytes().to_vec(),
                }
            }
        }

        impl From<&[$number]> for OwnedValue {
            fn from(numbers: &[$number]) -> Self {
                let body: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                Self::array(ValueType::$kind, numbers.len() as u64, &body)
            }
        }
    )*};
}

from_numbers! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32,
    u64 => U64, i64 => I64, f32 => F32, f64 => F64,
}

impl From<Value<'_>> for OwnedValue {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::U8(number) => number.into(),
            Value::I8(number) => number.into(),
            Value::U16(number) => number.into(),
            Value::I16(number) => number.into(),
            Value::U32(number) => number.into(),
            Value::I32(number) => number.into(),
            Value::F32(number) => number.into(),
            Value::Bool(flag) => flag.into(),
            Value::U64(number) => number.into(),
            Value::I64(number) => number.into(),
            Value::F64(number) => number.into(),
            Value::Str(text) => {
                let mut bytes = Vec::with_capacity(text.len() + 8);
                push_text(&mut bytes, text);
                Self { kind: ValueType::Str, bytes }
            }
            Value::Array(array) => Self::array(array.kind(), array.len() as u64, array.bytes()),
        }
    }
}

/// A GGUF file in the making. Tensor data may be borrowed, so that nothing large is copied before it is written.
///
/// ```text
/// let mut file = GgufWriter::new();
/// file.set("general.type", "adapter")?.set("adapter.lora.alpha", 16.0_f32)?;
/// file.tensor("blk.0.attn_q.weight.lora_a", TensorType::F32, &[576, 8], data)?;
/// file.write_to(&mut out)?;
/// ```
#[derive(Clone, Debug)]
pub struct GgufWriter<'d> {
    alignment: u32,
    keys: Vec<(String, OwnedValue)>,
    tensors: Vec<Pending<'d>>,
}

/// A tensor waiting to be written.
#[derive(Clone, Debug)]
struct Pending<'d> {
    name: String,
    kind: TensorType,
    dims: Vec<u64>,
    data: Cow<'d, [u8]>,
}

impl Default for GgufWriter<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'d> GgufWriter<'d> {
    /// An empty file with tensors aligned to 32 bytes.
    pub fn new() -> Self {
        Self { alignment: DEFAULT_ALIGNMENT, keys: Vec::new(), tensors: Vec::new() }
    }

    /// The keys and tensors of a file that was read, in their order; the data stays where it is.
    pub fn copy_of(gguf: &Gguf<'d>) -> Self {
        let tensors = gguf.tensors().iter().map(|tensor| Pending {
            name: tensor.name.to_owned(),
            kind: tensor.kind,
            dims: trimmed(&tensor.dims),
            data: Cow::Borrowed(gguf.tensor_bytes(tensor)),
        });
        let keys = gguf.keys().iter().map(|(key, value)| ((*key).to_owned(), OwnedValue::from(*value)));
        Self {
            // At most MAX_ALIGNMENT in a file that was read.
            alignment: u32::try_from(gguf.alignment).unwrap_or(DEFAULT_ALIGNMENT),
            keys: keys.collect(),
            tensors: tensors.collect(),
        }
    }

    /// Sets the alignment of tensor data in bytes, and the key that tells it.
    /// Refuses anything but a power of two from 8 to 65,536.
    pub fn alignment(&mut self, bytes: u32) -> Result<&mut Self, GgufError> {
        if !bytes.is_power_of_two() || !(MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&bytes) {
            let reason = format!("{bytes} is not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}");
            return Err(GgufError::new(Invalid, "general.alignment", reason));
        }
        self.alignment = bytes;
        self.put("general.alignment", bytes.into());
        Ok(self)
    }

    /// Sets a key, replacing an earlier value in its place. Refuses names that readers refuse, and
    /// `general.alignment`, which has a method of its own.
    pub fn set(&mut self, key: &str, value: impl Into<OwnedValue>) -> Result<&mut Self, GgufError> {
        if key == "general.alignment" {
            return Err(GgufError::new(Invalid, key, "is set with GgufWriter::alignment"));
        }
        if key.is_empty() || key.len() as u64 > MAX_KEY_BYTES || key.chars().any(char::is_control) {
            return Err(GgufError::new(Malformed, key, "is not a usable key"));
        }
        self.put(key, value.into());
        Ok(self)
    }

    /// Removes a key, if it is there.
    pub fn remove(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|(name, _)| name != key);
        self
    }

    /// Adds a tensor with its bytes; `dims` with the fastest dimension first. Refuses names that readers refuse or
    /// that are taken, shapes that cannot be, and data of another size than the shape needs.
    pub fn tensor(
        &mut self,
        name: &str,
        kind: TensorType,
        dims: &[u64],
        data: impl Into<Cow<'d, [u8]>>,
    ) -> Result<&mut Self, GgufError> {
        let data = data.into();
        if name.is_empty() || name.len() >= MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(GgufError::new(Malformed, name, "is not a usable tensor name"));
        }
        if self.tensors.iter().any(|tensor| tensor.name == name) {
            return Err(GgufError::new(Malformed, name, "two tensors have this name"));
        }
        if dims.is_empty() || dims.len() > MAX_DIMS as usize || dims.contains(&0) {
            let reason = format!("shape {dims:?} is not 1 to {MAX_DIMS} sizes of at least 1");
            return Err(GgufError::new(Malformed, name, reason));
        }
        let mut shape: Shape = [1; 4];
        for (full, given) in shape.iter_mut().zip(dims) {
            *full = *given;
        }
        if kind.size_of(&shape) != Some(data.len() as u64) {
            let reason = format!("{} bytes of data do not fit shape {dims:?} of {kind}", data.len());
            return Err(GgufError::new(Malformed, name, reason));
        }
        self.tensors.push(Pending { name: name.to_owned(), kind, dims: dims.to_vec(), data });
        Ok(self)
    }

    /// Writes the file: header, then tensor data, each padded to the alignment.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let header = self.header();
        out.write_all(&header)?;
        if self.tensors.is_empty() {
            return Ok(());
        }
        self.pad(out, header.len())?;
        for tensor in &self.tensors {
            out.write_all(&tensor.data)?;
            self.pad(out, tensor.data.len())?;
        }
        Ok(())
    }

    /// The file as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a vector does not fail.
        let _ = self.write_to(&mut bytes);
        bytes
    }

    fn put(&mut self, key: &str, value: OwnedValue) {
        match self.keys.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.to_owned(), value)),
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(b"GGUF");
        bytes.extend_from_slice(&3_u32.to_le_bytes());
        bytes.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            push_text(&mut bytes, key.as_bytes());
            bytes.extend_from_slice(&(value.kind as u32).to_le_bytes());
            bytes.extend_from_slice(&value.bytes);
        }
        let mut offset = 0_u64;
        for tensor in &self.tensors {
            push_text(&mut bytes, tensor.name.as_bytes());
            // At most MAX_DIMS, checked when the tensor was added.
            bytes.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                bytes.extend_from_slice(&dim.to_le_bytes());
            }
            bytes.extend_from_slice(&tensor.kind.id().to_le_bytes());
            bytes.extend_from_slice(&offset.to_le_bytes());
            // Sizes of data in memory: their sum does not wrap.
            offset = (offset + tensor.data.len() as u64).next_multiple_of(u64::from(self.alignment));
        }
        bytes
    }

    fn pad(&self, out: &mut impl Write, written: usize) -> io::Result<()> {
        const ZEROS: [u8; 512] = [0; 512];
        let mut left = written.next_multiple_of(self.alignment as usize) - written;
        while left > 0 {
            let step = left.min(ZEROS.len());
            out.write_all(ZEROS.get(..step).unwrap_or(&ZEROS))?;
            left -= step;
        }
        Ok(())
    }
}

/// A shape without the ones at its end, at least one size.
fn trimmed(dims: &Shape) -> Vec<u64> {
    let used = dims.iter().rposition(|dim| *dim != 1).map_or(1, |last| last + 1);
    dims.iter().take(used).copied().collect()
}
