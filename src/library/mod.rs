//! The adapter library on disk (skeleton: interface first).

mod base;
mod card;
mod entry;
mod error;
pub mod limits;
mod name;
mod store;
mod terms;

pub use base::{base_fingerprint, check_base};
pub use card::{CARD_FORMAT, Card, Measured, Metadata};
pub use entry::{Change, Changes, Cursor, Entry, EntryId, Filter, Page};
pub use error::{ErrorKind, LibraryError};
pub use name::{AdapterName, NameError};
pub use store::{Access, Added, GcReport, Library, OnConflict, Outcome, Pinned, Usage, VerifyReport, Writer};
pub use terms::{Granularity, Kind, Specialization, Tier, UnknownWord};
