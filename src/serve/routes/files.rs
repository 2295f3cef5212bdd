//! Files of a folder (`--path`), in place of the page.

use std::path::{Path, PathBuf};

use axum::extract::{Request as HttpRequest, State as StateOf};
use axum::http::Method;

use super::super::reply::{Refusal, Reply, typed};
use super::super::state::State;
use super::{Shared, aside};
use crate::wire::Problem;

/// Most bytes of a file.
const MOST: u64 = 64 << 20;

fn nothing_here() -> Refusal {
    Problem::not_found("File Not Found").into()
}

/// GET `/`.
pub async fn index(state: Shared) -> Reply {
    send(state, "index.html".into()).await
}

/// Every path that is no route: a file of the folder, where there is one.
pub async fn file(state: Shared, request: HttpRequest) -> Reply {
    let path = request.uri().path();
    let path = path.strip_prefix(state.0.options.prefix.as_str()).unwrap_or(path).trim_start_matches('/').to_string();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(nothing_here());
    }
    send(state, path).await
}

async fn send(StateOf(state): Shared, path: String) -> Reply {
    aside(move || {
        let found = within(&state, &path).ok_or_else(nothing_here)?;
        let bytes = std::fs::read(&found).map_err(|_| nothing_here())?;
        Ok(typed(200, kind(&found), bytes.into()))
    })
    .await
}

/// A file inside the folder, links resolved; one answer for all that is not there.
fn within(state: &State, path: &str) -> Option<PathBuf> {
    // Nothing that would need decoding: names that hold such characters are not served.
    if path.contains(['%', '\\', '\0']) {
        return None;
    }
    let root = state.options.files.as_ref()?.canonicalize().ok()?;
    let mut found = root.join(path).canonicalize().ok()?;
    if found.is_dir() {
        found = found.join("index.html").canonicalize().ok()?;
    }
    let meta = std::fs::metadata(&found).ok()?;
    (found.starts_with(&root) && meta.is_file() && meta.len() <= MOST).then_some(found)
}

fn kind(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
