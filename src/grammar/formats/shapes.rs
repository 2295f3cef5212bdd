//! The formats that take parameters.

use gbnf::ProductionItem;
use serde_json::{Map, Value};

use super::super::error::{GrammarError, nearest};
use super::build::{Builder, any, lit, optional, ranges, rule, text_character, times};
use super::spelling::FIRST;

/// A format that takes parameters.
#[derive(Debug, Clone, Copy)]
pub struct Parameterised {
    /// The name a request gives.
    pub name: &'static str,
    /// What it accepts, in one line.
    pub description: &'static str,
    /// Its parameters with what they mean; arguments without a key go to the first.
    pub params: &'static [(&'static str, &'static str)],
    /// A spelling that works.
    pub example: &'static str,
    make: fn(&mut Params) -> Result<String, String>,
}

/// Names in a list, at most.
const NAMES: usize = 1000;

/// All formats with parameters, sorted by name.
pub fn parameterised() -> &'static [Parameterised] {
    const SHAPES: &[Parameterised] = &[
        Parameterised {
            name: "choice",
            description: "Exactly one of the labels, for classification",
            params: &[("labels", "the labels")],
            example: "choice(positive, negative, \"can't tell\")",
            make: choice,
        },
        Parameterised {
            name: "csv",
            description: "Comma-separated rows (RFC 4180) with these columns; a column is a name, or name:integer, \
                          name:number, name:date",
            params: &[
                ("columns", "the columns"),
                ("rows", "most rows, 100 if not given"),
                ("header", "false leaves the line of names out"),
            ],
            example: "csv(name, born:date, height:number, rows=20)",
            make: csv,
        },
        Parameterised {
            name: "fields",
            description: "One line \"name: value\" for every name, in order",
            params: &[("names", "the names")],
            example: "fields(Title, Author, Year)",
            make: fields,
        },
        Parameterised {
            name: "labels",
            description: "One or more of the labels, each at most once, in their order",
            params: &[
                ("labels", "the labels"),
                ("separator", "what stands between two, a comma and a blank if not given"),
            ],
            example: "labels(red, green, blue)",
            make: labels,
        },
        Parameterised {
            name: "markdown-table",
            description: "A Markdown table with these columns",
            params: &[("columns", "the columns"), ("rows", "most rows, 100 if not given")],
            example: "markdown-table(Name, Age)",
            make: table,
        },
        Parameterised {
            name: "sql",
            description: "One SQL SELECT statement over these tables and columns only; as sql-select, but no other name \
                          is a table or column",
            params: &[("tables", "table.column, or in JSON an object of table and columns")],
            example: "sql(users.id, users.name, orders.user_id, orders.total)",
            make: sql,
        },
    ];
    SHAPES
}

impl Parameterised {
    /// The format as GBNF text.
    ///
    /// # Errors
    /// [`GrammarError::Format`] that names the parameter.
    pub(super) fn build(&self, given: Map<String, Value>) -> Result<String, GrammarError> {
        let refuse = |message: String| GrammarError::Format { name: self.name.to_owned(), message };
        let mut params = Params { given: Map::new() };
        for (key, value) in given {
            let key = if key == FIRST { self.params[0].0.to_owned() } else { key };
            if !self.params.iter().any(|(name, _)| *name == key) {
                let near = nearest(&key, self.params.iter().map(|(name, _)| *name));
                let hint = near.map(|name| format!(" (did you mean '{name}'?)")).unwrap_or_default();
                return Err(refuse(format!("there is no parameter '{key}'{hint}; example: {}", self.example)));
            }
            if params.given.insert(key.clone(), value).is_some() {
                return Err(refuse(format!("parameter '{key}' is given twice")));
            }
        }
        (self.make)(&mut params).map_err(|message| refuse(format!("{message}; example: {}", self.example)))
    }
}

/// Parameters as they were given.
struct Params {
    given: Map<String, Value>,
}

impl Params {
    /// A list of one to [`NAMES`] different texts without line breaks, none empty.
    fn names(&mut self, key: &str) -> Result<Vec<String>, String> {
        let list = match self.given.remove(key) {
            Some(Value::Array(list)) => list,
            Some(value @ Value::String(_)) => vec![value],
            Some(_) => return Err(format!("'{key}' must be a list of texts")),
            None => return Err(format!("'{key}' is missing")),
        };
        let mut names: Vec<String> = Vec::with_capacity(list.len());
        for value in list {
            let Value::String(name) = value else {
                return Err(format!("'{key}' must be a list of texts"));
            };
            if name.is_empty() || name.chars().any(char::is_control) {
                return Err(format!("'{key}' holds an empty text or one with a control character"));
            }
            names.push(name);
        }
        if names.is_empty() || names.len() > NAMES {
            return Err(format!("'{key}' must have 1 to {NAMES} entries, not {}", names.len()));
        }
        let mut sorted: Vec<&String> = names.iter().collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("'{key}' has '{}' twice", pair[0])),
            None => Ok(names),
        }
    }

    fn text(&mut self, key: &str, default: &str) -> Result<String, String> {
        match self.given.remove(key) {
            None => Ok(default.to_owned()),
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(_) => Err(format!("'{key}' must be a text")),
        }
    }

    fn number(&mut self, key: &str, default: usize, most: usize) -> Result<usize, String> {
        let number = match self.given.remove(key) {
            None => Some(default),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_u64().and_then(|number| usize::try_from(number).ok()),
        };
        number.filter(|number| (1..=most).contains(number)).ok_or(format!("'{key}' must be a number from 1 to {most}"))
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, String> {
        match self.given.remove(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(Value::String(text)) if text == "true" => Ok(true),
            Some(Value::String(text)) if text == "false" => Ok(false),
            Some(_) => Err(format!("'{key}' must be true or false")),
        }
    }
}

