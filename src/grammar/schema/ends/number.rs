//! Numbers: short ones, and short ends of begun ones.

use serde_json::{Number, Value};

use super::super::number::{Bound, Decimal, Num};

/// The numbers that a schema allows.
#[derive(Debug)]
pub(super) struct Digits {
    integer: bool,
    low: Option<Bound>,
    high: Option<Bound>,
    multiple: Option<Decimal>,
    /// Some of them as they are spelled, the shortest first.
    some: Vec<String>,
}

/// Digits that are tried behind a begun number.
const DIGITS: u32 = 4;

impl Digits {
    /// Of a schema of a number, as the rewriting writes it.
    pub fn of(leaf: &Value) -> Digits {
        let bound = |plain: &str, open: &str| {
            let end = |key: &str, open| leaf[key].as_f64().map(|value| Bound { value, open });
            end(plain, false).or_else(|| end(open, true))
        };
        let mut digits = Digits {
            integer: leaf["type"] == "integer",
            low: bound("minimum", "exclusiveMinimum"),
            high: bound("maximum", "exclusiveMaximum"),
            multiple: leaf["multipleOf"].as_number().and_then(Decimal::read),
            some: Vec::new(),
        };
        let mut values: Vec<f64> = (0..10).map(f64::from).chain([-1.0, 10.0, 100.0, 0.5, -0.5]).collect();
        let step = leaf["multipleOf"].as_f64().unwrap_or(1.0);
        values.push(step);
        for end in [digits.low, digits.high].into_iter().flatten() {
            let near = (end.value / step).round() * step;
            values.extend([end.value, end.value.ceil(), end.value.floor()]);
            values.extend((-3..4).map(|n| near + f64::from(n) * step));
            // Inside of a narrow range without its ends.
            values.extend((1..4).flat_map(|places| {
                let unit = 10f64.powi(-places);
                [end.value + unit, end.value - unit]
            }));
        }
        if let (Some(low), Some(high)) = (digits.low, digits.high) {
            values.push(f64::midpoint(low.value, high.value));
        }
        let mut some: Vec<String> = values.into_iter().map(plain).filter(|text| digits.admits(text)).collect();
        some.sort_by_key(String::len);
        some.dedup();
        digits.some = some;
        digits
    }

    /// Whether the text is one of them.
    pub fn admits(&self, text: &str) -> bool {
        let whole = !text.contains(['.', 'e', 'E']);
        let Ok(number) = serde_json::from_str::<Number>(text) else { return false };
        let Digits { integer, low, high, multiple, .. } = *self;
        (whole || !integer) && Num { integer, low, high, multiple, ..Num::default() }.admits(&number)
    }

    /// A short one, another one for each number.
    pub fn another(&self, others: usize) -> Option<String> {
        if let Some(found) = self.some.get(others) {
            return Some(found.clone());
        }
        (10..10_000).map(|n: u32| n.to_string()).filter(|text| self.admits(text)).nth(others)
    }

    /// What makes `begun` one of them.
    pub fn rest(&self, begun: &str) -> Option<String> {
        if self.admits(begun) {
            return Some(String::new());
        }
        if let Some(rest) = self.some.iter().find_map(|text| text.strip_prefix(begun)) {
            return Some(rest.to_owned());
        }
        let fraction = (!self.integer && !begun.contains(['.', 'e', 'E'])).then_some(".");
        for point in std::iter::once("").chain(fraction) {
            for places in 1..=DIGITS as usize {
                for digits in 0..10u32.pow(places as u32) {
                    let rest = format!("{point}{digits:0places$}");
                    if self.admits(&format!("{begun}{rest}")) {
                        return Some(rest);
                    }
                }
            }
        }
        None
    }
}

/// Without an exponent, which not every grammar of numbers has.
fn plain(value: f64) -> String {
    // Sums such as 0.1 + 0.2.
    let rounded = (value * 1e9).round() / 1e9;
    let text = format!("{}", if rounded.is_finite() { rounded } else { value });
    if text == "-0" { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ends_of_numbers() {
        for (leaf, begun, rest) in [
            (json!({"type": "integer"}), "", Some("0")),
            (json!({"type": "integer"}), "12", Some("")),
            (json!({"type": "integer"}), "-", Some("1")),
            (json!({"type": "number"}), "1.", Some("0")),
            (json!({"type": "number", "exclusiveMinimum": 0}), "0", Some(".5")),
            (json!({"type": "integer", "minimum": 1500}), "", Some("1500")),
            (json!({"type": "integer", "minimum": 1500}), "2", Some("000")),
            (json!({"type": "integer", "maximum": 10}), "12", None),
            (json!({"type": "integer", "multipleOf": 7}), "1", Some("4")),
            (json!({"type": "number", "multipleOf": 0.01}), "19.9", Some("")),
            (json!({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.1}), "", Some("0.01")),
            (json!({"type": "integer", "exclusiveMinimum": 4, "maximum": 5}), "", Some("5")),
        ] {
            assert_eq!(Digits::of(&leaf).rest(begun).as_deref(), rest, "{leaf} after {begun}");
        }
        let digits = Digits::of(&json!({"type": "integer", "minimum": 3}));
        let several: Vec<String> = (0..40).filter_map(|n| digits.another(n)).collect();
        assert_eq!(several.len(), 40);
        assert!(several.iter().all(|text| digits.admits(text)));
    }
}
