//! The container: magic, version, metadata, tensor table. Mirrors `gguf_init_from_reader` in `ggml/src/gguf.cpp`.

use std::collections::HashMap;

use super::error::{GgufError, GgufErrorKind, shown};
use super::limits::{
    MAX_ALIGNMENT, MAX_DIMS, MAX_KEY_BYTES, MAX_KEYS, MAX_NAME_BYTES, MAX_TENSORS, MAX_VALUE_BYTES,
    MAX_VOCABULARY_BYTES, MIN_ALIGNMENT,
};
use super::tensor::{Shape, TensorInfo, TensorType};
use super::value::{Array, Value, ValueType};

use GgufErrorKind::{Invalid, Malformed, NotGguf, TooLarge, Truncated, Unsupported, WrongType};

/// The key that sets the alignment of tensor data.
const ALIGNMENT_KEY: &str = "general.alignment";
/// Bytes of alignment without that key (`GGUF_DEFAULT_ALIGNMENT`).
const DEFAULT_ALIGNMENT: u32 = 32;

/// A GGUF file whose header has been read and found consistent.
///
/// What holds then: keys and tensor names are unique, valid text; every value lies within the file; every tensor has
/// a type llama.cpp knows, 1 to 4 dimensions of at least 1, and bytes inside the file that no other tensor shares.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Alignment of tensor data in bytes, a power of two.
    pub alignment: u64,
    /// Byte of the file where tensor data starts.
    pub data_offset: u64,
    bytes: &'a [u8],
    keys: Vec<(&'a str, Value<'a>)>,
    key_index: HashMap<&'a str, usize>,
    tensors: Vec<TensorInfo<'a>>,
    tensor_index: HashMap<&'a str, usize>,
}

impl<'a> Gguf<'a> {
    /// Reads and checks the header of a whole file in memory (or mapped). Tensor data is not read.
    ///
    /// Accepts versions 2 and 3, little endian, as the pinned llama.cpp does; see the type for what holds after it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, GgufError> {
        check_magic(bytes)?;
        let mut cursor = Cursor { bytes, position: 4 };
        let version = cursor.u32("version")?;
        check_version(version)?;
        let tensor_count = cursor.count("tensor count", "tensors", MAX_TENSORS)?;
        let key_count = cursor.count("key count", "keys", MAX_KEYS)?;

        let mut keys: Vec<(&'a str, Value<'a>)> = Vec::new();
        let mut key_index = HashMap::new();
        for number in 0..key_count {
            let key = cursor.key(number)?;
            if key_index.insert(key, keys.len()).is_some() {
                return Err(GgufError::new(Malformed, key, "this key is stored twice"));
            }
            keys.push((key, cursor.value(key)?));
        }
        let alignment = match key_index.get(ALIGNMENT_KEY).and_then(|index| keys.get(*index)) {
            None => DEFAULT_ALIGNMENT,
            Some((_, Value::U32(alignment))) => *alignment,
            Some((_, other)) => return Err(wrong_type(ALIGNMENT_KEY, other, "u32")),
        };
        if !alignment.is_power_of_two() || !(MIN_ALIGNMENT..=MAX_ALIGNMENT).contains(&alignment) {
            let reason = format!("{alignment} is not a power of two from {MIN_ALIGNMENT} to {MAX_ALIGNMENT}");
            return Err(GgufError::new(Invalid, ALIGNMENT_KEY, reason));
        }
        let alignment = u64::from(alignment);

