//! A request's JSON text, read strictly: bounded depth, no key twice.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads an object.
///
/// # Errors
/// One line for the client: no JSON, no object, too deep, a key twice, a number that is none.
pub fn strict_object(text: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    if nested(text) > depth {
        return Err(format!("the body has more than {depth} arrays and objects inside each other"));
    }
    match serde_json::from_slice::<Strict>(text) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err("the body must be a JSON object".into()),
        Err(_) if text.iter().all(u8::is_ascii_whitespace) => {
            Err("the body is empty; a JSON object is expected".into())
        }
        Err(e) => Err(format!("the body is not valid JSON: {e}")),
    }
}

/// How deep brackets go, strings aside. Of text that is no JSON, an upper bound.
fn nested(text: &[u8]) -> usize {
    let (mut depth, mut most, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                most = most.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    most
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("a number is out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.contains_key(&key) {
                let shown: String = key.chars().take(40).collect();
                return Err(de::Error::custom(format!("the key {shown:?} is there twice")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies_are_read_strictly() {
        let good = strict_object(br#" {"a": [1, -2, 1.5, "[[[", true, null], "b": {"c": {}}} "#, 3).expect("read");
        assert_eq!(Value::Object(good), json!({"a": [1, -2, 1.5, "[[[", true, null], "b": {"c": {}}}));
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let table: [(&[u8], &str); 9] = [
            (b"", "the body is empty"),
            (b"{", "the body is not valid JSON"),
            (b"[1]", "the body must be a JSON object"),
            (b"{\"a\": 1, \"a\": 2}", "the body is not valid JSON: the key \"a\" is there twice"),
            (b"{\"x\": {\"a\": 1, \"a\": 2}}", "the body is not valid JSON: the key \"a\" is there twice"),
            (b"{\"a\": 1e999}", "the body is not valid JSON: number out of range"),
            (b"{\"a\": NaN}", "the body is not valid JSON"),
            (b"{\"a\": \"\xff\"}", "the body is not valid JSON"),
            (deep.as_bytes(), "the body has more than 64"),
        ];
        for (text, expected) in table {
            let e = strict_object(text, 64).expect_err(expected);
            assert!(e.starts_with(expected), "{e:?} should start with {expected:?}");
        }
    }
}
