//! Numbers and texts in files: little endian, checked when read.

/// Reads from the front of bytes; every step says whether there was enough.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (now, later) = self.0.split_at_checked(count)?;
        self.0 = later;
        Some(now)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn f32(&mut self) -> Option<f32> {
        self.array().map(f32::from_le_bytes)
    }

    /// A number of seven bits a byte, the lowest first.
    #[inline]
    pub fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for (i, byte) in self.0.iter().take(5).enumerate() {
            value |= u32::from(byte & 127) << (7 * i);
            if byte & 128 == 0 {
                self.0 = &self.0[i + 1..];
                return Some(value);
            }
        }
        None
    }

    /// A text with its length in front.
    pub fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }
}

/// Appends what [`Reader::varint`] reads.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value > 127 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends what [`Reader::text`] reads.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        let numbers = [0, 1, 127, 128, 300, 1 << 21, u32::MAX];
        numbers.iter().for_each(|n| put_varint(&mut out, *n));
        put_text(&mut out, "héllo");
        let mut reader = Reader(&out);
        assert!(numbers.iter().all(|n| reader.varint() == Some(*n)));
        assert_eq!(reader.text(), Some("héllo"));
        assert_eq!((reader.u8(), reader.varint(), reader.text()), (None, None, None));
    }
}
