//! The module as a whole: golden texts, the two promises.

mod golden;
mod limits;
mod safety;
