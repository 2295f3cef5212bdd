//! What the kinds of a request's adapters do to its prompt: messages in front, rows in front, and where they begin to act.
//!
//! Pure. Low-rank adapters and gains act at every position; a soft prompt takes the first positions; a prefix puts its
//! messages before the conversation; an activated LoRA acts from its invocation tokens on.

use std::sync::Arc;

use crate::adapter::{AdapterFile, AdapterSet, Scale, SetError, Timeline};
use crate::engine::{Token, VIRTUAL};
use crate::error::{Code, Failure};
use crate::gguf::{AdapterKind, PrefixState};
use crate::prompt::{Message, Role};
use crate::request::Input;

/// An adapter of a request with its weight.
pub type Chosen = (Arc<AdapterFile>, Scale);

/// Puts the messages of prefixes before those of the request. A system message of the request takes the place of the
/// prefix's; of several prefixes the first with a system message gives it.
///
/// # Errors
/// There is a prefix and the request is not a conversation.
pub fn with_prefixes(input: Input, adapters: &[Chosen]) -> Result<Input, Failure> {
    let mut system: Option<Message> = None;
    let mut examples: Vec<Message> = Vec::new();
    for (file, _) in adapters.iter().filter(|(file, _)| is_prefix(file)) {
        let invalid =
            |e: &dyn std::fmt::Display| Failure::new(Code::InvalidFile, format!("adapter '{}': {e}", file.label()));
        for message in PrefixState::read(file.bytes()).map_err(|e| invalid(&e))?.messages {
            let role: Role = message.role.parse().map_err(|e| invalid(&e))?;
            match role {
                Role::System => _ = system.get_or_insert_with(|| Message::new(role, message.content)),
                _ => examples.push(Message::new(role, message.content)),
            }
        }
    }
    if system.is_none() && examples.is_empty() {
        return Ok(input);
    }
    match input {
        Input::Chat { messages, tools, kwargs } => {
            let own = messages.first().filter(|m| m.role == Role::System).cloned();
            let rest = messages.into_iter().skip(usize::from(own.is_some()));
            let messages = own.or(system).into_iter().chain(examples).chain(rest).collect();
            Ok(Input::Chat { messages, tools, kwargs })
        }
        Input::Raw(_) | Input::Tokens(_) => {
            let names: Vec<String> = adapters.iter().filter(|(f, _)| is_prefix(f)).map(|(f, _)| f.label()).collect();
            let message = format!(
                "adapter '{}' is a prefix of messages and needs a conversation: give `messages`, or \"chat\": true, not raw text",
                names.join("', '")
            );
            Err(Failure::usage(message))
        }
    }
}

/// Puts the rows of soft prompts before the tokens, and says which set applies where, with a line for the user about
/// each activated LoRA that stays off.
///
/// # Errors
/// The set is refused, or two activated LoRAs begin at different places.
pub fn timeline(adapters: &[Chosen], prompt: &mut Vec<Token>) -> Result<(Timeline, Vec<String>), Failure> {
    let refused = |e: SetError| Failure::usage(e.to_string());
    let members = |keep: &dyn Fn(&AdapterFile) -> bool| {
        let kept = adapters.iter().filter(|(file, _)| !is_prefix(file) && keep(file));
        AdapterSet::new(kept.map(|(file, scale)| (file.digest(), *scale)).collect()).map_err(refused)
    };
    let all = members(&|_| true)?;
    let soft = adapters.iter().filter_map(|(file, scale)| match file.facts().kind {
        AdapterKind::SoftPrompt { tokens } if scale.get() != 0.0 => Some(tokens),
        _ => None,
    });
    let rows: Token = soft.sum();
    prompt.splice(0..0, (0..rows).map(|row| VIRTUAL + row));

    let mut from: Option<usize> = None;
    let mut warnings = Vec::new();
    for (file, _) in adapters.iter().filter(|(file, _)| is_activated(file)) {
        let invocation = &file.facts().invocation_tokens;
        let found = prompt.windows(invocation.len()).rposition(|window| window == invocation.as_slice());
        if found.is_none() {
            warnings
                .push(format!("adapter '{}': its invocation tokens are not in the prompt; it stays off", file.label()));
        }
        let at = found.unwrap_or(usize::MAX);
        if from.is_some_and(|from| from != at) {
            return Err(Failure::usage("two activated LoRAs of one request begin at different places"));
        }
        from = Some(at);
    }
    let Some(from) = from else { return Ok((Timeline::always(all), warnings)) };
    Ok((Timeline::switching(members(&|file| !is_activated(file))?, from, all), warnings))
}

/// The set that takes over inside an answer. All of it applies from there on, an activated LoRA too.
///
/// # Errors
/// The set is refused, or one of the adapters stands before the prompt.
pub fn later(adapters: &[Chosen]) -> Result<AdapterSet, Failure> {
    let before = |file: &AdapterFile| is_prefix(file) || matches!(file.facts().kind, AdapterKind::SoftPrompt { .. });
    if let Some((file, _)) = adapters.iter().find(|(file, _)| before(file)) {
        let message = format!(
            "adapter '{}' stands before the prompt and cannot take over inside an answer: put it into the first stage",
            file.label()
        );
        return Err(Failure::usage(message));
    }
    let members = adapters.iter().map(|(file, scale)| (file.digest(), *scale)).collect();
    AdapterSet::new(members).map_err(|e| Failure::usage(e.to_string()))
}

