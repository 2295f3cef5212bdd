//! Arrays in the engine's words: `contains` becomes a choice of the place where it is, `uniqueItems` a list of all
//! arrays where they are few.

use serde_json::Value;

use super::super::super::error::GrammarError;
use super::super::graph::Id;
use super::super::part::{Arr, Contains, Part};
use super::{Low, Lowering, choices};

/// Among this many first items `contains` is looked for in an array without an end.
const PLACES: u64 = 6;
/// Arrays that one array may become.
const MOST: usize = 64;
/// Arrays that are listed for `uniqueItems`.
const LISTED: usize = 400;

impl Lowering<'_, '_> {
    pub(super) fn array(&mut self, array: &Arr) -> Result<Vec<Low>, GrammarError> {
        let mut open = vec![array.clone()];
        let mut done = Vec::new();
        while let Some(mut array) = open.pop() {
            if open.len() + done.len() > MOST {
                let wanted = &array.contains.first().map(|wanted| wanted.origin.clone());
                if let Some(origin) = wanted {
                    self.lose(origin, false);
                }
                return Ok(Vec::new());
            }
            match array.contains.pop() {
                Some(wanted) => {
                    let mut simpler = self.contains(&array, &wanted)?;
                    simpler.reverse();
                    open.extend(simpler);
                }
                None => done.push(array),
            }
        }
        let mut found = Vec::new();
        for array in done {
            found.extend(self.plain(array)?);
        }
        Ok(found)
    }

    fn plain(&mut self, mut array: Arr) -> Result<Vec<Low>, GrammarError> {
        // An item that cannot be ends the array before it.
        let items = array.prefix.len();
        for index in 0..=items {
            if self.graph.proved_empty(array.item(index), 6)? {
                array.max = Some(array.max.map_or(index as u64, |max| max.min(index as u64)));
                break;
            }
        }
        if array.max.is_some_and(|max| array.min > max) {
            return Ok(Vec::new());
        }
        if array.unique.is_some() || array.repeats.is_some() {
            return self.distinct(array);
        }
        if let Some(max) = array.max {
            array.prefix.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        }
        let Arr { prefix, rest, min, max, .. } = array;
        Ok(vec![Low::Array { prefix, rest, min, max, unique: None }])
    }

    /// Arrays without a repetition, or with one.
    fn distinct(&mut self, mut array: Arr) -> Result<Vec<Low>, GrammarError> {
        let origin = array.unique.clone().or(array.repeats.clone());
        let Some(origin) = origin else { return Ok(Vec::new()) };
        if array.repeats.is_none() {
            if array.max.is_some_and(|max| max <= 1) || self.apart(&array)? {
                array.unique = None;
                return self.plain(array);
            }
            if let Some(lists) = self.arrangements(&array)? {
                return Ok(if lists.is_empty() { Vec::new() } else { vec![Low::Values(lists)] });
            }
        }
        if array.repeats.is_none() {
            // Followed beside the engine. A list of values that runs out ends the array.
            let values = self.listed(&array)?;
            if let Some(values) = &values {
                array.max = super::super::meet::least(array.max, Some(values.len() as u64));
            }
            array.unique = None;
            let mut found = self.plain(array)?;
            for low in &mut found {
                if let Low::Array { unique, .. } = low {
                    *unique = Some(values.clone());
                }
            }
            return Ok(found);
        }
        if self.lose(&origin, array.repeats.is_some()) {
            array.unique = None;
            array.repeats = None;
            return self.plain(array);
        }
        Ok(Vec::new())
    }

