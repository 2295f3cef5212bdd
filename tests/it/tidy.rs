//! The text of the repository against itself: who may know whom, where `unsafe` stands, what each file says first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `src`, with its path from there.
fn sources() -> Vec<(PathBuf, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    files.sort();
    let read =
        |p: PathBuf| (p.strip_prefix(&src).expect("below src").to_owned(), std::fs::read_to_string(&p).expect("text"));
    files.into_iter().map(read).collect()
}

/// The module a file belongs to: `engine::llama` for the llama folder, else the first part of its path.
fn module(path: &Path) -> String {
    if path.starts_with("engine/llama") {
        return "engine::llama".into();
    }
    let first = path.components().next().expect("not empty").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_string()
}

/// The table of ARCHITECTURE.md: rows `| module | may use |` under the heading "Who may know whom".
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let section = text.split("## Who may know whom").nth(1).expect("the heading").split("\n## ").next().expect("text");
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(String::from).collect::<Vec<_>>();
    section
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            (names(cells[0]).remove(0), names(cells[1]).into_iter().collect())
        })
        .collect()
}

/// Modules of ours that a file names in `crate::` paths, its tests aside.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().expect("text");
    let mut found = BTreeSet::new();
    for line in code.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for rest in line.split("crate::").skip(1) {
            let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':').collect();
            let module =
                if path.starts_with("engine::llama") { "engine::llama" } else { path.split("::").next().unwrap_or("") };
            found.insert(module.to_string());
        }
    }
    found.remove("");
    found
}

#[test]
fn modules_know_only_whom_the_architecture_table_allows() {
    let table = table();
    let mut modules = BTreeSet::new();
    let mut broken = Vec::new();
    for (path, text) in sources() {
        let module = module(&path);
        if ["lib", "main"].contains(&module.as_str())
            || path.ends_with("tests.rs")
            || path.components().any(|c| c.as_os_str() == "tests")
        {
            continue;
        }
        modules.insert(module.clone());
        let Some(allowed) = table.get(&module) else {
            broken.push(format!("{module} has no row in ARCHITECTURE.md"));
            continue;
        };
        for other in used(&text) {
            if other != module && !allowed.contains(&other) {
                broken.push(format!("src/{}: {module} uses {other}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    let rows: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(rows, modules, "rows of the table and modules of the program");
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let word = ["un", "safe"].concat();
    for (path, text) in sources() {
        if path.starts_with("engine/llama") || path == Path::new("mapped.rs") {
            continue;
        }
        let uses = text.lines().any(|l| {
            let code = l.split("//").next().unwrap_or("");
            code.contains(&format!("{word} {{"))
                || code.contains(&format!("{word} fn"))
                || code.contains(&format!("{word} impl"))
        });
        assert!(!uses, "{} may not use {word} code", path.display());
    }
}

#[test]
fn every_file_says_first_what_it_is_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "src/{} does not begin with a module comment", path.display());
    }
}

#[test]
fn only_the_printer_prints() {
    for (path, text) in sources() {
        if path.starts_with("cli/printer.rs")
            || path.starts_with("cli/chat")
            || path.components().any(|c| c.as_os_str() == "tests")
        {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().expect("text");
        for name in ["println!(", "eprintln!(", "print!(", "dbg!("] {
            let prints = code.lines().any(|l| l.trim_start().starts_with(name));
            assert!(!prints, "src/{} uses {name}", path.display());
        }
    }
}
