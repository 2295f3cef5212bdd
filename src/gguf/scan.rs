//! Looks at the numbers of adapter weights: is anything not finite, is anything not zero.
//!
//! Floats are judged by their bits with adds, ands and ors only, so that the loops vectorise on any CPU: adding one to
//! an exponent field of all ones carries into the sign's place.

use super::tensor::TensorType;

/// What a tensor's bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// No NaN and no infinity (in blocks: among the scales).
    pub(super) finite: bool,
    /// Every number is zero (in blocks: every scale and minimum).
    pub(super) zero: bool,
}

/// Element formats that [`scan`] understands, which are those accepted in LoRA adapters.
pub(super) const SCANNED: [TensorType; 8] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
];

/// Scans all bytes of a tensor. `None` for types outside [`SCANNED`].
pub(super) fn scan(kind: TensorType, bytes: &[u8]) -> Option<Scan> {
    Some(match kind {
        TensorType::F32 => scan_f32(bytes),
        TensorType::F16 => scan_16(bytes, 0x7c00, 0x0400),
        TensorType::BF16 => scan_16(bytes, 0x7f80, 0x0080),
        TensorType::Q4_0 => scan_blocks::<18>(bytes, 1),
        TensorType::Q4_1 => scan_blocks::<20>(bytes, 2),
        TensorType::Q5_0 => scan_blocks::<22>(bytes, 1),
        TensorType::Q5_1 => scan_blocks::<24>(bytes, 2),
        TensorType::Q8_0 => scan_blocks::<34>(bytes, 1),
        _ => return None,
    })
}

fn scan_f32(bytes: &[u8]) -> Scan {
    let (mut carry, mut any) = (0_u32, 0_u32);
    for word in bytes.as_chunks::<4>().0 {
        let bits = u32::from_le_bytes(*word);
        carry |= (bits & 0x7f80_0000) + 0x0080_0000;
        any |= bits & 0x7fff_ffff;
    }
    Scan { finite: carry & 0x8000_0000 == 0, zero: any == 0 }
}

/// 16-bit floats: `exponent` masks the exponent field, `one` is its lowest bit.
fn scan_16(bytes: &[u8], exponent: u16, one: u16) -> Scan {
    let (mut carry, mut any) = (0_u16, 0_u16);
    for half in bytes.as_chunks::<2>().0 {
        let bits = u16::from_le_bytes(*half);
        carry |= (bits & exponent) + one;
        any |= bits & 0x7fff;
    }
    Scan { finite: carry & 0x8000 == 0, zero: any == 0 }
}

/// Blocks of `N` bytes that start with `scales` F16 numbers (`d`, then `m`; `ggml/src/ggml-common.h`).
fn scan_blocks<const N: usize>(bytes: &[u8], scales: usize) -> Scan {
    let mut all = Scan { finite: true, zero: true };
    for block in bytes.as_chunks::<N>().0 {
        let head = block.get(..2 * scales).unwrap_or(block);
        let one = scan_16(head, 0x7c00, 0x0400);
        all.finite &= one.finite;
        all.zero &= one.zero;
    }
    all
}
