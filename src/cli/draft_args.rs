//! Flags about drafts: guesses at the next tokens that one step checks together. Names and meaning are llama-server's.

use clap::Args;

use crate::error::Failure;
use crate::scheduler::draft::{Drafting, Lookup, Pooled, Ways};

/// Drafts.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Drafts: tokens guessed and checked together (names as in llama-server)")]
pub struct DraftArgs {
    /// Guess tokens out of what was read and written: ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod, separated by
    /// commas; none guesses nothing. Answers stay what they are; text that is copied comes faster
    #[arg(long, value_name = "TYPES", env = "LLAMA_ARG_SPEC_TYPE", value_delimiter = ',')]
    spec_type: Vec<String>,
    /// --spec-type ngram-mod with its numbers as they are
    #[arg(long)]
    spec_default: bool,
    /// ngram-simple: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_simple_size_n: u16,
    /// ngram-simple: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_simple_size_m: u16,
    /// ngram-simple: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_simple_min_hits: u16,
    /// ngram-map-k: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_map_k_size_n: u16,
    /// ngram-map-k: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_map_k_size_m: u16,
    /// ngram-map-k: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_map_k_min_hits: u16,
    /// ngram-map-k4v: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Lookup::default().n as u16, value_parser = sizes())]
    spec_ngram_map_k4v_size_n: u16,
    /// ngram-map-k4v: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Lookup::default().m as u16, value_parser = sizes())]
    spec_ngram_map_k4v_size_m: u16,
    /// ngram-map-k4v: how often they must have been there before
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = hits())]
    spec_ngram_map_k4v_min_hits: u16,
    /// ngram-mod: how many last tokens are looked up
    #[arg(long, value_name = "N", default_value_t = Pooled::default().n as u16, value_parser = sizes())]
    spec_ngram_mod_n_match: u16,
    /// ngram-mod: shorter guesses are not used
    #[arg(long, value_name = "N", default_value_t = Pooled::default().least as u16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    spec_ngram_mod_n_min: u16,
    /// ngram-mod: most tokens guessed
    #[arg(long, value_name = "N", default_value_t = Pooled::default().most as u16, value_parser = clap::value_parser!(u16).range(0..=1024))]
    spec_ngram_mod_n_max: u16,
}

fn sizes() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=1024)
}

fn hits() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// Types of llama-server that need heads or files which are not read here.
const REFUSED: [&str; 6] = ["draft-simple", "draft-eagle3", "draft-mtp", "draft-dflash", "draft-dspark", "ngram-cache"];

impl DraftArgs {
    /// How answers are drafted.
    ///
    /// # Errors
    /// A type is unknown, or not in this version.
    pub fn asked(&self) -> Result<Drafting, Failure> {
        Ok(Drafting { ways: self.ways()?, ..Drafting::default() })
    }

    fn ways(&self) -> Result<Ways, Failure> {
        let lookup = |n: u16, m: u16, hits: u16| Lookup { n: n.into(), m: m.into(), hits: hits.into() };
        let pool = || Pooled {
            n: self.spec_ngram_mod_n_match.into(),
            least: self.spec_ngram_mod_n_min.into(),
            most: self.spec_ngram_mod_n_max.into(),
        };
        let mut ways = Ways::default();
        if self.spec_default {
            ways.pool = Some(Pooled::default());
        }
        // One `none` switches all off, as in llama-server.
        let given: &[String] = if self.spec_type.iter().any(|name| name == "none") { &[] } else { &self.spec_type };
        for name in given {
            match name.as_str() {
                "ngram-simple" => {
                    let hits = self.spec_ngram_simple_min_hits;
                    ways.simple = Some(lookup(self.spec_ngram_simple_size_n, self.spec_ngram_simple_size_m, hits));
                }
                "ngram-map-k" => {
                    let hits = self.spec_ngram_map_k_min_hits;
                    ways.map_k = Some(lookup(self.spec_ngram_map_k_size_n, self.spec_ngram_map_k_size_m, hits));
                }
                "ngram-map-k4v" => {
                    let hits = self.spec_ngram_map_k4v_min_hits;
                    ways.map_k4v = Some(lookup(self.spec_ngram_map_k4v_size_n, self.spec_ngram_map_k4v_size_m, hits));
                }
                "ngram-mod" => ways.pool = Some(pool()),
                other => {
                    let known = "none, ngram-simple, ngram-map-k, ngram-map-k4v and ngram-mod";
                    let why = if REFUSED.contains(&other) { "is not in this version" } else { "is no type" };
                    return Err(Failure::usage(format!("--spec-type {other}: {why}; there are {known}")));
                }
            }
        }
        Ok(ways)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        drafts: DraftArgs,
    }

    fn ways(flags: &[&str]) -> Result<Ways, Failure> {
        let line = Line::try_parse_from(std::iter::once(&"smoa").chain(flags));
        line.map_err(|e| Failure::usage(e.to_string()))?.drafts.ways()
    }

    #[test]
    fn types_and_their_numbers() {
        assert!(ways(&[]).expect("none").is_none());
        let simple = ways(&["--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "5"]).expect("good");
        assert_eq!(simple, Ways { simple: Some(Lookup { n: 5, ..Lookup::default() }), ..Ways::default() });
        let two = ways(&["--spec-type", "ngram-mod,ngram-map-k4v", "--spec-ngram-mod-n-max", "9"]).expect("good");
        assert_eq!((two.names().as_str(), two.pool.map(|p| p.most)), ("ngram-map-k4v,ngram-mod", Some(9)));
        assert_eq!(ways(&["--spec-default"]).expect("good").pool, Some(Pooled::default()));
        assert!(ways(&["--spec-type", "none,ngram-simple"]).expect("good").is_none());
        for (flags, expected) in [
            (["--spec-type", "draft-mtp"], "draft-mtp: is not in this version"),
            (["--spec-type", "ngram-simpel"], "ngram-simpel: is no type"),
            (["--spec-ngram-simple-size-n", "0"], "1..=1024"),
            (["--spec-ngram-map-k-size-m", "1025"], "1..=1024"),
            (["--spec-ngram-map-k4v-min-hits", "0"], "1.."),
        ] {
            assert!(ways(&flags).expect_err(expected).message.contains(expected), "{flags:?}");
        }
    }
}
