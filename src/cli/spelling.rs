//! llama.cpp spells many flags with one dash and several letters (`-ngl 99`). They become long flags before parsing.

use std::ffi::OsString;

/// llama.cpp's one-dash spelling and our long flag.
pub const SPELLINGS: [(&str, &str); 18] = [
    ("-ngl", "--n-gpu-layers"),
    ("-sm", "--split-mode"),
    ("-ts", "--tensor-split"),
    ("-mg", "--main-gpu"),
    ("-dev", "--device"),
    ("-ub", "--ubatch-size"),
    ("-np", "--parallel"),
    ("-tb", "--threads-batch"),
    ("-fa", "--flash-attn"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-cram", "--cache-ram"),
    ("-sps", "--slot-prompt-similarity"),
    ("-jf", "--json-schema-file"),
    ("-sys", "--system-prompt"),
    ("-sysf", "--system-prompt-file"),
    ("-st", "--single-turn"),
    ("-co", "--color"),
];

/// Rewrites one-dash spellings, `-ngl 5` and `-ngl=5` alike. Nothing after `--` is touched.
pub fn expand(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut verbatim = false;
    args.into_iter()
        .map(|arg| {
            verbatim |= arg == "--";
            match arg.to_str() {
                Some(text) if !verbatim => long(text).map_or(arg, OsString::from),
                _ => arg,
            }
        })
        .collect()
}

fn long(text: &str) -> Option<String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
    let known = SPELLINGS.iter().find(|(short, _)| *short == name).map(|(_, long)| *long);
    let long = known.or_else(|| super::flags::long(name))?;
    Some(value.map_or(long.to_string(), |v| format!("{long}={v}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_dash_spellings_become_long_flags() {
        let args = ["smoa", "run", "-ngl", "5", "-ts=1,2", "-m", "x", "-n", "-1", "--", "-ngl"];
        let expected =
            ["smoa", "run", "--n-gpu-layers", "5", "--tensor-split=1,2", "-m", "x", "-n", "-1", "--", "-ngl"];
        assert_eq!(expand(args.map(OsString::from)), expected.map(OsString::from));
    }
}
