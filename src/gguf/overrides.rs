//! Metadata that a user puts in place of a file's (`--override-kv`). What is put in is checked like what the file says.

use super::error::{GgufError, GgufErrorKind};
use super::header::Gguf;
use super::value::Value;

/// Most bytes of an overriding text, and of the key, in llama.cpp's structure (`llama_model_kv_override`).
const MOST: usize = 127;

/// A key and what it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: OverrideValue,
}

/// llama.cpp's kinds of overriding values.
#[derive(Clone, Debug, PartialEq)]
pub enum OverrideValue {
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Str(String),
}

impl Override {
    /// Reads `KEY=TYPE:VALUE`, where TYPE is int, float, bool or str.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "give KEY=TYPE:VALUE with int, float, bool or str as the type".to_string();
        let (key, rest) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
        let (kind, value) = rest.split_once(':').ok_or_else(wrong)?;
        if key.len() > MOST || value.len() > MOST || text.contains('\0') {
            return Err(format!("a key or a value has at most {MOST} bytes, and no NUL"));
        }
        let none = |what: &str| format!("'{value}' is not {what}");
        let value = match kind {
            "int" => OverrideValue::Int(value.parse().map_err(|_| none("a whole number"))?),
            "float" => {
                let number = value.parse::<f64>().ok().filter(|n| n.is_finite());
                OverrideValue::Float(number.ok_or_else(|| none("a number"))?)
            }
            "bool" => OverrideValue::Bool(value.parse().map_err(|_| none("true or false"))?),
            "str" => OverrideValue::Str(value.into()),
            _ => return Err(wrong()),
        };
        Ok(Self { key: key.into(), value })
    }
}

impl<'a> Gguf<'a> {
    /// Puts values in place of the file's, in the type that the file has for the key.
    pub(super) fn apply(&mut self, overrides: &'a [Override]) -> Result<(), GgufError> {
        for Override { key, value } in overrides {
            let refused = |reason: String| GgufError::new(GgufErrorKind::WrongType, key.as_str(), reason);
            let new = match (self.get(key), value) {
                (Some(Value::Array(_)), _) => return Err(refused("is an array, which cannot be overridden".into())),
                (None | Some(Value::Str(_)), OverrideValue::Str(text)) => Value::Str(text.as_bytes()),
                (None | Some(Value::Bool(_)), OverrideValue::Bool(flag)) => Value::Bool(*flag),
                (None | Some(Value::F32(_)), OverrideValue::Float(number)) => Value::F32(*number as f32),
                (Some(Value::F64(_)), OverrideValue::Float(number)) => Value::F64(*number),
                (old, OverrideValue::Int(number)) => {
                    let fits = match old {
                        None | Some(Value::U32(_)) => u32::try_from(*number).ok().map(Value::U32),
                        Some(Value::I32(_)) => i32::try_from(*number).ok().map(Value::I32),
                        Some(Value::U16(_)) => u16::try_from(*number).ok().map(Value::U16),
                        Some(Value::U64(_)) => u64::try_from(*number).ok().map(Value::U64),
                        Some(Value::I64(_)) => Some(Value::I64(*number)),
                        Some(other) => {
                            return Err(refused(format!(
                                "is stored as {}, overridden as a whole number",
                                other.describe()
                            )));
                        }
                    };
                    fits.ok_or_else(|| refused(format!("cannot be {number}")))?
                }
                (Some(other), _) => {
                    return Err(refused(format!("is stored as {}, overridden as another type", other.describe())));
                }
            };
            self.put(key, new);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_read_as_llama_cpp_does() {
        let value = |text: &str| Override::parse(text).map(|o| o.value);
        assert_eq!(value("a.b=int:-3"), Ok(OverrideValue::Int(-3)));
        assert_eq!(value("a=float:0.5"), Ok(OverrideValue::Float(0.5)));
        assert_eq!(value("a=bool:true"), Ok(OverrideValue::Bool(true)));
        assert_eq!(value("a=str:x=y:z"), Ok(OverrideValue::Str("x=y:z".into())));
        let long = format!("a=str:{}", "x".repeat(128));
        for bad in ["a", "a=int", "=int:1", "a=int:x", "a=bool:1", "a=float:nan", "a=u8:1", long.as_str()] {
            assert!(Override::parse(bad).is_err(), "{bad}");
        }
    }
}
