//! A line to a command: pure. The table is the parser, the help and the completion in one.

use super::words;
use crate::error::Failure;

/// What a typed text is.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// Something to say to the model.
    Message(String),
    /// Something for the chat itself.
    Command(Command),
}

/// Something for the chat itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Show the commands.
    Help,
    /// Leave.
    Exit,
    /// Forget the conversation.
    Clear,
    /// Answer the last message again.
    Regenerate,
    /// Forget the last exchange.
    Undo,
    /// Forget the last exchange and give its message back for editing.
    Edit,
    /// The system message.
    System(Change<String>),
    /// The adapters, as `FILE[=SCALE]`.
    Lora(Change<Vec<String>>),
    /// The adapters, by name.
    Adapter(Change<Vec<String>>),
    /// A ready format, by name.
    Format(Change<String>),
    /// A file with a GBNF grammar.
    Grammar(Change<String>),
    /// A file with a JSON Schema.
    Schema(Change<String>),
    /// A regular expression.
    Regex(Change<String>),
    /// List the settings.
    Settings,
    /// Change a setting.
    Set(String, String),
    /// Write the conversation to a file.
    Save {
        /// The file.
        file: String,
        /// Whether a file that is there already may be replaced.
        replace: bool,
    },
    /// Read a conversation from a file.
    Load(String),
    /// Put text files into the next message.
    Read(Vec<String>),
    /// How adapters were chosen, or what would be chosen for a text.
    Route(String),
    /// Show counts and speeds.
    Stats,
    /// Say of the last answer whether it was good.
    Judge(bool),
}

/// A setting that is shown, taken away or given.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// Show it.
    Show,
    /// None from now on.
    Off,
    /// This from now on.
    To(T),
}

/// What the arguments of a command are, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing that could be completed.
    Nothing,
    /// Files that end like this (any for ""), after one of these words.
    Files(&'static str, &'static [&'static str]),
    /// Names of ready formats.
    Formats,
    /// Names of settings.
    Settings,
}

/// A command of the table.
pub struct Row {
    /// Its names, without the slash; the first is the one shown.
    pub names: &'static [&'static str],
    /// Its arguments, for people.
    pub arguments: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// What completes its arguments.
    pub takes: Takes,
    parse: fn(&str) -> Result<Command, Failure>,
}

const fn row(
    names: &'static [&'static str],
    arguments: &'static str,
    help: &'static str,
    takes: Takes,
    parse: fn(&str) -> Result<Command, Failure>,
) -> Row {
    Row { names, arguments, help, takes, parse }
}

const OFF: &[&str] = &["off"];
const NONE: &[&str] = &["none", "off"];

/// All commands, in the order of the help.
#[rustfmt::skip]
pub static TABLE: [Row; 21] = [
    row(&["help", "?"], "", "this list", Takes::Nothing, |a| bare(a, Command::Help)),
    row(&["exit", "quit", "bye"], "", "leave (as Ctrl-D)", Takes::Nothing, |a| bare(a, Command::Exit)),
    row(&["clear"], "", "forget the conversation; settings and system message stay", Takes::Nothing, |a| bare(a, Command::Clear)),
    row(&["regen", "retry"], "", "answer the last message again", Takes::Nothing, |a| bare(a, Command::Regenerate)),
    row(&["undo"], "", "forget the last exchange", Takes::Nothing, |a| bare(a, Command::Undo)),
    row(&["edit"], "", "forget the last exchange and edit its message", Takes::Nothing, |a| bare(a, Command::Edit)),
    row(&["system"], "[TEXT|off]", "show, set or drop the system message", Takes::Nothing, |a| Ok(Command::System(text(a)))),
    row(&["lora"], "[FILE[=SCALE] ..|none]", "show, set or drop LoRA adapter files", Takes::Files("gguf", NONE), |a| Ok(Command::Lora(list(a)))),
    row(&["adapter"], "[NAME[=SCALE] ..|auto|none]", "show, set or drop adapters of the library; auto: routed", Takes::Nothing, |a| Ok(Command::Adapter(list(a)))),
    row(&["route"], "[TEXT]", "how adapters were chosen, or would be for a text", Takes::Nothing, |a| Ok(Command::Route(a.to_string()))),
    row(&["format"], "[NAME|off]", "show, set or drop the form of answers: a ready format", Takes::Formats, |a| Ok(Command::Format(text(a)))),
    row(&["grammar"], "[FILE|off]", "the same with a GBNF file", Takes::Files("gbnf", OFF), |a| file_change(a).map(Command::Grammar)),
    row(&["schema"], "[FILE|off]", "the same with a JSON Schema file", Takes::Files("json", OFF), |a| file_change(a).map(Command::Schema)),
    row(&["regex"], "[RE|off]", "the same with a regular expression", Takes::Nothing, |a| Ok(Command::Regex(text(a)))),
    row(&["set"], "[NAME VALUE|default]", "list the settings, or change one", Takes::Settings, set),
    row(&["read"], "FILE ..", "put text files into the next message", Takes::Files("", &[]), |a| files(a).map(Command::Read)),
    row(&["save"], "[-f] FILE", "write the conversation: .md for reading, else JSONL; -f replaces", Takes::Files("", &[]), save),
    row(&["load"], "FILE", "go on with a conversation saved as JSONL", Takes::Files("jsonl", &[]), |a| file(a).map(Command::Load)),
    row(&["good"], "", "the last answer was good: counted for its adapters", Takes::Nothing, |a| bare(a, Command::Judge(true))),
    row(&["bad"], "", "the last answer was bad: counted for its adapters", Takes::Nothing, |a| bare(a, Command::Judge(false))),
    row(&["stats"], "", "tokens, context, speeds", Takes::Nothing, |a| bare(a, Command::Stats)),
];

