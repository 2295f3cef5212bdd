//! What a server must refuse: bad bodies, bad heads, foreign pages. The rows are those of the table of bad inputs.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http::Server;
use crate::support::App;

fn post(s: &Server, path: &str, body: &str) -> u16 {
    s.request("POST", path, &[], Some(body)).status
}

#[test]
fn bad_requests_are_refused_and_the_server_goes_on() {
    let app = App::new();
    let s = app.serve(&["-np", "2"]);
    bodies(&s);
    fields(&s);
    heads(&s);
    doors(&s);
    let good = s.post("/completion", &json!({"prompt": "x", "n_predict": 2}));
    assert_eq!(good.status, 200, "it still answers: {}", good.text());
    assert!(s.idle_after() < Duration::from_secs(1));
}

fn bodies(s: &Server) {
    let deep = format!("{{\"prompt\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let h1 = [
        "",
        "{\"prompt\": ",
        "[1]",
        "null",
        "{\"prompt\": \"a\", \"prompt\": \"b\"}",
        &deep,
        "{\"prompt\": \"a\", \"temperature\": 1e999}",
    ];
    for body in h1 {
        for path in ["/completion", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/tokenize"] {
            assert_eq!(post(s, path, body), 400, "{path} {:?}", &body[..body.len().min(60)]);
        }
    }
    let json = ("Content-Type", "application/json");
    let body = Some("{\"prompt\": \"a\"}");
    assert_eq!(s.request("POST", "/completion", &[("Content-Type", "text/xml")], body).status, 415);
    assert_eq!(s.request("POST", "/completion", &[json, ("Content-Encoding", "gzip")], body).status, 415);
    let large = format!("{{\"prompt\": \"{}\"}}", "a".repeat(9 << 20));
    assert_eq!(post(s, "/completion", &large), 413);
    // A body without a length that never ends is cut off at the same bound.
    let mut stream = s.connect();
    let head = format!("POST /completion HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", s.address);
    stream.write_all(head.as_bytes()).expect("sent");
    let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
    let sent = (0..400).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(sent < 400, "the server took 25 MiB");
}

fn fields(s: &Server) {
    let with = |more: Value| {
        let mut body = json!({"prompt": "x", "n_predict": 1});
        more.as_object().into_iter().flatten().for_each(|(k, v)| body[k] = v.clone());
        s.post("/completion", &body).status
    };
    let h2 = [
        json!({"n_predict": i64::MIN}),
        json!({"n_discard": -1}),
        json!({"top_k": 1u64 << 40}),
        json!({"temperature": "NaN"}),
        json!({"n_probs": 1_000_000}),
        json!({"id_slot": -5}),
        json!({"id_slot": 99}),
        json!({"top_p": 2}),
        json!({"stop": [1]}),
        json!({"n": 0}),
        json!({"n": 1000}),
        json!({"seed": -2}),
        json!({"stream": "yes"}),
        json!({"grammar_lazy": true}),
        json!({"prompt": [1, -1]}),
        json!({"prompt": [4_000_000]}),
        json!({"prompt": []}),
        json!({"prompt": null}),
        json!({"prompt": {"prompt_string": "x", "multimodal_data": ["x"]}}),
        json!({"logit_bias": [[4_000_000, 1]]}),
        json!({"logit_bias": [[-1, 1]]}),
        json!({"prompt": "a\u{0}b"}),
        json!({"model": 5}),
        json!({"adapters": 5}),
        json!({"lora": {}}),
        json!({"post_sampling_probs": true}),
    ];
    for more in h2 {
        assert_eq!(with(more.clone()), 400, "{more}");
    }
    assert_eq!(post(s, "/detokenize", "{\"tokens\": [4000000]}"), 400);
    let h4 = [
        json!([]),
        json!("x"),
        json!(null),
        json!([123]),
        json!([{}]),
        json!([{"role": "root", "content": "x"}]),
        json!([{"role": 5, "content": "x"}]),
        json!([{"role": "user", "content": null}]),
        json!([{"role": "user", "content": 5}]),
        json!([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]),
        // No address is asked for a picture, and no file is opened.
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://169.254.169.254/x"}}]}]),
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]),
    ];
    for messages in h4 {
        assert_eq!(
            s.post("/v1/chat/completions", &json!({"messages": messages, "max_tokens": 1})).status,
            400,
            "{messages}"
        );
    }
    // A user's spelling of a control token is text.
    let tokens = |text: &str| {
        let body = json!({"messages": [{"role": "user", "content": text}]});
        s.post("/v1/chat/completions/input_tokens", &body).ok()["input_tokens"].as_u64().expect("a number")
    };
    assert!(tokens("<|im_start|>system") > tokens("a b") + 3);
}

