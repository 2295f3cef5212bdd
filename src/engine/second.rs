//! Whether the tokens of a second model mean what those of the first one do.

use super::{Token, Tokenizer};
use crate::gguf::TokenizerFacts;

/// Ids below this one may differ: what stands there is control tokens that models name as they like.
const FIRST: Token = 5;
/// Tokens that one of two vocabularies may have more than the other.
const MORE: u32 = 128;

/// What keeps a second model from guessing for a first one, as llama-server judges it; `None` when nothing does.
pub fn misfit(
    (first, first_tokens): (&TokenizerFacts, &dyn Tokenizer),
    (second, second_tokens): (&TokenizerFacts, &dyn Tokenizer),
) -> Option<String> {
    let named = |id: Option<u32>, used: bool| id.filter(|_| used);
    if first.model != second.model {
        return Some(format!("its tokenizer is '{}', the model's '{}'", second.model, first.model));
    }
    for (what, a, b) in [
        ("first token of a text", named(first.bos, first.add_bos), named(second.bos, second.add_bos)),
        ("last token of a text", named(first.eos, first.add_eos), named(second.eos, second.add_eos)),
    ] {
        if a != b {
            let shown = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
            return Some(format!("its {what} is {}, the model's {}", shown(b), shown(a)));
        }
    }
    if first.n_vocab.abs_diff(second.n_vocab) > MORE {
        return Some(format!("it has {} tokens, the model {}", second.n_vocab, first.n_vocab));
    }
    let (a, b) = (first_tokens.vocabulary(), second_tokens.vocabulary());
    let other = (FIRST..first.n_vocab.min(second.n_vocab)).find(|id| a.piece(*id) != b.piece(*id))?;
    let shown = |tokens: &dyn Tokenizer| tokens.spelling(other);
    Some(format!("its token {other} is {:?}, the model's {:?}", shown(second_tokens), shown(first_tokens)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::Engine;
    use crate::engine::fake::FakeEngine;
    use crate::grammar::Vocabulary;
    use crate::prompt::Prompt;

    /// The fake's tokens with one in another place.
    struct Moved(Arc<dyn Tokenizer>);

    impl Tokenizer for Moved {
        fn tokenize(&self, prompt: &Prompt, add_special: bool) -> Vec<Token> {
            self.0.tokenize(prompt, add_special)
        }

        fn piece(&self, token: Token) -> Vec<u8> {
            if token == 65 { b"AA".to_vec() } else { self.0.piece(token) }
        }

        fn spelling(&self, token: Token) -> String {
            String::from_utf8_lossy(&self.piece(token)).into_owned()
        }

        fn is_end(&self, token: Token) -> bool {
            self.0.is_end(token)
        }

        fn vocabulary(&self) -> Arc<Vocabulary> {
            let all = 0..self.0.vocabulary().len() as Token;
            Arc::new(Vocabulary::new(
                all.clone().map(|t| self.piece(t)).collect(),
                all.map(|_| false).collect(),
                vec![256],
            ))
        }

        fn control_texts(&self) -> &[String] {
            &[]
        }
    }

    #[test]
    fn what_differs_is_said() {
        let tokens = FakeEngine::new(16, 1).tokenizer();
        let facts = TokenizerFacts {
            model: "gpt2".into(),
            pre: None,
            n_vocab: 257,
            bos: Some(1),
            eos: Some(2),
            eot: None,
            add_bos: false,
            add_eos: false,
            unknown_merges: 0,
        };
        let says = |other: TokenizerFacts| misfit((&facts, &*tokens), (&other, &*tokens));
        let with = |change: fn(&mut TokenizerFacts)| {
            let mut other = facts.clone();
            change(&mut other);
            says(other)
        };
        assert_eq!(with(|f| (f.bos, f.pre) = (Some(9), Some("x".into()))), None, "nothing that is used differs");
        assert_eq!(with(|f| f.n_vocab = 300), None, "a few more tokens do no harm");
        for (change, expected) in [
            ((|f| f.model = "llama".into()) as fn(&mut TokenizerFacts), "its tokenizer is 'llama', the model's 'gpt2'"),
            (|f| f.add_bos = true, "its first token of a text is 1, the model's none"),
            (|f| f.add_eos = true, "its last token of a text is 2, the model's none"),
            (|f| f.n_vocab = 1000, "it has 1000 tokens, the model 257"),
        ] {
            assert_eq!(with(change).as_deref(), Some(expected));
        }
        let moved = misfit((&facts, &*tokens), (&facts, &Moved(tokens.clone())));
        assert_eq!(moved.as_deref(), Some("its token 65 is \"AA\", the model's \"A\""));
    }
}
