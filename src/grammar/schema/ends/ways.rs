//! The least ways to the end from where a text is.

use super::text::{meaning, spelled};
use super::track::{Alternative, At, Frame, Slot, Track};
use super::{Form, NEVER};

/// Costs beyond this are not written out.
const LONGEST: u32 = 20_000;

/// One way: some text, perhaps a value, then the ends of all that is open.
#[derive(Debug)]
struct Way {
    cost: u32,
    head: String,
    /// A node, a form of it, and which of its least values.
    value: Option<(usize, usize, usize)>,
    /// The alternative of the innermost frame; none where nothing is open.
    up: usize,
    /// Members of the innermost frame then.
    count: usize,
    /// A key that it then has too.
    key: Option<String>,
}

impl Track {
    /// What the least way to the end costs. `None`: not known.
    pub fn need(&self) -> Option<usize> {
        let mut least = NEVER;
        self.each(&mut |way| least = least.min(way.cost));
        (least < NEVER).then_some(least as usize)
    }

    /// Texts that bring this one to its end as far as it is known here, the cheapest first: at most `most`.
    pub fn ways(&self, most: usize) -> Vec<String> {
        let mut ways = Vec::new();
        self.each(&mut |way| ways.push(way));
        ways.retain(|way| way.cost < LONGEST);
        ways.sort_by_key(|way| way.cost);
        ways.into_iter().take(most).filter_map(|way| self.written(way)).collect()
    }

    fn each(&self, found: &mut dyn FnMut(Way)) {
        let bases = self.bases();
        let Some(frame) = self.open.last() else {
            let base = |_: usize| 0;
            match &self.at {
                At::Next => found(Way { cost: 0, head: String::new(), value: None, up: 0, count: 0, key: None }),
                _ => self.values(0, &base, found),
            }
            return;
        };
        let above = |alternative: &Alternative| match self.open.len() {
            0 | 1 => 0,
            depth => bases[depth - 2][alternative.up],
        };
        // What the end costs behind the value under way.
        let base = |up: usize| bases[self.open.len() - 1][up];
        let plain = |up: usize, count: usize| {
            let alternative = &frame.alternatives[up];
            let cost = self.close_cost(frame, alternative, count).saturating_add(above(alternative));
            Way { cost, head: String::new(), value: None, up, count, key: None }
        };
        match &self.at {
            At::Next => (0..frame.alternatives.len()).for_each(|up| found(plain(up, frame.count))),
            At::Value(_, empty) => {
                if *empty {
                    for (up, alternative) in frame.alternatives.iter().enumerate() {
                        if matches!(self.form(alternative), Form::Array(array) if array.min == 0) {
                            found(plain(up, 0));
                        }
                    }
                }
                self.values(frame.count + 1, &base, found);
            }
            At::Key(empty) => {
                for (up, alternative) in frame.alternatives.iter().enumerate() {
                    // What the object lacks comes with the end, but behind a comma there must be something.
                    let Form::Object(object) = self.form(alternative) else { continue };
                    let (cost, lacks) = self.ends.object_close(object, &frame.keys, frame.count);
                    if *empty || !lacks.is_empty() {
                        // The comma is there already.
                        let commas = u32::from(frame.count > 0);
                        let cost = cost.saturating_sub(commas).saturating_add(above(alternative));
                        found(Way { cost, head: String::new(), value: None, up, count: frame.count, key: None });
                    } else {
                        self.names(up, "", &mut |way| found(way));
                    }
                }
            }
            At::Name { raw, .. } => {
                for up in 0..frame.alternatives.len() {
                    match std::str::from_utf8(raw) {
                        Ok(raw) => self.names(up, &format!("\"{raw}"), found),
                        Err(_) => return,
                    }
                }
            }
            _ => self.values(frame.count + 1, &base, found),
        }
    }

    /// What the ends of the frames cost, by frame and alternative, behind the member under way.
    fn bases(&self) -> Vec<Vec<u32>> {
        let mut bases: Vec<Vec<u32>> = Vec::with_capacity(self.open.len());
        for frame in &self.open {
            let costs = frame.alternatives.iter().map(|alternative| {
                let above = bases.last().map_or(0, |outer| outer[alternative.up]);
                self.close_cost(frame, alternative, frame.count + 1).saturating_add(above).min(NEVER)
            });
            let costs = costs.collect();
            bases.push(costs);
        }
        bases
    }

    fn close_cost(&self, frame: &Frame, alternative: &Alternative, count: usize) -> u32 {
        match self.form(alternative) {
            Form::Array(array) => self.ends.array_close(array, count),
            Form::Object(object) => self.ends.object_close(object, &frame.keys, count).0,
            _ => NEVER,
        }
    }

