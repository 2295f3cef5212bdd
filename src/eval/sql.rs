//! SQL queries by what they find: set-up statements make the tables, the answer's query is run, its rows compared.
//!
//! A model's query is untrusted text. It runs in a database in memory that nothing else uses, after which it is thrown
//! away: reading only, without other databases, pragmas, virtual tables or extensions; the steps of SQLite's machine, the
//! rows and the size of a value are bounded, so that a verdict does not depend on the clock.

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};
use serde_json::Value;

use super::text::{query, unfenced};
use super::{Row, Scores, mean, share};

/// Thousands of steps of SQLite's machine that set-up and query may take, each.
const STEPS: u32 = 20_000;
/// Most rows read of a result.
const ROWS: usize = 10_000;
/// Most bytes of a value and of a query.
const BYTES: i32 = 1 << 20;

/// Whether the row has statements that make the tables, and whether they and the answer wanted can be run.
pub fn check(row: &Row) -> Result<(), String> {
    let setup = row.meta.get("setup").and_then(Value::as_str);
    let setup = setup.ok_or("meta.setup is missing: give the SQLite statements that make the tables")?;
    let database = open(setup).map_err(|e| format!("meta.setup: {e}"))?;
    match row.meta.get("rows") {
        Some(rows) => {
            listed(rows).map(drop).ok_or_else(|| "meta.rows: give a list of lists of plain values".to_owned())
        }
        None => run(&database, &row.answer).map(drop).map_err(|e| format!("the answer wanted does not run: {e}")),
    }
}

/// `match`, answers that find the rows wanted; `runs`, answers that run; `exact`, the text wanted but for case and space.
pub fn score(rows: &[Row], answers: &[String]) -> Scores {
    let found: Vec<Option<bool>> = rows.iter().zip(answers).map(|(row, answer)| finds(row, answer)).collect();
    let plain = |text: &str| query(text).to_lowercase();
    let equal: Vec<bool> =
        rows.iter().zip(answers).map(|(row, answer)| plain(&row.answer) == plain(unfenced(answer))).collect();
    let each: Vec<f64> = found.iter().map(|f| f64::from(u8::from(*f == Some(true)))).collect();
    let main = mean(&each);
    Scores::new(each)
        .with("match", main)
        .with("runs", share(&found, Option::is_some))
        .with("exact", share(&equal, |e| *e))
}

/// Whether the answer finds the rows wanted; `None` when it does not run.
fn finds(row: &Row, answer: &str) -> Option<bool> {
    let database = open(row.meta.get("setup").and_then(Value::as_str)?).ok()?;
    let wanted = match row.meta.get("rows") {
        Some(rows) => listed(rows)?,
        None => run(&database, &row.answer).ok()?,
    };
    run(&database, unfenced(answer)).ok().map(|found| found == wanted)
}

/// A database in memory with the tables made.
fn open(setup: &str) -> rusqlite::Result<Connection> {
    let mut database = Connection::open_in_memory()?;
    for limit in [Limit::SQLITE_LIMIT_LENGTH, Limit::SQLITE_LIMIT_SQL_LENGTH] {
        database.set_limit(limit, BYTES)?;
    }
    database.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    guard(&mut database, may_make)?;
    database.execute_batch(setup)?;
    guard(&mut database, may_read)?;
    Ok(database)
}

/// From now on only what `may` allows is run, and only so many steps of it.
fn guard(database: &mut Connection, may: fn(&AuthAction<'_>) -> bool) -> rusqlite::Result<()> {
    database.authorizer(Some(move |context: AuthContext<'_>| match may(&context.action) {
        true => Authorization::Allow,
        false => Authorization::Deny,
    }))?;
    let mut left = STEPS;
    database.progress_handler(
        1000,
        Some(move || {
            left = left.saturating_sub(1);
            left == 0
        }),
    )
}

fn may_read(action: &AuthAction<'_>) -> bool {
    match action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => true,
        AuthAction::Function { function_name } => !function_name.eq_ignore_ascii_case("load_extension"),
        _ => false,
    }
}

fn may_make(action: &AuthAction<'_>) -> bool {
    may_read(action)
        || matches!(
            action,
            AuthAction::CreateTable { .. }
                | AuthAction::CreateIndex { .. }
                | AuthAction::CreateView { .. }
                | AuthAction::Insert { .. }
                | AuthAction::Update { .. }
                | AuthAction::Delete { .. }
                | AuthAction::Reindex { .. }
                | AuthAction::Transaction { .. }
        )
}

