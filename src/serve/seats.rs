//! Who is being answered: one seat per sequence of the engine, the rest waits. What `/slots` and the metrics tell.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::abort::Abort;

/// The answers under way.
#[derive(Debug, Default)]
pub struct Seats(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// One per sequence.
    seats: Vec<Seat>,
    /// In order of arrival; those that have a seat are the first.
    present: Vec<Present>,
    next: u64,
}

#[derive(Clone, Debug, Default)]
struct Seat {
    by: Option<u64>,
    /// What was last answered here.
    last: Option<Value>,
}

#[derive(Debug)]
struct Present {
    id: u64,
    abort: Abort,
    facts: Facts,
}

/// What is known of an answer under way.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its settings.
    pub params: Value,
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Those that came from a cache.
    pub cached: usize,
    /// Tokens so far.
    pub decoded: usize,
    /// The limit, if there is one.
    pub limit: Option<usize>,
    /// Names of its adapters.
    pub adapters: Vec<String>,
}

/// A place in the table; given back when dropped.
#[derive(Debug)]
pub struct Place {
    table: Arc<Seats>,
    id: u64,
}

impl Seats {
    /// So many seats.
    pub fn resize(&self, n: usize) {
        self.lock().seats.resize(n, Seat::default());
    }

    /// How many seats there are.
    pub fn len(&self) -> usize {
        self.lock().seats.len()
    }

    /// Comes in; takes a seat when one is free.
    pub fn enter(self: &Arc<Self>, abort: Abort, facts: Facts) -> Place {
        let mut t = self.lock();
        t.next += 1;
        let id = t.next;
        t.present.push(Present { id, abort, facts });
        t.settle();
        Place { table: self.clone(), id }
    }

    /// How many are answered and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        let t = self.lock();
        let busy = t.seats.iter().filter(|s| s.by.is_some()).count();
        (busy, t.present.len() - busy)
    }

    /// Ends all answers.
    pub fn abort_all(&self) {
        self.lock().present.iter().for_each(|p| p.abort.abort());
    }

    /// Adapters in use and waited for.
    pub fn adapters(&self) -> (Vec<String>, Vec<String>) {
        let t = self.lock();
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for p in &t.present {
            let seated = t.seats.iter().any(|s| s.by == Some(p.id));
            if seated { &mut running } else { &mut waiting }.extend(p.facts.adapters.clone());
        }
        for names in [&mut running, &mut waiting] {
            names.sort();
            names.dedup();
        }
        (running, waiting)
    }

    /// Whether a seat is free.
    pub fn has_free(&self) -> bool {
        self.lock().seats.iter().any(|s| s.by.is_none())
    }

    /// The body of `/slots`.
    /// `drafts`: whether answers are drafted.
    pub fn describe(&self, context: usize, drafts: bool) -> Value {
        let t = self.lock();
        let one = |(id, seat): (usize, &Seat)| {
            let mut slot =
                json!({"id": id, "n_ctx": context, "speculative": drafts, "is_processing": seat.by.is_some()});
            let now = t.present.iter().find(|p| Some(p.id) == seat.by).map(Present::describe);
            if let (Some(Value::Object(facts)), Some(slot)) = (now.or_else(|| seat.last.clone()), slot.as_object_mut())
            {
                slot.extend(facts);
            }
            slot
        };
        t.seats.iter().enumerate().map(one).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Gives free seats to those that wait, in order.
    fn settle(&mut self) {
        for p in &self.present {
            if self.seats.iter().any(|s| s.by == Some(p.id)) {
                continue;
            }
            let Some(free) = self.seats.iter_mut().find(|s| s.by.is_none()) else { return };
            free.by = Some(p.id);
        }
    }
}

impl Present {
    fn describe(&self) -> Value {
        let f = &self.facts;
        let remain = f.limit.map_or(-1, |n| i64::try_from(n.saturating_sub(f.decoded)).unwrap_or(-1));
        json!({
            "id_task": self.id,
            "n_prompt_tokens": f.prompt,
            "n_prompt_tokens_processed": f.prompt.saturating_sub(f.cached),
            "n_prompt_tokens_cache": f.cached,
            "params": f.params,
            "adapters": f.adapters,
            "next_token": [{"has_next_token": true, "has_new_line": false, "n_remain": remain, "n_decoded": f.decoded}],
        })
    }
}

impl Place {
    /// Changes what is known of the answer.
    pub fn note(&self, change: impl FnOnce(&mut Facts)) {
        if let Some(p) = self.table.lock().present.iter_mut().find(|p| p.id == self.id) {
            change(&mut p.facts);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut t = self.table.lock();
        let Some(at) = t.present.iter().position(|p| p.id == self.id) else { return };
        let gone = t.present.remove(at);
        if let Some(seat) = t.seats.iter_mut().find(|s| s.by == Some(self.id)) {
            let mut last = gone.describe();
            last["next_token"] =
                json!([{"has_next_token": false, "has_new_line": false, "n_remain": -1, "n_decoded": 0}]);
            *seat = Seat { by: None, last: Some(last) };
        }
        t.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_taken_in_order_and_given_back() {
        let seats = Arc::new(Seats::default());
        seats.resize(2);
        let mut places: Vec<Place> = (0..3).map(|_| seats.enter(Abort::default(), Facts::default())).collect();
        assert_eq!((seats.counts(), seats.has_free()), ((2, 1), false));
        drop(places.remove(0));
        assert_eq!(seats.counts(), (2, 0));
        places[0].note(|f| f.decoded = 3);
        let slots = seats.describe(100, false);
        assert_eq!((&slots[0]["id_task"], &slots[1]["next_token"][0]["n_decoded"]), (&json!(3), &json!(3)));
        drop(places);
        assert_eq!(seats.counts(), (0, 0));
        assert_eq!(seats.describe(100, false)[0]["is_processing"], false);
    }
}