        let mut tensors: Vec<TensorInfo<'a>> = Vec::new();
        let mut tensor_index = HashMap::new();
        for number in 0..tensor_count {
            let tensor = cursor.tensor(number)?;
            if tensor_index.insert(tensor.name, tensors.len()).is_some() {
                return Err(GgufError::new(Malformed, tensor.name, "two tensors have this name"));
            }
            tensors.push(tensor);
        }
        let header_end = cursor.position as u64;
        let data_offset = if tensors.is_empty() {
            header_end
        } else {
            // The position is at most the length of a slice, so rounding up cannot wrap.
            header_end.next_multiple_of(alignment)
        };
        check_ranges(&tensors, alignment, data_offset, bytes.len() as u64)?;
        Ok(Self { version, alignment, data_offset, bytes, keys, key_index, tensors, tensor_index })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        let (_, value) = self.keys.get(*self.key_index.get(key)?)?;
        Some(value)
    }

    /// Makes `value` the value of a key.
    pub(super) fn put(&mut self, key: &'a str, value: Value<'a>) {
        match self.key_index.get(key).and_then(|at| self.keys.get_mut(*at)) {
            Some((_, old)) => *old = value,
            None => {
                self.key_index.insert(key, self.keys.len());
                self.keys.push((key, value));
            }
        }
    }

    /// All keys with their values, in file order.
    pub fn keys(&self) -> &[(&'a str, Value<'a>)] {
        &self.keys
    }

    /// A text; refuses other types and text that is not UTF-8.
    pub fn str(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Str(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(GgufError::new(Malformed, key, format!("is not valid UTF-8: '{}'", shown(bytes)))),
            },
            Some(other) => Err(wrong_type(key, other, "string")),
        }
    }

    /// An unsigned 16-bit number; refuses other types.
    pub fn u16(&self, key: &str) -> Result<Option<u16>, GgufError> {
        self.typed(key, "u16", |value| match value {
            Value::U16(number) => Some(*number),
            _ => None,
        })
    }

    /// An unsigned 32-bit number; refuses other types.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "u32", |value| match value {
            Value::U32(number) => Some(*number),
            _ => None,
        })
    }

    /// A signed 32-bit number; refuses other types.
    pub fn i32(&self, key: &str) -> Result<Option<i32>, GgufError> {
        self.typed(key, "i32", |value| match value {
            Value::I32(number) => Some(*number),
            _ => None,
        })
    }

    /// A 32-bit float; refuses other types.
    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "f32", |value| match value {
            Value::F32(number) => Some(*number),
            _ => None,
        })
    }

    /// A truth value; refuses other types.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "bool", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// An array whose elements are of one of the given types; refuses other types.
    pub fn array(&self, key: &str, kinds: &[ValueType]) -> Result<Option<Array<'a>>, GgufError> {
        let expected = || {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            format!("array of {}", names.join(" or "))
        };
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if kinds.contains(&array.kind()) => Ok(Some(*array)),
            Some(other) => Err(wrong_type(key, other, &expected())),
        }
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> &[TensorInfo<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo<'a>> {
        self.tensors.get(*self.tensor_index.get(name)?)
    }

    /// The stored bytes of a tensor of this file. For a tensor of another file the answer may be empty or other bytes.
    pub fn tensor_bytes(&self, tensor: &TensorInfo<'_>) -> &'a [u8] {
        let start = self.data_offset.saturating_add(tensor.offset);
        let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(tensor.size)).ok());
        range.and_then(|(start, end)| self.bytes.get(start..end)).unwrap_or(&[])
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| wrong_type(key, value, expected)),
        }
    }
}

/// The error for a key of another type than llama.cpp reads.
fn wrong_type(key: &str, value: &Value<'_>, expected: &str) -> GgufError {
    let reason = format!("is stored as {}, expected {expected}", value.describe());
    GgufError::new(WrongType, key, reason)
}

/// Refuses what is not GGUF, naming the format where it can be told.
fn check_magic(bytes: &[u8]) -> Result<(), GgufError> {
    if bytes.starts_with(b"GGUF") {
        return Ok(());
    }
    let known: [(&[u8], &str); 10] = [
        (b"FUGG", "is a GGUF file with its bytes swapped"),
        (b"lmgg", "is in the old GGML format, unsupported since 2023; convert the model again"),
        (b"fmgg", "is in the old GGMF format, unsupported since 2023; convert the model again"),
        (b"tjgg", "is in the old GGJT format, unsupported since 2023; convert the model again"),
        (b"algg", "is in the old GGLA adapter format; convert the adapter again"),
        (b"GG", "is in an old or unknown GGML format, unsupported; convert the model again"),
        (b"PK\x03\x04", "is a zip archive (perhaps a PyTorch pickle), not GGUF"),
        (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
        (b"<", "is a web page or XML, not GGUF; the download probably failed"),
        (b"\x80", "is a Python pickle, not GGUF"),
    ];
    let reason = if bytes.is_empty() {
        "the file is empty".to_owned()
    } else if bytes.len() < 4 {
        format!("the file is {} bytes long, too short for GGUF", bytes.len())
    } else if let Some((_, reason)) = known.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        (*reason).to_owned()
    } else if bytes.get(8) == Some(&b'{') {
        "is a safetensors file, not GGUF".to_owned()
    } else {
        "is not a GGUF file".to_owned()
    };
    Err(GgufError::new(NotGguf, "magic", reason))
}

