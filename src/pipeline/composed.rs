//! Requests that name compositions: mixes give way to their adapters, chains run stage after stage.

use std::cell::RefCell;

use super::Pipeline;
use super::text::read_by_router;
use super::ticket::Weighed;
use crate::adapter::AdapterDigest;
use crate::compose::{self, ComposeError, Part, Stage};
use crate::error::{Code, Failure};
use crate::grammar::Source;
use crate::prompt::Role;
use crate::request::{AdapterChoice, AdapterSource, Input, Request, Then};

/// What chosen adapters come to.
pub(super) struct Composed {
    /// Flat stages; one for a mix.
    pub stages: Vec<Stage>,
    /// Choices that are no compositions, for a mix.
    pub plain: Vec<AdapterChoice>,
    /// The compositions themselves, whose use is counted too.
    pub digests: Vec<AdapterDigest>,
    /// What the router made of those that are weighed by it.
    pub weighed: Vec<Weighed>,
}

/// A request whose compositions have given way.
pub(super) struct Flat {
    /// Of a chain, the last stage.
    pub request: Request,
    /// The compositions.
    pub composed: Vec<AdapterDigest>,
    /// What the router made of those that are weighed by it.
    pub weighed: Vec<Weighed>,
}

impl Flat {
    fn plain(request: Request) -> Self {
        Self { request, composed: Vec::new(), weighed: Vec::new() }
    }
}

impl Pipeline {
    /// What the compositions among the choices come to for a request of which the router reads `text`; none when there
    /// are none.
    ///
    /// # Errors
    /// A part is missing, a cycle, too many adapters, a chain inside a mix.
    pub(super) fn composed(&self, choices: &[AdapterChoice], text: Option<&str>) -> Result<Option<Composed>, Failure> {
        let mut found = Composed { stages: Vec::new(), plain: Vec::new(), digests: Vec::new(), weighed: Vec::new() };
        let weighed = RefCell::new(Vec::new());
        let shares = |composition: &str, parts: &[Part]| {
            let one = self.weigh(composition, parts, text);
            let shares = one.parts.iter().map(|(_, share)| *share).collect();
            weighed.borrow_mut().push(one);
            shares
        };
        for choice in choices {
            let AdapterSource::Name(name) = &choice.source else {
                found.plain.push(choice.clone());
                continue;
            };
            // A name that is not there is refused where adapters are opened, in the words of any other.
            let Ok(Some((composition, digest))) = self.shelf.composition(name) else {
                found.plain.push(choice.clone());
                continue;
            };
            let lookup = |part: &str| match self.shelf.composition(part) {
                Ok(known) => Ok(known.map(|(composition, _)| composition)),
                Err(failure) => Err(failure.message),
            };
            let stages = compose::resolve(name, &composition, &lookup, &shares).map_err(|e| refused(name, &e))?;
            if stages.len() > 1 && (choices.len() > 1 || choice.scale != 1.0) {
                return Err(refused(name, &ComposeError::Staged(name.clone())));
            }
            found.digests.push(digest);
            found.stages.extend(stages.into_iter().map(|stage| scaled(stage, choice.scale)));
        }
        found.weighed = weighed.into_inner();
        Ok((!found.digests.is_empty()).then_some(found))
    }

    /// The shares of a stage's parts by the router; equal ones where it cannot tell.
    fn weigh(&self, composition: &str, parts: &[Part], text: Option<&str>) -> Weighed {
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        let found = match text {
            None => Err("a prompt of token ids has no text to weigh them by".to_owned()),
            Some(text) if text.trim().is_empty() => Err("the request has no text to weigh them by".to_owned()),
            Some(text) => match self.shelf.shares(text, &names) {
                Ok(Some(shares)) => Ok(shares),
                Ok(None) => Err("the router knows none of them".to_owned()),
                Err(failure) => Err(failure.message),
            },
        };
        let (shares, equally) = match found {
            Ok(shares) => (shares, None),
            Err(why) => (compose::equally(composition, parts), Some(why)),
        };
        let parts = names.into_iter().map(str::to_owned).zip(shares).collect();
        Weighed { composition: composition.to_owned(), parts, equally }
    }