    /// Ways through the value under way, or the one that comes next.
    fn values(&self, count: usize, base: &dyn Fn(usize) -> u32, found: &mut dyn FnMut(Way)) {
        let way = |head: String, cost: u32, up: usize| Way {
            cost: cost.saturating_add(base(up)).min(NEVER),
            head,
            value: None,
            up,
            count,
            key: None,
        };
        match &self.at {
            At::Value(slots, _) => self.wholes("", slots, count, base, found),
            At::Colon(slots) => self.wholes(":", slots, count, base, found),
            At::Text { raw, slots, .. } => {
                let meant = meaning(raw);
                for &(node, up) in slots {
                    for form in &self.ends.nodes[node] {
                        let rest = match form {
                            Form::Values(values) => {
                                let begun = |text: &str| {
                                    let rest = text.as_bytes().strip_prefix(b"\"")?.strip_prefix(raw.as_slice())?;
                                    std::str::from_utf8(rest).ok().map(str::to_owned)
                                };
                                values.iter().find_map(|(_, text)| begun(text))
                            }
                            Form::Text(text) => meant.as_ref().and_then(|(meant, lacks)| {
                                text.rest(meant).map(|rest| format!("{lacks}{}\"", spelled(&rest)))
                            }),
                            _ => None,
                        };
                        if let Some(rest) = rest {
                            let cost = self.ends.text_cost(&rest);
                            found(way(rest, cost, up));
                        }
                    }
                }
            }
            At::Word(raw, slots) => {
                let Ok(raw) = std::str::from_utf8(raw) else { return };
                for &(node, up) in slots {
                    for form in &self.ends.nodes[node] {
                        let rest = match form {
                            Form::Values(values) => {
                                values.iter().find_map(|(_, text)| text.strip_prefix(raw).map(str::to_owned))
                            }
                            Form::Number(digits) => digits.rest(raw),
                            _ => None,
                        };
                        if let Some(rest) = rest {
                            let cost = self.ends.text_cost(&rest);
                            found(way(rest, cost, up));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    fn wholes(
        &self,
        head: &str,
        slots: &[Slot],
        count: usize,
        base: &dyn Fn(usize) -> u32,
        found: &mut dyn FnMut(Way),
    ) {
        for &(node, up) in slots {
            let unique = self
                .open
                .last()
                .is_some_and(|frame| matches!(self.form(&frame.alternatives[up]), Form::Array(array) if array.unique));
            let others = if unique { count.saturating_sub(1) } else { 0 };
            for (form, &cost) in self.ends.costs[node].iter().enumerate() {
                let cost = cost.saturating_add(head.len() as u32).saturating_add(base(up)).min(NEVER);
                found(Way { cost, head: head.to_owned(), value: Some((node, form, others)), up, count, key: None });
            }
        }
    }

    /// Ways through a key, of which `begun` stands already, quotation mark included.
    fn names(&self, up: usize, begun: &str, found: &mut dyn FnMut(Way)) {
        let Some(frame) = self.open.last() else { return };
        let alternative = &frame.alternatives[up];
        let Form::Object(object) = self.form(alternative) else { return };
        let above = match self.open.len() {
            0 | 1 => 0,
            depth => self.bases()[depth - 2][alternative.up],
        };
        let mut add = |rest: String, name: String, node: usize| {
            let mut keys = frame.keys.clone();
            keys.push(name.clone());
            let (form, cost) = (self.ends.least[node].1, self.ends.least[node].0);
            let close = self.ends.object_close(object, &keys, frame.count + 1).0;
            let cost =
                [self.ends.text_cost(&rest), close, above].into_iter().fold(cost, u32::saturating_add).min(NEVER);
            found(Way { cost, head: rest, value: Some((node, form, 0)), up, count: frame.count + 1, key: Some(name) });
        };
        for member in &object.named {
            if let (Some(rest), Some(node)) = (member.key.strip_prefix(begun), member.node)
                && !frame.keys.contains(&member.name)
            {
                add(rest.to_owned(), member.name.clone(), node);
            }
        }
        if begun.is_empty() {
            for (key, node) in object.others(&frame.keys, 1) {
                let name = serde_json::from_str(&key[..key.len() - 1]).unwrap_or_default();
                add(key, name, node);
            }
            return;
        }
        let Some((meant, lacks)) = meaning(&begun.as_bytes()[1..]) else { return };
        if let Some(node) = object.rest {
            // The first end that makes it another key than those that are known.
            let ends = std::iter::once("").chain(["a", "b", "1", "aa", "ab", "a1"]);
            let free = |name: &String| {
                !frame.keys.contains(name)
                    && object.named.iter().all(|member| member.name != *name)
                    && object.patterns.iter().all(|(keys, _)| !keys.admits(name))
            };
            if let Some((end, name)) = ends.map(|end| (end, format!("{meant}{end}"))).find(|(_, name)| free(name)) {
                add(format!("{lacks}{end}\":"), name, node);
            }
        }
        for (keys, node) in &object.patterns {
            if let Some(rest) = keys.rest(&meant)
                && !frame.keys.contains(&format!("{meant}{rest}"))
            {
                add(format!("{lacks}{}\":", spelled(&rest)), format!("{meant}{rest}"), *node);
            }
        }
    }

    fn written(&self, way: Way) -> Option<String> {
        let mut out = way.head;
        if let Some((node, form, others)) = way.value {
            self.ends.write_form(node, form, others, &mut out)?;
        }
        let mut up = way.up;
        for (depth, frame) in self.open.iter().enumerate().rev() {
            let alternative = &frame.alternatives[up];
            let inner = depth + 1 == self.open.len();
            let count = if inner { way.count } else { frame.count + 1 };
            match self.form(alternative) {
                Form::Array(array) => self.ends.write_items(array, count, &mut out)?,
                Form::Object(object) => {
                    let mut keys = frame.keys.clone();
                    keys.extend(way.key.clone().filter(|_| inner));
                    let at = out.len();
                    self.ends.write_members(object, &keys, count, &mut out)?;
                    // Behind a comma that is there already.
                    if inner && matches!(self.at, At::Key(false)) && at == 0 && out.starts_with(',') {
                        out.remove(0);
                    }
                }
                _ => return None,
            }
            up = alternative.up;
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::super::super::limits::Limits;
    use super::super::super::{SchemaMode, rewrite};
    use super::super::{Cost, Ends};
    use super::*;

    fn after(schema: &str, text: &str) -> Track {
        let plan = rewrite(schema, SchemaMode::Strict, &Limits::default()).unwrap().plan;
        let cost: Cost = Box::new(|bytes| bytes.len() as u32);
        let mut track = Track::new(Arc::new(Ends::new(&plan, cost)));
        track.feed(text.as_bytes());
        track
    }

    const PERSON: &str = r#"{"type":"object","properties":{"name":{"type":"string","minLength":2},
        "kind":{"enum":["friend","foe"]},"age":{"type":"integer","minimum":18}},"required":["name","age"],
        "additionalProperties":false}"#;
    const TREE: &str = r##"{"$ref":"#/$defs/t","$defs":{"t":{"type":"object","properties":{"v":{"type":"string",
        "pattern":"^[0-9]{3}$"},"sub":{"type":"array","items":{"$ref":"#/$defs/t"},"minItems":0}},
        "required":["v"]}}}"##;

    #[test]
    fn the_least_way_is_known_everywhere() {
        for (schema, text, way) in [
            (PERSON, "", Some(r#"{"name":"aa","age":18}"#)),
            (PERSON, "{", Some(r#""name":"aa","age":18}"#)),
            (PERSON, "{\"ag", Some(r#"e":18,"name":"aa"}"#)),
            (PERSON, "{\"age\": 1", Some(r#"8,"name":"aa"}"#)),
            (PERSON, "{\"age\": 25, \"kind\": \"f", Some(r#"oe","name":"aa"}"#)),
            (PERSON, "{\"age\": 25, \"name\": \"x\\", Some("n\"}")),
            (PERSON, "{\"age\": 25, \"name\": \"xyz\",", Some(r#""kind":"foe"}"#)),
            (PERSON, "{\"age\": 25, \"other\"", None),
            (PERSON, "{\"age\": 25, \"name\": \"xyz\"}", Some("")),
            (TREE, "", Some(r#"{"v":"000"}"#)),
            (TREE, "{\"sub\":[{\"v\":\"12", Some("0\"}],\"v\":\"000\"}")),
            (TREE, "{\"sub\":[{\"v\":\"123\"},", Some("{\"v\":\"000\"}],\"v\":\"000\"}")),
            (TREE, "{\"sub\":[", Some("],\"v\":\"000\"}")),
            (TREE, "{\"free\":{\"a\":[1,tr", Some("ue]},\"v\":\"000\"}")),
            ("true", "", Some("0")),
            ("true", "{\"a\": \"b\\u00", Some("41\"}")),
            (r#"{"type":"array","items":{"type":"integer"},"minItems":3,"uniqueItems":true}"#, "[", Some("0,1,2]")),
            (
                r#"{"type":"array","prefixItems":[{"type":"string"}],"items":{"type":"boolean"},"minItems":2}"#,
                "[\"",
                Some("\",true]"),
            ),
            (
                r#"{"type":"object","minProperties":2,"additionalProperties":{"type":"null"}}"#,
                "{\"a\":null",
                Some(",\"b\":null}"),
            ),
            (
                r#"{"type":"object","patternProperties":{"^x[0-9]$":{"type":"null"}},"additionalProperties":false}"#,
                "{\"x",
                Some("0\":null}"),
            ),
        ] {
            let track = after(schema, text);
            let found = track.ways(1);
            assert_eq!(found.first().map(String::as_str), way, "{schema} after {text}");
            // Costs are bytes here, and what they promise is what is written.
            assert_eq!(track.need(), way.map(str::len), "{schema} after {text}");
        }
    }

    #[test]
    fn alternatives_that_are_over_are_left() {
        let schema = r#"{"anyOf":[{"type":"object","properties":{"t":{"const":"a"},"long":{"type":"string","minLength":9}},
            "required":["t","long"]},{"type":"object","properties":{"t":{"const":"b"}},"required":["t"]}]}"#;
        for (text, way) in [("{\"t\":\"", "b\"}"), ("{\"t\":\"a\"", ",\"long\":\"aaaaaaaaa\"}"), ("{\"t\":\"b\"", "}")]
        {
            assert_eq!(after(schema, text).ways(1), [way], "{text}");
        }
    }
}
