//! Bodies of responses: JSON, errors, streams.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::error::Failure;
use crate::wire::Problem;

/// A refusal: a status, and the body that goes with it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
}

impl From<Problem> for Refusal {
    fn from(p: Problem) -> Self {
        Self { status: p.status, body: p.body() }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Problem::from(failure).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.body);
        if self.status == 429 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What a route gives.
pub type Reply = Result<Response, Refusal>;

/// A JSON body.
pub fn json(status: u16, value: &Value) -> Response {
    typed(status, "application/json; charset=utf-8", value.to_string().into())
}

/// A body of some type.
pub fn typed(status: u16, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A good JSON body.
///
/// # Errors
/// None; it is a [`Reply`] for routes.
#[allow(clippy::unnecessary_wraps)]
pub fn ok(value: &Value) -> Reply {
    Ok(json(200, value))
}
