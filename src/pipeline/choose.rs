//! A request's adapters: chosen, by the router where it is asked to, opened, checked and held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::composed::{Flat, choices, side_by_side};
use super::text::read_by_router;
use super::ticket::Weighed;
use super::{Applied, Pipeline};
use crate::adapter::AdapterDigest;
use crate::compose::{self, Stage};
use crate::engine::Token;
use crate::error::{Code, Failure};
use crate::grammar::Source;
use crate::lease::{self, Chosen};
use crate::request::{AdapterChoice, Input, Request, Then, ValidRequest};
use crate::router::Route;
use crate::routing::Ask;

/// A request with its adapters held.
pub(super) struct Choice {
    pub request: ValidRequest,
    /// Those at the beginning, then those of each change; never empty.
    pub stages: Vec<Vec<Chosen>>,
    /// How they were chosen, when the router chose them.
    pub route: Option<Arc<Route>>,
    /// The prompt without what prefixes put before it, where it was read while the adapters' bytes were fetched.
    pub tokens: Option<Vec<Token>>,
    /// How long the router took.
    pub routed: Duration,
    /// The compositions that it used.
    pub composed: Vec<AdapterDigest>,
    /// What the router made of those that are weighed by it.
    pub weighed: Vec<Weighed>,
}

impl Pipeline {
    /// Checks a request and pins its adapters, which the router chooses first where it is asked to.
    pub(super) fn choose(&self, asked: Request) -> Result<Choice, Failure> {
        let vocabulary = self.ready.facts.vocabulary;
        if asked.route.is_none() {
            // Numbers first: no stage of a chain runs for a request that is refused afterwards.
            asked.clone().validate(vocabulary)?;
            let Flat { request, composed, weighed } = self.compose(asked)?;
            let request = request.validate(vocabulary)?;
            let stages = self.pin(&request)?;
            let (route, tokens, routed) = (None, None, Duration::ZERO);
            return Ok(Choice { request, stages, route, tokens, routed, composed, weighed });
        }
        asked.clone().validate(vocabulary)?;
        let mut tokens = None;
        // A name may be moved between the decision and the pinning; then it is decided again.
        for _ in 0..3 {
            let began = Instant::now();
            let route = self.route(&asked)?;
            let routed = began.elapsed();
            self.shelf.prefetch(&route.adapters.iter().map(|chosen| chosen.digest).collect::<Vec<_>>());
            let named = |c: &crate::router::Chosen| AdapterChoice::named(c.name.as_str(), c.weight);
            let adapters = route.adapters.iter().map(named).collect();
            let format = asked.format.clone().or_else(|| route.format.clone().map(Source::Named));
            let flat = self.compose(Request { adapters, route: None, format, ..asked.clone() })?;
            let Flat { request, composed, weighed } = flat;
            // While the system reads the adapters' bytes. A composition may have changed what is asked.
            if tokens.is_none() && composed.is_empty() {
                tokens = Some(self.prompt_tokens(asked.input.clone())?);
            }
            let request = request.validate(vocabulary)?;
            let stages = self.pin(&request)?;
            let pinned = |digest| stages.iter().flatten().any(|(file, _)| file.digest() == digest);
            let held = |digest| composed.contains(&digest) || pinned(digest);
            if route.adapters.iter().all(|routed| held(routed.digest)) {
                let tokens = tokens.filter(|_| composed.is_empty());
                let route = Some(route);
                return Ok(Choice { request, stages, route, tokens, routed, composed, weighed });
            }
        }
        Err(Failure::new(
            Code::Busy,
            "the adapter library is being changed faster than it can be routed over; try again",
        ))
    }

    /// What the router would choose for a request: by its system and last user message, or its raw text.
    ///
    /// # Errors
    /// There is no library, it cannot be routed over, or the request has no text.
    pub fn route(&self, request: &Request) -> Result<Arc<Route>, Failure> {
        let none = || Failure::usage("adapters auto needs a text; a prompt of token ids has none");
        let text = read_by_router(&request.input).ok_or_else(none)?;
        let routing = request.route.clone().unwrap_or_default();
        let ask = Ask {
            text,
            metadata: routing.metadata,
            strict: false,
            strategy: routing.strategy,
            top_k: routing.top_k,
            threshold: routing.threshold,
        };
        self.shelf.route(ask, &self.base)
    }

    /// Opens and checks adapters as [`Pipeline::submit`] does, without a request.
    ///
    /// # Errors
    /// One of them, or their set, is refused.
    pub fn check_adapters(&self, adapters: &[AdapterChoice]) -> Result<Vec<Applied>, Failure> {
        if let Some(composed) = self.composed(adapters, None)? {
            // Each answer of a chain by itself; the parts of mixes together with what stands beside them.
            let of = |stages: &[Stage]| stages.iter().map(|stage| choices(stage).collect()).collect();
            let answers: Vec<Vec<Vec<AdapterChoice>>> = match composed.digests.len() == 1 && composed.plain.is_empty() {
                true => compose::answers(&composed.stages).map(of).collect(),
                false => vec![vec![side_by_side(&composed.plain, &composed.stages)]],
            };
            let all = answers.iter().map(|stages| self.check_stages(stages)).collect::<Result<Vec<_>, _>>()?;
            return Ok(all.into_iter().flatten().collect());
        }
        self.check_stages(&[adapters.to_vec()])
    }

    /// Opens and checks the adapters of an answer: those at the beginning, then those of each change.
    fn check_stages(&self, stages: &[Vec<AdapterChoice>]) -> Result<Vec<Applied>, Failure> {
        let [first, later @ ..] = stages else { return Ok(Vec::new()) };
        let then = later.iter().map(|adapters| Then { marker: "-".into(), adapters: adapters.clone() }).collect();
        let request = Request { adapters: first.clone(), then, ..Request::new(Input::Raw(String::new())) };
        let pinned = self.pin(&request.validate(self.ready.facts.vocabulary)?)?;
        lease::timeline(&pinned[0], &mut Vec::new())?;
        pinned[1..].iter().try_for_each(|stage| lease::later(stage).map(drop))?;
        Ok(applied(pinned.iter().flatten()))
    }

    /// Opens and checks the adapters; what they hold does not change while the request runs.
    fn pin(&self, request: &ValidRequest) -> Result<Vec<Vec<Chosen>>, Failure> {
        let open = |(choice, scale): (&AdapterChoice, _)| Ok((self.shelf.open(&choice.source, &self.base)?, scale));
        request.stages().map(|stage| stage.map(open).collect()).collect()
    }
}

/// The adapters as they are told of, each once with each of its weights.
pub(super) fn applied<'c>(chosen: impl IntoIterator<Item = &'c Chosen>) -> Vec<Applied> {
    let mut all: Vec<Applied> = Vec::new();
    for (file, scale) in chosen {
        let one = Applied { name: file.label(), digest: file.digest(), scale: scale.get() };
        if !all.contains(&one) {
            all.push(one);
        }
    }
    all
}
