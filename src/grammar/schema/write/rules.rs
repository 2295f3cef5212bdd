//! What was worked out, as rules of a grammar in which the keys of an object come in any order.
//!
//! The engine's rules can carry a number of 64 bits. Here it holds the keys that are there already: a key can come
//! where its bit is clear, and `}` where the bits of the required keys are set. So no permutation is written out, and
//! alternatives stay apart as in any grammar.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use super::super::graph::Id;
use super::super::lower::Low;
use super::words::{Choice, Item, Rule, Rules, Step, When, Word};
use super::{Plan, spell};

/// Parts of rules.
const MOST: usize = 400_000;
/// Largest number of repetitions; beyond it there is no bound.
const REPEATED: u64 = 1_000_000_000;

pub(super) fn write(plan: &Plan, options: &Value) -> Option<Rules> {
    let mut writer = Writer {
        plan,
        words: Vec::new(),
        rules: Vec::new(),
        numbers: HashMap::new(),
        pending: VecDeque::new(),
        known_words: HashMap::new(),
        known_rules: HashMap::new(),
        size: 0,
    };
    let root = writer.node(plan.root)?;
    while let Some(id) = writer.pending.pop_front() {
        let mut choices = Vec::new();
        for part in plan.nodes.get(&id)? {
            let item = writer.part(part)?;
            choices.push(just(vec![item]));
        }
        let number = writer.numbers[&id];
        writer.fill(number, choices);
        if writer.size > MOST {
            return None;
        }
    }
    let mut value = options.clone();
    value["json_allowed_escapes"] = "nrbtf\\\"u".into();
    value["json_allow_general_unicode_escapes"] = true.into();
    Some(Rules {
        space: options["whitespace_pattern"].as_str()?.to_owned(),
        root,
        words: writer.words,
        rules: writer.rules,
        options: [value.to_string(), options.to_string()],
    })
}

/// A choice without a condition.
pub(super) fn just(items: Vec<Item>) -> Choice {
    Choice { items, when: When::ALWAYS }
}

pub(super) struct Writer<'p> {
    pub plan: &'p Plan,
    words: Vec<Word>,
    rules: Vec<Rule>,
    numbers: HashMap<Id, usize>,
    pending: VecDeque<Id>,
    known_words: HashMap<Word, usize>,
    known_rules: HashMap<Vec<Choice>, usize>,
    size: usize,
}

