//! `smoa adapter pack` and `key`: bundles to be given away, signed or not. `smoa adapter add` takes them in.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;

use super::super::Context;
use super::super::args::{LibraryArgs, read_text};
use super::super::exit::Outcome;
use super::{open, parsed, write_new};
use crate::bundle::{self, BundleError, Item, PublicKey, SigningKey};
use crate::error::{Code, Failure, printable};
use crate::gguf::{self, ModelFacts};
use crate::library::{Access, Kind, Library, LibraryError, OnConflict, Pinned, base_fingerprint};
use crate::shelf::library_failure;

/// The end of a bundle's name.
pub const EXTENSION: &str = "smoa";

/// Write adapters with all that is said of them into one file, to be given away
#[derive(Args, Debug)]
pub struct PackArgs {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
    /// The file to write, NAME.smoa; it must not exist
    #[arg(short = 'o', long, value_name = "FILE")]
    output: PathBuf,
    /// Sign it with this private key; `smoa adapter key` makes one
    #[arg(long, value_name = "FILE")]
    sign: Option<PathBuf>,
    /// Pack adapters without a licence too
    #[arg(long)]
    without_licence: bool,
    #[command(flatten)]
    library: LibraryArgs,
}

/// Make a key to sign bundles with: the private part into a file, the public part on standard output
#[derive(Args, Debug)]
pub struct KeyArgs {
    /// The file for the private key; it must not exist
    #[arg(short = 'o', long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs `smoa adapter key`.
///
/// # Errors
/// The file exists or cannot be written.
pub fn key(args: &KeyArgs, context: &Context) -> Result<(), Outcome> {
    let (key, text) = SigningKey::generate().map_err(|e| Failure::new(Code::Other, e.to_string()))?;
    write_new(&args.output, format!("{text}\n").as_bytes())?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&args.output, private)
            .map_err(|e| Failure::new(Code::Other, format!("'{}': {e}", args.output.display())))?;
    }
    Ok(context.printer.line(&key.public().to_string())?)
}

/// Runs `smoa adapter pack`.
///
/// # Errors
/// A name is not there, an adapter has no licence, the file exists.
pub fn pack(args: &PackArgs, context: &Context) -> Result<(), Outcome> {
    let failed = |e: LibraryError| Outcome::Failed(library_failure(&e));
    if args.output.extension().is_none_or(|end| end != EXTENSION) {
        return Err(
            Failure::usage(format!("-o '{}': give a name that ends with .{EXTENSION}", args.output.display())).into()
        );
    }
    let key = match &args.sign {
        Some(path) => {
            let wrong = |e| Failure::new(Code::InvalidFile, format!("--sign '{}': {e}", path.display()));
            Some(SigningKey::read(&read_text(path, "--sign")?).map_err(wrong)?)
        }
        None => None,
    };
    let library = open(&args.library, Access::Read)?;
    let mut pinned: Vec<Pinned> = Vec::new();
    for name in &args.names {
        let one = library.pin(&parsed(name)?).map_err(failed)?;
        one.check().map_err(failed)?;
        if one.entry().metadata.card.licence.is_none() && !args.without_licence {
            let message = format!(
                "adapter '{name}' has no licence; `smoa adapter tag {name} --licence TEXT`, or --without-licence"
            );
            return Err(Failure::usage(message).into());
        }
        pinned.push(one);
    }
    let items: Vec<Item<'_>> = pinned
        .iter()
        .map(|p| Item { name: p.entry().name.as_str(), bytes: p.bytes(), metadata: &p.entry().metadata })
        .collect();
    let mut file = std::io::Cursor::new(Vec::new());
    bundle::write(&mut file, &items, key.as_ref()).map_err(|e| failure(&args.output, &e))?;
    let bytes = file.into_inner();
    write_new(&args.output, &bytes)?;
    let signed = key.map_or_else(|| "not signed".to_owned(), |key| format!("signed by {}", key.public()));
    context.printer.line(&format!("{} adapters, {} bytes, {signed}", items.len(), bytes.len()))?;
    Ok(())
}

