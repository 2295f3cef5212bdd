//! A strict reader of safetensors files. It borrows from the bytes and copies no weight.
//!
//! Not the `safetensors` crate, which takes the last of two tensors of one name, keeps a whole header of 100 MB in maps
//! before it counts, and knows nothing of pickles.
//!
//! ```text
//! 8 bytes: header length N, little endian
//! N bytes: JSON {"name": {"dtype": "F32", "shape": [8, 576], "data_offsets": [0, 18432]}, ..., "__metadata__": {..}}
//! data, without gaps
//! ```

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::dequant::Matrix;
use super::error::{ImportError, shown};
use super::limits::{MAX_DIMS, MAX_HEADER_BYTES, MAX_TENSORS};
use super::number;

/// A number format of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 64-bit floats.
    F64,
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    BF16,
    /// Anything else that the format defines: integers, booleans, 8-bit floats. Bytes per element.
    Other(u8),
}

impl Dtype {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "F64" => Self::F64,
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::BF16,
            "I64" | "U64" | "C64" => Self::Other(8),
            "I32" | "U32" => Self::Other(4),
            "I16" | "U16" => Self::Other(2),
            "I8" | "U8" | "BOOL" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Self::Other(1),
            _ => return None,
        })
    }

    fn size(self) -> u64 {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Other(size) => u64::from(size),
        }
    }
}

/// One tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor<'a> {
    /// The name, unique in the file.
    pub name: String,
    /// The number format.
    pub dtype: Dtype,
    /// The shape, slowest dimension first.
    pub shape: Vec<u64>,
    /// The data: exactly what the shape needs.
    pub bytes: &'a [u8],
}

impl Tensor<'_> {
    /// The numbers as 32-bit floats. Refuses number formats other than floats, NaN and infinity.
    pub fn numbers(&self) -> Result<Vec<f32>, ImportError> {
        let numbers: Vec<f32> = match self.dtype {
            Dtype::F64 => number::from_f64(self.bytes).collect(),
            Dtype::F32 => number::from_f32(self.bytes).collect(),
            Dtype::F16 => number::from_f16(self.bytes).collect(),
            Dtype::BF16 => number::from_bf16(self.bytes).collect(),
            Dtype::Other(_) => {
                let reason = "is not stored as floats; quantized adapters of other tools cannot be imported";
                return Err(ImportError::tensor(&self.name, reason));
            }
        };
        if !numbers.iter().all(|number| number.is_finite()) {
            let reason = "holds NaN or infinite weights; the training went wrong or the file is damaged";
            return Err(ImportError::tensor(&self.name, reason));
        }
        Ok(numbers)
    }

    /// The numbers as a matrix. Refuses other than two dimensions.
    pub fn matrix(&self) -> Result<Matrix, ImportError> {
        let [rows, columns] = self.shape[..] else {
            let reason = format!("has shape {:?}, expected a matrix", self.shape);
            return Err(ImportError::tensor(&self.name, reason));
        };
        // Both fit, since their product is the length of a slice; unless it is empty.
        let shape = (usize::try_from(rows), usize::try_from(columns));
        let (Ok(rows), Ok(columns)) = shape else {
            return Err(ImportError::tensor(&self.name, "is too large"));
        };
        if rows == 0 || columns == 0 {
            return Err(ImportError::tensor(&self.name, "is empty"));
        }
        let numbers = self.numbers()?;
        Matrix::from_shape_vec((rows, columns), numbers)
            .map_err(|error| ImportError::tensor(&self.name, format!("has a bad shape: {error}")))
    }

    /// The numbers of a vector, whatever dimensions of 1 surround it.
    pub fn vector(&self) -> Result<Vec<f32>, ImportError> {
        if self.shape.iter().filter(|dim| **dim != 1).count() > 1 {
            let reason = format!("has shape {:?}, expected a vector", self.shape);
            return Err(ImportError::tensor(&self.name, reason));
        }
        self.numbers()
    }
}

/// A safetensors file whose header was read and found consistent.
///
/// What holds then: names are unique; every tensor's bytes are what its shape needs; tensors neither overlap nor leave
/// a gap, and fill the file.
#[derive(Clone, Debug)]
pub struct SafeTensors<'a> {
    tensors: Vec<Tensor<'a>>,
    index: HashMap<String, usize>,
}

