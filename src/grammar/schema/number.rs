//! Numbers: bounds and multiples, exactly or not at all.

use serde_json::{Number, Value};

use super::part::Origin;

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    pub value: f64,
    /// The end itself is outside.
    pub open: bool,
}

/// A conjunction about numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Num {
    pub integer: bool,
    /// Not an integer.
    pub fraction: Option<Origin>,
    pub low: Option<Bound>,
    pub high: Option<Bound>,
    /// A multiple of all of these: of their least common multiple.
    pub multiple: Option<Decimal>,
    /// A multiple of none of these.
    pub not_multiple: Vec<(Decimal, Origin)>,
}

/// `digits * 10^-places`, above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub digits: u64,
    pub places: u32,
}

/// Numbers up to here are the same as text and as `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

impl Num {
    /// Both conditions at once. `None` if the common multiple is too large to work with.
    pub fn meet(&self, other: &Num) -> Option<Num> {
        let tighter = |a: Option<Bound>, b: Option<Bound>, low: bool| match (a, b) {
            (Some(a), Some(b)) if a.value == b.value => Some(Bound { value: a.value, open: a.open || b.open }),
            (Some(a), Some(b)) => Some(if (a.value > b.value) == low { a } else { b }),
            (a, b) => a.or(b),
        };
        let multiple = match (self.multiple, other.multiple) {
            (Some(a), Some(b)) => Some(a.common(b)?),
            (a, b) => a.or(b),
        };
        let mut not_multiple = self.not_multiple.clone();
        for more in &other.not_multiple {
            if !not_multiple.iter().any(|(known, _)| *known == more.0) {
                not_multiple.push(more.clone());
            }
        }
        Some(Num {
            integer: self.integer || other.integer,
            fraction: self.fraction.clone().or(other.fraction.clone()),
            low: tighter(self.low, other.low, true),
            high: tighter(self.high, other.high, false),
            multiple,
            not_multiple,
        })
    }

    /// Whether no number can satisfy it, as far as bounds and multiples tell.
    pub fn is_empty(&self) -> bool {
        if self.integer && self.fraction.is_some() {
            return true;
        }
        if let (Some(multiple), true) = (self.multiple, self.fraction.is_some())
            && multiple.places == 0
        {
            return true;
        }
        if let Some(multiple) = self.multiple
            && self.not_multiple.iter().any(|(other, _)| multiple.is_multiple_of(*other))
        {
            return true;
        }
        let (Some(low), Some(high)) = (self.low, self.high) else {
            return false;
        };
        if low.value > high.value || (low.value == high.value && (low.open || high.open)) {
            return true;
        }
        if self.integer {
            let (low, high) = (first_integer(low), last_integer(high));
            if low > high {
                return true;
            }
            if let Some(multiple) = self.multiple.and_then(Decimal::whole)
                && low.abs() < EXACT
                && high.abs() < EXACT
            {
                let step = multiple as i64;
                return (high as i64).div_euclid(step) * step < low as i64;
            }
        }
        low.value == high.value && !self.holds(low.value, None)
    }

    /// Whether a number satisfies it. `exact`: its decimal form, if known.
    fn holds(&self, value: f64, exact: Option<(i128, u32)>) -> bool {
        let whole = value.fract() == 0.0;
        if (self.integer && !whole) || (self.fraction.is_some() && whole) {
            return false;
        }
        let above = self.low.is_none_or(|low| value > low.value || (value == low.value && !low.open));
        let below = self.high.is_none_or(|high| value < high.value || (value == high.value && !high.open));
        let exact = exact.or_else(|| decimal_of(&format!("{value}")));
        above
            && below
            && self.multiple.is_none_or(|multiple| multiple.divides(exact, value))
            && !self.not_multiple.iter().any(|(multiple, _)| multiple.divides(exact, value))
    }

    /// Whether the number satisfies it.
    pub fn admits(&self, number: &Number) -> bool {
        number.as_f64().is_some_and(|value| self.holds(value, decimal_of(&number.to_string())))
    }

    /// The integers that satisfy it, if they are at most `most`.
    pub fn list(&self, most: usize) -> Option<Vec<Value>> {
        let (low, high) = (first_integer(self.low?), last_integer(self.high?));
        if !self.integer || low.abs() > EXACT || high.abs() > EXACT || high - low > most as f64 * 64.0 {
            return None;
        }
        let all = (low as i64..=high as i64).map(Number::from).filter(|number| self.admits(number));
        let found: Vec<Value> = all.map(Value::Number).take(most + 1).collect();
        (found.len() <= most).then_some(found)
    }
}

fn first_integer(low: Bound) -> f64 {
    let first = low.value.ceil();
    if first == low.value && low.open { first + 1.0 } else { first }
}

fn last_integer(high: Bound) -> f64 {
    let last = high.value.floor();
    if last == high.value && high.open { last - 1.0 } else { last }
}

/// The number, if `f64` holds it exactly enough: integers within 2^53, and anything written with a fraction.
pub(super) fn exactly(number: &Number) -> Option<f64> {
    let value = number.as_f64()?;
    match number.is_f64() {
        true => Some(value),
        false => (value.abs() <= EXACT).then_some(value),
    }
}

