//! Schemas and values by chance, the same on every run. Small on purpose: names, texts and numbers meet often.

use serde_json::{Map, Value, json};

/// A small generator of numbers.
pub struct Chance(pub u64);

impl Chance {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    fn name(&mut self) -> String {
        self.pick(&["a", "b", "c", "ab", "d1"]).to_owned()
    }

    fn names(&mut self) -> Vec<String> {
        let mut names: Vec<String> = (0..1 + self.below(2)).map(|_| self.name()).collect();
        names.sort();
        names.dedup();
        names
    }

    fn pattern(&mut self) -> String {
        self.pick(&["^a", "b", "^[ab]+$", "1$", "^.{1,2}$", "^(a|b1?)?$", "c"]).to_owned()
    }

    /// A value, nested at most `depth` deep.
    pub fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => Value::Null,
            1 => Value::Bool(self.below(2) == 0),
            2 => self.pick(&[json!(0), json!(1), json!(2), json!(3), json!(5), json!(6), json!(-1), json!(12)]),
            3 => self.pick(&[json!(0.5), json!(1.5), json!(2.25), json!(-2.5)]),
            4 => self.pick(&[json!(""), json!("a"), json!("ab"), json!("b1"), json!("abc"), json!("x"), json!("1")]),
            5 | 6 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            _ => {
                let mut names: Vec<String> = (0..self.below(4)).map(|_| self.name()).collect();
                names.sort();
                names.dedup();
                Value::Object(names.into_iter().map(|name| (name, self.value(depth - 1))).collect())
            }
        }
    }

    fn list(&mut self, depth: usize, least: usize) -> Value {
        Value::Array((0..least + self.below(2)).map(|_| self.schema(depth)).collect())
    }

    /// A schema, nested at most `depth` deep.
    pub fn schema(&mut self, depth: usize) -> Value {
        if self.below(12) == 0 {
            return Value::Bool(self.below(4) > 0);
        }
        let mut schema = Map::new();
        for _ in 0..1 + self.below(3) {
            let (key, value) = self.keyword(depth);
            schema.insert(key.to_owned(), value);
        }
        Value::Object(schema)
    }

    fn keyword(&mut self, depth: usize) -> (&'static str, Value) {
        let types = ["null", "boolean", "integer", "number", "string", "array", "object"];
        let small = |chance: &mut Chance| Value::from(chance.below(4));
        if depth == 0 || self.below(3) == 0 {
            return match self.below(16) {
                0..=3 => ("type", Value::from(self.pick(&types))),
                4 => ("type", json!([self.pick(&types), self.pick(&types[2..4])])),
                5 => ("enum", Value::Array((0..1 + self.below(3)).map(|_| self.value(1)).collect())),
                6 => ("const", self.value(1)),
                7 => ("minimum", small(self)),
                8 => ("exclusiveMaximum", small(self)),
                9 => ("multipleOf", self.pick(&[json!(2), json!(3), json!(0.5)])),
                10 => ("minLength", small(self)),
                11 => ("maxLength", small(self)),
                12 => ("pattern", Value::from(self.pattern())),
                13 => ("required", Value::from(self.names())),
                14 => (self.pick(&["minItems", "minProperties"]), small(self)),
                _ => (self.pick(&["maxItems", "maxProperties", "maxContains"]), small(self)),
            };
        }
        let depth = depth - 1;
        match self.below(21) {
            0..=2 => {
                let names = self.names();
                ("properties", Value::Object(names.into_iter().map(|name| (name, self.schema(depth))).collect()))
            }
            3 => ("additionalProperties", self.schema(depth)),
            4 => ("additionalProperties", Value::Bool(false)),
            5 => {
                let patterns = [self.pattern(), self.pattern()];
                let entries = patterns.into_iter().map(|pattern| (pattern, self.schema(depth)));
                ("patternProperties", Value::Object(entries.collect()))
            }
            6 => ("propertyNames", self.schema(0)),
            7 => ("items", self.schema(depth)),
            8 => ("prefixItems", self.list(depth, 1)),
            9 => ("contains", self.schema(depth)),
            10 => ("uniqueItems", Value::Bool(true)),
            11 => ("allOf", self.list(depth, 1)),
            12 => ("anyOf", self.list(depth, 1)),
            13 => ("oneOf", self.list(depth, 2)),
            14 | 15 => ("not", self.schema(depth)),
            16 => ("if", self.schema(depth)),
            17 => (self.pick(&["then", "else"]), self.schema(depth)),
            18 => ("dependentRequired", json!({ self.name(): self.names() })),
            19 => ("dependentSchemas", json!({ self.name(): self.schema(depth) })),
            _ => {
                let rest = if self.below(2) == 0 { Value::Bool(false) } else { self.schema(0) };
                (self.pick(&["unevaluatedProperties", "unevaluatedItems"]), rest)
            }
        }
    }
}
