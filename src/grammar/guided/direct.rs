//! Rules of a schema handed to the engine as they are.
//!
//! Its language of rules (Lark's) takes longer to read than all the rest of compiling: the automaton of that language's
//! own words is made anew for every text.

use std::collections::HashMap;
use std::sync::OnceLock;

use llguidance::api::{GrammarInit, ParserLimits, SkipSpec};
use llguidance::derivre::{ExprRef, JsonQuoteOptions, RegexAst, RegexBuilder};
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::earley::{Grammar, ParamCond, ParamExpr, ParamRef, ParamValue, SymIdx, SymbolProps};
use llguidance::regex_to_lark;
use serde_json::Value;

use super::super::schema::rules::{
    CHARACTER, Choice, Compared, Item, KEY_CHARACTER, Rules, Step, When, Word, decimal_of, numbers,
};

/// Work on finding out whether a pattern matches anything.
const EMPTINESS: u64 = 10_000;
/// Letters that may stand behind `\` in a string with a pattern.
const VALUE_ESCAPES: &str = "nrbtf\\\"u";

/// The engine's form of the rules; `None` where they hold what only its own reading of schemas knows.
pub(super) fn build(rules: &Rules, key_escapes: &str, limits: &ParserLimits) -> Option<GrammarInit> {
    let common = common(&rules.space)?;
    let mut builder = Builder {
        rules,
        key_escapes,
        grammar: Grammar::new(None),
        spec: common.spec.clone(),
        patterns: common.patterns.clone(),
        marks: HashMap::new(),
        words: vec![None; rules.words.len()],
        symbols: Vec::with_capacity(rules.rules.len()),
        any: None,
    };
    let props = SymbolProps { is_start: true, ..SymbolProps::default() };
    let start = builder.grammar.fresh_symbol_ext("start", props);
    for (index, rule) in rules.rules.iter().enumerate() {
        let props = SymbolProps { parametric: rule.counts, ..SymbolProps::default() };
        let symbol = builder.grammar.fresh_symbol_ext(&format!("r{index}"), props);
        builder.symbols.push(symbol);
    }
    let root = builder.item(&rules.root)?;
    builder.grammar.add_rule_ext(start, ParamCond::True, vec![root]).ok()?;
    for (index, rule) in rules.rules.iter().enumerate() {
        for choice in &rule.choices {
            builder.choice(builder.symbols[index], choice)?;
        }
        let large = builder.grammar.num_symbols() > limits.max_grammar_size;
        if large || builder.spec.cost() > limits.initial_lexer_fuel {
            return None;
        }
    }
    Some(GrammarInit::Internal(builder.grammar, builder.spec))
}

type Symbol = (SymIdx, ParamExpr);

struct Builder<'r> {
    rules: &'r Rules,
    key_escapes: &'r str,
    grammar: Grammar,
    spec: LexerSpec,
    /// Regular expressions that are known, by their text.
    patterns: HashMap<String, ExprRef>,
    marks: HashMap<&'static str, SymIdx>,
    words: Vec<Option<SymIdx>>,
    symbols: Vec<SymIdx>,
    any: Option<SymIdx>,
}

/// What every schema has: white space and strings.
struct Common {
    space: String,
    spec: LexerSpec,
    patterns: HashMap<String, ExprRef>,
}

fn common(space: &str) -> Option<&'static Common> {
    static COMMON: OnceLock<Option<Common>> = OnceLock::new();
    let made = COMMON.get_or_init(|| {
        let mut spec = LexerSpec::new().ok()?;
        spec.setup_lexeme_class_with_skip(SkipSpec::once(RegexAst::Regex(space.to_owned()))).ok()?;
        let mut patterns = HashMap::new();
        for pattern in [CHARACTER, KEY_CHARACTER] {
            patterns.insert(pattern.to_owned(), spec.regex_builder.mk_regex(pattern).ok()?);
        }
        Some(Common { space: space.to_owned(), spec, patterns })
    });
    made.as_ref().filter(|common| common.space == space)
}

