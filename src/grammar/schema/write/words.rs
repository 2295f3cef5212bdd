//! What the rules of a schema are made of: terminals, rules that carry a number, and their text in the language that
//! the engine reads (Lark's).
//!
//! The text is only for tools, whose envelope is written in that language; alone, the rules are handed to the engine as
//! they are (`guided::direct`), for reading its language costs more than all the rest of compiling.

use std::fmt::Write;

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super::super) enum Word {
    /// This text.
    Text(String),
    /// A regular expression.
    Pattern(String),
    /// A regular expression, so many times.
    Times(String, u32, Option<u32>),
    Row(Vec<Word>),
    Either(Vec<Word>),
    /// The first without the others.
    Without(Box<Word>, Vec<Word>),
    /// A JSON Schema of a string or of numbers. `value`: a value, where strings may be spelled in any way; otherwise a
    /// key.
    Leaf {
        schema: String,
        value: bool,
    },
}

/// Bits of a number: from, and up to without.
pub(in super::super::super) type Bits = (usize, usize);

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super::super) enum Compared {
    Equal,
    Less,
    AtMost,
    AtLeast,
}

/// A condition on the number that a rule carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super::super) enum When {
    Is(Bits, Compared, u64),
    Not(Box<When>),
    /// All of these; always, if there are none.
    All(Vec<When>),
    Either(Box<When>, Box<When>),
}

impl When {
    pub const ALWAYS: When = When::All(Vec::new());

    /// A bit that is not set.
    pub fn clear(bit: usize) -> When {
        When::Is((bit, bit + 1), Compared::Equal, 0)
    }

    /// The first bits are all set.
    pub fn ones(count: usize) -> When {
        When::Is((0, count), Compared::Equal, full(count))
    }
}

fn full(bits: usize) -> u64 {
    u64::MAX.checked_shr(64u32.saturating_sub(bits as u32)).unwrap_or(0)
}

/// What becomes of the number on the way to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super::super) enum Step {
    /// The rule carries none.
    None,
    Zero,
    Keep,
    Or(u64),
    And(u64),
    /// One more, in these bits.
    Count(Bits),
}

/// A part of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super::super) enum Item {
    Mark(&'static str),
    Word(usize),
    Rule(usize, Step),
    /// Any JSON value.
    Any,
    /// So many times.
    More(Vec<Item>, u64, Option<u64>),
}

/// One way to write a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super::super) struct Choice {
    pub items: Vec<Item>,
    pub when: When,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub(in super::super::super) struct Rule {
    /// It carries a number.
    pub counts: bool,
    pub choices: Vec<Choice>,
}

/// Rules of a whole value, and their terminals.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super::super) struct Rules {
    /// How white space is read.
    pub space: String,
    pub root: Item,
    pub words: Vec<Word>,
    pub rules: Vec<Rule>,
    /// The engine's options for a value and for a key, as JSON.
    pub options: [String; 2],
}

impl Rules {
    /// About how long the rules are, in bytes.
    pub fn size(&self) -> usize {
        let items = |rule: &Rule| rule.choices.iter().map(|choice| 1 + choice.items.len()).sum::<usize>();
        16 * self.rules.iter().map(items).sum::<usize>()
            + self.words.iter().map(|word| spelled(word).len()).sum::<usize>()
    }

    /// The grammar in the engine's language, with `start` around the rule of a whole value.
    pub fn text(&self, start: impl Fn(&str) -> String) -> String {
        let mut out = format!("%llguidance {{\"ignore_once\":true}}\n%ignore /{}/\n", self.space);
        let _ = writeln!(out, "start: {}", start(&self.item(&self.root)));
        let _ = writeln!(out, "any: %json {{\"x-guidance\":{}}}", self.options[0]);
        for (index, word) in self.words.iter().enumerate() {
            let _ = match word {
                Word::Leaf { schema, value } => {
                    let options = &self.options[usize::from(!value)];
                    let open = schema.strip_suffix('}').unwrap_or("{");
                    let comma = if open.len() > 1 { "," } else { "" };
                    writeln!(out, "w{index}: %json {open}{comma}\"x-guidance\":{options}}}")
                }
                word => writeln!(out, "W{index}: {}", spelled(word)),
            };
        }
        for (index, rule) in self.rules.iter().enumerate() {
            let choices: Vec<String> = rule.choices.iter().map(|choice| self.choice(choice)).collect();
            let number = if rule.counts { "::_" } else { "" };
            let _ = writeln!(out, "r{index}{number}: {}", choices.join(" | "));
        }
        out
    }