/// What is wanted of a bundle.
pub struct Wanted<'w> {
    /// Keys of which one must have signed it; none are asked for when there are none.
    pub signers: &'w [String],
    /// The adapters; all without.
    pub names: Option<&'w [String]>,
    /// When a name is taken.
    pub on_conflict: OnConflict,
}

/// Adds adapters of a bundle, each checked against the base model, all or none.
///
/// # Errors
/// The bundle is refused, it is not signed by one of the signers, an adapter is for another model or not there, a name is
/// taken.
pub fn add(
    path: &Path,
    wanted: &Wanted<'_>,
    (library, base): (&Library, &ModelFacts),
    context: &Context,
) -> Result<(), Outcome> {
    let refuse = |what: String| Failure::new(Code::InvalidFile, format!("'{}': {what}", path.display()));
    let trusted: Vec<PublicKey> = wanted
        .signers
        .iter()
        .map(|text| PublicKey::read(text).map_err(|e| Failure::usage(format!("--signer {text}: {e}"))))
        .collect::<Result<_, _>>()?;
    let file = File::open(path)
        .map_err(|e| Failure::new(crate::model_file::open_code(&e), format!("'{}': {e}", path.display())))?;
    let mut bundle = bundle::read(BufReader::new(file)).map_err(|e| failure(path, &e))?;
    match &bundle.signer {
        Some(key) if trusted.is_empty() || trusted.contains(key) => {
            context.printer.note(&format!("{}: signed by {key}", path.display()));
        }
        Some(key) => return Err(refuse(format!("is signed by {key}, which is no --signer")).into()),
        None if trusted.is_empty() => context.printer.note(&format!("{}: not signed", path.display())),
        None => return Err(refuse("is not signed, and --signer asks for a signature".into()).into()),
    }
    let fingerprint = base_fingerprint(base);
    let mut writer = library.writer().map_err(|e| library_failure(&e))?;
    let mut lines = Vec::new();
    let mut adapters = bundle.adapters.clone();
    if let Some(names) = wanted.names {
        adapters.retain(|packed| names.iter().any(|name| name == packed.name.as_str()));
        if adapters.len() < names.len() {
            return Err(refuse(format!("has not all of {}, which the index says it has", names.join(", "))).into());
        }
    }
    for packed in adapters {
        let bytes = bundle.bytes(&packed).map_err(|e| failure(path, &e))?;
        let mut metadata = packed.metadata.clone();
        let wrong = |what: String| refuse(format!("adapter '{}': {what}", packed.name));
        match metadata.measured.kind {
            Some(Kind::Composition) => {
                crate::compose::from_gguf(&bytes, packed.name.as_str())
                    .map_err(|e| wrong(e.to_string()))?
                    .ok_or_else(|| wrong("is not the composition that the manifest says".into()))?;
            }
            _ => {
                // What the manifest says of the tensors is not believed.
                let error = metadata.measured.relative_error;
                let said = metadata.measured.base.take();
                if said.as_ref().is_some_and(|base| *base != fingerprint) {
                    return Err(wrong(format!(
                        "is for base model {}, this one is {fingerprint}",
                        said.unwrap_or_default()
                    ))
                    .into());
                }
                let facts = gguf::check_adapter(&bytes, base).map_err(|e| wrong(e.to_string()))?;
                metadata.measured = crate::library::Measured::of(&facts, Some(fingerprint.clone()));
                metadata.measured.relative_error = error;
            }
        }
        let added = writer.add(&packed.name, &bytes, &metadata, wanted.on_conflict).map_err(|e| library_failure(&e))?;
        let licence = metadata.card.licence.as_deref().unwrap_or("no licence");
        lines.push(format!("{} {} ({} bytes, {licence}, {:?})", packed.name, added.digest, bytes.len(), added.outcome));
    }
    writer.commit().map_err(|e| library_failure(&e))?;
    for line in lines {
        context.printer.line(&printable(&line))?;
    }
    Ok(())
}

/// The failure that a refused bundle becomes.
pub fn failure(path: &Path, e: &BundleError) -> Failure {
    Failure::new(Code::InvalidFile, format!("'{}': {e}", path.display()))
}
