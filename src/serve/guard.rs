//! What stands before every route: who may ask from where, with which key, and what every response carries.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State as Shared};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::keys::Grant;
use super::reply::Refusal;
use super::state::State;
use crate::wire::Problem;

/// How a connection came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// By a loopback address: the Host header is checked, because a web page elsewhere may have been told that its
    /// name is this machine (DNS rebinding).
    Loopback,
    /// By another address.
    Network,
    /// By a Unix socket.
    Unix,
}

/// Routes that anyone may ask.
fn is_public(path: &str, prefix: &str) -> bool {
    let path = path.strip_prefix(prefix).unwrap_or(path);
    matches!(path, "/health" | "/v1/health" | "/" | "/index.html")
}

/// Routes that tell what is known without the model: they do not wake a server that sleeps, and do not keep it awake.
fn may_sleep(path: &str, prefix: &str, method: &Method) -> bool {
    let path = path.strip_prefix(prefix).unwrap_or(path);
    is_public(path, "")
        || matches!(path, "/props" | "/v1/stream" | "/v1/streams/lookup")
        || (*method == Method::GET
            && (matches!(path, "/metrics" | "/slots" | "/v1/dashboard" | "/api/tags" | "/api/ps" | "/api/version")
                || ["/models", "/v1/models"]
                    .iter()
                    .any(|p| path.strip_prefix(p).is_some_and(|r| r.is_empty() || r.starts_with('/')))))
}

/// Checks a request, lets it through, marks the response.
pub async fn guard(Shared(state): Shared<Arc<State>>, mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let own = host_of(request.headers(), request.uri()).map(str::to_owned);
    let allowed = origin.as_ref().is_some_and(|o| origin_allowed(&state, o, own.as_deref()));
    let method = request.method().clone();
    let started = std::time::Instant::now();
    // The route, not the path: a path may hold the name of an adapter.
    let route = request.extensions().get::<MatchedPath>().map(|m| m.as_str().to_owned());
    let asleep = may_sleep(request.uri().path(), &state.options.prefix, &method);
    let mut response = match admit(&state, &mut request, origin.is_some() && !allowed) {
        Ok(()) if method == Method::OPTIONS => preflight(&state, origin.is_none() || allowed),
        Ok(()) if asleep => next.run(request).await,
        Ok(()) => {
            let _working = state.stages.begin();
            match state.stages.wake().await {
                Ok(()) => next.run(request).await,
                Err(failure) => {
                    let message = format!("the model could not be loaded again: {}", failure.message);
                    Refusal::from(Problem::new(503, "unavailable_error", message)).into_response()
                }
            }
        }
        Err(problem) => Refusal::from(problem).into_response(),
    };
    if response.status() == 405 && !response.headers().contains_key(header::CONTENT_TYPE) {
        let allow = response.headers().get(header::ALLOW).cloned();
        let problem = Problem::new(405, "invalid_request_error", format!("{method} is not a method of this route"));
        response = Refusal::from(problem).into_response();
        allow.into_iter().for_each(|v| drop(response.headers_mut().insert(header::ALLOW, v)));
    }
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("smoa"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(origin) = origin.filter(|_| allowed) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if state.options.cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    let status = response.status().as_u16();
    state.metrics.responded(status);
    let route = route.unwrap_or_else(|| "(none)".into());
    tracing::info!(%method, %route, status, ms = started.elapsed().as_millis(), "request");
    response
}

fn admit(state: &State, request: &mut Request, foreign: bool) -> Result<(), Problem> {
    let door = request.extensions().get::<Door>().copied().unwrap_or(Door::Network);
    let host = host_of(request.headers(), request.uri());
    match (door, host) {
        (Door::Unix, _) => (),
        (_, None) if request.version() >= Version::HTTP_11 => {
            return Err(Problem::invalid("the Host header is missing"));
        }
        (Door::Loopback, Some(host)) if !is_loopback_name(host) => {
            let message = "the Host header does not name this machine; listen on an address of the network (--host) to be asked by name";
            return Err(Problem::new(403, "permission_error", message));
        }
        _ => (),
    }
    if foreign
        && request.method() != Method::GET
        && request.method() != Method::HEAD
        && request.method() != Method::OPTIONS
    {
        let message = "web pages of this origin may not ask; --cors-origins names those that may";
        return Err(Problem::new(403, "permission_error", message));
    }
    let path = request.uri().path();
    if request.method() == Method::OPTIONS || is_public(path, &state.options.prefix) {
        return Ok(());
    }
    // As in llama-server: loading is told before keys are looked at.
    state.known()?;
    let grant = authorise(state, request.headers())?;
    request.extensions_mut().insert(grant);
    Ok(())
}

fn authorise(state: &State, headers: &HeaderMap) -> Result<Grant, Problem> {
    let (keys, admin) = (&state.options.keys, &state.options.admin_keys);
    if keys.is_empty() {
        return Ok(Grant::default());
    }
    let key = presented(headers);
    let found = key.and_then(|key| keys.check(key).or_else(|| admin.check(key)));
    found.ok_or_else(|| Problem::new(401, "authentication_error", "Invalid API Key"))
}

/// The key that a request presents: `Authorization` (with or without `Bearer`), else `X-Api-Key`. Two of a kind are
/// none.
pub fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let single = |name: &str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Some(Some(value.as_bytes())),
            (None, _) => None,
            _ => Some(None),
        }
    };
    match single("authorization") {
        Some(value) => value.map(|v| v.strip_prefix(b"Bearer ").unwrap_or(v)),
        None => single("x-api-key").flatten(),
    }
}

