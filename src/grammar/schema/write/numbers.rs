//! Numbers within bounds as regular expressions over their decimal digits, without exponents.

/// One end of a range, as decimal text without a sign; `open`: the end itself is outside.
#[derive(Debug, Clone, Copy)]
struct End<'a> {
    whole: u64,
    /// Digits behind the point, without zeros at their end.
    fraction: &'a str,
    open: bool,
}

/// A bound: its value, and whether it is itself outside.
pub(in super::super::super) type Bound = (f64, bool);

/// Integers without bounds.
const INTEGER: &str = "-?(?:0|[1-9][0-9]*)";
/// Numbers without bounds.
const NUMBER: &str = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?";
/// Largest bound: every integer up to here is exact.
const MOST: f64 = 9e15;

/// Alternatives, or nothing.
fn either(parts: Vec<String>) -> Option<String> {
    match parts.len() {
        0 => None,
        1 => parts.into_iter().next(),
        _ => Some(format!("(?:{})", parts.join("|"))),
    }
}

/// The integers between two bounds; `None` if there are none, or a bound is too large.
pub(in super::super::super) fn integers(low: Option<Bound>, high: Option<Bound>) -> Option<String> {
    if low.is_none() && high.is_none() {
        return Some(INTEGER.to_owned());
    }
    let end = |bound: Option<Bound>, exact: fn(Bound) -> Option<i64>| match bound {
        Some(bound) => exact(bound).map(Some),
        None => Some(None),
    };
    let (low, high) = (end(low, first)?, end(high, last)?);
    let mut parts = Vec::new();
    if low.is_none_or(|low| low < 0) {
        // From -1 downwards.
        let most = low.map(i64::unsigned_abs);
        let least = high.filter(|high| *high < 0).map_or(1, i64::unsigned_abs);
        parts.extend(naturals(least, most).map(|digits| format!("-{digits}")));
    }
    if high.is_none_or(|high| high >= 0) {
        parts.extend(naturals(low.unwrap_or(0).max(0).unsigned_abs(), high.map(i64::unsigned_abs)));
    }
    either(parts)
}

fn first((value, open): Bound) -> Option<i64> {
    let first = value.ceil();
    (value.abs() <= MOST).then(|| first as i64 + i64::from(open && first == value))
}

fn last((value, open): Bound) -> Option<i64> {
    let last = value.floor();
    (value.abs() <= MOST).then(|| last as i64 - i64::from(open && last == value))
}

/// The numbers between two bounds, which are not the same; `None` if there are none, or a bound is too large. Two
/// expressions, if both must match.
pub(in super::super::super) fn decimals(low: Option<Bound>, high: Option<Bound>) -> Option<Vec<[Option<String>; 2]>> {
    if low.is_none() && high.is_none() {
        return Some(vec![[Some(NUMBER.to_owned()), None]]);
    }
    if [low, high].into_iter().flatten().any(|(value, _)| value.abs() > MOST) {
        return None;
    }
    let mut parts = Vec::new();
    if low.is_none_or(|(low, _)| low < 0.0) {
        // Below zero, mirrored.
        let nearest = high.filter(|(high, _)| *high < 0.0).map_or((0.0, true), |(high, open)| (-high, open));
        let part = positive(nearest, low.map(|(low, open)| (-low, open)));
        parts.extend(part.map(|part| part.map(|text| text.map(|text| format!("-(?:{text})")))));
    }
    if high.is_none_or(|(high, open)| high > 0.0 || (high == 0.0 && !open)) {
        let lowest = low.filter(|(low, _)| *low >= 0.0).unwrap_or((0.0, false));
        parts.extend(positive(lowest, high));
    }
    (!parts.is_empty()).then_some(parts)
}

