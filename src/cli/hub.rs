//! Models that other programs have downloaded: the caches of Hugging Face's tools and of llama.cpp. Read only; nothing
//! is fetched.

use std::path::{Path, PathBuf};

use crate::error::{Code, Failure};

/// The quantization that llama.cpp takes when none is named.
const USUAL: &str = "q4_k_m";

/// The folders that may hold models, as the programs that fill them look for theirs.
fn folders() -> (Option<PathBuf>, Option<PathBuf>) {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let hub = variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|h| h.join("hub")))
        .or_else(|| cache.as_ref().map(|c| c.join("huggingface/hub")));
    let llama = variable("LLAMA_CACHE").or_else(|| cache.map(|c| c.join("llama.cpp")));
    (hub, llama)
}

/// The file that `user/model[:quant]` stands for.
///
/// # Errors
/// [`Code::Usage`] for what is no repository, [`Code::NotFound`] when no such file is in a cache.
pub fn find(repository: &str, file: Option<&str>) -> Result<PathBuf, Failure> {
    let (hub, llama) = folders();
    find_in(hub.as_deref(), llama.as_deref(), repository, file)
}

fn find_in(hub: Option<&Path>, llama: Option<&Path>, repository: &str, file: Option<&str>) -> Result<PathBuf, Failure> {
    let (name, quant) = repository.split_once(':').map_or((repository, None), |(n, q)| (n, Some(q)));
    let plain = |part: &str| {
        !part.is_empty() && part != ".." && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let Some((user, model)) = name.split_once('/').filter(|(user, model)| plain(user) && plain(model)) else {
        return Err(Failure::usage(format!("--hf-repo {repository}: give USER/MODEL or USER/MODEL:QUANT")));
    };
    let mut files = hub.map(|h| snapshot(&h.join(format!("models--{user}--{model}")))).unwrap_or_default();
    // llama.cpp's own, older cache puts everything into the name.
    files.extend(llama.map(|l| ggufs(l, &format!("{user}_{model}_"))).unwrap_or_default());
    files.sort();
    let chosen = match file {
        Some(file) => files.iter().find(|f| f.ends_with(file) || named(f).ends_with(&file.to_ascii_lowercase())),
        None => {
            let wanted = quant.unwrap_or(USUAL).to_ascii_lowercase();
            let exact = files.iter().find(|f| named(f).contains(&wanted));
            if quant.is_some() { exact } else { exact.or_else(|| files.first()) }
        }
    };
    chosen.cloned().ok_or_else(|| {
        let there: Vec<String> = files.iter().map(|f| named(f)).collect();
        let there = if there.is_empty() { "nothing of it".into() } else { there.join(", ") };
        let message = format!(
            "--hf-repo {repository}: not in the cache ({there} is); nothing is downloaded here: fetch it with \
             `hf download {name}` and try again, or give -m FILE"
        );
        Failure::new(Code::NotFound, message)
    })
}

/// The file that llama.cpp keeps what it loads from an address in.
///
/// # Errors
/// [`Code::Usage`] for what is no address of a model, [`Code::NotFound`] when it is not there.
pub fn find_address(url: &str) -> Result<PathBuf, Failure> {
    find_address_in(folders().1.as_deref(), url)
}

/// The file that llama.cpp keeps a model of Docker Hub in: `[REPO/]MODEL[:TAG]`.
///
/// # Errors
/// [`Code::Usage`] for what is no such name, [`Code::NotFound`] when it is not there.
pub fn find_docker(name: &str) -> Result<PathBuf, Failure> {
    find_docker_in(folders().1.as_deref(), name)
}

fn find_docker_in(llama: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let (repo, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let (user, model) = repo.split_once('/').unwrap_or(("ai", repo));
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if ![user, model, tag].into_iter().all(plain) {
        return Err(Failure::usage(format!("--docker-repo {name}: give [REPO/]MODEL[:QUANT]")));
    }
    cached("--docker-repo", name, llama, &format!("{user}_{model}_{tag}.gguf"))
}

fn cached(flag: &str, asked: &str, llama: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let folder =
        llama.ok_or_else(|| Failure::usage(format!("{flag}: there is no home folder to look for a cache in")))?;
    let file = folder.join(name);
    match file.is_file() {
        true => Ok(file),
        false => {
            let message = format!(
                "{flag} {asked}: not in the cache; nothing is downloaded here: fetch it to '{}' and try again, or give \
                 -m FILE",
                file.display()
            );
            Err(Failure::new(Code::NotFound, message))
        }
    }
}

fn find_address_in(llama: Option<&Path>, url: &str) -> Result<PathBuf, Failure> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b));
    if !url.contains("://") || !plain || !name.ends_with(".gguf") {
        return Err(Failure::usage(format!("--model-url {url}: give the address of a GGUF file")));
    }
    cached("--model-url", url, llama, name)
}