/// Reads a typed text. A command is a slash and a word at the very beginning; `/usr/bin` and `//` are no commands.
///
/// # Errors
/// The command does not exist, or its arguments are wrong.
pub fn parse(line: &str) -> Result<Line, Failure> {
    let Some((name, arguments)) = split_name(line) else {
        return Ok(Line::Message(line.to_string()));
    };
    let Some(row) = find(name) else {
        let hint = nearest(name).map_or_else(|| "/help lists all".to_string(), |n| format!("the nearest is /{n}"));
        return Err(Failure::usage(format!("there is no command /{name}; {hint}")));
    };
    (row.parse)(arguments).map(Line::Command).map_err(|e| Failure::new(e.code, format!("/{name}: {}", e.message)))
}

/// The row of the command called `name`.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.names.contains(&name))
}

/// The name and the arguments of what looks like a command.
pub fn split_name(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_prefix('/')?;
    let (name, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let word = name.chars().all(|c| c.is_ascii_lowercase() || c == '?');
    (word && !name.is_empty()).then_some((name, arguments.trim()))
}

/// The lines of `/help`.
pub fn help() -> Vec<String> {
    let shown = |row: &Row| format!("/{} {}", row.names[0], row.arguments);
    let also = |row: &Row| match row.names {
        [_, others @ ..] if !others.is_empty() => format!(" (also /{})", others.join(", /")),
        _ => String::new(),
    };
    let mut lines: Vec<String> =
        TABLE.iter().map(|row| format!("{:<31} {}{}", shown(row), row.help, also(row))).collect();
    lines.push(String::new());
    lines.extend(KEYS.map(|(key, help)| format!("{key:<31} {help}")));
    lines
}

/// Keys and ways of typing, for the help.
const KEYS: [(&str, &str); 6] = [
    ("\"\"\"  ..  \"\"\"", "a message of several lines; a pasted text is one message anyway"),
    ("\\ at the end of a line", "the message goes on in the next line"),
    ("Alt-Enter", "a line break"),
    ("Tab, Ctrl-R, Up", "complete, search the history, earlier messages"),
    ("Ctrl-C", "stop the answer; clear the line; twice on an empty line: leave"),
    ("Ctrl-D", "leave"),
];

fn nearest(name: &str) -> Option<&'static str> {
    let names = TABLE.iter().flat_map(|row| row.names).copied();
    let scored = names.map(|n| (strsim::jaro_winkler(name, n), n));
    scored.filter(|(score, _)| *score > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}

fn bare(arguments: &str, command: Command) -> Result<Command, Failure> {
    match arguments {
        "" => Ok(command),
        _ => Err(Failure::usage("takes no arguments")),
    }
}

fn text(arguments: &str) -> Change<String> {
    match arguments {
        "" => Change::Show,
        "off" | "none" => Change::Off,
        text => Change::To(text.to_string()),
    }
}

fn list(arguments: &str) -> Change<Vec<String>> {
    match arguments {
        "" => Change::Show,
        "off" | "none" => Change::Off,
        some => Change::To(words::split(some).into_iter().map(|w| w.text).collect()),
    }
}

fn file_change(arguments: &str) -> Result<Change<String>, Failure> {
    match text(arguments) {
        Change::To(_) => file(arguments).map(Change::To),
        other => Ok(other),
    }
}

fn files(arguments: &str) -> Result<Vec<String>, Failure> {
    let files: Vec<String> = words::split(arguments).into_iter().map(|w| w.text).collect();
    if files.is_empty() { Err(Failure::usage("name a file")) } else { Ok(files) }
}

fn file(arguments: &str) -> Result<String, Failure> {
    let mut files = files(arguments)?;
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => Err(Failure::usage("name one file, in quotes when its name has blanks")),
    }
}

