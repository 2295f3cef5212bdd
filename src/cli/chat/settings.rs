//! `/set`: sampling and limits by llama-server's field names. Pure. Values are read by [`wire::parse`], so that a name
//! means here what it means in a JSON request; the table only lists and shows.

use serde_json::{Value, json};

use crate::error::Failure;
use crate::request::Request;
use crate::sampling::Mirostat;
use crate::wire;

/// A setting: its name, its value, what it is.
pub struct Setting {
    /// llama-server's name.
    pub name: &'static str,
    value: fn(&Request) -> Value,
}

const fn setting(name: &'static str, value: fn(&Request) -> Value) -> Setting {
    Setting { name, value }
}

/// All settings, the common ones first.
#[rustfmt::skip]
pub const TABLE: [Setting; 29] = [
    setting("temperature", |r| number(r.sampling.temperature)),
    setting("top_k", |r| r.sampling.top_k.into()),
    setting("top_p", |r| number(r.sampling.top_p)),
    setting("min_p", |r| number(r.sampling.min_p)),
    setting("seed", |r| r.sampling.seed.map_or(json!(-1), Value::from)),
    setting("n_predict", |r| r.limits.max_tokens.map_or(json!(-1), Value::from)),
    setting("stop", |r| r.limits.stop.clone().into()),
    setting("repeat_penalty", |r| number(r.sampling.repeat_penalty)),
    setting("repeat_last_n", |r| r.sampling.repeat_last_n.into()),
    setting("presence_penalty", |r| number(r.sampling.presence_penalty)),
    setting("frequency_penalty", |r| number(r.sampling.frequency_penalty)),
    setting("typical_p", |r| number(r.sampling.typical_p)),
    setting("top_n_sigma", |r| number(r.sampling.top_n_sigma)),
    setting("xtc_probability", |r| number(r.sampling.xtc_probability)),
    setting("xtc_threshold", |r| number(r.sampling.xtc_threshold)),
    setting("dry_multiplier", |r| number(r.sampling.dry_multiplier)),
    setting("dry_base", |r| number(r.sampling.dry_base)),
    setting("dry_allowed_length", |r| r.sampling.dry_allowed_length.into()),
    setting("dry_penalty_last_n", |r| r.sampling.dry_penalty_last_n.into()),
    setting("dry_sequence_breakers", |r| r.sampling.dry_sequence_breakers.clone().into()),
    setting("dynatemp_range", |r| number(r.sampling.dynatemp_range)),
    setting("dynatemp_exponent", |r| number(r.sampling.dynatemp_exponent)),
    setting("mirostat", |r| match r.sampling.mirostat { Mirostat::Off => 0, Mirostat::V1 => 1, Mirostat::V2 => 2 }.into()),
    setting("mirostat_tau", |r| number(r.sampling.mirostat_tau)),
    setting("mirostat_eta", |r| number(r.sampling.mirostat_eta)),
    setting("ignore_eos", |r| r.sampling.ignore_eos.into()),
    setting("min_keep", |r| r.sampling.min_keep.into()),
    setting("samplers", |r| r.sampling.order.iter().map(|k| k.name()).collect()),
    setting("context_shift", |r| r.limits.shift.is_some().into()),
];

/// Short names of llama.cpp's flags.
const ALIASES: [(&str, &str); 6] = [
    ("temp", "temperature"),
    ("n", "n_predict"),
    ("predict", "n_predict"),
    ("max_tokens", "n_predict"),
    ("typical", "typical_p"),
    ("s", "seed"),
];

