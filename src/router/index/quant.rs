//! Vectors as bytes: a row of `i8` with one scale, split so that one cache line tells most; and dot products that
//! compilers turn into vector instructions.
//!
//! The upper four bits of the first [`head_dims`] numbers of a row are its *head*: 64 bytes for 128 dimensions or more.
//! Their lower four bits and the other numbers are its *body*. Nothing is stored twice. Integer sums are exact, so
//! scores are the same on every machine and with every instruction set.

/// The largest number in a row.
const ROW_MAX: f32 = 127.0;
/// The largest number in a probe. 16383 * 127 * 384 dimensions fits an `i32`.
const PROBE_MAX: f32 = 16383.0;

/// How many dimensions have their upper bits in the head: 128, or as many as there are, an even number.
pub(super) const fn head_dims(dim: usize) -> usize {
    if dim < 128 { dim / 2 * 2 } else { 128 }
}

/// Bytes of a head.
pub(super) const fn head_bytes(dim: usize) -> usize {
    head_dims(dim) / 2
}

/// Bytes of a body.
pub(super) const fn body_bytes(dim: usize) -> usize {
    dim - head_bytes(dim)
}

/// Appends `vector` to `codes`, a number a byte; what one unit is worth.
pub(super) fn quantize(vector: &[f32], codes: &mut Vec<i8>) -> f32 {
    let scale = largest(vector) / ROW_MAX;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    codes.extend(vector.iter().map(|x| (x * inverse).round() as i8));
    scale
}

fn largest(vector: &[f32]) -> f32 {
    let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    if largest.is_finite() { largest } else { 0.0 }
}

/// Appends the head of a row of codes.
pub(super) fn pack_head(codes: &[i8], out: &mut Vec<u8>) {
    let half = head_bytes(codes.len());
    let upper = |code: i8| ((code >> 4) + 8) as u8;
    out.extend(codes.iter().zip(&codes[half..]).take(half).map(|(a, b)| upper(*a) | upper(*b) << 4));
}

/// Appends the body of a row of codes.
pub(super) fn pack_body(codes: &[i8], out: &mut Vec<u8>) {
    let half = head_bytes(codes.len());
    let lower = |code: i8| code as u8 & 15;
    out.extend(codes.iter().zip(&codes[half..]).take(half).map(|(a, b)| lower(*a) | lower(*b) << 4));
    out.extend(codes[2 * half..].iter().map(|code| *code as u8));
}

/// Appends the codes of which these are head and body.
pub(super) fn unpack(head: &[u8], body: &[u8], codes: &mut Vec<i8>) {
    let join = |upper: u8, lower: u8| ((upper as i8 - 8) << 4) | lower as i8;
    codes.extend(head.iter().zip(body).map(|(upper, lower)| join(upper & 15, lower & 15)));
    codes.extend(head.iter().zip(body).map(|(upper, lower)| join(upper >> 4, lower >> 4)));
    codes.extend(body.iter().skip(head.len()).map(|code| *code as i8));
}

/// A query's vector, finer than rows are.
#[derive(Clone, Debug, Default)]
pub(super) struct Probe {
    codes: Vec<i16>,
    half: usize,
    /// Of the codes that heads are multiplied with.
    sum: i32,
    scale: f32,
}

impl Probe {
    /// Of a vector in the axes of the rows it will meet.
    pub fn new(vector: &[f32]) -> Self {
        let scale = largest(vector) / PROBE_MAX;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        Self::of_codes(vector.iter().map(|x| (x * inverse).round() as i16).collect(), scale)
    }

    /// Of a row, to look for others like it.
    pub fn of_row(codes: &[i8]) -> Self {
        Self::of_codes(codes.iter().map(|code| i16::from(*code)).collect(), 1.0)
    }

    fn of_codes(codes: Vec<i16>, scale: f32) -> Self {
        let half = head_bytes(codes.len());
        let sum = codes.iter().take(2 * half).map(|code| i32::from(*code)).sum();
        Self { codes, half, sum, scale }
    }

    /// About the dot product, from the head alone: the lower bits are taken to be in the middle.
    #[inline]
    pub fn rough(&self, head: &[u8]) -> i32 {
        16 * self.nibbles(head) - 120 * self.sum
    }

    /// The dot product, to be multiplied with both scales.
    #[inline]
    pub fn exact(&self, head: &[u8], body: &[u8]) -> i32 {
        let (lower, rest) = body.split_at_checked(self.half).unwrap_or((&[], &[]));
        let tail = self.codes.get(2 * self.half..).unwrap_or(&[]);
        16 * self.nibbles(head) - 128 * self.sum + self.nibbles(lower) + dot(tail, bytemuck::cast_slice(rest))
    }