impl Builder<'_> {
    fn choice(&mut self, symbol: SymIdx, choice: &Choice) -> Option<()> {
        let row: Option<Vec<Symbol>> = choice.items.iter().map(|item| self.item(item)).collect();
        self.grammar.add_rule_ext(symbol, condition(&choice.when), row?).ok()
    }

    fn fresh(&mut self, name: &str) -> SymIdx {
        self.grammar.fresh_symbol_ext(name, SymbolProps::default())
    }

    fn add(&mut self, symbol: SymIdx, row: Vec<SymIdx>) -> Option<()> {
        self.grammar.add_rule(symbol, row).ok()
    }

    fn item(&mut self, item: &Item) -> Option<Symbol> {
        let plain = |symbol| (symbol, ParamExpr::Null);
        Some(match item {
            Item::Mark(text) => plain(self.mark(text)?),
            Item::Word(index) => plain(self.word(*index)?),
            Item::Any => plain(self.any()?),
            Item::Rule(index, step) => (self.symbols[*index], change(*step)),
            Item::More(items, low, high) => {
                let row: Option<Vec<Symbol>> = items.iter().map(|item| self.item(item)).collect();
                let one = self.fresh("one");
                self.grammar.add_rule_ext(one, ParamCond::True, row?).ok()?;
                plain(self.repeated(one, *low, *high)?)
            }
        })
    }

    fn mark(&mut self, text: &'static str) -> Option<SymIdx> {
        if let Some(symbol) = self.marks.get(text) {
            return Some(*symbol);
        }
        let symbol = self.terminal(text, RegexAst::Literal(text.to_owned()))?;
        self.marks.insert(text, symbol);
        Some(symbol)
    }

    fn terminal(&mut self, name: &str, ast: RegexAst) -> Option<SymIdx> {
        let lexeme = self.spec.add_greedy_lexeme(name.to_owned(), ast, false, None, usize::MAX).ok()?;
        let symbol = self.fresh(name);
        self.grammar.make_terminal(symbol, lexeme, &self.spec).ok()?;
        Some(symbol)
    }

    fn word(&mut self, index: usize) -> Option<SymIdx> {
        if let Some(symbol) = self.words[index] {
            return Some(symbol);
        }
        let rules = self.rules;
        let ast = self.regex(&rules.words[index])?;
        let symbol = self.terminal(&format!("w{index}"), ast)?;
        self.words[index] = Some(symbol);
        Some(symbol)
    }

    fn regex(&mut self, word: &Word) -> Option<RegexAst> {
        let mut all = |words: &[Word]| words.iter().map(|word| self.regex(word)).collect::<Option<Vec<_>>>();
        Some(match word {
            Word::Text(text) => RegexAst::Literal(text.clone()),
            Word::Pattern(pattern) => self.pattern(pattern)?,
            Word::Times(pattern, low, high) => {
                RegexAst::Repeat(Box::new(self.pattern(pattern)?), *low, high.unwrap_or(u32::MAX))
            }
            Word::Row(words) => RegexAst::Concat(all(words)?),
            Word::Either(words) => RegexAst::Or(all(words)?),
            Word::Without(word, others) => {
                let others = RegexAst::Or(all(others)?);
                RegexAst::And(vec![self.regex(word)?, RegexAst::Not(Box::new(others))])
            }
            Word::Leaf { schema, value } => self.leaf(&serde_json::from_str(schema).ok()?, *value)?,
        })
    }

    fn pattern(&mut self, pattern: &str) -> Option<RegexAst> {
        if let Some(known) = self.patterns.get(pattern) {
            return Some(RegexAst::ExprRef(*known));
        }
        let made = self.spec.regex_builder.mk_regex(pattern).ok()?;
        self.patterns.insert(pattern.to_owned(), made);
        Some(RegexAst::ExprRef(made))
    }

    /// A schema of strings or numbers.
    fn leaf(&mut self, schema: &Value, value: bool) -> Option<RegexAst> {
        let object = schema.as_object()?;
        match object.get("type").and_then(Value::as_str) {
            Some("string") => self.string(schema, value),
            Some("integer" | "number") => {
                let known = ["type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
                if object.keys().any(|key| !known.contains(&&key[..])) {
                    return None;
                }
                self.number(schema)
            }
            None if object.len() == 1 => {
                let text = |value: &Value| match value {
                    Value::Number(number) => Some(RegexAst::Literal(match number.as_i64() {
                        Some(number) => number.to_string(),
                        None => format!("{}", number.as_f64()?),
                    })),
                    _ => None,
                };
                Some(RegexAst::Or(object.get("enum")?.as_array()?.iter().map(text).collect::<Option<_>>()?))
            }
            _ => None,
        }
    }

    fn number(&mut self, schema: &Value) -> Option<RegexAst> {
        let bound = |plain: &str, open: &str| {
            let end = |key: &str, open| schema[key].as_f64().map(|value| (value, open));
            end(plain, false).or_else(|| end(open, true))
        };
        let (low, high) = (bound("minimum", "exclusiveMinimum"), bound("maximum", "exclusiveMaximum"));
        let range = match schema["type"] == "integer" {
            true => self.pattern(&numbers::integers(low, high)?)?,
            false if low == high && low.is_some() => return None,
            false => {
                let mut parts = Vec::new();
                for both in numbers::decimals(low, high)? {
                    let both: Option<Vec<RegexAst>> = both.iter().flatten().map(|text| self.pattern(text)).collect();
                    parts.push(RegexAst::And(both?));
                }
                RegexAst::Or(parts)
            }
        };
        let Some(multiple) = schema.get("multipleOf") else { return Some(range) };
        let (digits, places) = decimal_of(&multiple.to_string())?;
        let multiple = RegexAst::MultipleOf(u32::try_from(digits).ok().filter(|digits| *digits > 0)?, places);
        let signed = RegexAst::Concat(vec![self.pattern("-?")?, multiple]);
        Some(RegexAst::And(vec![range, signed]))
    }

    /// Patterns that must be found, and lengths.
    fn string(&mut self, schema: &Value, value: bool) -> Option<RegexAst> {
        let mut all = Vec::new();
        let (mut min, mut max, mut more) = (0, None, Vec::new());
        for (key, what) in schema.as_object()? {
            match &key[..] {
                "type" => {}
                "minLength" => min = u32::try_from(what.as_u64()?).ok()?,
                "maxLength" => max = Some(u32::try_from(what.as_u64()?).ok()?),
                "pattern" => more.push(what.as_str()?),
                "allOf" => {
                    for part in what.as_array()? {
                        let part = part.as_object().filter(|part| part.len() == 2 && part.contains_key("type"))?;
                        more.push(part.get("pattern")?.as_str()?);
                    }
                }
                _ => return None,
            }
        }
        for pattern in more {
            all.push(RegexAst::SearchRegex(regex_to_lark(pattern, "dw")));
        }
        if min > 0 || max.is_some() {
            let any = RegexAst::Regex("(?s:.)".to_owned());
            all.push(RegexAst::Repeat(Box::new(any), min, max.unwrap_or(u32::MAX)));
        }
        let ast = if all.len() == 1 { all.remove(0) } else { RegexAst::And(all) };
        if !matches_something(&ast)? {
            return None;
        }
        let escapes = if value { VALUE_ESCAPES } else { self.key_escapes };
        let options = JsonQuoteOptions { allowed_escapes: escapes.to_owned(), raw_mode: false };
        Some(RegexAst::JsonQuote(Box::new(ast), options))
    }

    /// Any JSON value.
    fn any(&mut self) -> Option<SymIdx> {
        if let Some(symbol) = self.any {
            return Some(symbol);
        }
        let any = self.fresh("any");
        self.any = Some(any);
        let [open, close, begin, end, comma, colon] = ["{", "}", "[", "]", ",", ":"].map(|mark| self.mark(mark));
        let (open, close, begin, end, comma, colon) = (open?, close?, begin?, end?, comma?, colon?);
        for text in ["null", "true", "false"] {
            let word = self.mark(text)?;
            self.add(any, vec![word])?;
        }
        let number = self.number(&serde_json::json!({"type": "number"}))?;
        let number = self.terminal("number", number)?;
        let character = self.pattern(CHARACTER)?;
        let quote = || RegexAst::Literal("\"".to_owned());
        let string = RegexAst::Concat(vec![quote(), RegexAst::Repeat(Box::new(character), 0, u32::MAX), quote()]);
        let string = self.terminal("string", string)?;
        self.add(any, vec![number])?;
        self.add(any, vec![string])?;
        let (items, members, member) = (self.fresh("items"), self.fresh("members"), self.fresh("member"));
        self.add(items, vec![any])?;
        self.add(items, vec![items, comma, any])?;
        self.add(member, vec![string, colon, any])?;
        self.add(members, vec![member])?;
        self.add(members, vec![members, comma, member])?;
        self.add(any, vec![begin, end])?;
        self.add(any, vec![begin, items, end])?;
        self.add(any, vec![open, close])?;
        self.add(any, vec![open, members, close])?;
        Some(any)
    }

    /// So many times; rules as many as the number has bits.
    fn repeated(&mut self, one: SymIdx, low: u64, high: Option<u64>) -> Option<SymIdx> {
        let least = self.exactly(one, low)?;
        let rest = match high {
            Some(high) => self.at_most(one, high.checked_sub(low)?)?,
            None => {
                let star = self.fresh("star");
                self.add(star, Vec::new())?;
                self.add(star, vec![star, one])?;
                Some(star)
            }
        };
        let both = self.fresh("times");
        self.add(both, least.into_iter().chain(rest).collect())?;
        Some(both)
    }

    fn exactly(&mut self, one: SymIdx, count: u64) -> Option<Option<SymIdx>> {
        match count {
            0 => return Some(None),
            1 => return Some(Some(one)),
            _ => {}
        }
        let half = self.exactly(one, count / 2)??;
        let all = self.fresh("count");
        let odd = (count % 2 == 1).then_some(one);
        self.add(all, [half, half].into_iter().chain(odd).collect())?;
        Some(Some(all))
    }

    /// Pairs, then perhaps a single one; of pairs in the same way.
    fn at_most(&mut self, one: SymIdx, most: u64) -> Option<Option<SymIdx>> {
        if most == 0 {
            return Some(None);
        }
        let all = self.fresh("most");
        if most == 1 {
            self.add(all, Vec::new())?;
            self.add(all, vec![one])?;
            return Some(Some(all));
        }
        let pair = self.fresh("pair");
        self.add(pair, vec![one, one])?;
        // With an even number the last pair has no single one behind it.
        let pairs = self.at_most(pair, (most - 1) / 2)?;
        self.add(all, pairs.into_iter().collect())?;
        self.add(all, pairs.into_iter().chain([one]).collect())?;
        if most.is_multiple_of(2) {
            let whole = self.exactly(pair, most / 2)??;
            self.add(all, vec![whole])?;
        }
        Some(Some(all))
    }
}

