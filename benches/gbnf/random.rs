//! Chance that is the same on every run, and grammars that llama.cpp's parser and matcher survive.

/// A small generator of numbers.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// One of `items`.
    pub fn of<'a, T: ?Sized>(&mut self, items: &[&'a T]) -> &'a T {
        items[self.below(items.len())]
    }
}

/// A grammar without what ends or hangs llama.cpp: no rule is empty, none is left-recursive, bounds are small, nothing
/// empty is repeated. Recursion stands at the end or in the middle, after something that consumes.
pub fn safe_grammar(random: &mut Random) -> String {
    let rules = 1 + random.below(5);
    let mut text = String::new();
    for rule in 0..rules {
        let options: Vec<String> = (0..1 + random.below(3)).map(|_| sequence(random, rule, rules, 2)).collect();
        let mut body = options.join(" | ");
        if rule == 0 && random.below(8) == 0 {
            body = format!("({body})?");
        }
        text.push_str(&format!("{} ::= {body}\n", name(rule)));
    }
    text
}

fn name(rule: usize) -> String {
    if rule == 0 { "root".to_owned() } else { format!("r{rule}") }
}

/// Begins with something that consumes a character.
fn sequence(random: &mut Random, rule: usize, rules: usize, depth: usize) -> String {
    let mut items = vec![solid(random, rule, rules, depth)];
    for _ in 0..random.below(3) {
        let item = match random.below(5) {
            0 => name(random.below(rules)),
            _ => solid(random, rule, rules, depth),
        };
        let marks = ["", "", "", "?", "*", "+", "{2}", "{0,2}", "{1,3}", "{2,}", "{3}"];
        items.push(item + random.of(&marks));
    }
    items.join(" ")
}

fn solid(random: &mut Random, rule: usize, rules: usize, depth: usize) -> String {
    match random.below(if depth > 0 { 11 } else { 9 }) {
        0 => "\"a\"".to_owned(),
        1 => "\"b\"".to_owned(),
        2 => "\"ab\"".to_owned(),
        3 => "[ab]".to_owned(),
        4 => "[^a]".to_owned(),
        5 => "[a-cé]".to_owned(),
        6 => "\"é\"".to_owned(),
        7 => "[^\\x61é-日]".to_owned(),
        // Only later rules, so that no rule begins with itself.
        8 if rule + 1 < rules => name(rule + 1 + random.below(rules - rule - 1)),
        8 => ".".to_owned(),
        _ => {
            let options: Vec<String> =
                (0..1 + random.below(2)).map(|_| sequence(random, rule, rules, depth - 1)).collect();
            format!("({})", options.join(" | "))
        }
    }
}

/// A text like `text`, or one of its own.
pub fn damaged(random: &mut Random, text: &str) -> String {
    let letters = ["a", "b", "c", "é", "日", "ab", "x"];
    let mut chars: Vec<String> = text.chars().map(String::from).collect();
    match random.below(6) {
        0 => {}
        1 => {
            let at = random.below(chars.len() + 1);
            chars.insert(at, random.of(&letters).to_owned());
        }
        2 if !chars.is_empty() => {
            let at = random.below(chars.len());
            chars.remove(at);
        }
        3 if !chars.is_empty() => {
            let at = random.below(chars.len());
            chars[at] = random.of(&letters).to_owned();
        }
        4 => chars.truncate(random.below(chars.len() + 1)),
        _ => chars = (0..random.below(8)).map(|_| random.of(&letters).to_owned()).collect(),
    }
    chars.concat()
}
