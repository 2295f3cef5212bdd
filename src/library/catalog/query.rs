//! Lists of adapters: filters, pages, changes, names like a name.

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::super::{Change, Changes, Cursor, Entry, EntryId, Filter, LibraryError, Page};
use super::rows::{COLUMNS, JOINED, Raw, meta, sql_number};
use super::{FILE, facets, words};
use crate::adapter::AdapterDigest;

/// The part of a query that chooses adapters: everything after `FROM`, and what its question marks stand for.
struct Chosen {
    from: String,
    with: Vec<Value>,
    /// The column to put names in order by.
    name: &'static str,
    /// How many there are, where that is known beforehand.
    count: Option<u64>,
}

/// How to find what a filter wants; `None` if there can be nothing.
///
/// With a text, the full-text index finds adapters, and they are sorted. Otherwise names are walked in order: those
/// that have the rarest of the facts, or all. Each found is asked for the other facts.
fn choose(db: &Connection, filter: &Filter, after: Option<&str>) -> Result<Option<Chosen>, LibraryError> {
    let mut wanted = Vec::new();
    for text in facets::demanded(filter) {
        match facets::find(db, &text)? {
            Some((facet, adapters)) if adapters > 0 => wanted.push((adapters, facet)),
            _ => return Ok(None),
        }
    }
    wanted.sort_unstable();
    let count = match wanted.as_slice() {
        [(adapters, _)] if filter.text.is_none() && filter.prefix.is_none() => Some(*adapters),
        _ => None,
    };
    let mut facts = wanted.into_iter().map(|(_, facet)| facet);
    let question = match filter.text.as_deref().map(words::question) {
        Some(None) => return Ok(None),
        Some(question) => question,
        None => None,
    };
    let first = if question.is_none() { facts.next() } else { None };
    let (source, adapter, name) = match (&question, first) {
        (Some(_), _) => ("words w CROSS JOIN adapter a ON a.id = w.rowid", "", "a.name"),
        (None, Some(_)) => ("facet_of f", "CROSS JOIN adapter a ON a.id = f.adapter", "f.name"),
        (None, None) => ("adapter a INDEXED BY adapter_name", "", "a.name"),
    };
    // The other facts are joined before the row of the adapter is fetched. (Asked by `EXISTS`, it takes ten times as long.)
    let (mut from, mut with) = (source.to_owned(), Vec::new());
    for (number, facet) in facts.enumerate() {
        from.push_str(&format!(" CROSS JOIN facet_of g{number} ON g{number}.facet = ? AND g{number}.name = {name}"));
        with.push(Value::Integer(facet));
    }
    from.push_str(&format!(" {adapter} {JOINED}"));
    let mut conditions = vec!["a.removed IS NULL".to_owned()];
    if let Some(question) = question {
        conditions.push("words MATCH ?".to_owned());
        with.push(Value::Text(question));
    }
    if let Some(facet) = first {
        conditions.push("f.facet = ?".to_owned());
        with.push(Value::Integer(facet));
    }
    in_range(filter, after, name, &mut conditions, &mut with);
    from.push_str(&format!(" WHERE {}", conditions.join(" AND ")));
    Ok(Some(Chosen { from, with, name, count }))
}

/// The conditions on the name.
fn in_range(filter: &Filter, after: Option<&str>, name: &str, conditions: &mut Vec<String>, with: &mut Vec<Value>) {
    if let Some(prefix) = filter.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        conditions.push(format!("{name} >= ? AND {name} < ?"));
        with.push(Value::Text(prefix.to_owned()));
        // Names are ASCII, so this comes after every name with the prefix.
        with.push(Value::Text(format!("{prefix}\u{7f}")));
    }
    if let Some(after) = after {
        conditions.push(format!("{name} > ?"));
        with.push(Value::Text(after.to_owned()));
    }
}

/// One page of what a filter wants, by name.
pub fn list(db: &Connection, filter: &Filter, page: &Page) -> Result<Vec<Entry>, LibraryError> {
    let after = page.after.as_ref().map(AsRef::as_ref);
    if filter.removed {
        return list_removed(db, filter, after, page.limit);
    }
    let Some(Chosen { from, mut with, name, .. }) = choose(db, filter, after)? else { return Ok(Vec::new()) };
    with.push(Value::Integer(sql_number(page.limit as u64)));
    entries(db, &format!("SELECT {COLUMNS} FROM {from} ORDER BY {name} LIMIT ?"), with)
}

