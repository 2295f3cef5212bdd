//! The conversation as a value: what was said, what goes to the model, what undo and regenerate take away. Pure.

use crate::pipeline::Applied;
use crate::prompt::{Message, Role};

/// A message and the adapters it was written under.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// What was said.
    pub message: Message,
    /// For an answer: its adapters.
    pub adapters: Vec<Worn>,
}

/// An adapter of an answer, as a saved conversation names it.
#[derive(Clone, Debug, PartialEq)]
pub struct Worn {
    /// For people.
    pub name: String,
    /// All hexadecimal digits of its content's digest.
    pub digest: String,
    /// Its weight.
    pub scale: f32,
}

impl From<&Applied> for Worn {
    fn from(a: &Applied) -> Self {
        Self { name: a.name.clone(), digest: a.digest.to_hex(), scale: a.scale }
    }
}

/// A conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// Instructions for the whole conversation.
    pub system: Option<String>,
    turns: Vec<Turn>,
    attached: Vec<String>,
}

impl Session {
    /// A conversation of these turns.
    pub fn of(system: Option<String>, turns: Vec<Turn>) -> Self {
        Self { system, turns, attached: Vec::new() }
    }

    /// What was said, oldest first, without the system message.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Messages of the user.
    pub fn questions(&self) -> usize {
        self.turns.iter().filter(|t| is_question(t)).count()
    }

    /// What the model reads.
    pub fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new(Role::System, text.as_str()));
        system.chain(self.turns.iter().map(|t| t.message.clone())).collect()
    }

    /// What the model would read of the last question alone.
    pub fn last_alone(&self) -> Vec<Message> {
        let mut alone = Self { system: self.system.clone(), ..Self::default() };
        alone.turns.extend(self.turns.iter().rfind(|t| is_question(t)).cloned());
        alone.messages()
    }

    /// Keeps a text for the next message.
    pub fn attach(&mut self, text: String) {
        self.attached.push(text);
    }

    /// The user says something; what was attached follows it, as content follows the instruction in `smoa run`.
    pub fn ask(&mut self, text: &str) {
        let attached = std::mem::take(&mut self.attached);
        let content = std::iter::once(text.to_string()).chain(attached).collect::<Vec<_>>().join("\n\n");
        self.turns.push(Turn { message: Message::new(Role::User, content), adapters: Vec::new() });
    }

    /// The model has answered.
    pub fn answer(&mut self, text: &str, adapters: &[Applied]) {
        let adapters = adapters.iter().map(Worn::from).collect();
        self.turns.push(Turn { message: Message::new(Role::Assistant, text), adapters });
    }

    /// Takes away what follows the last question, so that it can be answered again. `None` without a question.
    pub fn reopen(&mut self) -> Option<Vec<Turn>> {
        let at = self.turns.iter().rposition(is_question)?;
        Some(self.turns.split_off(at + 1))
    }

    /// Puts back what [`Session::reopen`] took away.
    pub fn restore(&mut self, turns: Vec<Turn>) {
        self.turns.extend(turns);
    }

    /// Forgets the last question and all that follows it; gives the question's text.
    pub fn undo(&mut self) -> Option<String> {
        let at = self.turns.iter().rposition(is_question)?;
        self.turns.drain(at..).next().map(|turn| turn.message.content)
    }

    /// Forgets what was said and attached; the system message stays.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.attached.clear();
    }
}

fn is_question(turn: &Turn) -> bool {
    turn.message.role == Role::User
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(session: &Session) -> Vec<String> {
        session.messages().into_iter().map(|m| format!("{}:{}", m.role, m.content)).collect()
    }

    fn talk() -> Session {
        let mut s = Session { system: Some("S".into()), ..Session::default() };
        for n in 1..=2 {
            s.ask(&format!("q{n}"));
            s.answer(&format!("a{n}"), &[]);
        }
        s
    }

    #[test]
    fn undo_forgets_exchange_by_exchange_and_then_nothing() {
        let mut s = talk();
        assert_eq!(s.undo().as_deref(), Some("q2"));
        assert_eq!(contents(&s), ["system:S", "user:q1", "assistant:a1"]);
        assert_eq!(s.undo().as_deref(), Some("q1"));
        assert_eq!(s.undo(), None);
        assert_eq!(contents(&s), ["system:S"]);
    }

    #[test]
    fn a_question_can_be_answered_again_and_the_old_answer_put_back() {
        let mut s = talk();
        let old = s.reopen().expect("a question");
        assert_eq!(contents(&s).last().map(String::as_str), Some("user:q2"));
        s.restore(old);
        assert_eq!(s, talk());
        assert_eq!(Session::default().reopen(), None);
    }

    #[test]
    fn attached_texts_follow_the_next_message_and_no_other() {
        let mut s = Session::default();
        s.attach("file one".into());
        s.attach("file two".into());
        s.ask("Compare.");
        s.ask("And?");
        assert_eq!(contents(&s), ["user:Compare.\n\nfile one\n\nfile two", "user:And?"]);
    }

    #[test]
    fn clear_keeps_the_system_message() {
        let mut s = talk();
        s.attach("x".into());
        s.clear();
        assert_eq!(s, Session { system: Some("S".into()), ..Session::default() });
        assert_eq!(contents(&Session { system: None, ..talk() })[0], "user:q1");
    }
}