fn host_of<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, _) => uri.host(),
        _ => None,
    }
}

/// `localhost`, 127.x.y.z or `[::1]`, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let is_port = |port: &str| port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or((rest, "?")),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    if !is_port(port) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Pages of this machine, of this very server, and those that were named.
fn origin_allowed(state: &State, origin: &HeaderValue, own: Option<&str>) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    if state.options.origins.iter().any(|o| o == origin) {
        return true;
    }
    let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host.is_some_and(|h| is_loopback_name(h) || own == Some(h))
}

fn preflight(state: &State, allowed: bool) -> Response {
    if !allowed {
        let message = "web pages of this origin may not ask; --cors-origins names those that may";
        return Refusal::from(Problem::new(403, "permission_error", message)).into_response();
    }
    let mut response = Response::default();
    let headers = response.headers_mut();
    let cors = &state.options.cors;
    for (name, value) in
        [(header::ACCESS_CONTROL_ALLOW_METHODS, &cors.methods), (header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers)]
    {
        // Checked at the start; a value that is none would only be left out.
        HeaderValue::from_str(value).into_iter().for_each(|value| drop(headers.insert(name.clone(), value)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for good in ["localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:8080", "127.8.8.8:1"] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.com",
            "notlocalhost",
            "10.0.0.1",
            "[::2]:80",
            "",
            "127.0.0.1.evil.com",
            "localhost:80@evil",
        ] {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    #[test]
    fn keys_are_taken_from_two_headers() {
        let headers = |list: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            list.iter().for_each(|(k, v)| _ = map.append(*k, HeaderValue::from_static(v)));
            map
        };
        type Row = (&'static [(&'static str, &'static str)], Option<&'static [u8]>);
        let table: [Row; 6] = [
            (&[("authorization", "Bearer k")], Some(b"k")),
            (&[("authorization", "k")], Some(b"k")),
            (&[("x-api-key", "k")], Some(b"k")),
            (&[("authorization", "Bearer a"), ("x-api-key", "k")], Some(b"a")),
            (&[("authorization", "Bearer k"), ("authorization", "Bearer k")], None),
            (&[], None),
        ];
        for (list, expected) in table {
            assert_eq!(presented(&headers(list)), expected, "{list:?}");
        }
    }

    #[test]
    fn what_is_told_without_the_model() {
        for path in ["/health", "/p/props", "/v1/models", "/models/x", "/metrics", "/slots", "/v1/dashboard", "/api/ps"]
        {
            assert!(may_sleep(path, "/p", &Method::GET), "{path}");
        }
        for path in ["/v1/modelsx", "/tokenize", "/v1/adapters", "/lora-adapters", "/api/show"] {
            assert!(!may_sleep(path, "", &Method::GET), "{path}");
        }
        assert!(!may_sleep("/slots/0", "", &Method::POST) && !may_sleep("/models/load", "", &Method::POST));
    }

    #[test]
    fn public_paths() {
        assert!(is_public("/health", "") && is_public("/p/health", "/p") && is_public("/", ""));
        assert!(!is_public("/health/x", "") && !is_public("/v1/models", "") && !is_public("/metrics", ""));
    }
}