/// Between two bounds from zero on.
fn positive(low: Bound, high: Option<Bound>) -> Option<[Option<String>; 2]> {
    let text = |value: f64| format!("{value}");
    fn end(text: &str, open: bool) -> Option<End<'_>> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        Some(End { whole: whole.parse().ok()?, fraction, open })
    }
    let (low_text, high_text) = (text(low.0), high.map(|(value, _)| text(value)));
    let low = end(&low_text, low.1)?;
    let Some(high) = high_text.as_deref().zip(high).map(|(text, (_, open))| end(text, open)) else {
        let mut parts = vec![format!("{}{}", low.whole, above(low))];
        parts.extend(naturals(low.whole + 1, None).map(|digits| format!(r"{digits}(?:\.[0-9]+)?")));
        return Some([either(parts), None]);
    };
    let high = high?;
    if low.whole == high.whole {
        let least = format!("{}{}", low.whole, above(low));
        return below(high).map(|most| [Some(least), Some(format!("{}{most}", high.whole))]);
    }
    let mut parts = vec![format!("{}{}", low.whole, above(low))];
    if low.whole + 1 < high.whole {
        parts.extend(naturals(low.whole + 1, Some(high.whole - 1)).map(|digits| format!(r"{digits}(?:\.[0-9]+)?")));
    }
    parts.extend(below(high).map(|most| format!("{}{most}", high.whole)));
    either(parts).map(|text| [Some(text), None])
}

/// Point and digits, or nothing, of a fraction that is at least that of the end.
fn above(end: End<'_>) -> String {
    match (end.fraction, end.open) {
        ("", false) => r"(?:\.[0-9]+)?".to_owned(),
        ("", true) => r"\.[0-9]*[1-9][0-9]*".to_owned(),
        (digits, open) => {
            // From the last digit on outwards.
            let rest = if open { "[0-9]*[1-9][0-9]*" } else { "[0-9]*" };
            let more = |rest: String, digit: char| match digit {
                '9' => format!("9{rest}"),
                digit => format!("(?:[{}-9][0-9]*|{digit}{rest})", next(digit)),
            };
            format!(r"\.{}", digits.chars().rev().fold(rest.to_owned(), more))
        }
    }
}

/// The same of one that is at most that of the end; `None` if there is none.
fn below(end: End<'_>) -> Option<String> {
    let digits = end.fraction;
    if digits.is_empty() {
        return (!end.open).then(|| r"(?:\.0+)?".to_owned());
    }
    let mut rest: Option<String> = if end.open { None } else { Some("0*".to_owned()) };
    for (index, digit) in digits.chars().rev().enumerate() {
        // Less than the last digit may end behind each of those before it.
        let tail = rest.map(|rest| if index == 0 { rest } else { format!("(?:{rest})?") });
        let less = (digit != '0').then(|| format!("[0-{}][0-9]*", before(digit)));
        let same = match (index, tail) {
            (_, Some(tail)) => Some(format!("{digit}{tail}")),
            (0, None) => None,
            (_, None) => Some(digit.to_string()),
        };
        rest = either(less.into_iter().chain(same).collect());
    }
    Some(rest.map_or_else(String::new, |rest| format!(r"(?:\.{rest})?")))
}

fn next(digit: char) -> char {
    char::from(digit as u8 + 1)
}

fn before(digit: char) -> char {
    char::from(digit as u8 - 1)
}

/// The numbers from `low` to `high` without signs and fractions.
fn naturals(low: u64, high: Option<u64>) -> Option<String> {
    let text = low.to_string();
    let mut parts = Vec::new();
    match high.map(|high| high.to_string()) {
        _ if high.is_some_and(|high| high < low) => return None,
        Some(high) if high.len() == text.len() => parts.push(alike(&text, &high)),
        high => {
            parts.push(alike(&text, &"9".repeat(text.len())));
            let more = text.len();
            match high {
                None => parts.push(format!("[1-9][0-9]{{{more},}}")),
                Some(high) => {
                    if more + 1 < high.len() {
                        parts.push(format!("[1-9][0-9]{{{more},{}}}", high.len() - 2));
                    }
                    parts.push(alike(&format!("1{}", "0".repeat(high.len() - 1)), &high));
                }
            }
        }
    }
    either(parts)
}