/// Removed adapters are in no index but that of their names; of several with one name, the last removed is told.
fn list_removed(
    db: &Connection,
    filter: &Filter,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Entry>, LibraryError> {
    let newest = "a.id = (SELECT max(n.id) FROM adapter n WHERE n.name = a.name AND n.removed IS NOT NULL)";
    let mut after = after.map(str::to_owned);
    let mut found = Vec::new();
    while found.len() < limit {
        let (mut conditions, mut with) = (vec!["a.removed IS NOT NULL".to_owned(), newest.to_owned()], Vec::new());
        in_range(filter, after.as_deref(), "a.name", &mut conditions, &mut with);
        let sql = format!(
            "SELECT {COLUMNS} FROM adapter a INDEXED BY adapter_removed {JOINED} WHERE {} ORDER BY a.name LIMIT 256",
            conditions.join(" AND ")
        );
        let batch = entries(db, &sql, with)?;
        let Some(last) = batch.last() else { break };
        after = Some(last.name.as_str().to_owned());
        found.extend(batch.into_iter().filter(|entry| filter.accepts(entry)));
    }
    found.truncate(limit);
    Ok(found)
}

fn entries(db: &Connection, sql: &str, with: Vec<Value>) -> Result<Vec<Entry>, LibraryError> {
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params_from_iter(with))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Raw::read(row)?.check()?);
    }
    Ok(found)
}

/// How many a filter wants.
pub fn count(db: &Connection, filter: &Filter) -> Result<u64, LibraryError> {
    if filter.removed {
        return Ok(list_removed(db, filter, None, usize::MAX)?.len() as u64);
    }
    let Some(Chosen { from, with, count, .. }) = choose(db, filter, None)? else { return Ok(0) };
    if let Some(count) = count {
        return Ok(count);
    }
    // The joined tables add nothing to a count.
    let from = from.replace(JOINED, "");
    let mut query = db.prepare_cached(&format!("SELECT count(*) FROM {from}"))?;
    let count: i64 = query.query_row(params_from_iter(with), |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// What happened since a cursor, oldest first.
pub fn changes(db: &Connection, since: Cursor, limit: usize) -> Result<Changes, LibraryError> {
    let (generation, purged) = (meta(db, "generation")?, meta(db, "purged")?);
    // Swept away since the last call, before the follower came so far.
    let missed = purged != since.purged && (since.generation, since.id) < (purged, i64::MAX);
    // A generation from the future: the library was put back to an older state.
    if since != Cursor::default() && (missed || since.generation > generation) {
        return Ok(Changes { changes: Vec::new(), next: Cursor::default(), start_again: true });
    }
    let sql = format!(
        "SELECT {COLUMNS}, a.changed FROM adapter a INDEXED BY adapter_changed {JOINED} \
        WHERE (a.changed, a.id) > (?1, ?2) ORDER BY a.changed, a.id LIMIT ?3"
    );
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query((sql_number(since.generation), since.id, sql_number(limit as u64)))?;
    let (mut changes, mut next) = (Vec::new(), Cursor { purged, ..since });
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let removed: Option<i64> = row.get(8)?;
        changes.push(match removed {
            Some(_) => {
                let digest: Option<Vec<u8>> = row.get(2)?;
                let digest = digest.as_deref().and_then(|bytes| bytes.try_into().ok()).map(AdapterDigest::from_bytes);
                let broken = || LibraryError::damaged(FILE, format!("row {id}: it has no content"));
                Change::Gone(EntryId(id), digest.ok_or_else(broken)?)
            }
            None => Change::Present(Box::new(Raw::read(row)?.check()?)),
        });
        next = Cursor { generation: row.get::<_, i64>(11)?.unsigned_abs(), id, purged };
    }
    if changes.len() < limit {
        // At the end: nothing of this generation is left, so a later gc takes nothing from this follower.
        next = Cursor { generation, id: i64::MAX, purged };
    }
    Ok(Changes { changes, next, start_again: false })
}

/// Names that start with `start`, or, with `words`, adapters in whose texts one of the words occurs. At most `limit`.
pub fn names(db: &Connection, start: &str, limit: usize) -> Result<Vec<String>, LibraryError> {
    let sql = "SELECT name FROM adapter INDEXED BY adapter_name \
        WHERE removed IS NULL AND name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3";
    let mut query = db.prepare_cached(sql)?;
    let end = format!("{start}\u{7f}");
    let rows = query.query_map((start, end, sql_number(limit as u64)), first_text)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Names of adapters that match a full-text question. At most `limit`.
pub fn names_about(db: &Connection, question: &str, limit: usize) -> Result<Vec<String>, LibraryError> {
    let sql = "SELECT a.name FROM words w CROSS JOIN adapter a ON a.id = w.rowid \
        WHERE words MATCH ?1 AND a.removed IS NULL LIMIT ?2";
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map((question, sql_number(limit as u64)), first_text)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn first_text(row: &Row<'_>) -> rusqlite::Result<String> {
    row.get(0)
}
