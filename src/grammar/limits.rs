//! What a grammar may cost. Every limit answers with an error that names it; none changes what is accepted.

/// Bounds on the size of a grammar and on the work and memory of matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of GBNF text. Default: 64 KiB.
    pub gbnf_bytes: usize,
    /// Depth of parentheses in GBNF. Default: 200.
    pub gbnf_nesting: usize,
    /// Rules in one GBNF grammar. Default: 10,000.
    pub gbnf_rules: usize,
    /// Largest number in `{m,n}`. Repetitions are counted, not unrolled, so this bounds usefulness more than
    /// cost. Default: 100,000.
    pub repetition: u32,
    /// Bytes of the shortest text a grammar may demand; a grammar that wants more could never be finished.
    /// Default: 65,536.
    pub shortest_text: u64,
    /// States and edges of the compiled automata together, about 12 bytes each. Default: 1,000,000.
    pub network_size: usize,
    /// Bytes of JSON Schema text. Default: 256 KiB.
    pub schema_bytes: usize,
    /// Depth of nested arrays and objects in a JSON Schema. Default: 64.
    pub schema_depth: usize,
    /// Bytes of a regular expression. Default: 16 KiB.
    pub regex_bytes: usize,
    /// Work units of one `mask`, `allows` or `accept`; a unit is one automaton item visited, some tens of
    /// nanoseconds. Default: 2,000,000.
    pub step_work: u64,
    /// Bytes one matcher may hold. Default: 64 MiB.
    pub matcher_bytes: usize,
    /// Bytes of compiled grammars a compiler keeps for the next request; the least recently used go first.
    /// Default: 64 MiB.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            gbnf_bytes: 64 << 10,
            gbnf_nesting: 200,
            gbnf_rules: 10_000,
            repetition: 100_000,
            shortest_text: 65_536,
            network_size: 1_000_000,
            schema_bytes: 256 << 10,
            schema_depth: 64,
            regex_bytes: 16 << 10,
            step_work: 2_000_000,
            matcher_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        }
    }
}