    fn choice(&self, choice: &Choice) -> String {
        let mut text = self.row(&choice.items);
        if text.is_empty() {
            text.push_str("\"\"");
        }
        match condition(&choice.when) {
            Some(when) => text + " %if " + &when,
            None => text,
        }
    }

    fn row(&self, items: &[Item]) -> String {
        items.iter().map(|item| self.item(item)).collect::<Vec<_>>().join(" ")
    }

    fn item(&self, item: &Item) -> String {
        match item {
            Item::Mark(text) => literal(text),
            Item::Word(index) if matches!(self.words[*index], Word::Leaf { .. }) => format!("w{index}"),
            Item::Word(index) => format!("W{index}"),
            Item::Any => "any".to_owned(),
            Item::Rule(index, step) => match step {
                Step::None => format!("r{index}"),
                Step::Zero => format!("r{index}::0"),
                Step::Keep => format!("r{index}::_"),
                Step::Or(bits) => format!("r{index}::bit_or({bits:#x})"),
                Step::And(bits) => format!("r{index}::bit_and({bits:#x})"),
                Step::Count((from, to)) => format!("r{index}::incr([{from}:{to}])"),
            },
            Item::More(items, low, high) => {
                let row = self.row(items);
                match (low, high) {
                    (0, None) => format!("({row})*"),
                    (low, None) => format!("({row}){{{low},}}"),
                    (low, Some(high)) => format!("({row}){{{low},{high}}}"),
                }
            }
        }
    }
}

fn condition(when: &When) -> Option<String> {
    Some(match when {
        When::Is((from, to), Compared::Equal, 0) if to - from == 1 => format!("bit_clear({from})"),
        When::Is((from, to), Compared::Equal, value) if *value == full(to - from) => format!("is_ones([{from}:{to}])"),
        When::Is((from, to), compared, value) => {
            let name = match compared {
                Compared::Equal => "eq",
                Compared::Less => "lt",
                Compared::AtMost => "le",
                Compared::AtLeast => "ge",
            };
            format!("{name}([{from}:{to}], {value})")
        }
        When::Not(inner) => format!("not({})", condition(inner)?),
        When::All(all) => {
            let all: Vec<String> = all.iter().filter_map(condition).collect();
            let (last, before) = all.split_last()?;
            before.iter().rev().fold(last.clone(), |all, one| format!("and({one}, {all})"))
        }
        When::Either(a, b) => format!("or({}, {})", condition(a)?, condition(b)?),
    })
}

fn spelled(word: &Word) -> String {
    let join = |words: &[Word], by: &str| words.iter().map(spelled).collect::<Vec<_>>().join(by);
    match word {
        Word::Text(text) => literal(text),
        Word::Pattern(pattern) => format!("/{pattern}/"),
        Word::Times(pattern, 0, None) => format!("/({pattern})*/"),
        Word::Times(pattern, low, None) => format!("/({pattern}){{{low},}}/"),
        Word::Times(pattern, low, Some(high)) => format!("/({pattern}){{{low},{high}}}/"),
        Word::Row(words) => join(words, " "),
        Word::Either(words) => format!("({})", join(words, " | ")),
        Word::Without(word, others) => format!("({}) & ~({})", spelled(word), join(others, " | ")),
        // Has a rule of its own.
        Word::Leaf { .. } => String::new(),
    }
}

/// A literal of the rules.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\x7f', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_written_in_the_engines_language() {
        let both = When::All(vec![When::ones(3), When::Is((3, 5), Compared::AtLeast, 2)]);
        let choices = vec![
            Choice { items: vec![Item::Mark("}")], when: both },
            Choice { items: vec![Item::Word(0), Item::Rule(0, Step::Or(4))], when: When::clear(2) },
            Choice { items: vec![], when: When::ALWAYS },
        ];
        let rules = Rules {
            space: " ".to_owned(),
            root: Item::Rule(0, Step::Zero),
            words: vec![Word::Without(Box::new(Word::Pattern("a*".to_owned())), vec![Word::Text("\"a".to_owned())])],
            rules: vec![Rule { counts: true, choices }],
            options: ["{}".to_owned(), "{}".to_owned()],
        };
        let text = rules.text(str::to_owned);
        assert!(text.contains("start: r0::0\n"), "{text}");
        assert!(text.contains("W0: (/a*/) & ~(\"\\\"a\")\n"), "{text}");
        let rule = "r0::_: \"}\" %if and(is_ones([0:3]), ge([3:5], 2)) | W0 r0::bit_or(0x4) %if bit_clear(2) | \"\"\n";
        assert!(text.ends_with(rule), "{text}");
        assert_eq!((full(1), full(64)), (1, u64::MAX));
    }
}