    /// The request that is left when its compositions have given way: of a chain, the last stage, after the others have
    /// answered. With the compositions that it used.
    ///
    /// # Errors
    /// As [`Pipeline::submit`], for any stage; a chain for a prompt of tokens.
    pub(super) fn compose(&self, request: Request) -> Result<Flat, Failure> {
        let text = read_by_router(&request.input);
        let Some(Composed { stages, plain, digests, weighed }) = self.composed(&request.adapters, text.as_deref())?
        else {
            return Ok(Flat::plain(request));
        };
        // What its card says of its answers; of several adapters, that of their own.
        let own = match request.adapters.as_slice() {
            [one] => self.shelf.default_format(&one.source).map(Source::Named),
            _ => None,
        };
        if stages.len() > 1 && digests.len() == 1 {
            let request = self.chain(request, &compose::answers(&stages).collect::<Vec<_>>())?;
            let request = Request { format: request.format.or(own), ..request };
            return Ok(Flat { request, composed: digests, weighed });
        }
        let mut request = Request { adapters: side_by_side(&plain, &stages), ..request };
        if let ([stage], true) = (stages.as_slice(), plain.is_empty()) {
            request.format = request.format.or_else(|| stage.format.clone().map(Source::Named)).or(own);
            request.input = instructed(request.input, stage.instruction.as_deref())?;
        }
        Ok(Flat { request, composed: digests, weighed })
    }

    /// Lets all but the last answer be given, each by its stages.
    fn chain(&self, request: Request, answers: &[&[Stage]]) -> Result<Request, Failure> {
        let Some((last, earlier)) = answers.split_last() else { return Ok(request) };
        let mut input = request.input.clone();
        for (at, stages) in earlier.iter().enumerate() {
            let asked = Request {
                input: input.clone(),
                format: None,
                n_probs: 0,
                special: false,
                after: None,
                ..request.clone()
            };
            let answer = self.submit(one_answer(asked, stages)?)?.wait(|_| ())?;
            if answer.text.trim().is_empty() {
                let message = format!(
                    "answer {} of {} is empty: there is nothing the next could be given",
                    at + 1,
                    answers.len()
                );
                return Err(Failure::new(Code::Other, message));
            }
            input = answered(input, answer.text);
        }
        one_answer(Request { input, ..request }, last)
    }
}

/// The request for an answer of these stages, which take over from each other at markers.
fn one_answer(request: Request, stages: &[Stage]) -> Result<Request, Failure> {
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else { return Ok(request) };
    let then = stages
        .windows(2)
        .map(|pair| Then { marker: pair[0].until.clone().unwrap_or_default(), adapters: choices(&pair[1]).collect() });
    Ok(Request {
        input: instructed(request.input, first.instruction.as_deref())?,
        adapters: choices(first).collect(),
        then: then.collect(),
        format: request.format.or_else(|| last.format.clone().map(Source::Named)),
        ..request
    })
}

/// Choices and the parts of mixes as one set; what is named several times has its weights added.
pub(super) fn side_by_side(plain: &[AdapterChoice], stages: &[Stage]) -> Vec<AdapterChoice> {
    let mut all = plain.to_vec();
    for choice in stages.iter().flat_map(choices) {
        match all.iter_mut().find(|known| known.source == choice.source) {
            Some(known) => known.scale += choice.scale,
            None => all.push(choice),
        }
    }
    all
}

pub(super) fn choices(stage: &Stage) -> impl Iterator<Item = AdapterChoice> + '_ {
    stage.parts.iter().map(|part| AdapterChoice::named(part.name.as_str(), part.weight))
}

fn scaled(mut stage: Stage, by: f32) -> Stage {
    stage.parts.iter_mut().for_each(|part| part.weight *= by);
    stage
}

