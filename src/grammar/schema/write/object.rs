//! The rules of one object.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::super::graph::Id;
use super::super::lower::LowObj;
use super::super::pattern::Pattern;
use super::rules::{Writer, just};
use super::spell;
use super::words::{Bits, Choice, Compared, Item, Step, When, Word};

/// Bits of the number that rules carry.
const BITS: usize = 64;
/// Largest count of keys; no answer has more.
const COUNTED: u64 = 1 << 20;

/// What can stand in an object.
struct Members {
    /// Key and value of the named ones that can be there, the required first.
    named: Vec<(Item, Item)>,
    required: usize,
    /// Key and value of the others.
    unnamed: Vec<(Item, Item)>,
    /// Least and greatest number of the others.
    min: u64,
    max: Option<u64>,
}

impl Writer<'_> {
    pub(super) fn object(&mut self, object: &LowObj) -> Option<Item> {
        let mut named: Vec<(&str, Id, bool)> = Vec::new();
        for (name, id) in &object.props {
            if self.plan.is_alive(*id) {
                named.push((name, *id, object.required.contains(name)));
            }
        }
        named.sort_by_key(|(_, _, required)| !required);
        let required = named.iter().filter(|(_, _, required)| *required).count();
        if required != object.required.len() {
            return None;
        }
        let bounded = object.min > 0 || object.max.is_some();
        if bounded && required < named.len() {
            return None;
        }
        let mut members = Members {
            named: Vec::with_capacity(named.len()),
            required,
            unnamed: self.unnamed(object)?,
            min: object.min.saturating_sub(required as u64),
            max: object.max.map(|max| max.saturating_sub(required as u64)),
        };
        for (name, id, _) in named {
            let key = self.word(spell::exactly(name));
            members.named.push((key, self.node(id)?));
        }
        self.members(members)
    }

    /// An object and no other, its keys in any order.
    pub(super) fn constant(&mut self, entries: &Map<String, Value>) -> Option<Item> {
        let mut named = Vec::new();
        for (name, value) in entries {
            let key = self.word(spell::exactly(name));
            named.push((key, self.values(std::slice::from_ref(value))?));
        }
        let required = named.len();
        self.members(Members { named, required, unnamed: Vec::new(), min: 0, max: None })
    }

    /// The keys that are not named, with their values.
    fn unnamed(&mut self, object: &LowObj) -> Option<Vec<(Item, Item)>> {
        let names: Vec<&str> = object.props.iter().map(|(name, _)| name.as_str()).collect();
        let mut found = Vec::new();
        let mut patterns = Vec::new();
        for (source, id) in &object.patterns {
            let pattern = Rc::new(Pattern::printed(source));
            patterns.push(Rc::clone(&pattern));
            let Some(value) = self.node(*id) else { continue };
            let mut met = Vec::new();
            for name in &names {
                if pattern.found_in(name).ok()? {
                    met.push(*name);
                }
            }
            let source = match met.is_empty() {
                true => source.clone(),
                false => match Pattern::without(&pattern, &[Rc::new(Pattern::literals(&met))]).ok()? {
                    Some(without) => without.source().to_owned(),
                    None => continue,
                },
            };
            let key = self.leaf(&json!({"type": "string", "pattern": source}), false);
            found.push((key, value));
        }
        let Some(value) = self.node(object.rest) else { return Some(found) };
        let key = if !patterns.is_empty() {
            if !names.is_empty() {
                patterns.push(Rc::new(Pattern::literals(&names)));
            }
            match Pattern::combined(&[], &patterns).ok()? {
                Some(others) => self.leaf(&json!({"type": "string", "pattern": others.source()}), false),
                None => return Some(found),
            }
        } else {
            let taken: Vec<Word> = names.iter().map(|name| spell::exactly(name)).collect();
            self.word(match taken.is_empty() {
                true => spell::any_key(),
                false => Word::Without(Box::new(spell::any_key()), taken),
            })
        };
        found.push((key, value));
        Some(found)
    }

    fn members(&mut self, members: Members) -> Option<Item> {
        let Members { named, required, unnamed, min, max } = members;
        let name = self.rule(false);
        if unnamed.is_empty() && min > 0 {
            return None;
        }
        let max = max.filter(|max| *max < COUNTED);
        let bounded = !unnamed.is_empty() && (min > 0 || max.is_some());
        let (open, close, comma, colon) = (Item::Mark("{"), Item::Mark("}"), Item::Mark(","), Item::Mark(":"));
        if named.is_empty() && !bounded {
            let mut choices = vec![just(vec![open.clone(), close.clone()])];
            if !unnamed.is_empty() {
                let one = self.rule(false);
                let member = |(key, value)| just(vec![key, colon.clone(), value]);
                self.fill(one, unnamed.into_iter().map(member).collect());
                let one = Item::Rule(one, Step::None);
                let more = Item::More(vec![comma, one.clone()], 0, None);
                choices.push(just(vec![open, one, more, close]));
            }
            self.fill(name, choices);
            return Some(Item::Rule(name, Step::None));
        }
        let slots = Slots::new(named.len(), required, bounded.then(|| min.max(max.unwrap_or(0))))?;
        let (first, next, key) = (self.rule(true), self.rule(true), self.rule(true));
        let mut choices = Vec::new();
        for (index, (token, value)) in named.into_iter().enumerate() {
            let (when, change) = slots.take(index);
            let items = match change {
                Change::Set(bit) => vec![token, colon.clone(), value, Item::Rule(next, Step::Or(1 << bit))],
                Change::Count { clear, set } => {
                    // Not as a rule of its own for the second step alone: the engine loses the first one then.
                    let rest = self.rule(true);
                    self.fill(rest, vec![just(vec![colon.clone(), value, Item::Rule(next, Step::Or(set))])]);
                    vec![token, Item::Rule(rest, Step::And(clear))]
                }
            };
            choices.push(Choice { items, when });
        }
        let room = slots.count.zip(max).map(|(bits, max)| When::Is(bits, Compared::Less, max));
        let step = slots.count.map_or(Step::Keep, Step::Count);
        for (token, value) in &unnamed {
            let items = vec![token.clone(), colon.clone(), value.clone(), Item::Rule(next, step)];
            choices.push(Choice { items, when: room.clone().unwrap_or(When::ALWAYS) });
        }
        let mut closing = slots.complete();
        if let (Some(bits), true) = (slots.count, min > 0) {
            closing.push(When::Is(bits, Compared::AtLeast, min));
        }
        let close = Choice { items: vec![close], when: When::All(closing) };
        // After a comma there must be a key.
        let left = match (unnamed.is_empty(), room) {
            (true, _) => slots.some_left(),
            (false, Some(room)) if slots.single + slots.later == 0 => room,
            (false, Some(room)) => When::Either(Box::new(slots.some_left()), Box::new(room)),
            (false, None) => When::ALWAYS,
        };
        let keep = |number| Item::Rule(number, Step::Keep);
        self.fill(key, choices);
        self.fill(first, vec![close.clone(), just(vec![keep(key)])]);
        self.fill(next, vec![close, Choice { items: vec![comma, keep(key)], when: left }]);
        self.fill(name, vec![just(vec![open, Item::Rule(first, Step::Zero)])]);
        Some(Item::Rule(name, Step::None))
    }
}

