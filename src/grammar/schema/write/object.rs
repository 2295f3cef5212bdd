//! The rules of one object.

use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::super::graph::Id;
use super::super::lower::LowObj;
use super::super::pattern::Pattern;
use super::rules::Writer;
use super::spell;

/// Bits of the number that rules carry.
const BITS: usize = 64;
/// Largest count of keys; no answer has more.
const COUNTED: u64 = 1 << 20;

/// What can stand in an object.
struct Members {
    /// Key and value of the named ones that can be there, the required first.
    named: Vec<(String, String)>,
    required: usize,
    /// Key and value of the others.
    unnamed: Vec<(String, String)>,
    /// Least and greatest number of the others.
    min: u64,
    max: Option<u64>,
}

impl Writer<'_> {
    pub(super) fn object(&mut self, object: &LowObj) -> Option<String> {
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
            let key = self.shared("K", spell::exactly(name));
            members.named.push((key, self.node(id)?));
        }
        self.members(members)
    }

    /// An object and no other, its keys in any order.
    pub(super) fn constant(&mut self, entries: &Map<String, Value>) -> Option<String> {
        let mut named = Vec::new();
        for (name, value) in entries {
            let key = self.shared("K", spell::exactly(name));
            named.push((key, self.values(std::slice::from_ref(value))?));
        }
        let required = named.len();
        self.members(Members { named, required, unnamed: Vec::new(), min: 0, max: None })
    }

    /// The keys that are not named, with their values.
    fn unnamed(&mut self, object: &LowObj) -> Option<Vec<(String, String)>> {
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
            let key = self.json(json!({"type": "string", "pattern": source}), false);
            found.push((key, value));
        }
        let Some(value) = self.node(object.rest) else { return Some(found) };
        let key = if !patterns.is_empty() {
            if !names.is_empty() {
                patterns.push(Rc::new(Pattern::literals(&names)));
            }
            match Pattern::combined(&[], &patterns).ok()? {
                Some(others) => self.json(json!({"type": "string", "pattern": others.source()}), false),
                None => return Some(found),
            }
        } else {
            let any = self.shared("K", spell::any_key());
            let taken: Vec<String> = names.iter().map(|name| self.shared("K", spell::exactly(name))).collect();
            match taken.is_empty() {
                true => any,
                false => self.shared("R", format!("{any} & ~({})", taken.join(" | "))),
            }
        };
        found.push((key, value));
        Some(found)
    }

    fn members(&mut self, members: Members) -> Option<String> {
        let Members { named, required, unnamed, min, max } = members;
        let name = self.name("o");
        if unnamed.is_empty() && min > 0 {
            return None;
        }
        let max = max.filter(|max| *max < COUNTED);
        let bounded = !unnamed.is_empty() && (min > 0 || max.is_some());
        if named.is_empty() && !bounded {
            let options: Vec<String> = unnamed.iter().map(|(key, value)| format!("{key} \":\" {value}")).collect();
            if options.is_empty() {
                self.rule(&name, "\"{\" \"}\"");
                return Some(name);
            }
            let one = self.name("m");
            self.rule(&one, &options.join(" | "));
            self.rule(&name, &format!("\"{{\" \"}}\" | \"{{\" {one} (\",\" {one})* \"}}\""));
            return Some(name);
        }
        let slots = Slots::new(named.len(), required, bounded.then(|| min.max(max.unwrap_or(0))))?;
        let (first, next, key) = (self.name("f"), self.name("t"), self.name("k"));
        let mut options = Vec::new();
        for (index, (token, value)) in named.iter().enumerate() {
            let (free, step) = slots.take(index);
            options.push(match step {
                Step::Set(bit) => format!("{token} \":\" {value} {next}::set_bit({bit}) %if {free}"),
                Step::Count { clear, set } => {
                    // Not as a rule of its own for the second step alone: the engine loses the first one then.
                    let rest = self.name("c");
                    self.rule(&format!("{rest}::_"), &format!("\":\" {value} {next}::bit_or({set:#x})"));
                    format!("{token} {rest}::bit_and({clear:#x}) %if {free}")
                }
            });
        }
        let mut room = Vec::new();
        let step = match slots.count {
            Some((from, to)) => {
                if let Some(max) = max {
                    room.push(format!("lt([{from}:{to}], {max})"));
                }
                format!("incr([{from}:{to}])")
            }
            None => "_".to_owned(),
        };
        for (token, value) in &unnamed {
            let condition = if room.is_empty() { String::new() } else { format!(" %if {}", all(&room)) };
            options.push(format!("{token} \":\" {value} {next}::{step}{condition}"));
        }
        let mut closing = slots.complete();
        if let (Some((from, to)), true) = (slots.count, min > 0) {
            closing.push(format!("ge([{from}:{to}], {min})"));
        }
        let close = match closing.is_empty() {
            true => "\"}\"".to_owned(),
            false => format!("\"}}\" %if {}", all(&closing)),
        };
        // After a comma there must be a key.
        let left = match (unnamed.is_empty(), room.first()) {
            (true, _) => format!(" %if {}", slots.some_left()),
            (false, Some(room)) if named.is_empty() => format!(" %if {room}"),
            (false, Some(room)) => format!(" %if or({}, {room})", slots.some_left()),
            (false, None) => String::new(),
        };
        self.rule(&format!("{key}::_"), &options.join(" | "));
        self.rule(&format!("{first}::_"), &format!("{close} | {key}::_"));
        self.rule(&format!("{next}::_"), &format!("{close} | \",\" {key}::_{left}"));
        self.rule(&name, &format!("\"{{\" {first}::0"));
        Some(name)
    }
}

/// All of these conditions.
fn all(conditions: &[String]) -> String {
    let (last, before) = match conditions.split_last() {
        Some(split) => split,
        None => return "true".to_owned(),
    };
    before.iter().rev().fold(last.clone(), |all, one| format!("and({one}, {all})"))
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
    order: (usize, usize),
    count: Option<(usize, usize)>,
}

/// What taking a key does to the number.
enum Step {
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
    fn take(&self, index: usize) -> (String, Step) {
        let Some(at) = index.checked_sub(self.single) else {
            return (format!("bit_clear({index})"), Step::Set(index));
        };
        let (from, to) = self.order;
        let condition = match at < self.later_required {
            true => format!("eq([{from}:{to}], {at})"),
            false if self.later_required == 0 => format!("le([{from}:{to}], {at})"),
            false => format!("and(ge([{from}:{to}], {}), le([{from}:{to}], {at}))", self.later_required),
        };
        let mask = ((1u64 << (to - from)) - 1) << from;
        (condition, Step::Count { clear: !mask, set: (at as u64 + 1) << from })
    }

    /// That the required ones are there.
    fn complete(&self) -> Vec<String> {
        let mut conditions = Vec::new();
        if self.single_required > 0 {
            conditions.push(format!("is_ones([0:{}])", self.single_required));
        }
        if self.later_required > 0 {
            let (from, to) = self.order;
            conditions.push(format!("ge([{from}:{to}], {})", self.later_required));
        }
        conditions
    }

    /// That some named key may still come.
    fn some_left(&self) -> String {
        let (from, to) = self.order;
        let later = format!("lt([{from}:{to}], {})", self.later);
        if self.single == 0 {
            return later;
        }
        let single = format!("not(is_ones([0:{}]))", self.single);
        match self.later {
            0 => single,
            _ => format!("or({single}, {later})"),
        }
    }
}