/// Whether a pattern matches anything; `None` if that takes too long to find out.
fn matches_something(ast: &RegexAst) -> Option<bool> {
    let mut builder = RegexBuilder::new();
    let made = builder.mk(ast).ok()?;
    if builder.exprset().is_positive(made) {
        return Some(true);
    }
    Some(!builder.to_regex_limited(made, EMPTINESS).ok()?.always_empty())
}

fn change(step: Step) -> ParamExpr {
    match step {
        Step::None => ParamExpr::Null,
        Step::Zero => ParamExpr::Const(ParamValue(0)),
        Step::Keep => ParamExpr::SelfRef,
        Step::Or(bits) => ParamExpr::BitOr(ParamValue(bits)),
        Step::And(bits) => ParamExpr::BitAnd(ParamValue(bits)),
        Step::Count((from, to)) => ParamExpr::Incr(bits(from, to)),
    }
}

fn bits(from: usize, to: usize) -> ParamRef {
    // At most 64.
    ParamRef::new(from as u8, to as u8)
}

fn condition(when: &When) -> ParamCond {
    match when {
        When::Is((from, to), compared, value) => {
            let (bits, value) = (bits(*from, *to), ParamValue(*value));
            match compared {
                Compared::Equal => ParamCond::EQ(bits, value),
                Compared::Less => ParamCond::LT(bits, value),
                Compared::AtMost => ParamCond::LE(bits, value),
                Compared::AtLeast => ParamCond::GE(bits, value),
            }
        }
        When::Not(inner) => ParamCond::Not(Box::new(condition(inner))),
        When::All(all) => {
            let both = |a, b| ParamCond::And(Box::new(a), Box::new(b));
            all.iter().map(condition).reduce(both).unwrap_or(ParamCond::True)
        }
        When::Either(a, b) => ParamCond::Or(Box::new(condition(a)), Box::new(condition(b))),
    }
}