/// Whether one of the adapters puts messages before the conversation.
pub fn have_prefixes(adapters: &[Chosen]) -> bool {
    adapters.iter().any(|(file, _)| is_prefix(file))
}

/// Whether an adapter is a prefix of messages.
pub fn is_prefix(file: &AdapterFile) -> bool {
    matches!(file.facts().kind, AdapterKind::PrefixState { .. })
}

fn is_activated(file: &AdapterFile) -> bool {
    file.facts().kind == AdapterKind::Alora
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::adapter::{AdapterDigest, HeldBytes};
    use crate::gguf::tests::sample::{facts, model};
    use crate::gguf::{GgufWriter, PrefixMessage, SoftPrompt, TensorType};

    struct Held(Vec<u8>);

    impl HeldBytes for Held {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    fn chosen(name: &str, bytes: Vec<u8>) -> Chosen {
        let digest = AdapterDigest::of(&bytes);
        let file = AdapterFile::new(Path::new(name), Box::new(Held(bytes)), digest, &facts(&model()));
        (Arc::new(file.expect("sound")), Scale::ONE)
    }

    fn lora(invocation: &[u32]) -> Vec<u8> {
        let mut writer = GgufWriter::new();
        writer.set("general.type", "adapter").expect("set").set("adapter.type", "lora").expect("set");
        writer.set("general.architecture", "llama").expect("set").set("adapter.lora.alpha", 1.0f32).expect("set");
        if !invocation.is_empty() {
            writer.set("adapter.alora.invocation_tokens", invocation).expect("set");
        }
        let half = 1.0f32.to_le_bytes().repeat(8);
        writer.tensor("blk.0.attn_q.weight.lora_a", TensorType::F32, &[8, 1], half.clone()).expect("added");
        writer.tensor("blk.0.attn_q.weight.lora_b", TensorType::F32, &[1, 8], half).expect("added");
        writer.to_bytes()
    }

    fn prefix(messages: &[(&str, &str)]) -> Vec<u8> {
        let message =
            |(role, content): &(&str, &str)| PrefixMessage { role: (*role).into(), content: (*content).into() };
        let state = PrefixState {
            architecture: "llama".into(),
            name: None,
            base: None,
            messages: messages.iter().map(message).collect(),
            stamp: None,
            tokens: Vec::new(),
            state: Vec::new().into(),
        };
        state.to_gguf().expect("written")
    }

    #[test]
    fn a_prefix_stands_between_the_system_message_and_the_question() {
        let p = chosen("p", prefix(&[("system", "be short"), ("user", "2+2"), ("assistant", "4")]));
        let ask = |messages: &[(Role, &str)]| {
            let messages = messages.iter().map(|(role, text)| Message::new(*role, *text)).collect();
            let Input::Chat { messages, .. } =
                with_prefixes(Input::chat(messages), std::slice::from_ref(&p)).expect("fits")
            else {
                panic!("a conversation")
            };
            messages.into_iter().map(|m| m.content).collect::<Vec<_>>()
        };
        assert_eq!(ask(&[(Role::User, "3+3")]), ["be short", "2+2", "4", "3+3"]);
        assert_eq!(ask(&[(Role::System, "mine"), (Role::User, "3+3")]), ["mine", "2+2", "4", "3+3"]);
        assert!(with_prefixes(Input::Raw("3+3".into()), std::slice::from_ref(&p)).is_err(), "raw text has no messages");
        let (timeline, _) = timeline(&[p], &mut vec![1, 2]).expect("a set");
        assert_eq!(timeline, Timeline::default(), "it is text: the base's cache serves it");
    }

    #[test]
    fn an_activated_lora_begins_at_its_last_invocation() {
        let plain = chosen("plain", lora(&[]));
        let late = chosen("late", lora(&[5, 6]));
        let both = [plain.clone(), late.clone()];
        let (found, warnings) = timeline(&both, &mut vec![5, 6, 1, 5, 6, 2]).expect("a set");
        assert_eq!((found.at(2).members().len(), found.run(0), warnings.len()), (1, 3, 0));
        assert_eq!(found.at(3).members().len(), 2);
        let (found, warnings) = timeline(&both, &mut vec![1, 2, 3]).expect("a set");
        assert_eq!(found.at(1_000_000).members().len(), 1, "never called");
        assert!(warnings[0].contains("'late'"), "{warnings:?}");
        let other = chosen("other", lora(&[1]));
        assert!(timeline(&[late, other], &mut vec![5, 6, 1]).is_err());
    }

    #[test]
    fn a_soft_prompt_takes_the_first_positions() {
        let rows = [0.5; 3 * 8];
        let writer = SoftPrompt { architecture: "llama", name: None, n_embd: 8, rows: &rows, halves: false };
        let soft = chosen("soft", writer.to_gguf().expect("written").to_bytes());
        let late = chosen("late", lora(&[5]));
        let mut prompt = vec![1, 5, 2];
        assert!(
            later(std::slice::from_ref(&soft)).is_err() && later(&[chosen("p", prefix(&[("user", "2+2")]))]).is_err()
        );
        assert_eq!(later(std::slice::from_ref(&late)).expect("a set").members().len(), 1);
        let (found, _) = timeline(&[soft, late], &mut prompt).expect("a set");
        assert_eq!(prompt, [VIRTUAL, VIRTUAL + 1, VIRTUAL + 2, 1, 5, 2]);
        assert_eq!(found.run(0), 4, "positions count the rows");
    }
}
