//! Bundles come back; changed ones are refused.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::*;
use crate::library::{Kind, Metadata};

fn metadata() -> Metadata {
    let card = Card { licence: Some("MIT".into()), tags: vec!["x".into()], ..Card::default() };
    Metadata { card, measured: Measured { kind: Some(Kind::Lora), base: Some("b".into()), ..Measured::default() } }
}

fn bundle(key: Option<&SigningKey>) -> Vec<u8> {
    let metadata = metadata();
    let item = |name, bytes| Item { name, bytes, metadata: &metadata };
    let mut file = Cursor::new(Vec::new());
    write(&mut file, &[item("a", b"first"), item("b", b"second"), item("c", b"first")], key).expect("written");
    file.into_inner()
}

#[test]
fn what_was_packed_comes_back() {
    let (key, text) = SigningKey::generate().expect("a key");
    assert_eq!(SigningKey::read(&text).expect("read").public(), key.public());
    assert_eq!(PublicKey::read(&key.public().to_string()), Ok(key.public()));
    for key in [None, Some(&key)] {
        let bytes = bundle(key);
        assert_eq!(bytes, bundle(key), "the same bytes for the same content");
        let mut read = read(Cursor::new(&bytes)).expect("read");
        assert_eq!(read.signer, key.map(SigningKey::public));
        let all = read.adapters.clone();
        let back: Vec<(String, Vec<u8>)> =
            all.iter().map(|p| (p.name.to_string(), read.bytes(p).expect("whole"))).collect();
        let wanted = [("a", &b"first"[..]), ("b", b"second"), ("c", b"first")];
        assert_eq!(back, wanted.map(|(name, bytes)| (name.to_owned(), bytes.to_vec())));
        assert_eq!(all[0].metadata, metadata());
    }
}

/// The members of a bundle, some of them changed.
fn changed(bytes: &[u8], change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut to = ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..from.len() {
        let mut member = from.by_index(at).expect("a member");
        let name = member.name().expect("a name").to_string();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut member, &mut content).expect("read");
        if let Some(content) = change(&name, content) {
            to.start_file(name, SimpleFileOptions::default()).expect("begun");
            to.write_all(&content).expect("written");
        }
    }
    to.finish().expect("finished").into_inner()
}

fn error(bytes: &[u8]) -> String {
    let mut read = match read(Cursor::new(bytes)) {
        Ok(read) => read,
        Err(e) => return e.to_string(),
    };
    let all = read.adapters.clone();
    all.iter().find_map(|p| read.bytes(p).err()).map_or_else(|| "none".to_owned(), |e| e.to_string())
}

#[test]
fn what_was_changed_is_refused() {
    let (key, _) = SigningKey::generate().expect("a key");
    let (other, _) = SigningKey::generate().expect("a key");
    let good = bundle(Some(&key));
    let swap = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |name: &str, content: Vec<u8>| match name == MANIFEST {
            true => Some(String::from_utf8(content).expect("text").replace(&from, &to).into_bytes()),
            false => Some(content),
        }
    };
    let unsigned = bundle(None);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (good.clone(), "none"),
        (changed(&good, swap("MIT", "GPL")), "the signature is not that of"),
        (changed(&unsigned, swap("\"a\"", "\"../a\"")), "adapter name"),
        (changed(&unsigned, swap("\"format\": 1", "\"format\": 2")), "format 2 is not known"),
        (changed(&unsigned, swap("\"licence\"", "\"license\"")), "none"),
        (changed(&unsigned, swap("\"bytes\": 5", "\"bytes\": 3")), "more than 3 bytes"),
        (changed(&unsigned, |name, content| (name != MANIFEST).then_some(content)), "manifest.json: is missing"),
        (changed(&unsigned, |name, content| (!name.starts_with(FOLDER)).then_some(content)), "is missing"),
        (
            changed(&unsigned, |name, content| {
                Some(if name.starts_with(FOLDER) { vec![b'x'; content.len()] } else { content })
            }),
            "the manifest says",
        ),
        (
            changed(&good, |name, content| {
                let theirs = || changed_signature(&content, &other);
                Some(if name == SIGNATURE { theirs() } else { content })
            }),
            "the signature is not that of",
        ),
        (b"PK".to_vec(), "is not a bundle"),
        (good[..good.len() / 2].to_vec(), "is not a bundle"),
    ];
    for (bytes, words) in cases {
        let error = error(&bytes);
        assert!(error.contains(words), "{words}: {error}");
    }
    for bad in ["", "xyz", "00"] {
        assert!(PublicKey::read(bad).is_err() && SigningKey::read(bad).is_err(), "{bad}");
    }
}

/// The signature with another key's name on it.
fn changed_signature(content: &[u8], key: &SigningKey) -> Vec<u8> {
    let mut signature: serde_json::Value = serde_json::from_slice(content).expect("JSON");
    signature["key"] = key.public().to_string().into();
    signature.to_string().into_bytes()
}

#[test]
fn an_index_says_what_to_fetch_and_is_checked() {
    let bytes = bundle(None);
    let opened = read(Cursor::new(&bytes)).expect("read");
    let mut index = Index::default();
    index.list("a.smoa", (bytes.len() as u64, AdapterDigest::of(&bytes)), &opened);
    let text = serde_json::to_string(&index).expect("JSON");
    let index = Index::read(text.as_bytes()).expect("read");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let found = index.wanted(&names(&["c", "a", "c"]), "b").expect("there");
    assert_eq!(
        found.iter().map(|(b, n)| (b.file.as_str(), n.clone())).collect::<Vec<_>>(),
        [("a.smoa", names(&["c", "a"]))]
    );
    assert_eq!(index.bundles[0].adapters[0].licence.as_deref(), Some("MIT"));
    assert!(index.wanted(&names(&["x"]), "b").expect_err("not there").contains("'x'"));
    assert!(index.wanted(&names(&["a"]), "other").expect_err("another base").contains("for base model b"));
    for (from, to, words) in [
        ("\"format\":1", "\"format\":7", "format 7 is not known"),
        ("a.smoa", "../a.smoa", "not a plain name"),
        ("a.smoa", "..", "not a plain name"),
        ("a.smoa", "x/a.smoa", "not a plain name"),
        ("\"bundles\"", "\"bundle\"", "bundles"),
        ("{\"format\"", "\"format\"", "index.json"),
    ] {
        let error = Index::read(text.replace(from, to).as_bytes()).expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}