impl<'a> SafeTensors<'a> {
    /// Reads and checks the header. Pickles and zip archives are refused by their first bytes.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ImportError> {
        refuse_others(bytes)?;
        let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(ImportError::weights(format!("{} bytes are no safetensors file", bytes.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length == 0 {
            return Err(ImportError::weights("the header is empty"));
        }
        if length > MAX_HEADER_BYTES {
            let reason = format!(
                "the header claims {length} bytes, the limit is {MAX_HEADER_BYTES}: not a safetensors file, or damaged"
            );
            return Err(ImportError::weights(reason));
        }
        let split = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length));
        let Some((header, data)) = split else {
            let reason = format!("the header claims {length} bytes, the file has {} after it", rest.len());
            return Err(ImportError::weights(reason));
        };
        if header.first() != Some(&b'{') {
            return Err(ImportError::weights("the header is no JSON object: not a safetensors file"));
        }
        let Ok(header) = std::str::from_utf8(header) else {
            return Err(ImportError::weights("the header is not UTF-8"));
        };
        let header: Header = serde_json::from_str(header)
            .map_err(|error| ImportError::weights(format!("the header is refused: {}", plain(&error))))?;
        let tensors = place(header.entries, data)?;
        let mut index = HashMap::new();
        for (position, tensor) in tensors.iter().enumerate() {
            if index.insert(tensor.name.clone(), position).is_some() {
                return Err(ImportError::tensor(&tensor.name, "is there twice"));
            }
        }
        Ok(Self { tensors, index })
    }

    /// All tensors, in the order of their data.
    pub fn tensors(&self) -> &[Tensor<'a>] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(*self.index.get(name)?)
    }
}

/// The message of a JSON error, without the position in a text that nobody sees.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// Refuses what people pass for safetensors by mistake or on purpose, telling what it is.
fn refuse_others(bytes: &[u8]) -> Result<(), ImportError> {
    let found = if bytes.starts_with(b"PK") {
        "a zip archive (a PyTorch checkpoint)"
    } else if bytes.starts_with(&[0x1f, 0x8b]) {
        "a gzip archive"
    } else if is_pickle(bytes) {
        "a pickle"
    } else if bytes.starts_with(b"GGUF") {
        return Err(ImportError::weights("is a GGUF file, not safetensors; add it without the folder"));
    } else if bytes.starts_with(b"version https://git-lfs") {
        let reason = "is a Git LFS pointer, not the weights; fetch them with 'git lfs pull'";
        return Err(ImportError::weights(reason));
    } else {
        return Ok(());
    };
    Err(ImportError::Pickle { found })
}

/// The PROTO opcode with a protocol, as all pickles of protocol 2 and later start. The length of a safetensors header
/// that starts with the same two bytes is told by the brace after it.
fn is_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 2..=5, ..]) && bytes.get(8) != Some(&b'{')
}

/// Where a header says that a tensor is.
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<u64>,
    start: u64,
    end: u64,
}

/// Lays the entries out over the data, which they must fill without overlap or gap.
fn place(mut entries: Vec<Entry>, data: &[u8]) -> Result<Vec<Tensor<'_>>, ImportError> {
    entries.sort_by_key(|entry| (entry.start, entry.end));
    let mut position = 0;
    let mut tensors = Vec::with_capacity(entries.len());
    for entry in entries {
        let refuse = |reason: String| Err(ImportError::tensor(&entry.name, reason));
        if entry.start != position {
            let what = if entry.start < position { "overlaps the tensor before it" } else { "follows a gap" };
            return refuse(format!("{what}: starts at byte {}, expected {position}", entry.start));
        }
        let needed = entry.shape.iter().try_fold(entry.dtype.size(), |size, dim| size.checked_mul(*dim));
        let found = entry.end.checked_sub(entry.start);
        if needed.is_none() || needed != found {
            return refuse(format!(
                "has bytes {} to {}, which do not fit shape {:?}",
                entry.start, entry.end, entry.shape
            ));
        }
        let range = usize::try_from(entry.start).ok().zip(usize::try_from(entry.end).ok());
        let Some(bytes) = range.and_then(|(start, end)| data.get(start..end)) else {
            return refuse(format!("ends at byte {}, the file holds {}", entry.end, data.len()));
        };
        position = entry.end;
        tensors.push(Tensor { name: entry.name, dtype: entry.dtype, shape: entry.shape, bytes });
    }
    if position != data.len() as u64 {
        let reason = format!("{} bytes follow the last tensor", (data.len() as u64).saturating_sub(position));
        return Err(ImportError::weights(reason));
    }
    Ok(tensors)
}

/// The header, read entry by entry, so that the caps hold before memory is used.
struct Header {
    entries: Vec<Entry>,
}

/// One entry as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Header, M::Error> {
                use serde::de::Error;
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    if entries.len() == MAX_TENSORS {
                        return Err(M::Error::custom(format!("more than {MAX_TENSORS} tensors")));
                    }
                    let fields: Fields = map.next_value()?;
                    let Some(dtype) = Dtype::parse(&fields.dtype) else {
                        let reason = format!("'{}' has unknown dtype '{}'", shown(&name), shown(&fields.dtype));
                        return Err(M::Error::custom(reason));
                    };
                    if fields.shape.len() > MAX_DIMS {
                        let reason = format!("'{}' has {} dimensions", shown(&name), fields.shape.len());
                        return Err(M::Error::custom(reason));
                    }
                    entries.push(Entry {
                        name,
                        dtype,
                        shape: fields.shape,
                        start: fields.data_offsets.0,
                        end: fields.data_offsets.1,
                    });
                }
                Ok(Header { entries })
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
