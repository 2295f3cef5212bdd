//! The web page: markup, style and script, embedded and sent as one file.

use std::sync::OnceLock;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;

use super::super::reply::typed;

fn whole() -> &'static str {
    static PAGE: OnceLock<String> = OnceLock::new();
    PAGE.get_or_init(|| {
        let page = include_str!("../page/index.html").replace("/*STYLE*/", include_str!("../page/style.css"));
        page.replace("/*SCRIPT*/", include_str!("../page/app.js"))
    })
}

/// GET `/`.
pub async fn page() -> Response {
    let mut response = typed(200, "text/html; charset=utf-8", Body::from(whole()));
    // Nothing from elsewhere, nobody around it; its own script and style stand in it.
    let policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
        img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