impl Decimal {
    /// A divisor above zero with few enough digits.
    pub fn read(number: &Number) -> Option<Decimal> {
        let (digits, places) = decimal_of(&number.to_string())?;
        let digits = u64::try_from(digits).ok().filter(|&digits| digits > 0)?;
        Some(Decimal { digits, places })
    }

    /// The least common multiple.
    fn common(self, other: Decimal) -> Option<Decimal> {
        let places = self.places.max(other.places);
        let scale = |one: Decimal| one.digits.checked_mul(10u64.checked_pow(places - one.places)?);
        let (a, b) = (scale(self)?, scale(other)?);
        let mut found = Decimal { digits: (a / gcd(a, b)).checked_mul(b)?, places };
        while found.places > 0 && found.digits.is_multiple_of(10) {
            found = Decimal { digits: found.digits / 10, places: found.places - 1 };
        }
        Some(found)
    }

    fn is_multiple_of(self, other: Decimal) -> bool {
        self.common(other) == Some(self)
    }

    fn whole(self) -> Option<u64> {
        // A multiple of 2.5 that is an integer is a multiple of 5.
        let ten = 10u64.checked_pow(self.places)?;
        let whole = self.digits / gcd(self.digits, ten);
        (whole < 1 << 52).then_some(whole)
    }

    fn divides(self, exact: Option<(i128, u32)>, value: f64) -> bool {
        let divided = exact.and_then(|(digits, places)| {
            let up = places.max(self.places);
            let a = digits.checked_mul(10i128.checked_pow(up - places)?)?;
            let b = i128::from(self.digits).checked_mul(10i128.checked_pow(up - self.places)?)?;
            Some(a % b == 0)
        });
        divided.unwrap_or_else(|| {
            let quotient = value / (self.digits as f64 / 10f64.powi(self.places as i32));
            quotient.fract() == 0.0
        })
    }

    /// As a JSON number.
    pub fn number(self) -> Option<Number> {
        // The engine takes 32 bits of digits.
        if self.digits > u64::from(u32::MAX) || self.places > 9 {
            return None;
        }
        match self.places {
            0 => Some(Number::from(self.digits)),
            places => Number::from_f64(format!("{}e-{places}", self.digits).parse().ok()?),
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A number's text as digits and decimal places; none for those with too many.
pub(in super::super) fn decimal_of(text: &str) -> Option<(i128, u32)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    match u32::try_from(places) {
        Ok(places) if places <= 30 => Some((digits, places)),
        Ok(_) => None,
        Err(_) if places > -30 => Some((digits.checked_mul(10i128.checked_pow(places.unsigned_abs())?)?, 0)),
        Err(_) => None,
    }
}

/// The range as the engine takes it: bounds within what it counts with. `true` if that makes it smaller.
pub(super) fn engine_bounds(num: &Num) -> Option<(Option<Bound>, Option<Bound>, bool)> {
    const MOST: f64 = 1e15;
    let mut narrowed = false;
    let mut end = |bound: Option<Bound>, sign: f64| match bound {
        Some(bound) if bound.value * sign > MOST => None, // nothing that the engine counts is beyond
        Some(bound) if bound.value * sign < -MOST => {
            narrowed = true;
            Some(Some(Bound { value: -MOST * sign, open: false }))
        }
        bound => Some(bound),
    };
    let low = end(num.low, 1.0)?;
    let high = end(num.high, -1.0)?;
    Some((low, high, narrowed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn number(value: Value) -> Number {
        value.as_number().cloned().unwrap()
    }

    #[test]
    fn decimals_divide_exactly() {
        for (divisor, value, divides) in [
            (json!(0.01), json!(19.99), true),
            (json!(0.01), json!(19.995), false),
            (json!(0.1), json!(0.3), true),
            (json!(3), json!(-6), true),
            (json!(2.5), json!(5), true),
            (json!(1e-8), json!(12.5), true),
            (json!(7), json!(1e20), false),
        ] {
            let multiple = Decimal::read(&number(divisor.clone()));
            let num = Num { multiple, ..Num::default() };
            assert_eq!(num.admits(&number(value.clone())), divides, "{value} / {divisor}");
        }
        assert_eq!(Decimal::read(&number(json!(0))), None);
        assert_eq!(Decimal::read(&number(json!(-2))), None);
    }

    #[test]
    fn empty_ranges_are_seen() {
        let range = |low: f64, high: f64, integer| Num {
            integer,
            low: Some(Bound { value: low, open: true }),
            high: Some(Bound { value: high, open: false }),
            ..Num::default()
        };
        assert!(range(1.0, 1.0, false).is_empty());
        assert!(range(2.0, 1.0, false).is_empty());
        assert!(!range(1.0, 2.0, true).is_empty());
        assert!(range(1.2, 1.9, true).is_empty());
        let mut num = range(1.0, 6.0, true);
        num.multiple = Decimal::read(&number(json!(7)));
        assert!(num.is_empty());
        assert_eq!(range(1.0, 4.0, true).list(5), Some(vec![json!(2), json!(3), json!(4)]));
    }
}
