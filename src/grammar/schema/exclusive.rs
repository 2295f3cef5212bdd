//! `not` and `oneOf`: taking away what must not be.
//!
//! Parts that cannot meet need no taking away, which is the usual case of `oneOf`: branches that differ in a type, a
//! constant or a key. Where branches do meet, the common values are cut out of both.

use super::super::error::GrammarError;
use super::graph::{Graph, Id};
use super::part::{Part, tidy};
use super::{SchemaNote, meet, negate};

/// How deep two parts are compared to see that they cannot meet.
const DEPTH: usize = 5;

/// Pieces of one branch of `oneOf` that are kept exactly.
const PIECES: usize = 1;

/// The values of `parts` that exactly one of the nodes admits.
///
/// Open objects that differ in the keys they demand would leave many pieces: a key of another branch may be there if
/// its value is not what that branch wants. Then only objects without that key are kept, with a note.
pub(super) fn one_of(
    graph: &mut Graph<'_>,
    parts: &[Part],
    list: &[Id],
    pointer: &str,
) -> Result<Vec<Part>, GrammarError> {
    let mut branches = Vec::new();
    for &id in list {
        branches.push(graph.expand(id)?);
    }
    let mut found = Vec::new();
    for (index, branch) in branches.iter().enumerate() {
        let mut own = meet::unions(graph, parts, branch)?;
        for (other, excluded) in branches.iter().enumerate() {
            // Two equal branches exclude each other whole.
            if other != index {
                own = match list[other] == list[index] {
                    true => Vec::new(),
                    false => cut(graph, &own, excluded, Some(pointer))?,
                };
            }
        }
        found.extend(own);
    }
    Ok(tidy(found))
}

/// The values of `parts` that are in none of `excluded`.
pub(super) fn subtract(graph: &mut Graph<'_>, parts: &[Part], excluded: &[Part]) -> Result<Vec<Part>, GrammarError> {
    cut(graph, parts, excluded, None)
}

/// `simply`: where the note goes if pieces are left out.
fn cut(
    graph: &mut Graph<'_>,
    parts: &[Part],
    excluded: &[Part],
    simply: Option<&str>,
) -> Result<Vec<Part>, GrammarError> {
    let mut found = Vec::new();
    for part in parts {
        let mut left = vec![part.clone()];
        for cut in excluded {
            left = without(graph, left, cut, simply)?;
        }
        found.extend(left);
    }
    Ok(tidy(found))
}

fn without(
    graph: &mut Graph<'_>,
    parts: Vec<Part>,
    cut: &Part,
    simply: Option<&str>,
) -> Result<Vec<Part>, GrammarError> {
    let mut found = Vec::new();
    for part in parts {
        let both = meet::unions(graph, std::slice::from_ref(&part), std::slice::from_ref(cut))?;
        let mut apart = true;
        for both in &both {
            apart &= graph.part_empty(both, DEPTH)?;
        }
        if apart {
            found.push(part);
            continue;
        }
        let outside = negate::union(graph, std::slice::from_ref(cut))?;
        let mut pieces = Vec::new();
        let outside = match simply {
            Some(pointer) => simple(graph, &part, cut, outside, pointer),
            None => outside,
        };
        for piece in &outside {
            let piece = meet::unions(graph, std::slice::from_ref(&part), std::slice::from_ref(piece))?;
            // All of the part is outside already: the other pieces add nothing.
            if piece == [part.clone()] {
                pieces = piece;
                break;
            }
            pieces.extend(piece);
        }
        found.extend(pieces);
    }
    Ok(found)
}

/// Of what is outside of `cut`, only what leaves out a key that `cut` demands, if there is too much else.
fn simple(graph: &mut Graph<'_>, part: &Part, cut: &Part, outside: Vec<Part>, pointer: &str) -> Vec<Part> {
    let (Part::Object(part), Part::Object(_)) = (part, cut) else { return outside };
    let objects = outside.iter().filter(|piece| matches!(piece, Part::Object(_))).count();
    let leaves_out = |piece: &Part| match piece {
        Part::Object(object) => object
            .props
            .iter()
            .any(|(name, id)| id == Id::FALSE && !part.required.iter().any(|required| required == name)),
        _ => true,
    };
    let kept: Vec<Part> = outside.iter().filter(|piece| leaves_out(piece)).cloned().collect();
    if objects <= PIECES || !kept.iter().any(|piece| matches!(piece, Part::Object(_))) {
        return outside;
    }
    let note = SchemaNote {
        pointer: pointer.to_owned(),
        keyword: "oneOf".to_owned(),
        message: "keys that another branch demands are left out".to_owned(),
    };
    if !graph.notes.contains(&note) {
        graph.notes.push(note);
    }
    kept
}
