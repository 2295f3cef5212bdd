//! A server under test, and the plainest of HTTP clients: what goes over the wire is what a test says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{App, model};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    /// From the start of the process until it said where it listens.
    pub listening_after: Duration,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("whole UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The body of a good response.
    pub fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The message of an error.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_string()
    }

    /// The data of server-sent events, the end mark aside; and whether there was an end mark.
    pub fn events(&self) -> (Vec<Value>, bool) {
        let data: Vec<&str> = self.text().lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        let done = data.last() == Some(&"[DONE]");
        let parse = |d: &&str| serde_json::from_str(d).unwrap_or_else(|e| panic!("{e}: {d}"));
        (data.iter().filter(|d| **d != "[DONE]").map(parse).collect(), done)
    }
}

impl App {
    /// Starts `smoa serve` on a free port with the default model, and waits until it is ready.
    pub fn serve(&self, args: &[&str]) -> Server {
        let server = self.serve_loading(args);
        let started = Instant::now();
        while server.get("/health").status != 200 {
            assert!(started.elapsed() < Duration::from_secs(60), "the server did not become ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// The same, not waiting for the model.
    pub fn serve_loading(&self, args: &[&str]) -> Server {
        let model = model();
        let mut all = vec!["serve", "--port", "0", "-m", model.to_str().expect("UTF-8 path"), "-t", "2", "-c", "2048"];
        all.extend(args);
        let started = Instant::now();
        let mut command = self.command(&all);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        let address = loop {
            let before = said.len();
            assert_ne!(lines.read_line(&mut said).expect("read"), 0, "the server left: {said}");
            if let Some(url) = said[before..].trim().strip_prefix("listening on http://") {
                break url.to_string();
            }
        };
        let listening_after = started.elapsed();
        // The log must not fill its pipe.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Server { child, address, listening_after }
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        stream
    }

    /// Sends bytes as they are and reads until the server closes.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // A server that refuses may close before it has read everything.
        let _ = stream.write_all(bytes);
        read_reply(stream)
    }

    /// Sends bytes as they are; the rest is the caller's.
    pub fn connect_and_send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(bytes).expect("sent");
        stream
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
        self.raw(&self.spell(method, path, headers, body))
    }

    pub fn spell(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(k, _)| k.eq_ignore_ascii_case("host")) {
            text += &format!("Host: {}\r\n", self.address);
        }
        for (key, value) in headers.iter().filter(|(_, v)| *v != "-") {
            text += &format!("{key}: {value}\r\n");
        }
        if let Some(body) = body {
            if !headers.iter().any(|(k, _)| k.eq_ignore_ascii_case("content-type")) {
                text += "Content-Type: application/json\r\n";
            }
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        format!("{text}\r\n{}", body.unwrap_or_default()).into_bytes()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[], Some(&body.to_string()))
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let status = std::process::Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the process to end.
    pub fn ended(mut self, within: Duration) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                return status.code();
            }
            assert!(started.elapsed() < within, "the server still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Files that the process has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Waits until no slot is busy; how long that took.
    pub fn idle_after(&self) -> Duration {
        let started = Instant::now();
        while self.get("/slots").ok().as_array().is_some_and(|s| s.iter().any(|s| s["is_processing"] == true)) {
            assert!(started.elapsed() < Duration::from_secs(20), "a slot stays busy");
            std::thread::sleep(Duration::from_millis(5));
        }
        started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a whole response: head, then a body that is chunked or ends with the connection.
pub fn read_reply(mut stream: TcpStream) -> Reply {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let at = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    let mut body = all[at..].to_vec();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Reply { status, head, body }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let Some(size) = size.filter(|s| *s > 0 && end + 2 + s <= bytes.len()) else { break };
        out.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = bytes.get(end + 4 + size..).unwrap_or_default();
    }
    out
}