/// Digits as many as those of both ends, between them.
fn alike(low: &str, high: &str) -> String {
    let (Some(a), Some(b)) = (low.chars().next(), high.chars().next()) else { return String::new() };
    let (low, high) = (&low[1..], &high[1..]);
    let any = match low.len() {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        count => format!("[0-9]{{{count}}}"),
    };
    if a == b {
        return format!("{a}{}", alike(low, high));
    }
    let (all_low, all_high) = (low.bytes().all(|b| b == b'0'), high.bytes().all(|b| b == b'9'));
    let from = if all_low { a } else { next(a) };
    let to = if all_high { b } else { before(b) };
    let mut parts = Vec::new();
    if !all_low {
        parts.push(format!("{a}{}", alike(low, &"9".repeat(low.len()))));
    }
    if from <= to {
        parts.push(if from == to { format!("{from}{any}") } else { format!("[{from}-{to}]{any}") });
    }
    if !all_high {
        parts.push(format!("{b}{}", alike(&"0".repeat(high.len()), high)));
    }
    either(parts).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn whole(pattern: &str) -> Regex {
        Regex::new(&format!("^(?:{pattern})$")).unwrap()
    }

    #[test]
    fn integers_between_bounds_are_all_and_only_those() {
        let ends = [-1203, -1000, -999, -101, -100, -11, -10, -1, 0, 1, 7, 9, 10, 12, 99, 100, 250, 999, 1000, 1099];
        for low in ends.map(Some).into_iter().chain([None]) {
            for high in ends.map(Some).into_iter().chain([None]) {
                for open in [false, true] {
                    let bound = |end: Option<i32>| end.map(|end| (f64::from(end), open));
                    let pattern = integers(bound(low), bound(high)).map(|pattern| whole(&pattern));
                    for value in -1300..1300 {
                        let above = low.is_none_or(|low| value > low || (value == low && !open));
                        let below = high.is_none_or(|high| value < high || (value == high && !open));
                        let matched = pattern.as_ref().is_some_and(|pattern| pattern.is_match(&value.to_string()));
                        assert_eq!(matched, above && below, "{value} in {low:?}..{high:?} open {open}");
                    }
                }
            }
        }
        assert!(!whole(&integers(Some((0.0, false)), None).unwrap()).is_match("01"));
        assert_eq!(integers(Some((5.0, true)), Some((6.0, true))), None);
    }

    #[test]
    fn decimals_between_bounds_are_all_and_only_those() {
        let ends = [-12.5, -10.0, -0.25, 0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 1.75, 9.0, 10.0, 12.34];
        let mut texts: Vec<String> = Vec::new();
        for whole in ["0", "1", "2", "8", "9", "10", "11", "12", "13", "100"] {
            texts.push(whole.to_owned());
            for fraction in [
                "0", "00", "04", "05", "050", "06", "1", "10", "2", "24", "25", "250", "251", "3", "34", "341", "5",
                "75", "750", "76", "9",
            ] {
                texts.push(format!("{whole}.{fraction}"));
            }
        }
        let negative: Vec<String> = texts.iter().map(|text| format!("-{text}")).collect();
        texts.extend(negative);
        for low in ends.map(Some).into_iter().chain([None]) {
            for high in ends.map(Some).into_iter().chain([None]) {
                if low.zip(high).is_some_and(|(low, high)| low >= high) {
                    continue;
                }
                for open in [(false, false), (true, false), (false, true), (true, true)] {
                    let bounds = (low.map(|low| (low, open.0)), high.map(|high| (high, open.1)));
                    let parts = decimals(bounds.0, bounds.1).unwrap_or_default();
                    let parts: Vec<Vec<Regex>> = parts
                        .iter()
                        .map(|both| both.iter().flatten().map(|pattern| whole(pattern)).collect())
                        .collect();
                    for text in &texts {
                        let value: f64 = text.parse().unwrap();
                        let above = low.is_none_or(|low| value > low || (value == low && !open.0));
                        let below = high.is_none_or(|high| value < high || (value == high && !open.1));
                        let matched = parts.iter().any(|both| both.iter().all(|pattern| pattern.is_match(text)));
                        // Zero with a sign may be left out.
                        if value != 0.0 || !text.starts_with('-') || matched {
                            assert_eq!(matched, above && below, "{text} in {low:?}..{high:?} open {open:?}");
                        }
                    }
                }
            }
        }
    }
}