/// `request` with the setting `name` at `value`, which is JSON, a bare text, or `default` for that of `defaults`.
/// Gives also the setting as it is now.
///
/// # Errors
/// There is no such setting, or the value is wrong. The range is checked with the request.
pub fn assign(request: &Request, defaults: &Request, name: &str, value: &str) -> Result<(Request, String), Failure> {
    let name = name.replace('-', "_");
    let name = ALIASES.iter().find(|(short, _)| *short == name).map_or(name.as_str(), |(_, long)| long);
    let setting = TABLE.iter().find(|s| s.name == name).ok_or_else(|| unknown(name))?;
    let value = match value {
        "default" => (setting.value)(defaults),
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
    };
    if value.is_null() {
        return Err(Failure::usage(format!("{name}: give a value, or `default`")));
    }
    let line = json!({"prompt": "", name: value}).to_string();
    let asked = wire::parse(&line, request).map_err(|e| e.failure)?;
    let changed = Request { sampling: asked.request.sampling, limits: asked.request.limits, ..request.clone() };
    let shown = format!("{name} {}", (setting.value)(&changed));
    Ok((changed, shown))
}

/// A line for each setting; those that differ from `defaults` say so.
pub fn list(request: &Request, defaults: &Request) -> Vec<String> {
    let line = |s: &Setting| {
        let (value, usual) = ((s.value)(request), (s.value)(defaults));
        let note = if value == usual { String::new() } else { format!("  (default {usual})") };
        format!("{:<22} {value}{note}", s.name)
    };
    TABLE.iter().map(line).collect()
}

fn unknown(name: &str) -> Failure {
    let scored = TABLE.iter().map(|s| (strsim::jaro_winkler(name, s.name), s.name));
    let nearest = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.6);
    let hint = nearest.map_or("/set lists all".to_string(), |(_, n)| format!("the nearest is {n}"));
    Failure::usage(format!("there is no setting '{name}'; {hint}"))
}

/// A number as people write it: 0.8, where a plain conversion gives 0.800000011920929.
fn number(v: f32) -> Value {
    serde_json::from_str(&v.to_string()).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Input;

    fn plain() -> Request {
        Request::new(Input::Raw(String::new()))
    }

    #[test]
    fn settings_are_read_as_a_json_request_reads_them() {
        let table = [
            ("temperature", "0.2", "temperature 0.2"),
            ("temp", "0", "temperature 0"),
            ("top-k", "3", "top_k 3"),
            ("n", "12", "n_predict 12"),
            ("n_predict", "-1", "n_predict -1"),
            ("seed", "42", "seed 42"),
            ("stop", "END", "stop [\"END\"]"),
            ("stop", "[\"a\",\"b\"]", "stop [\"a\",\"b\"]"),
            ("samplers", "kt", "samplers [\"top_k\",\"temperature\"]"),
            ("context_shift", "true", "context_shift true"),
        ];
        for (name, value, expected) in table {
            let (_, shown) = assign(&plain(), &plain(), name, value).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(shown, expected);
        }
    }

    #[test]
    fn every_setting_can_be_given_its_own_value_and_its_default() {
        for setting in &TABLE {
            let value = (setting.value)(&plain()).to_string();
            for text in [value.as_str(), "default"] {
                let (request, _) =
                    assign(&plain(), &plain(), setting.name, text).unwrap_or_else(|e| panic!("{}: {e}", setting.name));
                assert_eq!(request, plain(), "{}", setting.name);
            }
        }
    }

    #[test]
    fn wrong_settings_name_the_right_ones() {
        let table = [
            ("temperatur", "1", "there is no setting 'temperatur'; the nearest is temperature"),
            ("prompt", "x", "there is no setting 'prompt'"),
            ("top_k", "many", "top_k: must be a whole number of 32 bits, not \"many\""),
            ("top_k", "null", "top_k: give a value, or `default`"),
        ];
        for (name, value, expected) in table {
            let e = assign(&plain(), &plain(), name, value).expect_err(name).message;
            assert!(e.starts_with(expected), "{e:?} should start with {expected:?}");
        }
    }

    #[test]
    fn the_list_marks_what_was_changed() {
        let (changed, _) = assign(&plain(), &plain(), "temperature", "0.25").expect("set");
        let lines = list(&changed, &plain());
        assert_eq!(lines.iter().filter(|l| l.contains("(default")).count(), 1);
        assert_eq!(lines[0], "temperature            0.25  (default 0.8)");
    }
}