impl Writer<'_> {
    /// A node's value; `None` if nothing satisfies it.
    pub fn node(&mut self, id: Id) -> Option<Item> {
        if id == Id::TRUE {
            return Some(Item::Any);
        }
        if !self.plan.is_alive(id) {
            return None;
        }
        let number = match self.numbers.get(&id) {
            Some(&number) => number,
            None => {
                let number = self.rule(false);
                self.numbers.insert(id, number);
                self.pending.push_back(id);
                number
            }
        };
        Some(Item::Rule(number, Step::None))
    }

    /// A rule that is filled later.
    pub fn rule(&mut self, counts: bool) -> usize {
        self.rules.push(Rule { counts, choices: Vec::new() });
        self.rules.len() - 1
    }

    pub fn fill(&mut self, number: usize, choices: Vec<Choice>) {
        self.size += choices.iter().map(|choice| 1 + choice.items.len()).sum::<usize>();
        self.rules[number].choices = choices;
    }

    /// The rule that says this, made when it is new.
    fn shared(&mut self, choices: Vec<Choice>) -> Item {
        if let Some(&number) = self.known_rules.get(&choices) {
            return Item::Rule(number, Step::None);
        }
        let number = self.rule(false);
        self.known_rules.insert(choices.clone(), number);
        self.fill(number, choices);
        Item::Rule(number, Step::None)
    }

    /// The terminal that says this, made when it is new.
    pub fn word(&mut self, word: Word) -> Item {
        if let Some(&number) = self.known_words.get(&word) {
            return Item::Word(number);
        }
        let number = self.words.len();
        self.size += 1;
        self.known_words.insert(word.clone(), number);
        self.words.push(word);
        Item::Word(number)
    }

    /// A schema without subschemas.
    pub fn leaf(&mut self, schema: &Value, value: bool) -> Item {
        self.word(Word::Leaf { schema: schema.to_string(), value })
    }

    fn part(&mut self, part: &Low) -> Option<Item> {
        match part {
            Low::Values(values) => self.values(values),
            Low::Leaf(leaf) => Some(self.simple(leaf)),
            Low::Array { prefix, rest, min, max, .. } => self.array(prefix, *rest, *min, *max),
            Low::Object(object) => self.object(object),
        }
    }

    fn simple(&mut self, leaf: &Value) -> Item {
        let plain = |object: &Map<String, Value>| {
            object.get("type").is_some_and(|kind| kind == "string")
                && object.keys().all(|key| matches!(&key[..], "type" | "minLength" | "maxLength"))
        };
        if let Value::Object(object) = leaf
            && plain(object)
        {
            let bound =
                |key: &str| object.get(key).and_then(Value::as_u64).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            return self.word(spell::any(bound("minLength").unwrap_or(0), bound("maxLength")));
        }
        self.leaf(leaf, true)
    }

    pub(super) fn values(&mut self, values: &[Value]) -> Option<Item> {
        let mut options = Vec::new();
        let (mut texts, mut others) = (Vec::new(), Vec::new());
        for value in values {
            match value {
                Value::String(text) => texts.push(spell::exactly(text)),
                Value::Null | Value::Bool(_) => texts.push(Word::Text(value.to_string())),
                Value::Number(_) => others.push(value.clone()),
                Value::Array(items) => {
                    let mut row = vec![Item::Mark("[")];
                    for (index, item) in items.iter().enumerate() {
                        row.extend((index > 0).then_some(Item::Mark(",")));
                        row.push(self.values(std::slice::from_ref(item))?);
                    }
                    row.push(Item::Mark("]"));
                    options.push(row);
                }
                Value::Object(entries) => options.push(vec![self.constant(entries)?]),
            }
        }
        if !texts.is_empty() {
            let word = if texts.len() == 1 { texts.remove(0) } else { Word::Either(texts) };
            options.push(vec![self.word(word)]);
        }
        if !others.is_empty() {
            options.push(vec![self.leaf(&json!({"enum": others}), true)]);
        }
        match &mut options[..] {
            [] => None,
            [row] if row.len() == 1 => row.pop(),
            _ => Some(self.shared(options.into_iter().map(just).collect())),
        }
    }

    fn array(&mut self, prefix: &[Id], rest: Id, min: u64, max: Option<u64>) -> Option<Item> {
        let mut items = Vec::new();
        for id in prefix.iter().take(max.map_or(usize::MAX, |max| max as usize)) {
            match self.node(*id) {
                Some(item) => items.push(item),
                None => break,
            }
        }
        let whole = items.len() == prefix.len();
        let count = items.len() as u64;
        let (low, high) = (min.saturating_sub(count), max.map(|max| max.saturating_sub(count)));
        let rest = if whole && high != Some(0) { self.node(rest) } else { None };
        if low > 0 && (rest.is_none() || low > REPEATED) {
            return None;
        }
        // So many more, each with a comma in front.
        let more = |item: Item, low: u64, high: Option<u64>| match high.filter(|high| *high < REPEATED) {
            Some(0) => None,
            high => Some(Item::More(vec![Item::Mark(","), item], low, high)),
        };
        let name = self.rule(false);
        if items.is_empty() {
            let mut choices = Vec::new();
            if low == 0 {
                choices.push(just(vec![Item::Mark("["), Item::Mark("]")]));
            }
            if let Some(item) = rest {
                let tail = more(item.clone(), low.saturating_sub(1), high.map(|high| high - 1));
                let row = [Item::Mark("["), item].into_iter().chain(tail).chain([Item::Mark("]")]);
                choices.push(just(row.collect()));
            }
            self.fill(name, choices);
            return Some(Item::Rule(name, Step::None));
        }
        let mut tail = rest.and_then(|item| more(item, low, high));
        for (index, item) in items.into_iter().enumerate().rev() {
            let from = self.rule(false);
            let comma = (index > 0).then_some(Item::Mark(","));
            let mut choices = vec![just(comma.into_iter().chain([item]).chain(tail).collect())];
            if index as u64 >= min {
                choices.push(just(Vec::new()));
            }
            self.fill(from, choices);
            tail = Some(Item::Rule(from, Step::None));
        }
        self.fill(name, vec![just([Item::Mark("[")].into_iter().chain(tail).chain([Item::Mark("]")]).collect())]);
        Some(Item::Rule(name, Step::None))
    }
}
