//! Numbers in the engine's words. It knows bounds and multiples, but not "no multiple of" and not "no integer":
//! those become lists, where the range is short enough.

use serde_json::{Map, Number, Value};

use super::super::number::{Bound, Num, engine_bounds, exactly};
use super::super::part::Origin;
use super::{Low, Lowering};

/// Integers that are listed one by one.
const LISTED: usize = 256;

impl Lowering<'_, '_> {
    pub(super) fn number(&mut self, num: &Num) -> Vec<Low> {
        if num.is_empty() {
            return Vec::new();
        }
        let exclusion = num.not_multiple.first().map(|(_, origin)| origin).or(num.fraction.as_ref());
        if let Some(origin) = exclusion {
            if let Some(values) = num.list(LISTED) {
                return if values.is_empty() { Vec::new() } else { vec![Low::Values(values)] };
            }
            if !self.lose(origin, true) {
                return Vec::new();
            }
        }
        let place = Origin { pointer: "".into(), keyword: "minimum" };
        let Some((low, high, narrowed)) = engine_bounds(num) else {
            self.lose(&place, true);
            return Vec::new();
        };
        if narrowed {
            self.note("", "maximum", "numbers beyond 10^15 are never written");
        }
        let mut leaf = Map::new();
        leaf.insert("type".into(), if num.integer { "integer" } else { "number" }.into());
        let mut end = |bound: Option<Bound>, plain: &str, open: &str| {
            if let Some(bound) = bound {
                leaf.insert(if bound.open { open } else { plain }.into(), number(bound.value));
            }
        };
        end(low, "minimum", "exclusiveMinimum");
        end(high, "maximum", "exclusiveMaximum");
        if let Some(multiple) = num.multiple {
            match multiple.number() {
                Some(number) => {
                    leaf.insert("multipleOf".into(), number.into());
                }
                None => {
                    if !self.lose(&Origin { pointer: "".into(), keyword: "multipleOf" }, false) {
                        return Vec::new();
                    }
                }
            }
        }
        vec![Low::Leaf(Value::Object(leaf))]
    }
}

fn number(value: f64) -> Value {
    match value.fract() == 0.0 && value.abs() < 9e15 {
        true => Value::from(value as i64),
        false => Number::from_f64(value).map_or(Value::Null, Value::Number),
    }
}

/// Whether the engine writes the value exactly: no number in it is beyond what it counts with.
pub(super) fn exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => exactly(number).is_some_and(|value| value.abs() <= 9e15),
        Value::Array(items) => items.iter().all(exact),
        Value::Object(entries) => entries.values().all(exact),
        _ => true,
    }
}
