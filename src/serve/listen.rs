//! Sockets: bound before the model is loaded, accepted with bounds, drained at the end.
//!
//! Connections are served by hyper directly, because axum's own loop has no timeout for a request's head.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::guard::Door;
use super::options::{Bounds, Listen, TlsFiles};
use crate::error::{Code, Failure};

/// A bound socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP, with whether its address is a loopback one.
    Tcp(std::net::TcpListener, SocketAddr),
    /// A Unix socket; its file is removed at the end.
    Unix(std::os::unix::net::UnixListener, SocketFile),
}

/// Removes the socket's file when the server ends.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Binds. `shared`: other processes of this user may listen at the same port, and the system spreads connections.
    ///
    /// # Errors
    /// [`Code::Usage`] for an address that is none, [`Code::Busy`] when it is taken.
    pub fn bind(listen: &Listen, shared: bool) -> Result<Vec<Self>, Failure> {
        match listen {
            Listen::Unix(path) => Ok(vec![unix(path)?]),
            Listen::Tcp(host, port) => {
                use std::net::ToSocketAddrs;
                let name = host.trim_start_matches('[').trim_end_matches(']');
                let refused = |e: io::Error| Failure::usage(format!("--host {host}: {e}"));
                let mut addresses: Vec<SocketAddr> = (name, *port).to_socket_addrs().map_err(refused)?.collect();
                // A name such as localhost may stand for two families; one that fails is no failure of the other.
                addresses.dedup();
                let bound: Vec<io::Result<Self>> = addresses.iter().map(|address| tcp(address, shared)).collect();
                let mut sockets = Vec::new();
                let mut failure = None;
                for (result, address) in bound.into_iter().zip(&addresses) {
                    match result {
                        Ok(socket) => sockets.push(socket),
                        Err(e) => failure = Some(bind_failure(&address.to_string(), &e)),
                    }
                    if *port == 0 && !sockets.is_empty() {
                        break;
                    }
                }
                match (sockets.is_empty(), failure) {
                    (true, Some(failure)) => Err(failure),
                    (true, None) => Err(Failure::usage(format!("--host {host}: no address"))),
                    // A port that is taken on one family is taken.
                    (false, Some(failure)) if failure.code == Code::Busy => Err(failure),
                    (false, _) => Ok(sockets),
                }
            }
        }
    }

    /// Whether only this machine can reach it.
    pub fn is_local(&self) -> bool {
        match self {
            Socket::Tcp(_, address) => address.ip().is_loopback(),
            Socket::Unix(..) => true,
        }
    }

    /// Where it is, as a URL or a path.
    pub fn url(&self, tls: bool) -> String {
        match self {
            Socket::Tcp(_, address) => format!("{}://{address}", if tls { "https" } else { "http" }),
            Socket::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }
}

fn tcp(address: &SocketAddr, shared: bool) -> io::Result<Socket> {
    let listener = if shared { shared_port(*address)? } else { std::net::TcpListener::bind(address)? };
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Socket::Tcp(listener, address))
}

/// A listener whose port others may share (`SO_REUSEPORT`).
fn shared_port(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    use tokio::net::TcpSocket;
    // tokio's sockets want a runtime around them, even those that leave it at once.
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async move {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(1024)?.into_std()
    })
}

fn bind_failure(what: &str, e: &io::Error) -> Failure {
    let code = if e.kind() == io::ErrorKind::AddrInUse { Code::Busy } else { Code::Usage };
    Failure::new(code, format!("{what}: {e}"))
}

/// A socket's file that no server answers at any more is replaced.
fn unix(path: &Path) -> Result<Socket, Failure> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::os::unix::net::{UnixListener, UnixStream};
    let what = path.display().to_string();
    let stale = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if stale && UnixStream::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(|e| bind_failure(&what, &e))?;
    let file = SocketFile(path.to_path_buf());
    // Only the user that started the server.
    let private = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    private.and_then(|()| listener.set_nonblocking(true)).map_err(|e| bind_failure(&what, &e))?;
    Ok(Socket::Unix(listener, file))
}

