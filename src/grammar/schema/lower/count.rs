//! `minProperties` and `maxProperties`. The engine counts only keys that are not named; where named keys are optional,
//! the object becomes a choice of those that are there.

use super::super::graph::Id;
use super::super::part::Origin;
use super::{LowObj, Lowering, choices};

/// Objects that one object may become.
const MOST: usize = 128;

impl Lowering<'_, '_> {
    /// Objects in which the engine can count. `open`: there may be keys without a name.
    pub(super) fn counted(&mut self, object: LowObj, open: bool, origin: Option<&Origin>) -> Vec<LowObj> {
        let required = object.required.len() as u64;
        let optional: Vec<usize> = (0..object.props.len())
            .filter(|&index| {
                let (name, node) = &object.props[index];
                *node != Id::FALSE && !object.required.contains(name)
            })
            .collect();
        let total = optional.len();
        if object.max.is_some_and(|max| max < required || max < object.min) {
            return Vec::new();
        }
        let min = object.min.saturating_sub(required);
        // What cannot be reached bounds nothing.
        let max = object.max.map(|max| max - required).filter(|max| open || *max < total as u64);
        let plain = |min: u64, max: Option<u64>| LowObj {
            min: if min > 0 { min + required } else { 0 },
            max: max.map(|max| max + required),
            ..object.clone()
        };
        if min == 0 && max.is_none() {
            return vec![plain(0, None)];
        }
        if total == 0 {
            return if open || min == 0 { vec![plain(min, max)] } else { Vec::new() };
        }
        if !open && min > total as u64 {
            return Vec::new();
        }
        let pointer = origin.map_or_else(|| "".into(), |origin| origin.pointer.clone());
        let keyword = if min > 0 { "minProperties" } else { "maxProperties" };
        let pick = |chosen: &[usize], only: bool| {
            let mut one = object.clone();
            one.min = 0;
            one.max = None;
            for (at, &index) in optional.iter().enumerate() {
                if chosen.contains(&at) {
                    one.required.push(one.props[index].0.clone());
                } else if only {
                    one.props[index].1 = Id::FALSE;
                }
            }
            one
        };
        let mut found = Vec::new();
        // Exactly the chosen ones, and other keys to make up the number.
        let most = max.unwrap_or(min.saturating_sub(u64::from(max.is_none()))).min(total as u64);
        let first = if open { 0 } else { min.min(total as u64) };
        let exact = if max.is_none() && !open { first..first } else { first..most + 1 };
        for count in exact {
            // With a lower bound alone, what has enough named keys is left to the choice below.
            if max.is_none() && count >= min {
                break;
            }
            let Some(choices) = choices(total, count as usize, MOST) else {
                return self.uncounted(plain(0, None), pointer, keyword);
            };
            for chosen in choices {
                let mut one = pick(&chosen, true);
                let here = one.required.len() as u64;
                one.min = if min > count { here + (min - count) } else { 0 };
                one.max = max.filter(|_| open).map(|max| here + (max - count));
                found.push(one);
            }
        }
        if max.is_none() && min <= total as u64 {
            let Some(choices) = choices(total, min as usize, MOST) else {
                return self.uncounted(plain(0, None), pointer, keyword);
            };
            found.extend(choices.iter().map(|chosen| pick(chosen, false)));
        }
        if found.len() > MOST {
            return self.uncounted(plain(0, None), pointer, keyword);
        }
        found
    }

    fn uncounted(&mut self, without: LowObj, pointer: std::rc::Rc<str>, keyword: &'static str) -> Vec<LowObj> {
        let pointer = super::super::join(&pointer, keyword).into();
        if self.lose(&Origin { pointer, keyword }, false) { vec![without] } else { Vec::new() }
    }
}
