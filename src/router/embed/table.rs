//! A static embedding table: one row of 8-bit numbers per token, with a scale each.
//!
//! ```text
//! bytes           what
//! 8               "SMOAEMB1"
//! 4               rows, little endian
//! 4               numbers in a row (the dimension)
//! 4 x rows        scale of each row, F32, finite and not negative
//! dim x rows      rows of signed bytes; number = scale x byte
//! ```

use std::borrow::Cow;

const MAGIC: &[u8; 8] = b"SMOAEMB1";
/// Most rows and numbers in a row that are accepted.
const MAX_ROWS: usize = 1 << 22;
const MAX_DIM: usize = 4096;

/// A table or vocabulary that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The table's bytes are no table.
    #[error("embedding table: {0}")]
    Malformed(String),
    /// The vocabulary does not fit the table.
    #[error("embedding vocabulary: {0}")]
    Vocabulary(String),
}

/// A table that was checked. Rows stay where they are, embedded or mapped.
#[derive(Clone, Debug)]
pub struct Table {
    bytes: Cow<'static, [u8]>,
    scales: Vec<f32>,
    rows_at: usize,
    dim: usize,
}

impl Table {
    /// Reads and checks a table.
    ///
    /// # Errors
    /// [`TableError::Malformed`] for anything but the layout above, to the byte.
    pub fn read(bytes: Cow<'static, [u8]>) -> Result<Self, TableError> {
        let refuse = |reason: String| Err(TableError::Malformed(reason));
        let header = bytes.split_first_chunk::<8>().filter(|(magic, _)| *magic == MAGIC);
        let Some((rows, rest)) = header.and_then(|(_, rest)| number(rest)) else {
            return refuse("does not begin with SMOAEMB1".into());
        };
        let Some((dim, rest)) = number(rest) else { return refuse("ends within its header".into()) };
        if !(1..=MAX_ROWS).contains(&rows) || !(1..=MAX_DIM).contains(&dim) {
            return refuse(format!("claims {rows} rows of {dim} numbers; at most {MAX_ROWS} of {MAX_DIM} are read"));
        }
        if rest.len() != rows * (4 + dim) {
            return refuse(format!(
                "holds {} bytes after its header, {rows} rows of {dim} need {}",
                rest.len(),
                rows * (4 + dim)
            ));
        }
        let scales: Vec<f32> =
            rest[..rows * 4].as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        if let Some(row) = scales.iter().position(|scale| !scale.is_finite() || *scale < 0.0) {
            return refuse(format!("row {row} has scale {}", scales[row]));
        }
        let rows_at = bytes.len() - rows * dim;
        Ok(Self { scales, rows_at, dim, bytes })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// Numbers in a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds row `row` to `sum`; a row that is not there adds nothing.
    pub fn add(&self, row: usize, sum: &mut [f32]) {
        let start = self.rows_at + row * self.dim;
        let found = self.scales.get(row).zip(self.bytes.get(start..start + self.dim));
        let Some((scale, numbers)) = found else { return };
        for (sum, number) in sum.iter_mut().zip(numbers) {
            *sum += scale * f32::from(*number as i8);
        }
    }
}

/// A little-endian number, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*word)).ok()?, rest))
}

/// A table in memory, for tests: rows of numbers from -127 to 127, all with one scale.
#[cfg(test)]
pub(super) fn sample(scale: f32, rows: &[&[i8]]) -> Vec<u8> {
    let dim = rows.first().map_or(0, |row| row.len());
    let mut bytes = MAGIC.to_vec();
    bytes.extend((rows.len() as u32).to_le_bytes());
    bytes.extend((dim as u32).to_le_bytes());
    rows.iter().for_each(|_| bytes.extend(scale.to_le_bytes()));
    bytes.extend(rows.iter().flat_map(|row| row.iter().map(|number| *number as u8)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> Result<Table, TableError> {
        Table::read(Cow::Owned(bytes))
    }

    #[test]
    fn rows_are_scaled_bytes() {
        let table = read(sample(0.5, &[&[1, -2, 3], &[127, -127, 0]])).expect("a table");
        assert_eq!((table.rows(), table.dim()), (2, 3));
        let mut sum = [1.0; 3];
        table.add(1, &mut sum);
        table.add(2, &mut sum);
        assert_eq!(sum, [64.5, -62.5, 1.0]);
    }

    #[test]
    fn damaged_tables_are_refused() {
        let good = sample(1.0, &[&[1, 2], &[3, 4]]);
        for cut in 0..good.len() {
            assert!(read(good[..cut].to_vec()).is_err(), "{cut} bytes");
        }
        let long = [good.clone(), vec![0]].concat();
        let with = |at: usize, bytes: [u8; 4]| {
            let mut bad = good.clone();
            bad[at..at + 4].copy_from_slice(&bytes);
            bad
        };
        for bad in [
            long,
            with(0, *b"GGUF"),
            with(8, u32::MAX.to_le_bytes()),
            with(12, u32::MAX.to_le_bytes()),
            with(8, [0; 4]),
            with(12, [0; 4]),
            with(16, f32::NAN.to_le_bytes()),
            with(16, (-1.0_f32).to_le_bytes()),
        ] {
            assert!(matches!(read(bad), Err(TableError::Malformed(_))));
        }
        assert!(read(good).is_ok());
    }
}