    /// The dot product with a row of codes.
    pub fn with_codes(&self, codes: &[i8]) -> i32 {
        dot(&self.codes, codes)
    }

    /// What one unit of a code is worth.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    #[inline]
    fn nibbles(&self, bytes: &[u8]) -> i32 {
        const LANES: usize = 32;
        let (low, high) = (self.codes.get(..self.half).unwrap_or(&[]), self.codes.get(self.half..).unwrap_or(&[]));
        let pair =
            |((p, q), b): ((&i16, &i16), &u8)| i32::from(*p) * i32::from(b & 15) + i32::from(*q) * i32::from(b >> 4);
        let mut sum = 0;
        let (lows, highs, blocks) = (low.chunks_exact(LANES), high.chunks_exact(LANES), bytes.chunks_exact(LANES));
        let done = lows.len().min(blocks.len()) * LANES;
        for ((p, q), b) in lows.zip(highs).zip(blocks) {
            sum += p.iter().zip(q).zip(b).map(pair).sum::<i32>();
        }
        if done < bytes.len() {
            sum += low[done.min(low.len())..]
                .iter()
                .zip(high.get(done..).unwrap_or(&[]))
                .zip(&bytes[done..])
                .map(pair)
                .sum::<i32>();
        }
        sum
    }
}

/// Dot product over the shorter of the two.
#[inline]
fn dot(probe: &[i16], row: &[i8]) -> i32 {
    const LANES: usize = 32;
    let (probes, rows) = (probe.chunks_exact(LANES), row.chunks_exact(LANES));
    let done = probes.len().min(rows.len()) * LANES;
    let pair = |(p, r): (&i16, &i8)| i32::from(*p) * i32::from(*r);
    let sum: i32 = probes.zip(rows).map(|(p, r)| p.iter().zip(r).map(pair).sum::<i32>()).sum();
    if done == row.len() { sum } else { sum + probe[done..].iter().zip(&row[done..]).map(pair).sum::<i32>() }
}

/// Dot product of two rows of codes of the same length.
#[inline]
pub(super) fn dot_codes(a: &[i8], b: &[i8]) -> i32 {
    const LANES: usize = 64;
    let pair = |(x, y): (&i8, &i8)| i32::from(*x) * i32::from(*y);
    let (xs, ys) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: i32 = xs.remainder().iter().zip(ys.remainder()).map(pair).sum();
    xs.zip(ys).map(|(x, y)| x.iter().zip(y).map(pair).sum::<i32>()).sum::<i32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(dim: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let mut v: Vec<f32> = (0..dim).map(|_| next()).collect();
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm);
        v
    }

    #[test]
    fn packed_rows_score_as_unpacked_ones_for_every_length() {
        for dim in 1..=384 {
            let (a, b) = (unit(dim, 3), unit(dim, 4));
            let exact: f32 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            let (mut codes, mut head, mut body, mut back) = (vec![], vec![], vec![], vec![]);
            let scale = quantize(&b, &mut codes);
            pack_head(&codes, &mut head);
            pack_body(&codes, &mut body);
            assert_eq!((head.len(), body.len()), (head_bytes(dim), body_bytes(dim)));
            unpack(&head, &body, &mut back);
            assert_eq!(back, codes, "{dim}");
            let probe = Probe::new(&a);
            assert_eq!(probe.exact(&head, &body), probe.with_codes(&codes), "{dim}");
            let near = probe.exact(&head, &body) as f32 * probe.scale() * scale;
            assert!((near - exact).abs() < 0.01, "{dim}: {near} {exact}");
            if dim <= 128 && dim % 2 == 0 {
                let rough = probe.rough(&head) as f32 * probe.scale() * scale;
                assert!((rough - exact).abs() < 0.3, "{dim}: {rough} {exact}");
            }
            let naive: i32 = codes.iter().map(|x| i32::from(*x) * i32::from(*x)).sum();
            assert_eq!(dot_codes(&codes, &codes), naive);
        }
    }

    #[test]
    fn nothing_and_nonsense_become_zero() {
        for bad in [vec![0.0; 8], vec![f32::INFINITY; 8], vec![f32::NAN; 8]] {
            let mut codes = Vec::new();
            let scale = quantize(&bad, &mut codes);
            assert_eq!(Probe::new(&bad).with_codes(&codes) as f32 * scale, 0.0);
        }
    }
}
