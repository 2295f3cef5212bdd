//! The config file: flags that need not be typed each time. `smoa config show|path|init`.
//!
//! ```toml
//! # every command that has the flag
//! model = "models/small.gguf"
//! threads = 4
//!
//! [serve]      # or [run], [chat]
//! port = 8081
//! metrics = true
//! ```
//!
//! A key is a long flag without its dashes. The command line counts before the environment, the environment before
//! the file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, Args, CommandFactory, Subcommand};
use etcetera::BaseStrategy;
use toml::{Table, Value};

use super::exit::Outcome;
use super::{Cli, Context};
use crate::error::{Code, Failure, printable};

/// Commands with a section of their own.
const SECTIONS: [&str; 3] = ["serve", "run", "chat"];
/// Keys that are worth a warning when others can read the file.
const SECRETS: [&str; 2] = ["api-key", "admin-key"];

/// The file: `$SMOA_CONFIG`, else `smoa/config.toml` in the config folder.
fn path() -> Option<PathBuf> {
    match std::env::var_os("SMOA_CONFIG") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => Some(etcetera::choose_base_strategy().ok()?.config_dir().join("smoa").join("config.toml")),
    }
}

fn read(path: &Path) -> Result<Table, Failure> {
    let refuse = |what: String| Failure::usage(format!("config '{}': {what}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(e) => return Err(refuse(e.to_string())),
    };
    text.parse::<Table>().map_err(|e| {
        let at = e.span().map_or(0, |s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        refuse(format!("line {at}: {}", e.message()))
    })
}

/// Adds the file's flags to those of the command line, where neither it nor the environment has them.
///
/// # Errors
/// The file is no TOML, or has a key that is no flag, or a value that no flag can have.
pub fn apply(args: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(name) = args.get(1).and_then(|a| a.to_str()) else { return Ok(args) };
    let name = match name {
        "server" => "serve",
        "cli" => "chat",
        other => other,
    };
    if !SECTIONS.contains(&name) {
        return Ok(args);
    }
    let Some(path) = path() else { return Ok(args) };
    let table = read(&path)?;
    if table.is_empty() {
        return Ok(args);
    }
    // A command line that is wrong is told as such, without the file.
    let Ok(matches) = Cli::command().try_get_matches_from(&args) else { return Ok(args) };
    let Some((_, given)) = matches.subcommand() else { return Ok(args) };
    let command = Cli::command();
    let mut added = Vec::new();
    for (key, value, own) in flags_of(&table, name, &path)? {
        let known = |c: &clap::Command| c.get_arguments().find(|a| a.get_long() == Some(key)).cloned();
        let Some(arg) = command.find_subcommand(name).and_then(known) else {
            // At the top of the file, a key is for the commands that have it.
            let elsewhere = SECTIONS.iter().any(|s| command.find_subcommand(s).and_then(known).is_some());
            if own || !elsewhere {
                let message = format!("config '{}': '{key}' is no flag of smoa {name}", path.display());
                return Err(Failure::usage(message));
            }
            continue;
        };
        let source = given.value_source(arg.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let is_switch = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
        for text in spelled(key, value, is_switch)
            .map_err(|what| Failure::usage(format!("config '{}': {key}: {what}", path.display())))?
        {
            added.push(OsString::from(text));
        }
    }
    let mut all = args;
    all.splice(2..2, added);
    Ok(all)
}

/// The keys that concern a command, those of its own section last; true for those.
fn flags_of<'t>(table: &'t Table, name: &str, path: &Path) -> Result<Vec<(&'t str, &'t Value, bool)>, Failure> {
    let mut all = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(_) if !SECTIONS.contains(&key.as_str()) => {
                let message = format!(
                    "config '{}': there is no section [{key}]; there are {}",
                    path.display(),
                    SECTIONS.join(", ")
                );
                return Err(Failure::usage(message));
            }
            Value::Table(section) if key == name => all.extend(section.iter().map(|(k, v)| (k.as_str(), v, true))),
            Value::Table(_) => (),
            value => all.push((key.as_str(), value, false)),
        }
    }
    let own: Vec<&str> = all.iter().filter(|(.., own)| *own).map(|(k, ..)| *k).collect();
    all.retain(|(key, _, is_own)| *is_own || !own.contains(key));
    Ok(all)
}

