//! Building grammars with the crate `gbnf`: its types, and around them what it leaves to its caller.
//!
//! The crate prints the text of a terminal as it is given, so every literal passes through [`lit`], which escapes it,
//! and nothing else here makes terminals. Whatever is built is read again by our own parser before it is used.

use gbnf::{
    CharacterSet, CharacterSetItem, Grammar, GrammarItem, NonTerminalSymbol, Production, ProductionItem,
    RepetitionType, Rule, TerminalSymbol,
};

/// A grammar being built, rule by rule.
#[derive(Default)]
pub(in super::super) struct Builder {
    grammar: Grammar,
}

impl Builder {
    /// Begins with a comment line: what the format is.
    pub fn new(comment: &str) -> Self {
        let mut builder = Builder::default();
        // A line break would begin a rule.
        let line: String = comment.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        builder.grammar.items.push(GrammarItem::Comment(format!(" {line}")));
        builder
    }

    /// Adds `name ::= items`.
    pub fn rule(&mut self, name: &str, items: Vec<ProductionItem>) {
        let lhs = NonTerminalSymbol { name: name.to_owned() };
        self.grammar.items.push(GrammarItem::Rule(Rule { lhs, rhs: Production { items } }));
    }

    /// The grammar as GBNF text.
    pub fn print(&self) -> String {
        self.grammar.to_string()
    }
}

/// Exactly this text.
pub(in super::super) fn lit(text: &str) -> ProductionItem {
    let mut value = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => value.push_str("\\\""),
            '\\' => value.push_str("\\\\"),
            '\n' => value.push_str("\\n"),
            '\r' => value.push_str("\\r"),
            '\t' => value.push_str("\\t"),
            c if c.is_control() => value.push_str(&format!("\\U{:08X}", u32::from(c))),
            c => value.push(c),
        }
    }
    ProductionItem::Terminal(TerminalSymbol { value }, RepetitionType::One)
}

/// Another rule.
pub(in super::super) fn rule(name: &str) -> ProductionItem {
    ProductionItem::NonTerminal(NonTerminalSymbol { name: name.to_owned() }, RepetitionType::One)
}

/// Any one character but `excluded` and the control characters.
pub(in super::super) fn text_character(excluded: &[char]) -> ProductionItem {
    let mut items: Vec<CharacterSetItem> = excluded
        .iter()
        .map(|&c| match c {
            '\\' => CharacterSetItem::Backslash,
            // What means something inside brackets.
            ']' | '[' | '^' | '-' | '"' => CharacterSetItem::Hex(format!("{:02X}", u32::from(c))),
            c => CharacterSetItem::Character(c),
        })
        .collect();
    items.push(CharacterSetItem::CharacterHexRange("00".to_owned(), "1F".to_owned()));
    items.push(CharacterSetItem::Hex("7F".to_owned()));
    ProductionItem::CharacterSet(CharacterSet { is_complement: true, items }, RepetitionType::One)
}

/// One character out of inclusive ranges of letters or digits.
pub(in super::super) fn ranges(ranges: &[(char, char)]) -> ProductionItem {
    let items = ranges.iter().map(|&(low, high)| CharacterSetItem::CharacterRange(low, high)).collect();
    ProductionItem::CharacterSet(CharacterSet { is_complement: false, items }, RepetitionType::One)
}

/// One of `options`, in parentheses.
pub(in super::super) fn any(options: Vec<Vec<ProductionItem>>) -> ProductionItem {
    let options = options.into_iter().map(|items| Production { items }).collect();
    group(vec![ProductionItem::OneOf(options)], RepetitionType::One)
}

/// `items` once or not at all.
pub(in super::super) fn optional(items: Vec<ProductionItem>) -> ProductionItem {
    group(items, RepetitionType::ZeroOrOne)
}

/// `items` from `min` to `max` times.
pub(in super::super) fn times(items: Vec<ProductionItem>, min: usize, max: usize) -> ProductionItem {
    group(items, RepetitionType::Between((min, max)))
}

fn group(items: Vec<ProductionItem>, repetition: RepetitionType) -> ProductionItem {
    ProductionItem::Group(Box::new(Production { items }), repetition)
}
