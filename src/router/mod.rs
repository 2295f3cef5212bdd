//! The router (placeholder root of this branch: the policy's own `mod.rs` takes its place).

pub mod embed;