/// Refuses versions that llama.cpp refuses.
fn check_version(version: u32) -> Result<(), GgufError> {
    let reason = match version {
        2 | 3 => return Ok(()),
        0 => "0 is not a GGUF version".to_owned(),
        1 => "1 is unsupported; convert the file to GGUF 3".to_owned(),
        // A version whose low half is empty is a small number with its bytes swapped.
        swapped if swapped & 0xffff == 0 => "unsupported: the file is big-endian".to_owned(),
        newer => format!("{newer} is unsupported; this build reads versions 2 and 3"),
    };
    Err(GgufError::new(Unsupported, "version", reason))
}

/// Checks that tensor data is packed as llama.cpp demands (each tensor right after the padding of the one before it,
/// so that none overlap) and lies within the file. The last tensor needs no padding after it.
fn check_ranges(tensors: &[TensorInfo<'_>], alignment: u64, data_offset: u64, file_size: u64) -> Result<(), GgufError> {
    let mut expected: u64 = 0;
    for tensor in tensors {
        if tensor.offset != expected {
            let reason = format!(
                "its data starts at byte {} of the data section, expected {expected}: tensors overlap or leave a gap",
                tensor.offset
            );
            return Err(GgufError::new(Malformed, tensor.name, reason));
        }
        let end = data_offset.checked_add(tensor.offset).and_then(|start| start.checked_add(tensor.size));
        match end {
            Some(end) if end <= file_size => {}
            _ => {
                let end = end.map_or("beyond 2^64".to_owned(), |end| format!("at byte {end}"));
                let reason = format!("its data ends {end} but the file is {file_size} bytes long: it is cut short");
                return Err(GgufError::new(Truncated, tensor.name, reason));
            }
        }
        // The end lies within the file, so rounding it up cannot wrap.
        expected = (tensor.offset + tensor.size).next_multiple_of(alignment);
    }
    Ok(())
}

/// A position in the file. Every read is checked against the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or(&[])
    }

    fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], GgufError> {
        let rest = self.rest();
        match usize::try_from(len).ok().and_then(|len| rest.get(..len)) {
            Some(taken) => {
                self.position += taken.len();
                Ok(taken)
            }
            None => {
                let reason = format!("needs {len} bytes but only {} are left in the file", rest.len());
                Err(GgufError::new(Truncated, field, reason))
            }
        }
    }

    fn chunk<const N: usize>(&mut self, field: &str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64, field)?;
        taken.first_chunk::<N>().copied().ok_or_else(|| GgufError::new(Truncated, field, "the file ends here"))
    }

    fn u32(&mut self, field: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.chunk(field)?))
    }

    fn u64(&mut self, field: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.chunk(field)?))
    }

    fn count(&mut self, field: &str, things: &str, limit: u64) -> Result<u64, GgufError> {
        let count = self.u64(field)?;
        if count > limit {
            let reason = format!("the file claims {count} {things}, the limit is {limit}");
            return Err(GgufError::new(TooLarge, field, reason));
        }
        Ok(count)
    }

    /// A name: UTF-8 without control characters, so that C code reads the same text and it can be printed.
    fn name(&mut self, field: &str, limit: u64) -> Result<&'a str, GgufError> {
        let len = self.u64(field)?;
        if len > limit {
            // A length beyond the file is a cut file or nonsense either way; the cap keeps messages short.
            let reason = format!("a name of {len} bytes is too long, the limit is {limit}");
            return Err(GgufError::new(TooLarge, field, reason));
        }
        let bytes = self.take(len, field)?;
        if bytes.is_empty() {
            return Err(GgufError::new(Malformed, field, "the name is empty"));
        }
        let Ok(name) = std::str::from_utf8(bytes) else {
            let reason = format!("the name is not valid UTF-8: '{}'", shown(bytes));
            return Err(GgufError::new(Malformed, field, reason));
        };
        if name.chars().any(char::is_control) {
            let reason = format!("the name holds a control character: '{}'", shown(bytes));
            return Err(GgufError::new(Malformed, field, reason));
        }
        Ok(name)
    }

    fn key(&mut self, number: u64) -> Result<&'a str, GgufError> {
        self.name(&format!("key {number}"), MAX_KEY_BYTES)
    }

    fn value(&mut self, key: &'a str) -> Result<Value<'a>, GgufError> {
        let kind = self.kind(key)?;
        let value = match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.chunk(key)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.chunk(key)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.chunk(key)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.chunk(key)?)),
            ValueType::U32 => Value::U32(self.u32(key)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.chunk(key)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.chunk(key)?)),
            ValueType::Bool => Value::Bool(self.chunk::<1>(key)? != [0]),
            ValueType::U64 => Value::U64(self.u64(key)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.chunk(key)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.chunk(key)?)),
            ValueType::Str => Value::Str(self.text(key, value_limit(key))?),
            ValueType::Array => Value::Array(self.array(key)?),
        };
        if key.starts_with("general.")
            && let Value::Str(bytes) = value
            && std::str::from_utf8(bytes).is_err()
        {
            let reason = format!("is not valid UTF-8: '{}'", shown(bytes));
            return Err(GgufError::new(Malformed, key, reason));
        }
        Ok(value)
    }

    fn kind(&mut self, key: &str) -> Result<ValueType, GgufError> {
        let id = self.u32(key)?;
        ValueType::from_id(id).ok_or_else(|| GgufError::new(Malformed, key, format!("has unknown metadata type {id}")))
    }

    fn text(&mut self, key: &str, limit: u64) -> Result<&'a [u8], GgufError> {
        let len = self.u64(key)?;
        if len > limit {
            let reason = format!("a text of {len} bytes is too long, the limit is {limit}");
            return Err(GgufError::new(TooLarge, key, reason));
        }
        self.take(len, key)
    }

    fn array(&mut self, key: &str) -> Result<Array<'a>, GgufError> {
        let kind = self.kind(key)?;
        let count = self.u64(key)?;
        let limit = value_limit(key);
        // A string takes at least the 8 bytes of its length.
        let element = match kind {
            ValueType::Array => return Err(GgufError::new(Unsupported, key, "is an array of arrays")),
            other => other.fixed_size().unwrap_or(8) as u64,
        };
        let least = count.checked_mul(element).filter(|least| *least <= limit);
        let (Some(least), Ok(len)) = (least, usize::try_from(count)) else {
            let reason = format!("claims {count} elements, more than the limit of {limit} bytes");
            return Err(GgufError::new(TooLarge, key, reason));
        };
        if kind != ValueType::Str {
            return Ok(Array::new(kind, len, self.take(least, key)?));
        }
        if least > self.rest().len() as u64 {
            let reason = format!("claims {count} texts but only {} bytes are left in the file", self.rest().len());
            return Err(GgufError::new(Truncated, key, reason));
        }
        let (start, whole) = (self.position, self.rest());
        for _ in 0..len {
            self.text(key, limit)?;
            if (self.position - start) as u64 > limit {
                let reason = format!("takes more than the limit of {limit} bytes");
                return Err(GgufError::new(TooLarge, key, reason));
            }
        }
        let bytes = whole.get(..self.position - start).unwrap_or(&[]);
        Ok(Array::new(kind, len, bytes))
    }

    fn tensor(&mut self, number: u64) -> Result<TensorInfo<'a>, GgufError> {
        let field = format!("tensor {number}");
        let name = self.name(&field, MAX_NAME_BYTES as u64 - 1)?;
        let dim_count = self.u32(name)?;
        if dim_count == 0 || dim_count > MAX_DIMS {
            let reason = format!("has {dim_count} dimensions, expected 1 to {MAX_DIMS}");
            return Err(GgufError::new(Malformed, name, reason));
        }
        let mut dims: Shape = [1; 4];
        for (number, dim) in dims.iter_mut().take(dim_count as usize).enumerate() {
            let stored = i64::from_le_bytes(self.chunk(name)?);
            match u64::try_from(stored) {
                Ok(size) if size > 0 => *dim = size,
                _ => {
                    let reason = format!("dimension {number} is {stored}, expected at least 1");
                    return Err(GgufError::new(Malformed, name, reason));
                }
            }
        }
        let id = self.u32(name)?;
        let Some(kind) = TensorType::from_id(id) else {
            let reason = match id {
                4 | 5 | 31..=33 | 36..=38 => {
                    format!("tensor type {id} was removed from GGUF; quantize the model again")
                }
                _ => format!("tensor type {id} is unknown to this build of llama.cpp"),
            };
            return Err(GgufError::new(Unsupported, name, reason));
        };
        let offset = self.u64(name)?;
        if !dims[0].is_multiple_of(kind.block_elements()) {
            let reason = format!(
                "rows of {} elements are not a multiple of the {} of a {kind} block",
                dims[0],
                kind.block_elements()
            );
            return Err(GgufError::new(Malformed, name, reason));
        }
        let Some(size) = kind.size_of(&dims) else {
            let reason = format!("a {kind} tensor of shape {dims:?} is too large to exist");
            return Err(GgufError::new(Malformed, name, reason));
        };
        Ok(TensorInfo { name, dims, kind, offset, size })
    }
}

/// Bytes that the value of a key may take.
fn value_limit(key: &str) -> u64 {
    if key.starts_with("tokenizer.") { MAX_VOCABULARY_BYTES } else { MAX_VALUE_BYTES }
}
