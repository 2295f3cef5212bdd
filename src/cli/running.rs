//! Which servers run on this machine: `smoa ps`, `smoa stop`, and the files that tell them.

use std::path::{Path, PathBuf};

use clap::Args;
use etcetera::BaseStrategy;
use serde_json::{Value, json};

use super::Context;
use super::exit::Outcome;
use crate::error::{Code, Failure, printable};

/// A file that says where a server listens; removed when the server ends.
#[derive(Debug)]
pub struct RunFile(PathBuf);

/// `$XDG_RUNTIME_DIR/smoa`, or the state folder where there is no runtime folder.
fn folder() -> Option<PathBuf> {
    let base = etcetera::choose_base_strategy().ok()?;
    let folder = base.runtime_dir().or_else(|| base.state_dir()).unwrap_or_else(|| base.cache_dir());
    Some(folder.join("smoa").join("servers"))
}

impl RunFile {
    /// Writes the file of this process. A server runs without one where there is no place for it.
    pub fn write(urls: &[String], model: &Path) -> Option<Self> {
        let folder = folder()?;
        std::fs::create_dir_all(&folder).ok()?;
        let pid = std::process::id();
        let path = folder.join(format!("{pid}.json"));
        let value = json!({"pid": pid, "urls": urls, "model": model.display().to_string()});
        std::fs::write(&path, value.to_string()).ok()?;
        Some(Self(path))
    }
}

impl Drop for RunFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server that runs.
struct Server {
    pid: u32,
    urls: Vec<String>,
    model: String,
}

/// The servers that run; files of those that have gone are removed.
fn servers() -> Vec<Server> {
    let entries = folder().and_then(|f| std::fs::read_dir(f).ok()).into_iter().flatten().flatten();
    let mut all: Vec<Server> = entries.filter_map(|e| read(&e.path())).collect();
    all.sort_by_key(|s| s.pid);
    all
}

fn read(path: &Path) -> Option<Server> {
    let value: Value = serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()?;
    let pid = u32::try_from(value["pid"].as_u64()?).ok()?;
    if !is_smoa(pid) {
        let _ = std::fs::remove_file(path);
        return None;
    }
    let urls = value["urls"].as_array()?.iter().filter_map(|u| u.as_str().map(String::from)).collect();
    Some(Server { pid, urls, model: value["model"].as_str()?.to_string() })
}

/// Whether the process is there. Its number may have been given to another program since.
fn is_smoa(pid: u32) -> bool {
    let Some(process) = process(pid) else { return false };
    if rustix::process::test_kill_process(process).is_err() {
        return false;
    }
    let own = std::env::current_exe().ok().and_then(|p| p.file_name().map(|n| n.to_owned()));
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => {
            let name = exe.file_name().map(|n| n.to_string_lossy().trim_end_matches(" (deleted)").to_string());
            name.as_deref() == Some("llama-server") || name == own.map(|n| n.to_string_lossy().into_owned())
        }
        // No such folder on this system: the file is all that is known.
        Err(_) => !Path::new("/proc/self/exe").exists(),
    }
}

fn process(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
}

/// List the servers of this user
#[derive(Args, Debug)]
pub struct PsArgs {
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Runs `smoa ps`.
///
/// # Errors
/// Standard output takes no more.
pub fn ps(args: &PsArgs, context: &Context) -> Result<(), Outcome> {
    for s in servers() {
        let line = match args.json {
            true => json!({"pid": s.pid, "urls": s.urls, "model": s.model}).to_string(),
            false => format!("{:<8} {:<32} {}", s.pid, printable(&s.urls.join(" ")), printable(&s.model)),
        };
        context.printer.line(&line)?;
    }
    Ok(())
}

/// Ask a server to stop: it finishes its answers first
#[derive(Args, Debug)]
pub struct StopArgs {
    /// The process, as `smoa ps` lists it; not needed when one server runs
    pid: Option<u32>,
    /// All servers of this user
    #[arg(long, conflicts_with = "pid")]
    all: bool,
}

/// Runs `smoa stop`.
///
/// # Errors
/// [`Code::NotFound`] when there is no such server, usage when it is not clear which one is meant.
pub fn stop(args: &StopArgs, context: &Context) -> Result<(), Outcome> {
    let running = servers();
    let chosen: Vec<Server> = match (args.pid, running.len()) {
        (_, 0) => return Err(Failure::new(Code::NotFound, "no server runs").into()),
        (None, n) if n > 1 && !args.all => {
            return Err(Failure::usage(format!("{n} servers run; give a PID of `smoa ps`, or --all")).into());
        }
        (pid, _) => running.into_iter().filter(|s| pid.is_none_or(|p| p == s.pid)).collect(),
    };
    if chosen.is_empty() {
        return Err(Failure::new(Code::NotFound, "no such server runs; `smoa ps` lists them").into());
    }
    for s in chosen {
        let asked = process(s.pid).map(|p| rustix::process::kill_process(p, rustix::process::Signal::TERM));
        if let Some(Err(e)) = asked {
            return Err(Failure::new(Code::Other, format!("process {}: {e}", s.pid)).into());
        }
        context.printer.line(&format!("asked {} to stop", s.pid))?;
    }
    Ok(())
}
