//! The file of a saved sequence.
//!
//! ```text
//! 8 bytes   "smoa.seq"
//! u32       the format's version
//! u32       bytes of the header
//! ..        the header, JSON: the stamp, the adapter sets, how many tokens and bytes follow
//! u32 x n   the tokens
//! ..        the state, as the engine gave it
//! 32 bytes  BLAKE3 of all that stands before
//! ```
//! Numbers are little-endian. The checksum finds damage; it is no signature. A file is trusted no further: whoever can
//! write it can make up keys and values, and so what a model seems to have read, but nothing here or in the engine
//! follows a number of it out of bounds.

use serde::{Deserialize, Serialize};

use super::{Saved, Stamp};
use crate::adapter::{AdapterDigest, AdapterSet, HeldBytes, Scale, Timeline};
use crate::engine::Token;

const MAGIC: &[u8; 8] = b"smoa.seq";
/// The version of the format that is written and read.
pub const FORMAT: u32 = 1;
/// Bytes before the header.
const LEAD: usize = 16;
const CHECKSUM: usize = 32;
/// Most bytes of a header: ten digests and four texts fit many times.
const MAX_HEADER: usize = 64 << 10;

/// Why a saved state is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// Another kind of file.
    #[error("it is not a saved state")]
    NotAState,
    /// A later program wrote it.
    #[error("it has format {0}, this program reads {FORMAT}; use the program that saved it")]
    Version(u32),
    /// Sizes do not add up, or the header says what cannot be.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another model, build, cache or position setting.
    #[error("it does not fit: {0}")]
    Differs(String),
    /// More tokens than the context holds.
    #[error("it holds {tokens} tokens, the context {context}; give a larger -c")]
    TooLong {
        /// Of the state.
        tokens: usize,
        /// Of the engine.
        context: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    stamp: Stamp,
    tokens: u64,
    state_bytes: u64,
    first: Vec<Member>,
    /// The position from which `then` applies instead of `first`.
    from: u64,
    then: Vec<Member>,
    /// What applies later instead, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    more: Vec<Change>,
    /// Whose cache it is part of; 0 for nobody's.
    #[serde(default, skip_serializing_if = "is_nobody")]
    owner: u64,
}

fn is_nobody(owner: &u64) -> bool {
    *owner == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    from: u64,
    then: Vec<Member>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    digest: String,
    /// The bits of the weight, an IEEE 754 single.
    scale_bits: u32,
}

impl Saved {
    /// The file of this state, saved by an engine with this stamp.
    pub fn to_file(&self, stamp: &Stamp) -> Vec<u8> {
        let members = |set: &AdapterSet| {
            let of = |(digest, scale): &(AdapterDigest, Scale)| Member {
                digest: digest.to_hex(),
                scale_bits: scale.get().to_bits(),
            };
            set.members().iter().map(of).collect()
        };
        let (first, changes) = self.sets.parts();
        let (from, then) = changes.first().map_or((0, first), |(from, then)| (*from, then));
        let more = changes.iter().skip(1);
        let header = Header {
            stamp: stamp.clone(),
            tokens: self.tokens.len() as u64,
            state_bytes: self.state().len() as u64,
            first: members(first),
            from: from as u64,
            then: members(then),
            more: more.map(|(from, then)| Change { from: *from as u64, then: members(then) }).collect(),
            owner: self.sets.owner(),
        };
        // Texts and numbers only: this cannot fail.
        let header = serde_json::to_vec(&header).unwrap_or_default();
        let size = LEAD + header.len() + 4 * self.tokens.len() + self.state().len() + CHECKSUM;
        let mut out = Vec::with_capacity(size);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(header.len() as u32).to_le_bytes());
        out.extend_from_slice(&header);
        self.tokens.iter().for_each(|token| out.extend_from_slice(&token.to_le_bytes()));
        out.extend_from_slice(self.state());
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Reads a file, without copying the state. `own` is the stamp of the engine that is to take it, `context` the most
    /// tokens a sequence of it holds.
    ///
    /// # Errors
    /// Anything but a whole, undamaged state that fits.
    pub fn from_file(held: Box<dyn HeldBytes>, own: &Stamp, context: usize) -> Result<Self, SavedError> {
        let (stamp, mut saved) = parse(held.bytes())?;
        if let Some(line) = stamp.differs(own) {
            return Err(SavedError::Differs(line));
        }
        if saved.tokens.len() > context {
            return Err(SavedError::TooLong { tokens: saved.tokens.len(), context });
        }
        saved.held = held;
        Ok(saved)
    }