fn named(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// The models of a repository's current snapshot, else of its newest.
fn snapshot(repository: &Path) -> Vec<PathBuf> {
    let current = std::fs::read_to_string(repository.join("refs/main")).ok();
    let all = repository.join("snapshots");
    let folder = current.map(|rev| all.join(rev.trim())).filter(|f| f.is_dir()).or_else(|| {
        let folders = std::fs::read_dir(all).ok()?.flatten().map(|e| e.path());
        folders.max_by_key(|f| std::fs::metadata(f).and_then(|m| m.modified()).ok())
    });
    folder.map(|f| ggufs(&f, "")).unwrap_or_default()
}

/// Models in a folder whose names begin so; of a split one its first part. Projectors are no models.
fn ggufs(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let prefix = prefix.to_ascii_lowercase();
    let is_model = |path: &PathBuf| {
        let name = named(path);
        let later = name.contains("-of-") && !name.contains("-00001-of-");
        name.starts_with(&prefix) && name.ends_with(".gguf") && !later && !name.contains("mmproj")
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    entries.filter(is_model).collect()
}

/// Every model of the caches.
pub fn list() -> Vec<PathBuf> {
    let (hub, llama) = folders();
    let repositories = hub.and_then(|h| std::fs::read_dir(h).ok()).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = repositories.flat_map(|r| snapshot(&r.path())).collect();
    all.extend(llama.map(|l| ggufs(&l, "")).unwrap_or_default());
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_repository_quantization_and_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let (hub, llama) = (dir.path().join("hub"), dir.path().join("llama.cpp"));
        let snapshot = hub.join("models--me--tiny/snapshots/abc");
        std::fs::create_dir_all(&snapshot).expect("made");
        std::fs::create_dir_all(hub.join("models--me--tiny/refs")).expect("made");
        std::fs::create_dir_all(&llama).expect("made");
        std::fs::write(hub.join("models--me--tiny/refs/main"), "abc\n").expect("written");
        for name in ["tiny.Q8_0.gguf", "tiny.Q4_K_M.gguf", "mmproj-tiny.gguf", "readme.md"] {
            std::fs::write(snapshot.join(name), "x").expect("written");
        }
        std::fs::write(llama.join("me_old_old-q5_0.gguf"), "x").expect("written");
        let find = |repository: &str, file: Option<&str>| {
            find_in(Some(&hub), Some(&llama), repository, file).map(|p| named(&p)).map_err(|e| e.code)
        };
        assert_eq!(find("me/tiny", None).as_deref(), Ok("tiny.q4_k_m.gguf"));
        assert_eq!(find("me/tiny:q8_0", None).as_deref(), Ok("tiny.q8_0.gguf"));
        assert_eq!(find("me/tiny", Some("tiny.Q8_0.gguf")).as_deref(), Ok("tiny.q8_0.gguf"));
        assert_eq!(find("me/old", None).as_deref(), Ok("me_old_old-q5_0.gguf"));
        assert_eq!(find("me/tiny:q2_k", None), Err(Code::NotFound));
        assert_eq!(find("me/other", None), Err(Code::NotFound));
        let address = |url: &str| find_address_in(Some(&llama), url).map(|p| named(&p)).map_err(|e| e.code);
        let good = address("https://example.org/a/me_old_old-q5_0.gguf?download=true");
        assert_eq!(good.as_deref(), Ok("me_old_old-q5_0.gguf"));
        assert_eq!(address("https://example.org/other.gguf"), Err(Code::NotFound));
        assert_eq!(address("https://example.org/.."), Err(Code::Usage));
        assert_eq!(address("me_old_old-q5_0.gguf"), Err(Code::Usage));
        std::fs::write(llama.join("ai_small_latest.gguf"), "x").expect("written");
        let docker = |name: &str| find_docker_in(Some(&llama), name).map(|p| named(&p)).map_err(|e| e.code);
        assert_eq!(docker("small").as_deref(), Ok("ai_small_latest.gguf"));
        assert_eq!(
            (docker("me/small"), docker("../x"), docker("a/b/c")),
            (Err(Code::NotFound), Err(Code::Usage), Err(Code::Usage))
        );
        for bad in ["tiny", "../x", "me/../x", "me/", "a/b/c"] {
            assert_eq!(find(bad, None), Err(Code::Usage), "{bad}");
        }
    }
}