/// The input with an instruction before its last user message, or before its text.
fn instructed(mut input: Input, instruction: Option<&str>) -> Result<Input, Failure> {
    let Some(instruction) = instruction else { return Ok(input) };
    match &mut input {
        Input::Chat { messages, .. } => {
            if let Some(last) = messages.iter_mut().rfind(|m| m.role == Role::User) {
                last.content = format!("{instruction}\n\n{}", last.content);
            }
        }
        Input::Raw(text) => *text = format!("{instruction}\n\n{text}"),
        Input::Tokens(_) => {
            return Err(Failure::usage("a composition with instructions needs a text; a prompt of token ids has none"));
        }
    }
    Ok(input)
}

/// The input with the answer of a stage in the place of what was asked.
fn answered(mut input: Input, answer: String) -> Input {
    match &mut input {
        Input::Chat { messages, .. } => {
            if let Some(at) = messages.iter().rposition(|m| m.role == Role::User) {
                messages.truncate(at + 1);
                messages[at].content = answer;
            }
            input
        }
        Input::Raw(_) | Input::Tokens(_) => Input::Raw(answer),
    }
}

fn refused(name: &str, e: &ComposeError) -> Failure {
    let code = match e {
        ComposeError::Lookup(_) => Code::NotFound,
        ComposeError::File(_) => Code::InvalidFile,
        _ => Code::Usage,
    };
    Failure::new(code, format!("composition '{name}': {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Message;

    #[test]
    fn a_stage_is_given_the_answer_of_the_one_before() {
        let chat = Input::chat(vec![
            Message::new(Role::System, "S"),
            Message::new(Role::User, "Q"),
            Message::new(Role::Assistant, "begun"),
        ]);
        let contents = |input: Input| match input {
            Input::Chat { messages, .. } => messages.into_iter().map(|m| m.content).collect::<Vec<_>>(),
            Input::Raw(text) => vec![text],
            Input::Tokens(_) => Vec::new(),
        };
        assert_eq!(contents(instructed(chat.clone(), Some("I")).expect("text")), ["S", "I\n\nQ", "begun"]);
        assert_eq!(contents(answered(chat, "A".into())), ["S", "A"]);
        assert_eq!(contents(answered(Input::Raw("Q".into()), "A".into())), ["A"]);
        assert!(instructed(Input::Tokens(vec![1]), Some("I")).is_err());
        assert_eq!(instructed(Input::Tokens(vec![1]), None), Ok(Input::Tokens(vec![1])));
    }

    #[test]
    fn stages_of_one_answer_become_one_request() {
        let stage = |name: &str, until: Option<&str>| Stage {
            parts: vec![Part { name: name.to_owned(), weight: 1.0 }],
            until: until.map(str::to_owned),
            ..Stage::default()
        };
        let mut stages = [stage("a", Some("!")), stage("b", Some("?")), stage("c", None)];
        stages[0].instruction = Some("I".into());
        stages[2].format = Some("yes-no".into());
        let request = one_answer(Request::new(Input::Raw("Q".into())), &stages).expect("made");
        assert_eq!(
            (request.input, request.adapters),
            (Input::Raw("I\n\nQ".into()), vec![AdapterChoice::named("a", 1.0)])
        );
        let then = |marker: &str, name| Then { marker: marker.into(), adapters: vec![AdapterChoice::named(name, 1.0)] };
        assert_eq!(request.then, [then("!", "b"), then("?", "c")]);
        assert_eq!(request.format, Some(Source::Named("yes-no".into())));
        let asked = Request { format: Some(Source::Named("none".into())), ..Request::new(Input::Raw("Q".into())) };
        assert_eq!(one_answer(asked, &stages).expect("made").format, Some(Source::Named("none".into())), "its own");
    }

    #[test]
    fn what_is_named_twice_has_its_weights_added() {
        let part = |name: &str, weight| crate::compose::Part { name: name.to_owned(), weight };
        let stages = [vec![part("a", 0.5), part("b", 1.0)], vec![part("b", 0.25)]];
        let stages = stages.map(|parts| Stage { parts, ..Stage::default() });
        let plain = [AdapterChoice::named("c", 1.0), AdapterChoice::named("a", 2.0)];
        let all = side_by_side(&plain, &stages);
        let wanted = [("c", 1.0), ("a", 2.5), ("b", 1.25)].map(|(name, weight)| AdapterChoice::named(name, weight));
        assert_eq!(all, wanted);
    }
}
