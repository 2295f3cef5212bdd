//! Catalogues: a folder of bundles with an index, here or behind a web server.

use std::path::Path;

use crate::support::{App, Run, model, random_lora};

/// A folder with two bundles and their index.
fn catalogue(app: &App) -> String {
    let library = app.path("theirs").display().to_string();
    let adapter = |args: &[&str]| app.run(&[&["adapter"][..], args, &["--library", &library]].concat(), "").ok();
    let model = model().display().to_string();
    for (seed, name) in [(31, "a"), (32, "b"), (33, "c")] {
        let file = app.write(&format!("{name}.gguf"), random_lora(seed, 2, 0.03)).display().to_string();
        adapter(&["add", &file, "--name", name, "--licence", "MIT", "--description", "Of a test", "-m", &model]);
    }
    app.run(&["adapter", "key", "-o", "key"], "").ok();
    std::fs::create_dir(app.path("shop")).expect("made");
    let folder = app.path("shop").display().to_string();
    adapter(&["pack", "a", "b", "-o", &format!("{folder}/ab.smoa"), "--sign", "key"]);
    adapter(&["pack", "c", "-o", &format!("{folder}/c.smoa")]);
    let said = app.run(&["adapter", "index", &folder], "").ok();
    assert_eq!(said.text(), "2 bundles, 3 adapters\n");
    folder
}

fn pull(app: &App, source: &str, library: &str, more: &[&str]) -> Run {
    let (model, library) = (model().display().to_string(), app.path(library).display().to_string());
    app.run(&[&["adapter", "pull", source][..], more, &["-m", &model, "--library", &library]].concat(), "")
}

fn names(app: &App, library: &str) -> Vec<String> {
    let library = app.path(library).display().to_string();
    let listed = app.run(&["adapter", "ls", "--json", "--library", &library], "");
    listed.json_lines().iter().map(|line| line["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn adapters_are_taken_from_a_folder() {
    let app = App::new();
    let folder = catalogue(&app);
    let url = format!("file://{folder}/index.json");
    let listed = pull(&app, &url, "mine", &["--json"]).ok().json_lines();
    assert_eq!(listed.len(), 3);
    assert_eq!((listed[0]["name"].as_str(), listed[0]["file"].as_str()), (Some("a"), Some("ab.smoa")));
    assert!(listed[0]["signer"].is_string() && listed[2]["signer"].is_null(), "{listed:?}");
    assert!(pull(&app, &folder, "mine", &[]).ok().text().contains("MIT"));
    pull(&app, &url, "mine", &["b", "c"]).ok();
    assert_eq!(names(&app, "mine"), ["b", "c"]);
    pull(&app, &folder, "all", &["--all"]).ok();
    assert_eq!(names(&app, "all"), ["a", "b", "c"]);
    let key = app.path("key").display().to_string();
    let stranger = app.run(&["adapter", "key", "-o", "stranger"], "").ok().text().trim().to_owned();
    for (source, args, code, words) in [
        (folder.as_str(), &["b"][..], 2, "is there already"),
        (&folder, &["x"], 3, "there is no adapter 'x'"),
        (&folder, &["a", "--signer", &stranger], 4, "which is no --signer"),
        (&folder, &["a", "--all"], 2, "cannot be used with"),
        ("nowhere", &["a"], 3, "nowhere"),
        ("ftp://x/y", &["a"], 2, "ftp://x/y"),
        ("file://x", &["a"], 2, "file:///"),
        (&key, &[], 2, "index.json"),
    ] {
        let run = pull(&app, source, "mine", args);
        assert!(run.stderr.contains(words), "{words}: {run:?}");
        assert!(run.code == Some(code) || source == key, "{words}: {run:?}");
    }

    // What was changed after the index was written is refused, and nothing is added.
    let bundle = Path::new(&folder).join("ab.smoa");
    let mut bytes = std::fs::read(&bundle).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&bundle, &bytes).expect("written");
    let run = pull(&app, &folder, "new", &["a"]);
    assert!(run.code == Some(4) && run.stderr.contains("BLAKE3"), "{run:?}");
    bytes.push(0);
    std::fs::write(&bundle, &bytes).expect("written");
    let run = pull(&app, &folder, "new", &["a"]);
    assert!(run.code == Some(4) && run.stderr.contains("has more than"), "{run:?}");
    let text = std::fs::read_to_string(Path::new(&folder).join("index.json")).expect("read");
    std::fs::write(Path::new(&folder).join("index.json"), text.replace("ab.smoa", "../ab.smoa")).expect("written");
    let run = pull(&app, &folder, "new", &["a"]);
    assert!(run.code == Some(4) && run.stderr.contains("not a plain name"), "{run:?}");
    assert_eq!(names(&app, "new"), Vec::<String>::new());
}

#[cfg(not(feature = "remote"))]
#[test]
fn web_servers_need_another_build() {
    let app = App::new();
    let run = pull(&app, "https://example.org/adapters", "mine", &["a"]);
    assert!(run.code == Some(2) && run.stderr.contains("without the feature `remote`"), "{run:?}");
}

#[cfg(feature = "remote")]
#[test]
fn adapters_are_taken_from_a_web_server() {
    use std::io::{BufRead, BufReader, Read, Write};

    let app = App::new();
    let folder = catalogue(&app);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    let root = std::path::PathBuf::from(&folder);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let first = lines.next().expect("a request").expect("a request");
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let path = first.split(' ').nth(1).expect("a path").to_owned();
            let file = path.strip_prefix("/shop/").map(|name| root.join(name));
            let (status, body) = match (path.as_str(), file.and_then(|file| std::fs::File::open(file).ok())) {
                ("/broken/index.json", _) => ("200 OK", b"<html>".to_vec()),
                ("/secret/index.json", _) => ("403 Forbidden", Vec::new()),
                (_, Some(mut file)) => {
                    let mut body = Vec::new();
                    file.read_to_end(&mut body).expect("read");
                    ("200 OK", body)
                }
                _ => ("404 Not Found", Vec::new()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    let url = format!("http://{address}/shop");
    assert_eq!(pull(&app, &url, "mine", &["--json"]).ok().json_lines().len(), 3);
    pull(&app, &format!("{url}/index.json"), "mine", &["a", "c"]).ok();
    assert_eq!(names(&app, "mine"), ["a", "c"]);
    pull(&app, &url, "all", &["--all"]).ok();
    let show = |library: &str| {
        let library = app.path(library).display().to_string();
        let mut shown = app.run(&["adapter", "show", "b", "--json", "--library", &library], "").ok().json();
        shown["added"] = 0.into();
        shown
    };
    assert_eq!(show("all"), show("theirs"), "bytes and words");
    std::fs::remove_file(Path::new(&folder).join("c.smoa")).expect("removed");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
    for (url, code, words) in [
        (url, 3, "c.smoa: is not there"),
        (format!("http://{address}/elsewhere"), 3, "index.json: is not there"),
        (format!("http://{address}/broken"), 4, "index.json"),
        (format!("http://{address}/secret"), 1, "index.json"),
        (format!("http://{closed}/shop"), 1, "refused"),
    ] {
        let run = pull(&app, &url, "new", &["c"]);
        assert!(run.code == Some(code) && run.stderr.contains(words), "{words}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
}