    /// Whether the bytes are a whole, undamaged state, of whatever engine; its stamp.
    ///
    /// # Errors
    /// As [`Saved::from_file`], what depends on the engine aside.
    pub fn check_file(bytes: &[u8]) -> Result<Stamp, SavedError> {
        parse(bytes).map(|(stamp, _)| stamp)
    }
}

/// The stamp, and the state with its range but without its bytes.
fn parse(bytes: &[u8]) -> Result<(Stamp, Saved), SavedError> {
    let damaged = |what: &str| SavedError::Damaged(what.to_owned());
    let word = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    if bytes.get(..8) != Some(MAGIC) {
        return Err(SavedError::NotAState);
    }
    let (Some(version), Some(header_bytes)) = (word(8), word(12)) else { return Err(damaged("it is cut short")) };
    if version != FORMAT {
        return Err(SavedError::Version(version));
    }
    let header_bytes = header_bytes as usize;
    if header_bytes > MAX_HEADER {
        return Err(damaged("its header is too long"));
    }
    let body = LEAD + header_bytes;
    if bytes.len() < body + CHECKSUM {
        return Err(damaged("it is cut short"));
    }
    let end = bytes.len() - CHECKSUM;
    if blake3::hash(&bytes[..end]).as_bytes()[..] != bytes[end..] {
        return Err(damaged("its checksum is another"));
    }
    let header: Header = serde_json::from_slice(&bytes[LEAD..body]).map_err(|e| {
        // It may quote the file.
        SavedError::Damaged(format!("its header: {}", e.to_string().escape_debug()))
    })?;
    let size = |n: u64| usize::try_from(n).ok();
    let sizes = size(header.tokens).and_then(|tokens| {
        let state = body.checked_add(tokens.checked_mul(4)?)?;
        (state.checked_add(size(header.state_bytes)?)? == end).then_some((tokens, state))
    });
    let Some((tokens, state)) = sizes else { return Err(damaged("its sizes do not add up")) };
    if tokens == 0 {
        return Err(damaged("it has no tokens"));
    }
    let tokens = bytes[body..state].as_chunks::<4>().0.iter().map(|b| Token::from_le_bytes(*b)).collect();
    let set = |members: &[Member]| -> Result<AdapterSet, SavedError> {
        let of = |member: &Member| {
            let digest = blake3::Hash::from_hex(&member.digest).ok()?;
            let scale = Scale::new(f32::from_bits(member.scale_bits)).ok()?;
            Some((AdapterDigest::from_bytes(*digest.as_bytes()), scale))
        };
        let members: Option<Vec<_>> = members.iter().map(of).collect();
        members.and_then(|members| AdapterSet::new(members).ok()).ok_or_else(|| damaged("its adapters are no set"))
    };
    let from = |n: u64| size(n).ok_or_else(|| damaged("its adapters begin nowhere"));
    let mut sets = Timeline::switching(set(&header.first)?, from(header.from)?, set(&header.then)?).owned(header.owner);
    let mut last = header.from;
    for change in &header.more {
        if change.from <= last {
            return Err(damaged("its adapters change in no order"));
        }
        last = change.from;
        sets.change(from(change.from)?, set(&change.then)?);
    }
    let saved = Saved { tokens, sets, range: state..end, held: Box::new(Vec::new()) };
    Ok((header.stamp, saved))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::stamp;
    use super::*;

    fn set(n: u8, scale: f32) -> AdapterSet {
        let scale = Scale::new(scale).expect("in range");
        AdapterSet::new(vec![(AdapterDigest::of(&[n]), scale)]).expect("valid")
    }

    fn sample() -> Saved {
        let sets = Timeline::switching(set(1, 0.1), 2, set(2, 1.0));
        Saved::new(vec![7, 8, crate::engine::VIRTUAL], sets, (0..100).collect())
    }

    /// The base, then these sets from these positions on.
    fn changing(changes: &[(usize, u8)]) -> Timeline {
        let mut sets = Timeline::default();
        changes.iter().for_each(|(from, n)| sets.change(*from, set(*n, 1.0)));
        sets
    }

    fn read(file: &[u8]) -> Result<Saved, SavedError> {
        Saved::from_file(Box::new(file.to_vec()), &stamp(), 10)
    }

    /// The file with a right checksum again.
    fn sealed(mut file: Vec<u8>) -> Vec<u8> {
        let end = file.len() - CHECKSUM;
        let checksum = blake3::hash(&file[..end]);
        file[end..].copy_from_slice(checksum.as_bytes());
        file
    }

    #[test]
    fn what_is_written_is_read() {
        for sets in [
            Timeline::default(),
            Timeline::switching(set(1, 0.1), usize::MAX, set(2, 1.0)),
            sample().sets,
            sample().sets.owned(u64::MAX),
            changing(&[(1, 2), (2, 3), (9, 1)]),
        ] {
            let saved = Saved { sets, ..sample() };
            let back = read(&saved.to_file(&stamp())).expect("sound");
            assert_eq!((&back.tokens, &back.sets, back.state()), (&saved.tokens, &saved.sets, saved.state()));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        let file = sample().to_file(&stamp());
        let other = Stamp { cache: "k q8_0".into(), ..stamp() };
        let refused = Saved::from_file(Box::new(file.clone()), &other, 10).expect_err("another cache");
        assert_eq!(refused.to_string(), "it does not fit: its cache is 'k f16', this engine's 'k q8_0'");
        let refused = Saved::from_file(Box::new(file), &stamp(), 2).expect_err("too long");
        assert_eq!(refused, SavedError::TooLong { tokens: 3, context: 2 });
    }

    #[test]
    fn hostile_files_are_refused() {
        let file = sample().to_file(&stamp());
        for end in 0..file.len() {
            assert!(read(&file[..end]).is_err(), "cut at {end}");
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "bit at {at}");
        }
        // With a checksum that is right again.
        let text = String::from_utf8_lossy(&file[LEAD..]).into_owned();
        for (from, to) in [
            ("\"tokens\":3", "\"tokens\":9"),
            ("\"tokens\":3", "\"tokens\":0"),
            ("\"state_bytes\":100", "\"state_bytes\":101"),
            ("\"state_bytes\":100", "\"state_bytes\":-10"),
            ("\"from\":2", "\"from\":x"),
            ("\"scale_bits\":1065353216", "\"scale_bits\":4290772992"),
            ("\"digest\":\"", "\"digest\":x"),
            ("\"then\"", "\"th\\n\""),
        ] {
            let at = LEAD + text.find(from).expect("it is there");
            let mut bad = file.clone();
            bad[at..at + to.len()].copy_from_slice(to.as_bytes());
            let refused = read(&sealed(bad)).expect_err(from);
            assert!(matches!(refused, SavedError::Damaged(_)), "{from} to {to}");
            assert!(!refused.to_string().contains('\n'), "one line: {refused}");
        }
        let mut newer = file.clone();
        newer[8] = 2;
        assert_eq!(read(&newer).expect_err("newer"), SavedError::Version(2));
        assert_eq!(read(b"GGUF").expect_err("another"), SavedError::NotAState);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(lead in 0usize..3, noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = sample().to_file(&stamp());
            file.truncate([0, 8, LEAD][lead]);
            file.extend(noise);
            if file.len() >= CHECKSUM {
                prop_assert!(read(&sealed(file)).is_err());
            }
        }
    }
}
