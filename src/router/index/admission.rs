//! Gates worked out: which adapters of a segment, or of the tail, pass.

use super::Gate;
use super::bits::Bits;
use super::draft::Draft;
use super::gate::Requirement;
use super::segment::{Section, Segment};

/// The adapters of a segment that pass a gate and are not dead; nothing if that is all of them.
pub(super) fn of_segment(segment: &Segment, gate: &Gate, dead: &Bits, any_dead: bool) -> Option<Bits> {
    if gate.is_open() && !any_dead {
        return None;
    }
    let mut passing = Bits::all(segment.shape.entries);
    passing.and_not(dead);
    for requirement in gate.requirements() {
        let mut fitting = Bits::none(segment.shape.entries);
        if !gate.is_strict() {
            let mut having = Bits::none(segment.shape.entries);
            add(segment, &requirement.key, &mut having);
            fitting = Bits::all(segment.shape.entries);
            fitting.and_not(&having);
        }
        for value in &requirement.values {
            add(segment, &facet(requirement, value), &mut fitting);
        }
        passing.and(&fitting);
    }
    Some(passing)
}

fn add(segment: &Segment, facet: &str, bits: &mut Bits) {
    if let Some(at) = segment.find_text(Section::FacetEnds, Section::Facets, facet) {
        segment.add_facet(at, bits);
    }
}

fn facet(requirement: &Requirement, value: &str) -> String {
    format!("{}\0{value}", requirement.key)
}

/// A gate in the numbers of a draft.
pub(super) struct DraftGate {
    /// Of each requirement: the key's number and those of the values.
    requirements: Vec<(Option<u32>, Vec<u32>)>,
    strict: bool,
}

impl DraftGate {
    pub fn new(draft: &Draft, gate: &Gate) -> Self {
        let find = |requirement: &Requirement| {
            let values =
                requirement.values.iter().filter_map(|value| draft.facet_names.find(&facet(requirement, value)));
            (draft.facet_names.find(&requirement.key), values.collect())
        };
        Self { requirements: gate.requirements().iter().map(find).collect(), strict: gate.is_strict() }
    }

    /// Whether an adapter of the draft passes.
    pub fn allows(&self, draft: &Draft, entry: u32) -> bool {
        let facets = draft.facets.get(entry);
        let has = |number: &u32| facets.binary_search(number).is_ok();
        self.requirements
            .iter()
            .all(|(key, values)| values.iter().any(has) || (!self.strict && !key.as_ref().is_some_and(has)))
    }
}
