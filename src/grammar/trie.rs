//! A byte trie over the tokens, laid out flat in depth-first order so that a walk reads memory forwards.

use std::ops::Range;

/// One byte of one or more tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Index of the first node after this one's subtree.
    pub end: u32,
    /// Start of the tokens that end at this node, in [`Trie::tokens`]. They run to the next node's start.
    pub tokens: u32,
    /// Bytes from the root to here, counted from 1.
    pub depth: u16,
    /// The byte itself.
    pub byte: u8,
}

/// All text tokens of a vocabulary. Node 0 is the first byte of the smallest token; there is no root node.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    tokens: Vec<u32>,
    longest: usize,
}

impl Trie {
    /// Builds the trie from `(token, bytes)` pairs. Empty tokens, and tokens of 65,536 bytes or more, are left out.
    pub(super) fn build<'a>(tokens: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut sorted: Vec<(u32, &[u8])> =
            tokens.filter(|(_, bytes)| !bytes.is_empty() && bytes.len() < usize::from(u16::MAX)).collect();
        sorted.sort_unstable_by(|a, b| a.1.cmp(b.1).then(a.0.cmp(&b.0)));
        let mut trie =
            Trie { nodes: Vec::with_capacity(sorted.len() * 2), tokens: Vec::with_capacity(sorted.len()), longest: 0 };
        // Nodes on the path to the current token.
        let mut path: Vec<u32> = Vec::new();
        let mut previous: &[u8] = &[];
        for (id, bytes) in sorted {
            let shared = previous.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            trie.close(&mut path, shared);
            for (depth, &byte) in bytes.iter().enumerate().skip(shared) {
                path.push(trie.nodes.len() as u32);
                trie.nodes.push(Node { end: 0, tokens: trie.tokens.len() as u32, depth: depth as u16 + 1, byte });
            }
            trie.tokens.push(id);
            trie.longest = trie.longest.max(bytes.len());
            previous = bytes;
        }
        trie.close(&mut path, 0);
        let end = trie.nodes.len() as u32;
        // A sentinel, so that the tokens of the last node have an end.
        trie.nodes.push(Node { end: end + 1, tokens: trie.tokens.len() as u32, depth: 0, byte: 0 });
        trie
    }

    /// Ends the nodes of `path` that are deeper than `keep`.
    fn close(&mut self, path: &mut Vec<u32>, keep: usize) {
        let end = self.nodes.len() as u32;
        for node in path.drain(keep..) {
            self.nodes[node as usize].end = end;
        }
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> u32 {
        self.nodes.len() as u32 - 1
    }

    /// Node `index`, which must be below [`Trie::len`].
    pub(super) fn node(&self, index: u32) -> Node {
        self.nodes[index as usize]
    }

    /// The tokens that end at node `index`: several if they print the same bytes.
    pub(super) fn tokens_at(&self, index: u32) -> &[u32] {
        let index = index as usize;
        &self.tokens[self.nodes[index].tokens as usize..self.nodes[index + 1].tokens as usize]
    }

    /// Where the tokens at and below node `index` stand in [`Trie::tokens`].
    pub(super) fn tokens_below(&self, index: u32) -> Range<usize> {
        let node = self.nodes[index as usize];
        node.tokens as usize..self.nodes[node.end as usize].tokens as usize
    }

    /// All tokens, in the order of their bytes.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens that `text` begins with, shortest first.
    pub(super) fn prefixes(&self, text: &[u8]) -> Vec<u32> {
        let mut found = Vec::new();
        let (mut at, mut end) = (0, self.len());
        for &byte in text {
            while at < end && self.nodes[at as usize].byte != byte {
                at = self.nodes[at as usize].end;
            }
            if at >= end {
                break;
            }
            found.extend_from_slice(self.tokens_at(at));
            end = self.nodes[at as usize].end;
            at += 1;
        }
        found
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }
}