fn choice(params: &mut Params) -> Result<String, String> {
    let labels = params.names("labels")?;
    let mut builder = Builder::new("One of the labels");
    builder.rule("root", vec![any(labels.iter().map(|label| vec![lit(label)]).collect())]);
    Ok(builder.print())
}

fn labels(params: &mut Params) -> Result<String, String> {
    let labels = params.names("labels")?;
    let separator = params.text("separator", ", ")?;
    let mut builder = Builder::new("One or more of the labels, in their order");
    let starts = (0..labels.len()).map(|index| vec![rule(&format!("from-{index}"))]).collect();
    builder.rule("root", vec![any(starts)]);
    for (index, label) in labels.iter().enumerate() {
        let mut items = vec![lit(label)];
        if index + 1 < labels.len() {
            items.push(optional(vec![lit(&separator), rule(&format!("after-{index}"))]));
        }
        builder.rule(&format!("from-{index}"), items);
        if index + 1 < labels.len() {
            let mut options = vec![vec![rule(&format!("from-{}", index + 1))]];
            if index + 2 < labels.len() {
                options.push(vec![rule(&format!("after-{}", index + 1))]);
            }
            builder.rule(&format!("after-{index}"), vec![any(options)]);
        }
    }
    Ok(builder.print())
}

fn fields(params: &mut Params) -> Result<String, String> {
    let names = params.names("names")?;
    let mut builder = Builder::new("A line for every name");
    let mut items = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let end = if index == 0 { "" } else { "\n" };
        items.extend([lit(&format!("{end}{name}: ")), rule("value")]);
    }
    builder.rule("root", items);
    builder.rule("value", vec![text_character(&[' ']), times(vec![text_character(&[])], 0, 400)]);
    Ok(builder.print())
}

/// A value that cannot hold commas, with its rules.
fn typed(builder: &mut Builder, kind: &str) -> Option<ProductionItem> {
    let digit = || ranges(&[('0', '9')]);
    match kind {
        "text" => return Some(rule("text")),
        "integer" => builder.rule(
            "integer",
            vec![
                optional(vec![lit("-")]),
                any(vec![vec![lit("0")], vec![ranges(&[('1', '9')]), times(vec![digit()], 0, 17)]]),
            ],
        ),
        "number" => builder.rule(
            "number",
            vec![
                optional(vec![lit("-")]),
                any(vec![vec![lit("0")], vec![ranges(&[('1', '9')]), times(vec![digit()], 0, 15)]]),
                optional(vec![lit("."), times(vec![digit()], 1, 15)]),
            ],
        ),
        "date" => {
            let month = any(vec![vec![lit("0"), ranges(&[('1', '9')])], vec![lit("1"), ranges(&[('0', '2')])]]);
            let day = any(vec![
                vec![lit("0"), ranges(&[('1', '9')])],
                vec![ranges(&[('1', '2')]), digit()],
                vec![lit("3"), ranges(&[('0', '1')])],
            ]);
            builder.rule("date", vec![times(vec![digit()], 4, 4), lit("-"), month, lit("-"), day]);
        }
        _ => return None,
    }
    Some(rule(kind))
}

