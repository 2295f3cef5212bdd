//! How the next token is chosen from logits, as plain checked numbers.
//!
//! Names, defaults and order are llama.cpp's (`common_params_sampling` in `common/common.h`), so that a request
//! means here what it means to `llama-server`. Pure: no engine, no vocabulary.

/// One step of the sampler chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SamplerKind {
    /// Repeat, frequency and presence penalties.
    Penalties,
    /// "Don't repeat yourself" penalty on repeated sequences.
    Dry,
    /// Keeps tokens within n standard deviations of the best logit.
    TopNSigma,
    /// Keeps the k best.
    TopK,
    /// Locally typical sampling.
    TypicalP,
    /// Nucleus sampling.
    TopP,
    /// Keeps tokens at least `min_p` times as likely as the best.
    MinP,
    /// Excludes top choices.
    Xtc,
    /// Temperature, fixed or dynamic.
    Temperature,
    /// Adaptive-p: draws tokens near a wanted probability. Wherever it stands, it is the last step.
    AdaptiveP,
}

impl SamplerKind {
    /// llama.cpp's default chain.
    pub const DEFAULT_ORDER: [SamplerKind; 9] = [
        SamplerKind::Penalties,
        SamplerKind::Dry,
        SamplerKind::TopNSigma,
        SamplerKind::TopK,
        SamplerKind::TypicalP,
        SamplerKind::TopP,
        SamplerKind::MinP,
        SamplerKind::Xtc,
        SamplerKind::Temperature,
    ];

    /// llama.cpp's name of the step.
    pub const fn name(self) -> &'static str {
        match self {
            SamplerKind::Penalties => "penalties",
            SamplerKind::Dry => "dry",
            SamplerKind::TopNSigma => "top_n_sigma",
            SamplerKind::TopK => "top_k",
            SamplerKind::TypicalP => "typ_p",
            SamplerKind::TopP => "top_p",
            SamplerKind::MinP => "min_p",
            SamplerKind::Xtc => "xtc",
            SamplerKind::Temperature => "temperature",
            SamplerKind::AdaptiveP => "adaptive_p",
        }
    }

    /// llama.cpp's letter of the step (`--sampler-seq`).
    pub const fn letter(self) -> char {
        match self {
            SamplerKind::Penalties => 'e',
            SamplerKind::Dry => 'd',
            SamplerKind::TopNSigma => 's',
            SamplerKind::TopK => 'k',
            SamplerKind::TypicalP => 'y',
            SamplerKind::TopP => 'p',
            SamplerKind::MinP => 'm',
            SamplerKind::Xtc => 'x',
            SamplerKind::Temperature => 't',
            SamplerKind::AdaptiveP => 'a',
        }
    }

    /// Finds a step by name; the spellings llama.cpp accepts (`top-k`, `typical_p`, `temp`) are all known.
    pub fn by_name(name: &str) -> Option<Self> {
        let name = name.trim().replace('-', "_");
        match name.as_str() {
            "typical_p" | "typical" | "typ" => Some(SamplerKind::TypicalP),
            "temp" => Some(SamplerKind::Temperature),
            "nucleus" => Some(SamplerKind::TopP),
            "top_nsigma" => Some(SamplerKind::TopNSigma),
            "adaptive_p" => Some(SamplerKind::AdaptiveP),
            other => Self::DEFAULT_ORDER.into_iter().find(|k| k.name() == other),
        }
    }

    /// Finds a step by letter.
    pub fn by_letter(letter: char) -> Option<Self> {
        Self::DEFAULT_ORDER.into_iter().chain([SamplerKind::AdaptiveP]).find(|k| k.letter() == letter)
    }
}

/// Which mirostat algorithm replaces the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mirostat {
    /// None: the chain decides.
    #[default]
    Off,
    /// Mirostat 1 (<https://arxiv.org/abs/2007.14966>).
    V1,
    /// Mirostat 2.0.
    V2,
}

/// A change to one token's logit, before anything else.
#[derive(Clone, Debug, PartialEq)]
pub struct LogitBias {
    /// The token, or a text every token of which is meant.
    pub target: BiasTarget,
    /// Added to the logit; minus infinity forbids.
    pub bias: f32,
}

