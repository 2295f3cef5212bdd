//! Character ranges as sequences of byte ranges.

/// One to four byte ranges; a character matches if its bytes match them in order.
pub(super) type ByteRanges = Vec<(u8, u8)>;

/// The byte sequences of all characters in `low..=high`, which holds no surrogates.
pub(super) fn sequences(low: u32, high: u32, out: &mut Vec<ByteRanges>) {
    // Characters of different encoded lengths are told apart first.
    for (first, last) in [(0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x1_0000, 0x10_FFFF)] {
        let (low, high) = (low.max(first), high.min(last));
        if low <= high {
            split(low, high, out);
        }
    }
}

/// As [`sequences`], for characters of one encoded length.
fn split(low: u32, high: u32, out: &mut Vec<ByteRanges>) {
    // Where the ends differ above some six bits, those bits must run through their whole range; cut off the
    // ragged parts until they do.
    for shift in [6, 12, 18] {
        let tail = (1 << shift) - 1;
        if low & !tail != high & !tail {
            if low & tail != 0 {
                split(low, low | tail, out);
                split((low | tail) + 1, high, out);
                return;
            }
            if high & tail != tail {
                split(low, (high & !tail) - 1, out);
                split(high & !tail, high, out);
                return;
            }
        }
    }
    let (low, high) = (encode(low), encode(high));
    out.push(low.into_iter().zip(high).collect());
}

fn encode(code: u32) -> Vec<u8> {
    let mut buffer = [0; 4];
    // Callers pass no surrogates; one would simply match nothing.
    char::from_u32(code).map_or_else(Vec::new, |c| c.encode_utf8(&mut buffer).as_bytes().to_vec())
}