fn heads(s: &Server) {
    let host = format!("Host: {}\r\n", s.address);
    let long = "a".repeat(1 << 20);
    let big = s.raw(format!("GET /health HTTP/1.1\r\n{host}X: {long}\r\n\r\n").as_bytes());
    assert!(big.status == 431 || big.status == 0, "{big:?}");
    let many: String = (0..10_000).map(|n| format!("X-{n}: 1\r\n")).collect();
    let many = s.raw(format!("GET /health HTTP/1.1\r\n{host}{many}\r\n").as_bytes());
    assert!(many.status == 431 || many.status == 0, "{many:?}");
    let two = s
        .raw(format!("POST /tokenize HTTP/1.1\r\n{host}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}").as_bytes());
    assert_eq!(two.status, 400, "{two:?}");
    let lie = format!("POST /tokenize HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n");
    assert_eq!(s.raw(lie.as_bytes()).status, 400);
    assert_eq!(s.raw(b"nonsense\r\n\r\n").status, 400);
    for (path, statuses) in [
        ("/../etc/passwd", [404, 400]),
        ("/%2e%2e/etc/passwd", [404, 400]),
        ("/%00", [404, 400]),
        ("/v1/nothing", [404, 404]),
        ("/v1/models/%ff", [404, 400]),
    ] {
        let status = s.get(path).status;
        assert!(statuses.contains(&status), "{path}: {status}");
    }
    for (method, path) in [("TRACE", "/health"), ("PUT", "/completion"), ("GET", "/completion"), ("DELETE", "/health")]
    {
        let reply = s.request(method, path, &[], None);
        assert_eq!((reply.status, reply.json()["error"]["code"].as_u64()), (405, Some(405)), "{method} {path}");
    }
    // One byte at a time: the head has its time, then the connection ends.
    let mut slow = s.connect();
    let started = Instant::now();
    slow.write_all(b"GET /hea").expect("sent");
    let mut end = Vec::new();
    let _ = slow.read_to_end(&mut end);
    assert!((Duration::from_secs(8)..Duration::from_secs(20)).contains(&started.elapsed()), "{:?}", started.elapsed());
}

fn doors(s: &Server) {
    let get = |headers: &[(&str, &str)]| s.request("GET", "/health", headers, None);
    assert_eq!(get(&[("Host", "evil.example")]).status, 403);
    assert_eq!(get(&[("Host", "localhost.evil.example:80")]).status, 403);
    assert_eq!(get(&[("Host", "-")]).status, 400, "no Host at all");
    assert_eq!(get(&[("Host", "localhost")]).status, 200);
    let evil = [("Origin", "http://evil.example")];
    let seen = get(&evil);
    assert!(seen.status == 200 && !seen.head.to_ascii_lowercase().contains("access-control"), "{}", seen.head);
    assert_eq!(s.request("POST", "/completion", &evil, Some("{\"prompt\": \"x\"}")).status, 403);
    assert_eq!(s.request("OPTIONS", "/completion", &evil, None).status, 403);
    let own = [("Origin", "http://localhost:3000")];
    let preflight = s.request("OPTIONS", "/completion", &own, None);
    let head = preflight.head.to_ascii_lowercase();
    assert!(preflight.status == 200 && head.contains("access-control-allow-origin: http://localhost:3000"), "{head}");
    assert_eq!(s.request("POST", "/tokenize", &own, Some("{\"content\": \"x\"}")).status, 200);
}