/// The TLS side of a server.
///
/// # Errors
/// A file cannot be read, or holds no certificate or key.
pub fn tls(files: &TlsFiles) -> Result<TlsAcceptor, Failure> {
    let invalid = |path: &Path, e: &dyn std::fmt::Display| {
        let code = if path.exists() { Code::InvalidFile } else { Code::NotFound };
        Failure::new(code, format!("'{}': {e}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| invalid(&files.certificate, &e))?;
    if chain.is_empty() {
        return Err(invalid(&files.certificate, &"holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| invalid(&files.key, &e))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Failure::new(Code::Other, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| invalid(&files.certificate, &e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What connections need.
#[derive(Clone)]
struct Serving {
    app: Router,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    permits: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Accepts on all sockets until told to stop; then lets connections end, and calls `late` for those that have not
/// ended in time.
pub async fn accept(
    sockets: Vec<Socket>,
    app: Router,
    tls: Option<TlsAcceptor>,
    bounds: Bounds,
    stopping: watch::Receiver<bool>,
    late: impl FnOnce(),
) {
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let serving = Serving { app, tls, bounds, permits, stopping };
    let graceful = Arc::new(GracefulShutdown::new());
    let mut files = Vec::new();
    let mut loops = Vec::new();
    for socket in sockets {
        let (serving, graceful) = (serving.clone(), graceful.clone());
        match socket {
            Socket::Tcp(listener, address) => {
                let Ok(listener) = TcpListener::from_std(listener) else { continue };
                let door = if address.ip().is_loopback() { Door::Loopback } else { Door::Network };
                loops.push(tokio::spawn(accept_loop(listener, door, serving, graceful)));
            }
            Socket::Unix(listener, file) => {
                files.push(file);
                let Ok(listener) = UnixListener::from_std(listener) else { continue };
                loops.push(tokio::spawn(accept_loop(listener, Door::Unix, serving, graceful)));
            }
        }
    }
    for one in loops {
        let _ = one.await;
    }
    let drain = serving.bounds.drain;
    drop(serving);
    let Some(graceful) = Arc::into_inner(graceful) else { return late() };
    let mut ended = std::pin::pin!(graceful.shutdown());
    if tokio::time::timeout(drain, ended.as_mut()).await.is_err() {
        late();
        // Streams are ended with an error event, after the engine's step under way; a reader that does not take it is
        // left.
        let _ = tokio::time::timeout(Duration::from_secs(10), ended).await;
    }
}

/// A listening socket of either kind.
trait Accept: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        let stream = self.accept().await?.0;
        // A token is a small packet that must not wait for the next one.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Accept for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

async fn accept_loop(listener: impl Accept, door: Door, mut serving: Serving, graceful: Arc<GracefulShutdown>) {
    loop {
        let permit = tokio::select! {
            permit = serving.permits.clone().acquire_owned() => permit,
            _ = serving.stopping.changed() => return,
        };
        let Ok(permit) = permit else { return };
        let stream = tokio::select! {
            stream = listener.next() => stream,
            _ = serving.stopping.changed() => return,
        };
        let stream = match stream {
            Ok(stream) => stream,
            Err(e) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(error = %e, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let watcher = graceful.watcher();
        let (app, bounds, tls) = (serving.app.clone(), serving.bounds.clone(), serving.tls.clone());
        tokio::spawn(async move {
            match tls.filter(|_| door != Door::Unix) {
                None => serve(stream, app, door, &bounds, watcher).await,
                Some(tls) => match tokio::time::timeout(bounds.head_time, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve(stream, app, door, &bounds, watcher).await,
                    Ok(Err(e)) => tracing::debug!(error = %e, "TLS handshake"),
                    Err(_) => tracing::debug!("TLS handshake came too slowly"),
                },
            }
            drop(permit);
        });
    }
}

async fn serve<S>(stream: S, app: Router, door: Door, bounds: &Bounds, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(door);
        app.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_time)
        .max_headers(bounds.headers)
        .max_buf_size(bounds.head)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(e) = watcher.watch(connection).await {
        tracing::debug!(error = %e, "connection");
    }
}
