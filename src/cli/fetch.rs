//! Files of a catalogue: a folder, or with the feature `remote` a web server or an object store. The only place of the
//! program that opens a connection to somewhere else, and only when it is told where.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;

use crate::bundle::INDEX;
use crate::error::{Code, Failure};
use crate::model_file::open_code;

/// Where the files are.
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// Somewhere else.
    #[cfg(feature = "remote")]
    Remote(remote::Remote),
}

impl Place {
    /// A path, `file://..`, `http://..`, `https://..` or `s3://BUCKET/..`; of the folder, or of the index in it.
    ///
    /// # Errors
    /// A URL that this program cannot open.
    pub fn of(source: &str) -> Result<Self, Failure> {
        let source = source.strip_suffix(INDEX).unwrap_or(source);
        match source.split_once("://") {
            None => Ok(Self::Folder(PathBuf::from(if source.is_empty() { "." } else { source }))),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Folder(PathBuf::from(path))),
            #[cfg(feature = "remote")]
            Some(("http" | "https" | "s3", _)) => remote::Remote::open(source).map(Self::Remote),
            #[cfg(not(feature = "remote"))]
            Some(("http" | "https" | "s3", _)) => {
                let message = format!("{source}: this program was built without the feature `remote`; give a folder");
                Err(Failure::usage(message))
            }
            Some(_) => Err(Failure::usage(format!(
                "{source}: give a folder, or a URL that begins with file:///, http://, https:// or s3://"
            ))),
        }
    }

    /// Copies a file of at most so many bytes; how many it had.
    ///
    /// # Errors
    /// It is not there, is larger, or cannot be read or written.
    pub fn copy(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<u64, Failure> {
        match self {
            Self::Folder(folder) => {
                let path = folder.join(name);
                let failed = |e: std::io::Error| Failure::new(open_code(&e), format!("'{}': {e}", path.display()));
                let mut from = File::open(&path).map_err(failed)?.take(most.saturating_add(1));
                let copied = std::io::copy(&mut from, to).map_err(failed)?;
                if copied > most { Err(too_large(&path.display().to_string(), most)) } else { Ok(copied) }
            }
            #[cfg(feature = "remote")]
            Self::Remote(remote) => remote.copy(name, most, to),
        }
    }
}

fn too_large(what: &str, most: u64) -> Failure {
    Failure::new(Code::InvalidFile, format!("'{what}': has more than {most} bytes"))
}

#[cfg(feature = "remote")]
mod remote {
    use std::io::Write;
    use std::time::Duration;

    use object_store::aws::AmazonS3Builder;
    use object_store::http::HttpBuilder;
    use object_store::path::Path;
    use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
    use tokio_stream::StreamExt;

    use super::too_large;
    use crate::error::{Code, Failure};

    /// How long a connection may take to come about, and how long a read may take.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A web server or an object store.
    pub struct Remote {
        url: String,
        prefix: Path,
        store: Box<dyn ObjectStore>,
        runtime: tokio::runtime::Runtime,
    }

    impl Remote {
        /// Opens nothing yet. Object stores take their settings from the environment (`AWS_*`).
        ///
        /// # Errors
        /// The URL is none.
        pub fn open(url: &str) -> Result<Self, Failure> {
            // Another part of the program may have chosen already: the same.
            let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
            let url = url.trim_end_matches('/').to_owned();
            let wrong = |e: object_store::Error| Failure::usage(format!("{url}: {e}"));
            let client = ClientOptions::new().with_connect_timeout(PATIENCE).with_read_timeout(PATIENCE);
            let client = client.with_timeout_disabled().with_allow_http(url.starts_with("http://"));
            let retry =
                RetryConfig { max_retries: 3, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
            let (store, prefix): (Box<dyn ObjectStore>, Path) = match url.strip_prefix("s3://") {
                Some(rest) => {
                    let store = AmazonS3Builder::from_env().with_url(&url).with_retry(retry).build().map_err(wrong)?;
                    let prefix = rest.split_once('/').map_or("", |(_, prefix)| prefix);
                    (Box::new(store), Path::from(prefix))
                }
                None => {
                    let builder = HttpBuilder::new().with_url(&url).with_client_options(client).with_retry(retry);
                    (Box::new(builder.build().map_err(wrong)?), Path::default())
                }
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| Failure::new(Code::Other, format!("{url}: {e}")))?;
            Ok(Self { url, prefix, store, runtime })
        }

        /// As [`super::Place::copy`].
        pub fn copy(&self, name: &str, most: u64, to: &mut dyn Write) -> Result<u64, Failure> {
            let what = format!("{}/{name}", self.url);
            let failed = |e: object_store::Error| {
                let code = match e {
                    object_store::Error::NotFound { .. } => Code::NotFound,
                    _ => Code::Other,
                };
                Failure::new(code, crate::error::printable(&format!("{what}: {}", short(&e))))
            };
            self.runtime.block_on(async {
                let path = self.prefix.clone().join(name);
                let found = self.store.get(&path).await.map_err(failed)?;
                let mut parts = found.into_stream();
                let mut copied = 0u64;
                while let Some(part) = parts.next().await {
                    let part = part.map_err(failed)?;
                    copied += part.len() as u64;
                    if copied > most {
                        return Err(too_large(&what, most));
                    }
                    to.write_all(&part).map_err(|e| Failure::new(Code::Other, format!("{what}: {e}")))?;
                }
                Ok(copied)
            })
        }
    }

    /// The innermost reason, which is the one that says something, on one line.
    fn short(e: &object_store::Error) -> String {
        if matches!(e, object_store::Error::NotFound { .. }) {
            return "is not there".to_owned();
        }
        let mut last: &dyn std::error::Error = e;
        while let Some(inner) = last.source() {
            last = inner;
        }
        last.to_string().lines().next().unwrap_or_default().to_owned()
    }
}