#[cfg(test)]
mod tests {
    use llguidance::api::TopLevelGrammar;

    use super::super::super::compiled::MatchResult;
    use super::super::super::limits::Limits;
    use super::super::super::schema::{self, SchemaMode};
    use super::super::{byte_factory, match_bytes, parser};
    use super::*;

    /// What the rules say of a text, handed over directly and as text.
    fn both(schema: &str, texts: &[String]) -> Vec<[bool; 2]> {
        let options = super::super::compile::options();
        let plan = schema::rewrite(schema, SchemaMode::Strict, &Limits::default()).unwrap().plan;
        let rules = plan.rules(&options).unwrap();
        let factory = byte_factory().unwrap();
        let direct = build(&rules, "nrbtf\\\"", factory.limits()).unwrap_or_else(|| panic!("{schema}"));
        let text = GrammarInit::Serialized(TopLevelGrammar::from_lark(rules.text(str::to_owned)));
        let matchers = [direct, text].map(|grammar| parser(factory, &grammar).unwrap());
        let whole = |matcher: &llguidance::Matcher, text: &String| {
            match_bytes(matcher.deep_clone(), text.as_bytes(), 1).unwrap() == MatchResult::Complete
        };
        texts.iter().map(|text| [0, 1].map(|which| whole(&matchers[which], text))).collect()
    }