/// What a logit bias applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BiasTarget {
    /// A token id.
    Token(u32),
    /// A text; it is tokenized and each of its tokens is biased, as llama-server does.
    Text(String),
}

/// All numbers of one request's sampling. Defaults are llama-server's.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Random seed; `None` draws one.
    pub seed: Option<u32>,
    /// 0 or less: greedy. Default 0.8.
    pub temperature: f32,
    /// Dynamic temperature: half width of the range. 0 disables.
    pub dynatemp_range: f32,
    /// Dynamic temperature: how entropy maps to temperature. Default 1.
    pub dynatemp_exponent: f32,
    /// Keep the k best tokens; 0 or less keeps all. Default 40.
    pub top_k: i32,
    /// Nucleus mass; 1 disables. Default 0.95.
    pub top_p: f32,
    /// Least probability relative to the best; 0 disables. Default 0.05.
    pub min_p: f32,
    /// Locally typical mass; 1 disables.
    pub typical_p: f32,
    /// Standard deviations below the best logit; below 0 disables. Default -1.
    pub top_n_sigma: f32,
    /// Chance that XTC removes top choices; 0 disables.
    pub xtc_probability: f32,
    /// XTC's threshold. Default 0.1.
    pub xtc_threshold: f32,
    /// Least number of tokens the truncating samplers keep.
    pub min_keep: usize,
    /// Tokens looked back at by the penalties; 0 disables, -1 means the context. Default 64.
    pub repeat_last_n: i32,
    /// Divides the logit of seen tokens; 1 disables.
    pub repeat_penalty: f32,
    /// Subtracted per occurrence.
    pub frequency_penalty: f32,
    /// Subtracted once.
    pub presence_penalty: f32,
    /// DRY strength; 0 disables.
    pub dry_multiplier: f32,
    /// DRY base. Default 1.75.
    pub dry_base: f32,
    /// Repetitions up to this many tokens are free. Default 2.
    pub dry_allowed_length: i32,
    /// Tokens DRY scans; 0 disables, -1 means the context. Default 64.
    pub dry_penalty_last_n: i32,
    /// Texts that break a repetition. Default `\n`, `:`, `"`, `*`.
    pub dry_sequence_breakers: Vec<String>,
    /// Mirostat version.
    pub mirostat: Mirostat,
    /// Mirostat target entropy. Default 5.
    pub mirostat_tau: f32,
    /// Mirostat learning rate. Default 0.1.
    pub mirostat_eta: f32,
    /// Adaptive-p: tokens near this probability are drawn; below 0 any. Only where the chain has that step.
    pub adaptive_target: f32,
    /// Adaptive-p: how long what was drawn counts, from 0 to 0.99. Default 0.9.
    pub adaptive_decay: f32,
    /// Logit biases.
    pub logit_bias: Vec<LogitBias>,
    /// Never choose an end-of-generation token.
    pub ignore_eos: bool,
    /// The chain's order.
    pub order: Vec<SamplerKind>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            seed: None,
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            min_keep: 0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: 64,
            dry_sequence_breakers: ["\n", ":", "\"", "*"].map(String::from).to_vec(),
            mirostat: Mirostat::Off,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            adaptive_target: -1.0,
            adaptive_decay: 0.9,
            logit_bias: Vec::new(),
            ignore_eos: false,
            order: SamplerKind::DEFAULT_ORDER.to_vec(),
        }
    }
}

/// A sampling number that is out of range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field} must be {expected}, not {value}")]
pub struct SamplingError {
    /// llama-server's name of the field.
    pub field: &'static str,
    /// What would be right.
    pub expected: &'static str,
    /// What was given.
    pub value: String,
}

