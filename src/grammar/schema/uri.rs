//! As much of RFC 3986 as references between schemas need.

/// `reference` as seen from `base`.
pub(super) fn resolve(base: &str, reference: &str) -> String {
    if scheme(reference).is_some() {
        return reference.to_owned();
    }
    let (bare, _) = base.split_once('#').unwrap_or((base, ""));
    if reference.is_empty() {
        return bare.to_owned();
    }
    if reference.starts_with('#') {
        return format!("{bare}{reference}");
    }
    let (prefix, path) = match scheme(bare) {
        Some(scheme) => {
            let rest = &bare[scheme.len() + 1..];
            match rest.strip_prefix("//") {
                Some(after) => {
                    let authority = after.find(['/', '?']).unwrap_or(after.len());
                    let cut = scheme.len() + 3 + authority;
                    (&bare[..cut], &bare[cut..])
                }
                None => (&bare[..scheme.len() + 1], rest),
            }
        }
        None => ("", bare),
    };
    if let Some(rest) = reference.strip_prefix("//") {
        let scheme = scheme(bare).map(|scheme| format!("{scheme}:")).unwrap_or_default();
        return format!("{scheme}//{rest}");
    }
    let (path, _) = path.split_once('?').unwrap_or((path, ""));
    let (wanted, tail) = match reference.find(['?', '#']) {
        Some(cut) => reference.split_at(cut),
        None => (reference, ""),
    };
    let joined = match wanted {
        "" => path.to_owned(),
        wanted if wanted.starts_with('/') => wanted.to_owned(),
        wanted => match path.rfind('/') {
            Some(cut) => format!("{}{wanted}", &path[..=cut]),
            None if !prefix.is_empty() => format!("/{wanted}"),
            None => wanted.to_owned(),
        },
    };
    format!("{prefix}{}{tail}", without_dots(&joined))
}

fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    valid.then_some(scheme)
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let parts: Vec<&str> = path.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        match *part {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                if kept.len() > 1 {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    kept.join("/")
}

/// Percent-decoding. `None`: not UTF-8.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, more)) = rest.split_first() {
        let code = (first == b'%').then(|| more.get(..2)).flatten();
        match code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            None => {
                bytes.push(first);
                rest = more;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_resolve_as_rfc_3986_says() {
        for (base, reference, full) in [
            ("", "#/a", "#/a"),
            ("http://a/b/c", "d", "http://a/b/d"),
            ("http://a/b/c/", "../d#x", "http://a/b/d#x"),
            ("http://a/b/c", "/d", "http://a/d"),
            ("http://a", "d", "http://a/d"),
            ("http://a/b?q", "#f", "http://a/b?q#f"),
            ("http://a/b", "urn:x:y", "urn:x:y"),
            ("urn:x:y#z", "#f", "urn:x:y#f"),
            ("a/b.json", "c.json", "a/c.json"),
            ("http://a/b", "//h/p", "http://h/p"),
            ("http://a/b/c", "", "http://a/b/c"),
        ] {
            assert_eq!(resolve(base, reference), full, "{reference} from {base}");
        }
        assert_eq!(decode("a%25b%2Fc%zz"), Some("a%b/c%zz".to_owned()));
        assert_eq!(decode("%ff"), None);
    }
}