/// The rows that a query finds, as sorted texts.
fn run(database: &Connection, sql: &str) -> rusqlite::Result<Vec<Vec<String>>> {
    let mut statement: Statement<'_> = database.prepare(sql.trim().trim_end_matches(';'))?;
    let columns = statement.column_count();
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if found.len() == ROWS {
            break;
        }
        found.push((0..columns).map(|at| row.get_ref(at).map(text)).collect::<rusqlite::Result<Vec<String>>>()?);
    }
    found.sort();
    Ok(found)
}

/// A value as text: numbers by value, so that 2 equals 2.0.
fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(n) => (n as f64).to_string(),
        ValueRef::Real(n) => n.to_string(),
        ValueRef::Text(bytes) => format!("'{}", String::from_utf8_lossy(bytes)),
        ValueRef::Blob(bytes) => format!("x{bytes:x?}"),
    }
}

/// `meta.rows` in the form of [`run`].
fn listed(rows: &Value) -> Option<Vec<Vec<String>>> {
    let one = |value: &Value| match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(truth) => Some(f64::from(u8::from(*truth)).to_string()),
        Value::Number(number) => number.as_f64().map(|n| n.to_string()),
        Value::String(text) => Some(format!("'{text}")),
        _ => None,
    };
    let row = |row: &Value| row.as_array()?.iter().map(one).collect::<Option<Vec<String>>>();
    let mut all = rows.as_array()?.iter().map(row).collect::<Option<Vec<_>>>()?;
    all.sort();
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    const SETUP: &str =
        "CREATE TABLE t (a TEXT COLLATE NOCASE, n REAL); INSERT INTO t VALUES ('x', 1), ('y', 2), ('y', 3);";

    fn task() -> Row {
        let meta = serde_json::json!({"setup": SETUP, "rows": [[3], [2]]});
        row("q", "SELECT n FROM t WHERE a = 'y'", &meta.to_string())
    }

    #[test]
    fn queries_are_judged_by_what_they_find() {
        let table = [
            ("SELECT n FROM t WHERE a = 'Y'", Some(true)),
            ("```sql\nselect n from t where n > 1.5;\n```", Some(true)),
            ("SELECT a FROM t WHERE a = 'y'", Some(false)),
            ("SELECT n FROM t", Some(false)),
            ("SELEC n", None),
            ("", None),
            ("SELECT n FROM t; SELECT n FROM t", None),
        ];
        for (answer, wanted) in table {
            assert_eq!(finds(&task(), answer), wanted, "{answer}");
        }
        let scores = score(&[task(), task()], &["select n from t  where a = 'y';".into(), "x".into()]);
        assert_eq!(["match", "runs", "exact"].map(|f| scores.figure(f)), [Some(0.5); 3]);
        let mut by_gold = task();
        by_gold.meta.remove("rows");
        assert_eq!((check(&by_gold), finds(&by_gold, "SELECT n FROM t WHERE n >= 2")), (Ok(()), Some(true)));
    }

    #[test]
    fn a_model_cannot_do_harm() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("out.db").display().to_string();
        let hostile = [
            format!("ATTACH '{file}' AS other"),
            format!("VACUUM INTO '{file}'"),
            "DELETE FROM t".into(),
            "INSERT INTO t VALUES ('z', 1)".into(),
            "DROP TABLE t".into(),
            "CREATE TABLE u (a)".into(),
            "PRAGMA writable_schema = 1".into(),
            "SELECT * FROM pragma_database_list".into(),
            "SELECT load_extension('x')".into(),
            "CREATE VIRTUAL TABLE v USING fts5(a)".into(),
            "SELECT zeroblob(1000000000)".into(),
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c".into(),
        ];
        for sql in hostile {
            assert_eq!(finds(&task(), &sql), None, "{sql}");
        }
        assert!(!std::path::Path::new(&file).exists());
    }

    #[test]
    fn rows_without_tables_are_refused() {
        let table = [
            ("{}", "meta.setup is missing"),
            (r#"{"setup": "CREATE"}"#, "meta.setup: "),
            (r#"{"setup": "ATTACH 'x' AS y"}"#, "meta.setup: "),
            (r#"{"setup": "CREATE TABLE t (a)", "rows": [1]}"#, "meta.rows"),
            (r#"{"setup": "CREATE TABLE t (a)"}"#, "does not run"),
        ];
        for (meta, words) in table {
            let error = check(&row("q", "SELECT b FROM t", meta)).expect_err(meta);
            assert!(error.contains(words), "{meta}: {error}");
        }
    }
}
