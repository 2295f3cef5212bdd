//! Facts to filter by, as short texts, and how many adapters have each.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::super::{AdapterName, Filter, LibraryError, Metadata};
use super::rows::sql_number;

/// The facets of an adapter, each once.
pub fn of(metadata: &Metadata) -> Vec<String> {
    let (card, measured) = (&metadata.card, &metadata.measured);
    let mut all: Vec<String> = card.all_tags().into_iter().map(|tag| format!("tag:{tag}")).collect();
    all.extend(card.specialization.map(|word| format!("specialization:{word}")));
    all.push(format!("granularity:{}", measured.granularity()));
    all.extend(measured.base.iter().map(|base| format!("base:{base}")));
    all.extend(card.attributes.iter().map(|(key, value)| format!("attribute:{key}={value}")));
    if let Some(path) = &card.path {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        all.extend(ends.filter_map(|end| path.get(..end)).map(|level| format!("path:{level}")));
    }
    all
}

/// The facets that a filter demands.
pub fn demanded(filter: &Filter) -> Vec<String> {
    let mut all: Vec<String> = filter.tags.iter().map(|tag| format!("tag:{tag}")).collect();
    all.extend(filter.specialization.map(|word| format!("specialization:{word}")));
    all.extend(filter.granularity.map(|word| format!("granularity:{word}")));
    all.extend(filter.base.iter().map(|base| format!("base:{base}")));
    all.extend(filter.attributes.iter().map(|(key, value)| format!("attribute:{key}={value}")));
    all.extend(filter.path.iter().map(|path| format!("path:{}", path.trim_matches('/'))));
    all.sort_unstable();
    all.dedup();
    all
}

/// A facet's number and how many adapters have it.
pub fn find(db: &Connection, text: &str) -> Result<Option<(i64, u64)>, LibraryError> {
    let mut query = db.prepare_cached("SELECT id, adapters FROM facet WHERE text = ?1")?;
    let found: Option<(i64, i64)> = query.query_row([text], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    Ok(found.map(|(id, adapters)| (id, u64::try_from(adapters).unwrap_or(0))))
}

/// Facets seen in one transaction, with changes of their counts that are not written yet.
#[derive(Debug, Default)]
pub struct Tally {
    known: HashMap<String, (i64, i64)>,
}

impl Tally {
    /// Facets remembered before they are written and forgotten.
    const MOST: usize = 20_000;

    /// Notes that an adapter has these facets from now on.
    pub fn attach(
        &mut self,
        db: &Connection,
        adapter: i64,
        name: &AdapterName,
        facets: &[String],
    ) -> Result<(), LibraryError> {
        for text in facets {
            let facet = self.count(db, text, 1)?;
            let row = params![facet, name.as_str(), adapter];
            db.prepare_cached("INSERT INTO facet_of(facet, name, adapter) VALUES(?1, ?2, ?3)")?.execute(row)?;
        }
        Ok(())
    }

    /// Notes that an adapter has these facets no more.
    pub fn detach(&mut self, db: &Connection, name: &AdapterName, facets: &[String]) -> Result<(), LibraryError> {
        for text in facets {
            let facet = self.count(db, text, -1)?;
            db.prepare_cached("DELETE FROM facet_of WHERE facet = ?1 AND name = ?2")?
                .execute(params![facet, name.as_str()])?;
        }
        Ok(())
    }

    /// Writes the counts.
    pub fn flush(&mut self, db: &Connection) -> Result<(), LibraryError> {
        for (facet, change) in self.known.drain().map(|(_, known)| known).filter(|(_, change)| *change != 0) {
            db.prepare_cached("UPDATE facet SET adapters = adapters + ?2 WHERE id = ?1")?
                .execute(params![facet, change])?;
        }
        Ok(())
    }

    fn count(&mut self, db: &Connection, text: &str, change: i64) -> Result<i64, LibraryError> {
        if let Some((facet, sum)) = self.known.get_mut(text) {
            *sum += change;
            return Ok(*facet);
        }
        if self.known.len() >= Self::MOST {
            self.flush(db)?;
        }
        let facet = match find(db, text)? {
            Some((facet, _)) => facet,
            None => {
                db.prepare_cached("INSERT INTO facet(text, adapters) VALUES(?1, 0)")?.execute([text])?;
                db.last_insert_rowid()
            }
        };
        self.known.insert(text.to_owned(), (facet, change));
        Ok(facet)
    }
}

/// All facets that start with `prefix`, without it, and how many adapters have each; the most frequent first.
pub fn counts(db: &Connection, prefix: &str, limit: usize) -> Result<Vec<(String, u64)>, LibraryError> {
    let sql = "SELECT substr(text, ?1), adapters FROM facet WHERE text >= ?2 AND text < ?3 AND adapters > 0 \
        ORDER BY adapters DESC, text LIMIT ?4";
    let end = format!("{}{}", prefix, char::MAX);
    let skip = sql_number(prefix.len() as u64 + 1);
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(params![skip, prefix, end, sql_number(limit as u64)], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