fn save(arguments: &str) -> Result<Command, Failure> {
    let forced = arguments.strip_prefix("-f").filter(|rest| rest.starts_with(char::is_whitespace));
    Ok(Command::Save { file: file(forced.unwrap_or(arguments))?, replace: forced.is_some() })
}

fn set(arguments: &str) -> Result<Command, Failure> {
    match arguments.split_once(char::is_whitespace) {
        None if arguments.is_empty() => Ok(Command::Settings),
        None => Err(Failure::usage(format!("give a value too: /set {arguments} VALUE, or /set {arguments} default"))),
        Some((name, value)) => Ok(Command::Set(name.to_string(), value.trim().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn command(line: &str) -> Command {
        match parse(line).unwrap_or_else(|e| panic!("{line}: {e}")) {
            Line::Command(command) => command,
            Line::Message(m) => panic!("{line} was taken for the message {m:?}"),
        }
    }

    #[test]
    fn lines_become_commands() {
        let s = String::from;
        let table = [
            ("/help", Command::Help),
            ("/?", Command::Help),
            ("/bye ", Command::Exit),
            ("/retry", Command::Regenerate),
            ("/good", Command::Judge(true)),
            ("/bad", Command::Judge(false)),
            ("/system", Command::System(Change::Show)),
            ("/system off", Command::System(Change::Off)),
            ("/system You are\nbrief.", Command::System(Change::To(s("You are\nbrief.")))),
            ("/lora a.gguf=0.5 'b c.gguf'", Command::Lora(Change::To(vec![s("a.gguf=0.5"), s("b c.gguf")]))),
            ("/lora none", Command::Lora(Change::Off)),
            ("/format json", Command::Format(Change::To(s("json")))),
            ("/grammar x\\ y.gbnf", Command::Grammar(Change::To(s("x y.gbnf")))),
            ("/regex a \"b\\d", Command::Regex(Change::To(s("a \"b\\d")))),
            ("/set", Command::Settings),
            ("/set stop [\"a\", \"b\"]", Command::Set(s("stop"), s("[\"a\", \"b\"]"))),
            ("/save -f x", Command::Save { file: s("x"), replace: true }),
            ("/save -fx", Command::Save { file: s("-fx"), replace: false }),
            ("/read a b", Command::Read(vec![s("a"), s("b")])),
        ];
        for (line, expected) in table {
            assert_eq!(command(line), expected, "{line}");
        }
    }

    #[test]
    fn what_only_begins_with_a_slash_is_a_message() {
        for line in ["hello", "/usr/bin/env: what is it?", "// a comment", "/", " /clear", "/2", "/* c */"] {
            assert_eq!(parse(line), Ok(Line::Message(line.into())), "{line}");
        }
    }

    #[test]
    fn wrong_commands_say_what_is_right() {
        let table = [
            ("/claer", "there is no command /claer; the nearest is /clear"),
            ("/xyzzy", "there is no command /xyzzy; /help lists all"),
            ("/undo 3", "/undo: takes no arguments"),
            ("/load a b", "/load: name one file, in quotes when its name has blanks"),
            ("/read", "/read: name a file"),
            ("/set temperature", "/set: give a value too: /set temperature VALUE, or /set temperature default"),
        ];
        for (line, expected) in table {
            assert_eq!(parse(line).expect_err(line).message, expected);
        }
    }

    #[test]
    fn every_name_is_there_once_and_every_line_of_the_help_fits() {
        let names: Vec<&str> = TABLE.iter().flat_map(|row| row.names).copied().collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(help().iter().all(|line| line.chars().count() <= 100), "{:#?}", help());
    }
}