fn csv(params: &mut Params) -> Result<String, String> {
    let columns = params.names("columns")?;
    let rows = params.number("rows", 100, 10_000)?;
    let header = params.flag("header", true)?;
    let mut builder = Builder::new("Comma-separated values");
    let mut names = Vec::new();
    let mut row = Vec::new();
    let mut kinds: Vec<(&str, ProductionItem)> = Vec::new();
    let mut values = Builder::default();
    for column in &columns {
        let (name, kind) = column.rsplit_once(':').unwrap_or((column, "text"));
        let (name, kind) = (name.trim(), kind.trim());
        let known = kinds.iter().find(|(known, _)| *known == kind).map(|(_, item)| item.clone());
        let item = match known {
            Some(item) => item,
            None => {
                let item = typed(&mut values, kind);
                let item = item.ok_or(format!("column '{column}': a type is text, integer, number or date"))?;
                kinds.push((kind, item.clone()));
                item
            }
        };
        if !row.is_empty() {
            row.push(lit(","));
        }
        row.push(item);
        names.push(match name.contains([',', '"']) {
            true => format!("\"{}\"", name.replace('"', "\"\"")),
            false => name.to_owned(),
        });
    }
    let more = times(vec![lit("\n"), rule("row")], 0, rows - 1);
    let first = if header { vec![lit(&format!("{}\n", names.join(",")))] } else { Vec::new() };
    builder.rule("root", [first, vec![rule("row"), more]].concat());
    builder.rule("row", row);
    if kinds.iter().any(|(kind, _)| *kind == "text") {
        let quoted =
            vec![lit("\""), times(vec![any(vec![vec![text_character(&['"'])], vec![lit("\"\"")]])], 0, 400), lit("\"")];
        let plain = vec![times(vec![text_character(&['"', ','])], 0, 400)];
        builder.rule("text", vec![any(vec![plain, quoted])]);
    }
    Ok(builder.print() + &values.print())
}

fn table(params: &mut Params) -> Result<String, String> {
    let columns = params.names("columns")?;
    let rows = params.number("rows", 100, 10_000)?;
    let mut builder = Builder::new("A Markdown table");
    let head: Vec<String> = columns.iter().map(|column| column.replace('|', "\\|")).collect();
    let rule_line = vec!["---"; columns.len()].join(" | ");
    let head = format!("| {} |\n| {rule_line} |", head.join(" | "));
    builder.rule("root", vec![lit(&head), times(vec![lit("\n"), rule("row")], 1, rows)]);
    let cells = columns.iter().flat_map(|_| [lit(" "), rule("cell"), lit(" |")]);
    builder.rule("row", [lit("|")].into_iter().chain(cells).collect());
    let inner = any(vec![vec![text_character(&['|', '\\'])], vec![lit("\\|")]]);
    let last = any(vec![vec![text_character(&['|', '\\', ' '])], vec![lit("\\|")]]);
    builder.rule("cell", vec![times(vec![inner], 0, 200), last]);
    Ok(builder.print())
}

/// `sql-select` with its rules for tables and columns replaced.
fn sql(params: &mut Params) -> Result<String, String> {
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    let pairs: Vec<String> = match params.given.remove("tables") {
        Some(Value::Object(object)) => {
            let mut pairs = Vec::new();
            for (table, columns) in object {
                let Value::Array(columns) = columns else {
                    return Err(format!("'tables': the columns of '{table}' must be a list"));
                };
                for column in columns {
                    let column = column.as_str().ok_or(format!("'tables': a column of '{table}' is no text"))?;
                    pairs.push(format!("{table}.{column}"));
                }
            }
            params.given.insert("tables".to_owned(), pairs.into());
            params.names("tables")?
        }
        Some(other) => {
            params.given.insert("tables".to_owned(), other);
            params.names("tables")?
        }
        None => return Err("'tables' is missing".to_owned()),
    };
    for pair in pairs {
        let (table, column) = pair.split_once('.').ok_or(format!("'{pair}' is not table.column"))?;
        if table.is_empty() || column.is_empty() {
            return Err(format!("'{pair}' is not table.column"));
        }
        match tables.iter_mut().find(|(name, _)| name == table) {
            Some((_, columns)) => columns.push(column.to_owned()),
            None => tables.push((table.to_owned(), vec![column.to_owned()])),
        }
    }
    let mut columns: Vec<&String> = tables.iter().flat_map(|(_, columns)| columns).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut builder = Builder::default();
    let names = |names: Vec<&String>| any(names.into_iter().map(|name| vec![lit(&identifier(name))]).collect());
    builder.rule("table", vec![names(tables.iter().map(|(table, _)| table).collect())]);
    builder.rule("column", vec![names(columns)]);
    let alias = vec![ranges(&[('a', 'z')]), times(vec![ranges(&[('0', '9')])], 0, 2)];
    let owner = any(vec![vec![rule("table")], alias.clone()]);
    builder.rule("qualifier", vec![owner]);
    builder.rule("field", vec![optional(vec![rule("qualifier"), lit(".")]), rule("column")]);
    builder.rule("alias", alias);
    let base = super::get("sql-select").map_or("", |format| format.gbnf);
    let replaced = ["table ::=", "field ::=", "qualifier ::=", "alias ::="];
    let kept = base.lines().filter(|line| !replaced.iter().any(|rule| line.starts_with(rule)));
    Ok(kept.collect::<Vec<_>>().join("\n") + "\n" + &builder.print())
}

/// A name as SQL writes it: plain where it can be, else in double quotes.
fn identifier(name: &str) -> String {
    let plain = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || at > 0 && c.is_ascii_digit();
    match name.chars().enumerate().all(plain) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}
