//! Tensor types with their block sizes, and one row of the tensor table.

/// Sizes of a tensor in elements, fastest dimension first (`ne` in ggml); unused dimensions are 1.
pub type Shape = [u64; 4];

/// A tensor type that this llama.cpp can read, as numbered by `enum ggml_type` in `ggml/include/ggml.h`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorType(u32);

/// One line of ggml's type table.
struct Traits {
    id: u32,
    name: &'static str,
    /// Elements per block.
    block: u64,
    /// Bytes per block.
    bytes: u64,
}

const fn row(id: u32, name: &'static str, block: u64, bytes: u64) -> Traits {
    Traits { id, name, block, bytes }
}

/// `type_traits` of `ggml/src/ggml.c`, sizes from the `static_assert`s of `ggml/src/ggml-common.h`.
const TYPES: [Traits; 35] = [
    row(0, "F32", 1, 4),
    row(1, "F16", 1, 2),
    row(2, "Q4_0", 32, 18),
    row(3, "Q4_1", 32, 20),
    row(6, "Q5_0", 32, 22),
    row(7, "Q5_1", 32, 24),
    row(8, "Q8_0", 32, 34),
    row(9, "Q8_1", 32, 36),
    row(10, "Q2_K", 256, 84),
    row(11, "Q3_K", 256, 110),
    row(12, "Q4_K", 256, 144),
    row(13, "Q5_K", 256, 176),
    row(14, "Q6_K", 256, 210),
    row(15, "Q8_K", 256, 292),
    row(16, "IQ2_XXS", 256, 66),
    row(17, "IQ2_XS", 256, 74),
    row(18, "IQ3_XXS", 256, 98),
    row(19, "IQ1_S", 256, 50),
    row(20, "IQ4_NL", 32, 18),
    row(21, "IQ3_S", 256, 110),
    row(22, "IQ2_S", 256, 82),
    row(23, "IQ4_XS", 256, 136),
    row(24, "I8", 1, 1),
    row(25, "I16", 1, 2),
    row(26, "I32", 1, 4),
    row(27, "I64", 1, 8),
    row(28, "F64", 1, 8),
    row(29, "IQ1_M", 256, 56),
    row(30, "BF16", 1, 2),
    row(34, "TQ1_0", 256, 54),
    row(35, "TQ2_0", 256, 66),
    row(39, "MXFP4", 32, 17),
    row(40, "NVFP4", 64, 36),
    row(41, "Q1_0", 128, 18),
    row(42, "Q2_0", 64, 18),
];

impl TensorType {
    /// 32-bit floats.
    pub const F32: Self = Self(0);
    /// 16-bit floats.
    pub const F16: Self = Self(1);
    /// 4-bit blocks of 32 with one scale.
    pub const Q4_0: Self = Self(2);
    /// 4-bit blocks of 32 with a scale and a minimum.
    pub const Q4_1: Self = Self(3);
    /// 5-bit blocks of 32 with one scale.
    pub const Q5_0: Self = Self(6);
    /// 5-bit blocks of 32 with a scale and a minimum.
    pub const Q5_1: Self = Self(7);
    /// 8-bit blocks of 32 with one scale.
    pub const Q8_0: Self = Self(8);
    /// 8-bit integers; bytes of anything.
    pub const I8: Self = Self(24);
    /// 32-bit integers.
    pub const I32: Self = Self(26);
    /// Brain floats: the upper half of a 32-bit float.
    pub const BF16: Self = Self(30);

    /// The type of this number, if llama.cpp reads it. Numbers of types that were removed give `None`.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().any(|traits| traits.id == id).then_some(Self(id))
    }

    /// The number stored in files.
    pub fn id(self) -> u32 {
        self.0
    }

    /// The usual name, such as `Q4_1`.
    pub fn name(self) -> &'static str {
        self.traits().name
    }

    /// Elements in one block; rows hold a whole number of blocks.
    pub fn block_elements(self) -> u64 {
        self.traits().block
    }

    /// Bytes in one block.
    pub fn block_bytes(self) -> u64 {
        self.traits().bytes
    }

    /// Bytes that a tensor of this shape takes, or `None` when a row is not a whole number of blocks or the size
    /// does not fit in 63 bits.
    pub fn size_of(self, dims: &Shape) -> Option<u64> {
        let mut elements: u64 = 1;
        for dim in dims {
            elements = elements.checked_mul(*dim)?;
        }
        if i64::try_from(elements).is_err() || !dims[0].is_multiple_of(self.block_elements()) {
            return None;
        }
        let bytes = (elements / self.block_elements()).checked_mul(self.block_bytes())?;
        i64::try_from(bytes).ok()?;
        Some(bytes)
    }

    fn traits(self) -> &'static Traits {
        // `from_id` is the only way to a number that is not a constant above, so the row is there; F32 otherwise.
        TYPES.iter().find(|traits| traits.id == self.0).unwrap_or(&TYPES[0])
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Debug for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One tensor of a file. Its bytes lie inside the file and overlap no other tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// The name: 1 to 63 bytes, no control characters, unique in the file.
    pub name: &'a str,
    /// Elements per dimension, fastest first; each at least 1.
    pub dims: Shape,
    /// The stored type.
    pub kind: TensorType,
    /// Bytes from the start of the data section.
    pub offset: u64,
    /// Bytes of data.
    pub size: u64,
}

impl TensorInfo<'_> {
    /// Elements in the tensor.
    pub fn elements(&self) -> u64 {
        self.dims.iter().fold(1, |count: u64, dim| count.saturating_mul(*dim))
    }

    /// Whether all dimensions after the first are 1.
    pub fn is_vector(&self) -> bool {
        self.dims[1..] == [1, 1, 1]
    }
}
