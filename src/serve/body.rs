//! Reading a request's body: bounded in bytes and time, as it is, JSON.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::options::Bounds;
use crate::wire::{Problem, strict_object};

/// The bytes of a body.
///
/// # Errors
/// 413 when it is too large, 408 when it comes too slowly, 415 when it is compressed, 400 when it breaks off.
pub async fn bytes(headers: &HeaderMap, body: Body, bounds: &Bounds) -> Result<Vec<u8>, Problem> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes());
    if encoding.is_some_and(|e| !e.eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::new(415, "invalid_request_error", "Content-Encoding: bodies must not be compressed"));
    }
    let too_large =
        || Problem::new(413, "invalid_request_error", format!("the body is larger than {} bytes", bounds.body));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if length.is_some_and(|n| n > bounds.body as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(bounds.body_time, Limited::new(body, bounds.body).collect()).await {
        Err(_) => Err(Problem::new(408, "invalid_request_error", "the body came too slowly")),
        Ok(Ok(collected)) => Ok(collected.to_bytes().to_vec()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::invalid("the body broke off")),
    }
}

/// The object of a JSON body.
///
/// # Errors
/// As [`bytes`]; 415 when it is said to be something else, 400 when it is no object.
pub async fn object(headers: &HeaderMap, body: Body, bounds: &Bounds) -> Result<Map<String, Value>, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?").to_ascii_lowercase());
    let kind = kind.as_deref().map(|k| k.split(';').next().unwrap_or_default().trim());
    // What curl says of -d without a header; llama-server takes it too.
    let form = "application/x-www-form-urlencoded";
    if kind.is_some_and(|k| k != "application/json" && !k.ends_with("+json") && k != form && !k.is_empty()) {
        return Err(Problem::new(415, "invalid_request_error", "Content-Type: must be application/json"));
    }
    strict_object(&bytes(headers, body, bounds).await?, bounds.depth).map_err(Problem::invalid)
}