fn spelled(key: &str, value: &Value, is_switch: bool) -> Result<Vec<String>, String> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(format!("--{key}={text}")),
        Value::Integer(n) => Ok(format!("--{key}={n}")),
        Value::Float(n) => Ok(format!("--{key}={n}")),
        other => Err(format!("must be a text or a number, not {other}")),
    };
    match value {
        Value::Boolean(true) if is_switch => Ok(vec![format!("--{key}")]),
        Value::Boolean(false) if is_switch => Ok(Vec::new()),
        _ if is_switch => Err(format!("must be true or false, not {value}")),
        Value::Array(items) => items.iter().map(one).collect(),
        other => Ok(vec![one(other)?]),
    }
}

/// Show, find or begin the config file
#[derive(Args, Debug)]
pub struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print the file's settings, keys hidden
    Show,
    /// Print where the file is looked for
    Path,
    /// Write a file with explanations, unless there is one
    Init,
}

const EXAMPLE: &str = "\
# smoa reads this file for `smoa serve`, `smoa run` and `smoa chat`.
# A key is a long flag without its dashes. The command line counts before the environment, the environment before this.

# For every command that has the flag:
# model = \"models/model.gguf\"
# threads = 4
# library = \"/srv/adapters\"

[serve]
# host = \"127.0.0.1\"
# port = 8080
# api-key-file = \"/etc/smoa/keys\"
# metrics = true

[run]
# temp = 0.0

[chat]
# temp = 0.8
";

/// Runs `smoa config`.
///
/// # Errors
/// There is no place for the file, it cannot be read or written, or it is there already.
pub fn run(command: &ConfigCommand, context: &Context) -> Result<(), Outcome> {
    let path = path().ok_or_else(|| Failure::usage("no home folder for a config file: set SMOA_CONFIG"))?;
    match command.action {
        Action::Path => context.printer.line(&path.display().to_string())?,
        Action::Show => {
            let mut table = read(&path)?;
            let mut secret = false;
            hide(&mut table, &mut secret);
            if secret && others_read(&path) {
                context.printer.warning(&format!("'{}' holds keys and can be read by others", path.display()));
            }
            for line in table.to_string().lines() {
                context.printer.line(&printable(line))?;
            }
        }
        Action::Init => {
            let failed = |e: std::io::Error| Failure::new(Code::Other, format!("'{}': {e}", path.display()));
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            let mut file = private(&path).map_err(failed)?;
            std::io::Write::write_all(&mut file, EXAMPLE.as_bytes()).map_err(failed)?;
            context.printer.line(&path.display().to_string())?;
        }
    }
    Ok(())
}

/// A new file that only its owner reads.
fn private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn others_read(path: &Path) -> bool {
    #[cfg(unix)]
    return std::fs::metadata(path)
        .is_ok_and(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o077 != 0);
    #[cfg(not(unix))]
    return false;
}

fn hide(table: &mut Table, secret: &mut bool) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => hide(inner, secret),
            value if SECRETS.contains(&key.as_str()) => {
                *secret = true;
                *value = Value::String("(hidden)".into());
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str, command: &str) -> Result<Vec<String>, String> {
        let table: Table = text.parse().expect("TOML");
        let all = flags_of(&table, command, Path::new("x")).map_err(|e| e.message)?;
        let spell = |(key, value, _): (&str, &Value, bool)| spelled(key, value, value.is_bool());
        Ok(all.into_iter().map(spell).collect::<Result<Vec<_>, _>>()?.concat())
    }

    #[test]
    fn a_section_counts_before_the_top() {
        let text = "threads = 4\nport = 1\nstop = [\"a\", \"b\"]\nmetrics = true\nquiet = false\n[serve]\nport = 2\n[run]\ntemp = 0.5\n";
        let expected = ["--threads=4", "--stop=a", "--stop=b", "--metrics", "--port=2"];
        let mut found = flags(text, "serve").expect("read");
        found.sort();
        let mut expected = expected.map(String::from).to_vec();
        expected.sort();
        assert_eq!(found, expected);
        assert!(flags(text, "run").expect("read").contains(&"--temp=0.5".to_string()));
        assert!(flags("[server]\n", "serve").is_err());
        assert!(flags("port = 1979-05-27\n", "serve").is_err());
    }
}