    /// Whether no two items can be equal, because each place has its own kind of value.
    fn apart(&mut self, array: &Arr) -> Result<bool, GrammarError> {
        let Some(max) = array.max.filter(|max| *max <= 8) else { return Ok(false) };
        for a in 0..max as usize {
            for b in a + 1..max as usize {
                let both = self.graph.and(&[array.item(a), array.item(b)]);
                if !self.graph.proved_empty(both, 6)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// All values of the items, if they are few and plain.
    fn listed(&mut self, array: &Arr) -> Result<Option<Vec<Value>>, GrammarError> {
        let mut values = Vec::new();
        if array.prefix.is_empty() {
            for part in self.graph.expand(array.rest)?.iter() {
                match part {
                    Part::Values(more) => values.extend(more.iter().cloned()),
                    Part::Number(num) => match num.list(LISTED) {
                        Some(more) => values.extend(more),
                        None => return Ok(None),
                    },
                    _ => return Ok(None),
                }
            }
        }
        let plain = !values.is_empty() && values.iter().all(|value| !value.is_array() && !value.is_object());
        Ok(plain.then_some(values))
    }

    /// All arrays of different values, if every item is from a short list.
    fn arrangements(&mut self, array: &Arr) -> Result<Option<Vec<Value>>, GrammarError> {
        let mut pools: Vec<Vec<Value>> = Vec::new();
        let most = usize::try_from(array.max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        for index in 0..=array.prefix.len().min(most) {
            let parts = self.graph.expand(array.item(index))?;
            let mut pool = Vec::new();
            for part in parts.iter() {
                match part {
                    Part::Values(values) => pool.extend(values.iter().cloned()),
                    Part::Number(num) => match num.list(LISTED) {
                        Some(values) => pool.extend(values),
                        None => return Ok(None),
                    },
                    _ => return Ok(None),
                }
            }
            pools.push(pool);
        }
        let mut found: Vec<Vec<Value>> = Vec::new();
        let mut layer: Vec<Vec<Value>> = vec![Vec::new()];
        let mut length = 0usize;
        while !layer.is_empty() {
            if length as u64 >= array.min {
                found.extend(layer.iter().cloned());
            }
            if found.len() + layer.len() > LISTED {
                return Ok(None);
            }
            if length >= most {
                break;
            }
            let pool = pools.get(length).or(pools.last()).cloned().unwrap_or_default();
            let mut next = Vec::new();
            for list in &layer {
                for value in &pool {
                    if !list.iter().any(|known| super::super::holds::same(known, value)) {
                        let mut list = list.clone();
                        list.push(value.clone());
                        next.push(list);
                    }
                }
                if next.len() > LISTED {
                    return Ok(None);
                }
            }
            layer = next;
            length += 1;
        }
        Ok(Some(found.into_iter().map(Value::Array).collect()))
    }

    /// The array with one `contains` worked in.
    fn contains(&mut self, array: &Arr, wanted: &Contains) -> Result<Vec<Arr>, GrammarError> {
        let from = wanted.from as u64;
        let not = self.graph.not(wanted.node);
        if wanted.max.is_some_and(|max| wanted.min > max) {
            return Ok(Vec::new());
        }
        // Every item is of the kind anyway: only how many there are counts.
        let mut all = true;
        for index in wanted.from..=array.prefix.len().max(wanted.from) {
            let other = self.graph.and(&[array.item(index), not]);
            all &= self.graph.proved_empty(other, 6)?;
        }
        if all {
            let mut array = array.clone();
            if wanted.min > 0 {
                array.min = array.min.max(from + wanted.min);
            }
            if let Some(max) = wanted.max {
                array.max = super::super::meet::least(array.max, Some(from + max));
            }
            return Ok(vec![array]);
        }
        let least = from + wanted.min;
        let end = match array.max {
            Some(max) if max <= from + PLACES => max,
            _ => {
                let end = (from + PLACES).max(least + 2);
                if wanted.min > 0 || wanted.max.is_some_and(|max| max > 0) {
                    let message = format!("items of the kind are only written among the first {end}");
                    self.note(&wanted.origin.pointer, wanted.origin.keyword, &message);
                }
                end
            }
        };
        let room = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(64);
        let most = wanted.max.unwrap_or(wanted.min).min(room as u64);
        let mut found = Vec::new();
        for count in wanted.min..=most {
            let Some(choices) = choices(room, count as usize, MOST) else {
                self.lose(&wanted.origin, false);
                return Ok(Vec::new());
            };
            for chosen in choices {
                let mut one = array.clone();
                let last = chosen.last().map_or(0, |last| last + 1);
                one.min = one.min.max(if count > 0 { from + last as u64 } else { 0 });
                let reach =
                    if wanted.max.is_some() { (wanted.from + room).max(one.prefix.len()) } else { wanted.from + last };
                let length = reach.max(one.prefix.len());
                let items: Vec<Id> = (0..length).map(|index| array.item(index)).collect();
                one.prefix = items;
                for index in wanted.from..reach {
                    let more = match (chosen.contains(&(index - wanted.from)), wanted.max) {
                        (true, _) => wanted.node,
                        (false, Some(_)) => not,
                        (false, None) => continue,
                    };
                    one.prefix[index] = self.graph.and(&[one.prefix[index], more]);
                }
                if wanted.max.is_some() {
                    one.rest = self.graph.and(&[one.rest, not]);
                }
                if count == 0 && wanted.max == Some(0) {
                    // Nothing of the kind anywhere: no need to spell out places.
                    one.prefix.truncate(array.prefix.len().max(wanted.from));
                }
                found.push(one);
            }
        }
        // Exactly counted: places beyond the end are not of the kind. At least so many: the choices overlap.
        Ok(found)
    }
}
