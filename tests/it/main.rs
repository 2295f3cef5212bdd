//! End-to-end tests: the real program, the real small model, a sealed environment. One binary.
//!
//! - `support`: how a test runs the program, and adapters made for tests
//! - `answers`: what a user gets: text, formats, JSON, adapters
//! - `batch`: many lines at once: order, isolation between adapters, flat memory
//! - `bad_inputs`: the table of wrong files, flags, formats and pipes, with their exit codes
//! - `library`: adapters by name: import, listing, removal, requests that use them
//! - `adapter_rows`: the table of wrong adapters and damaged libraries, and the kinds of adapters
//! - `families`: tiny models of families whose graphs treat adapters in ways of their own
//! - `compose`: compositions and bundles
//! - `eval`: task files scored
//! - `optimize`: near duplicates, dead adapters, undo
//! - `route`: adapters chosen by the router
//! - `starter`: the shipped adapters: routed to, and at work
//! - `states`: sequences, slots and prefixes saved and restored
//! - `http`, `serve`, `serve_bad`, `serve_flags`, `serve_more`, `serve_rows`, `serve_tenants`: the server through its socket: routes,
//!   streams, keys, flags, bad requests, start
//!   and stop, faults and isolation
//! - `vectors`: embeddings and reranking: a tiny encoder and reranker made by the test, and the chat model's own
//! - `isolation`: random traces on the real engine against cold runs
//! - `lanes`, `lane_traps`: mixed batches against llama.cpp's own path, and where they could go wrong
//! - `tidy`: the architecture table of ARCHITECTURE.md against the `use` lines

mod adapter_rows;
mod answers;
mod bad_inputs;
mod batch;
mod catalogue;
mod changes;
mod compose;
mod drafts;
mod eval;
mod families;
mod http;
mod isolation;
mod lane_traps;
mod lanes;
mod library;
mod optimize;
mod route;
mod serve;
mod serve_bad;
mod serve_flags;
mod serve_more;
mod serve_rows;
mod serve_tenants;
mod starter;
mod states;
mod support;
mod tidy;
mod vectors;
