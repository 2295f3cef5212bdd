//! The flags of commands that make an adapter out of something and keep it, and how they keep it.

use clap::Args;

use super::super::args::LibraryArgs;
use super::CardArgs;
use super::add::Conflict;
use crate::error::Failure;
use crate::library::{AdapterName, Added, Card, Library, Measured, Metadata};
use crate::shelf::library_failure;

/// Where it goes, and what is said of it.
#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    /// What to do when the name is taken
    #[arg(long, value_name = "WHAT", default_value = "refuse")]
    on_conflict: Conflict,
    #[command(flatten)]
    card: CardArgs,
    #[command(flatten)]
    pub library: LibraryArgs,
}

impl StoreArgs {
    /// The library, made where there is none.
    pub fn open(&self) -> Result<Library, Failure> {
        Library::create(&self.library.folder()?).map_err(|e| library_failure(&e))
    }

    /// Keeps an adapter; what the flags say of it goes before what `card` does.
    pub fn keep(
        &self,
        library: &Library,
        name: &AdapterName,
        bytes: &[u8],
        card: Card,
        measured: Measured,
    ) -> Result<Added, Failure> {
        let metadata = Metadata { card: self.card.card()?.over(card), measured };
        library.add(name, bytes, &metadata, self.on_conflict.rule()).map_err(|e| library_failure(&e))
    }
}