impl Sampling {
    /// Whether the choice is the best logit and nothing random.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 && self.mirostat == Mirostat::Off
    }

    /// Whether the last step draws near a wanted probability.
    pub fn is_adaptive(&self) -> bool {
        self.adaptive_target >= 0.0 && self.mirostat == Mirostat::Off && self.order.contains(&SamplerKind::AdaptiveP)
    }

    /// Whether the best raw logit IS the choice: greedy, and no step changes which logit is best.
    ///
    /// Truncating steps always keep the best token; penalties, DRY and XTC may not.
    pub fn is_plain_greedy(&self) -> bool {
        self.is_greedy()
            && self.logit_bias.is_empty()
            && self.dry_multiplier == 0.0
            && self.xtc_probability <= 0.0
            && (self.repeat_last_n == 0
                || (self.repeat_penalty == 1.0 && self.frequency_penalty == 0.0 && self.presence_penalty == 0.0))
    }

    /// Whether tokens that are forbidden may be left out after the draw as well as before it, see
    /// `grammar::policy::Order`: nothing truncates the distribution and nothing depends on all of it.
    /// A greedy choice is such a one too, unless XTC may remove the best token.
    pub fn commutes_with_masks(&self) -> bool {
        let draws_from_all = self.mirostat == Mirostat::Off
            && !self.is_adaptive()
            && self.top_k <= 0
            && self.top_p >= 1.0
            && self.min_p <= 0.0
            && self.typical_p >= 1.0
            && self.top_n_sigma <= 0.0
            && self.dynatemp_range <= 0.0;
        self.xtc_probability <= 0.0 && (self.is_greedy() || draws_from_all)
    }

    /// Checks every number, so that no llama.cpp sampler ever meets a NaN, an infinity or a huge size.
    ///
    /// # Errors
    /// The first field that is out of range, with its value.
    pub fn validate(&self) -> Result<(), SamplingError> {
        let check = |field, value: f32, ok: bool, expected| {
            if ok && value.is_finite() {
                Ok(())
            } else {
                Err(SamplingError { field, expected, value: value.to_string() })
            }
        };
        let t = self.temperature;
        check("temperature", t, t <= 1000.0, "a finite number up to 1000")?;
        let r = self.dynatemp_range;
        check("dynatemp_range", r, (0.0..=1000.0).contains(&r), "from 0 to 1000")?;
        let e = self.dynatemp_exponent;
        check("dynatemp_exponent", e, (0.0..=1000.0).contains(&e), "from 0 to 1000")?;
        for (field, v) in [
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("typical_p", self.typical_p),
            ("xtc_probability", self.xtc_probability),
            ("xtc_threshold", self.xtc_threshold),
        ] {
            check(field, v, (0.0..=1.0).contains(&v), "from 0 to 1")?;
        }
        check("top_n_sigma", self.top_n_sigma, self.top_n_sigma <= 1000.0, "a finite number up to 1000")?;
        let p = self.repeat_penalty;
        check("repeat_penalty", p, p > 1e-6 && p <= 1000.0, "above 0 and up to 1000")?;
        for (field, v) in [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)] {
            check(field, v, v.abs() <= 1000.0, "from -1000 to 1000")?;
        }
        check("dry_multiplier", self.dry_multiplier, (0.0..=1000.0).contains(&self.dry_multiplier), "from 0 to 1000")?;
        check("dry_base", self.dry_base, (0.0..=1000.0).contains(&self.dry_base), "from 0 to 1000")?;
        check("mirostat_tau", self.mirostat_tau, (0.0..=1000.0).contains(&self.mirostat_tau), "from 0 to 1000")?;
        check("mirostat_eta", self.mirostat_eta, (0.0..=1000.0).contains(&self.mirostat_eta), "from 0 to 1000")?;
        check("adaptive_target", self.adaptive_target, self.adaptive_target <= 1.0, "below 0 (off), or from 0 to 1")?;
        let d = self.adaptive_decay;
        check("adaptive_decay", d, (0.0..=0.99).contains(&d), "from 0 to 0.99")?;
        if self.adaptive_target >= 0.0 && !self.is_adaptive() {
            let expected = "left out, or have adaptive_p among the samplers and no mirostat";
            return Err(SamplingError { field: "adaptive_target", expected, value: self.adaptive_target.to_string() });
        }
        let range = |field, value: i64, low: i64, high: i64, expected| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(SamplingError { field, expected, value: value.to_string() })
            }
        };
        const LAST_N: i64 = 1 << 20;
        range("repeat_last_n", self.repeat_last_n.into(), -1, LAST_N, "from -1 to 1048576")?;
        range("dry_penalty_last_n", self.dry_penalty_last_n.into(), -1, LAST_N, "from -1 to 1048576")?;
        range("dry_allowed_length", self.dry_allowed_length.into(), 0, LAST_N, "from 0 to 1048576")?;
        range("min_keep", i64::try_from(self.min_keep).unwrap_or(i64::MAX), 0, LAST_N, "from 0 to 1048576")?;
        if let Some(bad) = self.dry_sequence_breakers.iter().find(|b| b.contains('\0') || b.len() > 256) {
            let value = format!("{:?}", bad.chars().take(20).collect::<String>());
            return Err(SamplingError {
                field: "dry_sequence_breakers",
                expected: "up to 256 bytes without NUL",
                value,
            });
        }
        if self.dry_sequence_breakers.len() > 64 {
            let value = self.dry_sequence_breakers.len().to_string();
            return Err(SamplingError { field: "dry_sequence_breakers", expected: "at most 64 texts", value });
        }
        if let Some(bad) = self.logit_bias.iter().find(|b| b.bias.is_nan() || b.bias == f32::INFINITY) {
            let value = bad.bias.to_string();
            return Err(SamplingError { field: "logit_bias", expected: "a number or false", value });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_not_greedy() {
        let s = Sampling::default();
        assert_eq!(s.validate(), Ok(()));
        assert!(!s.is_greedy());
        assert!(Sampling { temperature: 0.0, ..s.clone() }.is_plain_greedy());
        assert!(!Sampling { temperature: 0.0, repeat_penalty: 1.1, ..s }.is_plain_greedy());
    }

    #[test]
    fn numbers_out_of_range_name_their_field() {
        let base = Sampling::default;
        let cases: Vec<(Sampling, &str)> = vec![
            (Sampling { temperature: f32::NAN, ..base() }, "temperature"),
            (Sampling { temperature: f32::INFINITY, ..base() }, "temperature"),
            (Sampling { top_p: 1.5, ..base() }, "top_p"),
            (Sampling { min_p: -0.1, ..base() }, "min_p"),
            (Sampling { repeat_penalty: 0.0, ..base() }, "repeat_penalty"),
            (Sampling { frequency_penalty: f32::NEG_INFINITY, ..base() }, "frequency_penalty"),
            (Sampling { repeat_last_n: -2, ..base() }, "repeat_last_n"),
            (Sampling { dry_penalty_last_n: i32::MAX, ..base() }, "dry_penalty_last_n"),
            (Sampling { mirostat_eta: f32::NAN, ..base() }, "mirostat_eta"),
            (Sampling { adaptive_target: 0.5, ..base() }, "adaptive_target"),
            (Sampling { adaptive_decay: 1.0, ..base() }, "adaptive_decay"),
            (Sampling { dry_sequence_breakers: vec!["a\0".into()], ..base() }, "dry_sequence_breakers"),
            (
                Sampling { logit_bias: vec![LogitBias { target: BiasTarget::Token(1), bias: f32::NAN }], ..base() },
                "logit_bias",
            ),
        ];
        for (sampling, field) in cases {
            assert_eq!(sampling.validate().expect_err(field).field, field);
        }
    }

    #[test]
    fn sampler_names_and_letters_are_llama_cpp_s() {
        for kind in SamplerKind::DEFAULT_ORDER.into_iter().chain([SamplerKind::AdaptiveP]) {
            assert_eq!(SamplerKind::by_name(kind.name()), Some(kind));
            assert_eq!(SamplerKind::by_letter(kind.letter()), Some(kind));
        }
        assert_eq!(SamplerKind::by_name("top-k"), Some(SamplerKind::TopK));
        assert_eq!(SamplerKind::by_name("nonsense"), None);
        let letters: String = SamplerKind::DEFAULT_ORDER.iter().map(|k| k.letter()).collect();
        assert_eq!(letters, "edskypmxt");
    }
}