/// Where the number keeps what: a bit for each named key, and where there are too many, a counter for the last ones,
/// which then come in their order among themselves; a counter for the keys without a name.
struct Slots {
    /// Keys with a bit of their own.
    single: usize,
    /// Of these, the required ones, which come first.
    single_required: usize,
    /// Of the others, the required ones.
    later_required: usize,
    later: usize,
    /// Bits of the counter of the others.
    order: Bits,
    count: Option<Bits>,
}

/// What taking a key does to the number.
enum Change {
    Set(usize),
    Count { clear: u64, set: u64 },
}

impl Slots {
    fn new(named: usize, required: usize, counted: Option<u64>) -> Option<Self> {
        let width = |most: u64| (u64::BITS - most.leading_zeros()).max(1) as usize;
        let count = counted.map_or(0, width);
        let mut single = named;
        let mut order = 0;
        if named + count > BITS {
            order = width(named as u64 + 1);
            single = BITS.checked_sub(count + order)?;
        }
        Some(Slots {
            single,
            single_required: required.min(single),
            later_required: required.saturating_sub(single),
            later: named - single,
            order: (single, single + order),
            count: (count > 0).then_some((single + order, single + order + count)),
        })
    }

    /// When the key may come, and what it does.
    fn take(&self, index: usize) -> (When, Change) {
        let Some(at) = index.checked_sub(self.single) else {
            return (When::clear(index), Change::Set(index));
        };
        let (from, to) = self.order;
        let (at, required) = (at as u64, self.later_required as u64);
        let condition = match at < required {
            true => When::Is(self.order, Compared::Equal, at),
            false if required == 0 => When::Is(self.order, Compared::AtMost, at),
            false => When::All(vec![
                When::Is(self.order, Compared::AtLeast, required),
                When::Is(self.order, Compared::AtMost, at),
            ]),
        };
        let mask = ((1u64 << (to - from)) - 1) << from;
        (condition, Change::Count { clear: !mask, set: (at + 1) << from })
    }

    /// That the required ones are there.
    fn complete(&self) -> Vec<When> {
        let mut conditions = Vec::new();
        if self.single_required > 0 {
            conditions.push(When::ones(self.single_required));
        }
        if self.later_required > 0 {
            conditions.push(When::Is(self.order, Compared::AtLeast, self.later_required as u64));
        }
        conditions
    }

    /// That some named key may still come.
    fn some_left(&self) -> When {
        let later = When::Is(self.order, Compared::Less, self.later as u64);
        if self.single == 0 {
            return later;
        }
        let single = When::Not(Box::new(When::ones(self.single)));
        match self.later {
            0 => single,
            _ => When::Either(Box::new(single), Box::new(later)),
        }
    }
}