    #[test]
    fn counts_are_exact() {
        for (min, max) in [(0, 0), (0, 1), (1, 1), (0, 2), (2, 7), (0, 12), (5, 13), (3, 16), (9, 40), (17, 17)] {
            let schema = format!(r#"{{"type":"array","items":{{"type":"null"}},"minItems":{min},"maxItems":{max}}}"#);
            let texts: Vec<String> = (0..45).map(|count| format!("[{}]", vec!["null"; count].join(", "))).collect();
            for (count, [direct, text]) in both(&schema, &texts).into_iter().enumerate() {
                assert_eq!((direct, text), ((min..=max).contains(&count), direct), "{count} in {min}..={max}");
            }
        }
    }

    #[test]
    fn rules_say_the_same_directly_and_as_text() {
        let values = ["1", "-3", "2.5", "12", "\"ab\"", "\"\\u0061b\"", "\"x\\n\"", "null", "true", "[]", "[1]", "{}"]
            .into_iter()
            .chain(["[1, \"a\", {\"k\": []}]", "{\"a\": 1}", "{\"b\": \"x\", \"a\": 1}", "{\"a\": 1, \"a\": 1}"])
            .chain([
                "{\"é\": 1}",
                "{\"\\u00e9\": 1}",
                "{\"z\": {\"z\": [null, 1e5]}}",
                "{\"x1\": 1, \"x2\": 1}",
                "1e3",
            ]);
        let texts: Vec<String> = values.map(str::to_owned).collect();
        let mut accepted = 0;
        for schema in [
            "{}",
            r#"{"type":["integer","string"],"minimum":-2}"#,
            r#"{"type":"number","exclusiveMinimum":1,"maximum":12.5,"multipleOf":0.5}"#,
            r#"{"type":"string","pattern":"^[a-c]+$","maxLength":3}"#,
            r#"{"enum":[1,2.5,"ab",[1],null]}"#,
            r#"{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]}"#,
            r#"{"type":"object","properties":{"é":{"type":"integer"}},"additionalProperties":false}"#,
            r#"{"type":"object","patternProperties":{"^x":{"const":1}},"minProperties":1,"maxProperties":2}"#,
            r#"{"type":"object","patternProperties":{"^x":{"const":1}},"properties":{"z":{}},"required":["z"]}"#,
        ] {
            for (text, [direct, written]) in texts.iter().zip(both(schema, &texts)) {
                assert_eq!(direct, written, "{text} by {schema}");
                accepted += usize::from(direct);
            }
        }
        assert!(accepted > 40, "{accepted}");
    }
}
