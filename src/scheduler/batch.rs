//! The continuous batch: slots, admission, and one engine step after another.

mod drafting;
mod second;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use self::second::Second;
use super::command::Command;
use super::counts::Counts;
use super::draft::pool::Pool;
use super::parked::{Parked, WORTH_PARKING};
use super::plan::{Plan, Policy, Turn, Waiting, plan};
use super::prefix::{Cached, InFlight, Placement, chunks, place, reusable, worth_waiting};
use super::sequence::{Next, Running};
use super::{Job, Lease, Limits};
use crate::adapter::{AdapterDigest, AdapterSet, Timeline};
use crate::engine::{Engine, EngineError, Row, Token, Tokenizer};
use crate::error::{Code, Failure};
use crate::event::{Event, FinishReason};

/// Steps an adapter set keeps its turn. A change of set makes llama.cpp reserve its graph anew; the figure is
/// a balance of that cost against how long other sets wait (`docs/measurements.md`).
const QUANTUM: usize = 8;

/// A saved state must hold so many tokens more than a slot does, or it is left alone.
const WORTH_RESTORING: usize = 32;

/// A sequence of the engine: what its cache holds, and the request that runs in it.
struct Slot {
    /// Tokens whose keys and values are in the cache.
    cached: Vec<Token>,
    /// The sets they were computed under.
    sets: Timeline,
    running: Option<Running>,
    /// When it was last used.
    used: u64,
    /// Slots of one family may share cells of the cache.
    family: u64,
    /// Whether it is to be kept for later requests.
    keep: bool,
}

/// Who shares steps: all whose sets mix (`None`), or those of one set.
type Party = Option<AdapterSet>;

/// The state of the decode loop.
pub(super) struct Batch<E> {
    pub(super) engine: E,
    tokenizer: Arc<dyn Tokenizer>,
    slots: Vec<Slot>,
    queue: VecDeque<Job>,
    /// Commands whose slots are not free yet, in order.
    orders: Vec<Command>,
    /// Prefixes that had to leave their slots.
    parked: Parked,
    pub(super) limits: Limits,
    turn: Option<Turn<Party>>,
    /// Counts steps and admissions.
    clock: u64,
    /// Counts families.
    families: u64,
    pub(super) counts: Arc<Counts>,
    /// What sequences wrote, for drafts.
    pool: Pool,
    /// The model that guesses.
    second: Option<Second>,
}

impl<E: Engine> Batch<E> {
    pub(super) fn new(mut engine: E) -> Self {
        let empty =
            || Slot { cached: Vec::new(), sets: Timeline::default(), running: None, used: 0, family: 0, keep: true };
        let second = engine.take_second().map(Second::new);
        Self {
            tokenizer: engine.tokenizer(),
            slots: (0..engine.facts().sequences).map(|_| empty()).collect(),
            engine,
            queue: VecDeque::new(),
            orders: Vec::new(),
            parked: Parked::new(0),
            limits: Limits::from(0),
            turn: None,
            clock: 0,
            families: 0,
            counts: Arc::default(),
            pool: Pool::default(),
            second,
        }
    }

    /// Tokens that running requests hold.
    pub(super) fn running_tokens(&self) -> usize {
        self.slots.iter().filter(|s| s.running.is_some()).map(|s| s.cached.len()).sum()
    }

    /// Keeps prefixes that have to leave the context.
    pub(super) fn with_parked(self, parked: Parked) -> Self {
        Self { parked, ..self }
    }

    /// Slots that hold something.
    #[cfg(test)]
    pub(super) fn slots_in_use(&self) -> usize {
        self.slots.iter().filter(|s| !s.cached.is_empty()).count()
    }

    /// What is kept of prefixes that had to leave the context.
    #[cfg(test)]
    pub(super) fn parked_counters(&self) -> Arc<super::parked::ParkedCounters> {
        self.parked.counters().clone()
    }

    /// Nothing runs and nothing waits.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.orders.is_empty() && self.slots.iter().all(|s| s.running.is_none())
    }

    /// Whether jobs should be taken from the inbox: as many as there are slots wait here, the rest stay in the
    /// bounded queue so that it can refuse.
    pub(super) fn wants_more(&self) -> bool {
        self.queue.len() < self.slots.len()
    }

    pub(super) fn enqueue(&mut self, job: Job) {
        if job.slot.is_some_and(|slot| slot >= self.slots.len()) {
            let message = format!("there is no such slot; there are {}", self.slots.len());
            let _ = job.events.send(Event::Failed(Failure::usage(message)));
            return;
        }
        self.queue.push_back(job);
    }

    /// Takes a command; it is carried out in the next step that finds its slot free.
    pub(super) fn order(&mut self, command: Command) {
        self.orders.push(command);
    }

    /// Carries out the commands whose slots are free, each slot's in their order.
    fn obey(&mut self) {
        let mut waiting: Vec<Command> = Vec::new();
        for command in std::mem::take(&mut self.orders) {
            let slot = command.slot();
            let runs = slot.and_then(|slot| self.slots.get(slot)).is_some_and(|s| s.running.is_some());
            let behind = slot.is_some() && waiting.iter().any(|earlier| earlier.slot() == slot);
            match runs || behind {
                true => waiting.push(command),
                false => self.carry_out(command),
            }
        }
        self.orders = waiting;
    }

    /// Ends everything, saying so to each request.
    pub(super) fn cancel_all(&mut self) {
        self.orders.clear();
        for slot in 0..self.slots.len() {
            self.end(slot, |running| running.stop(FinishReason::Cancelled));
        }
        for job in self.queue.drain(..) {
            let _ = job.events.send(Event::Failed(Failure::new(Code::Busy, "the engine is stopping")));
        }
    }

    /// One round: cancellations, admissions, one engine step, one token for each sequence that is due one.
    pub(super) fn step(&mut self) {
        self.clock += 1;
        self.drop_cancelled();
        self.obey();
        self.admit();
        let policy =
            Policy { budget: self.engine.facts().micro_batch.min(self.engine.facts().batch), quantum: QUANTUM };
        let Some(plan) = plan(&self.waiting(), self.turn.as_ref(), policy) else {
            return;
        };
        let Some(plan) = self.shift_full_sequences(plan) else {
            return;
        };
        self.draft(&plan, policy.budget);
        let evaluated = match self.evaluate(&plan) {
            // Nobody makes room for a guess.
            Err(EngineError::ContextFull) if self.cut_drafts(&plan) => self.evaluate(&plan),
            other => other,
        };
        match evaluated {
            Ok(rows) => {
                self.turn = Some(plan.turn.clone());
                self.counts.step(rows, self.slots.iter().filter(|s| s.running.is_some()).count());
                self.advance(&plan);
            }
            Err(EngineError::ContextFull) => self.make_room(),
            Err(error) => {
                let code = if matches!(error, EngineError::OutOfMemory(_)) { Code::OutOfMemory } else { Code::Other };
                let failure = Failure::new(code, error.to_string());
                for (slot, _) in plan.rows {
                    self.end(slot, |running| {
                        running.fail(failure.clone());
                    });
                    self.clear(slot);
                }
            }
        }
    }

    fn drop_cancelled(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].running.as_ref().is_some_and(|r| r.job.cancel.is_cancelled()) {
                self.end(slot, |running| running.stop(FinishReason::Cancelled));
            }
        }
        self.queue.retain(|job| {
            let keep = !job.cancel.is_cancelled();
            if !keep {
                let failure = Failure::new(Code::Interrupted, "cancelled before it began");
                let _ = job.events.send(Event::Failed(failure));
            }
            keep
        });
    }

    /// Gives free slots to waiting jobs, in order; a job whose prefix another one is just computing is passed over.
    fn admit(&mut self) {
        let mut at = 0;
        while at < self.queue.len() {
            let job = &self.queue[at];
            let reuse = job.cache_prompt && self.engine.facts().prefix_reuse;
            let sets = &job.lease.sets;
            if !self.may_begin(job) || reuse && worth_waiting(&self.in_flight(), &job.prompt, sets) {
                at += 1;
                continue;
            }
            let mut cached: Vec<Cached<'_>> = self.slots.iter().enumerate().map(|(slot, s)| s.view(slot)).collect();
            if let Some(wanted) = job.slot {
                cached.iter_mut().for_each(|c| c.free &= c.slot == wanted);
            }
            let least = if reuse { self.limits.least_share.of(job.prompt.len()) } else { usize::MAX };
            let Some(placement) = place(&cached, &job.prompt, sets, least) else {
                return;
            };
            let Some(job) = self.queue.remove(at) else { return };
            let events = job.events.clone();
            if let Err(failure) = self.start(job, placement) {
                let _ = events.send(Event::Failed(failure));
            }
        }
    }

    /// Whether a job that wants a certain slot can have it now; others may always try.
    fn may_begin(&self, job: &Job) -> bool {
        job.slot.and_then(|slot| self.slots.get(slot)).is_none_or(|s| s.running.is_none())
    }

    /// Puts a job into its slot.
    fn start(&mut self, job: Job, placement: Placement) -> Result<(), Failure> {
        let Lease { sets, files, .. } = &job.lease;
        self.engine.load_adapters(files, &self.adapters_in_use()).map_err(|e| {
            let code = if matches!(e, EngineError::OutOfMemory(_)) { Code::OutOfMemory } else { Code::InvalidFile };
            Failure::new(code, e.to_string())
        })?;
        let sampler = self.engine.sampler(&job.sampling).map_err(|e| Failure::new(Code::Other, e.to_string()))?;
        let sets = sets.clone();
        let slot = placement.slot;
        let (mut reused, mut share_from) = (placement.reuse, placement.share_from);
        let reuse = job.cache_prompt && self.engine.facts().prefix_reuse;
        let least = reused + WORTH_RESTORING;
        let own = job.saved.as_ref().filter(|_| reuse);
        let own = own.map(|saved| (saved.clone(), reusable(&saved.tokens, &saved.sets, &job.prompt, &sets)));
        let own = own.filter(|(_, length)| *length >= least);
        let at_least = own.as_ref().map_or(least, |(_, length)| length + 1);
        let in_ram = if reuse { self.parked.find(&job.prompt, &sets, at_least) } else { None };
        let from_ram = in_ram.is_some();
        let restored = in_ram.or(own);
        self.park(slot, if share_from.is_some() || restored.is_some() { 0 } else { reused });
        let restored_nothing = restored.is_none();
        if let Some((saved, length)) = restored {
            // A state that is refused is evaluated instead; what stood in the slot is gone either way.
            let done = self.restore(slot, &saved).is_ok();
            (reused, share_from) = (if done { length } else { 0 }, None);
            if done && from_ram {
                self.parked.restored();
            }
        }
        match share_from {
            Some(from) => {
                self.clear(slot);
                self.engine.share(from, slot, reused);
                self.slots[slot].cached = self.slots[from].cached[..reused].to_vec();
                self.slots[slot].family = self.slots[from].family;
            }
            None if reuse && restored_nothing && self.move_chunks(slot, &job.prompt, &sets, &mut reused) => (),
            None if reused == 0 => self.clear(slot),
            None if self.engine.truncate(slot, reused) => self.slots[slot].cached.truncate(reused),
            None => {
                self.clear(slot);
                reused = 0;
            }
        }
        if self.limits.idle_to_ram {
            self.send_idle_away(slot);
        }
        let s = &mut self.slots[slot];
        s.keep = job.cache_prompt;
        s.sets = sets;
        s.used = self.clock;
        s.running = Some(Running::new(job, sampler, reused, self.clock));
        Ok(())
    }

    /// Moves parts of what a slot holds to where a prompt has them, and forgets the rest. False when there are none.
    fn move_chunks(&mut self, slot: usize, prompt: &[Token], sets: &Timeline, reused: &mut usize) -> bool {
        let s = &self.slots[slot];
        if self.limits.least_chunk == 0 || *reused == 0 || !self.engine.facts().shift {
            return false;
        }
        let (gaps, length) = chunks(&s.cached, &s.sets, prompt, sets, *reused, self.limits.least_chunk);
        if gaps.is_empty() {
            return false;
        }
        for (from, to) in gaps {
            self.shift(slot, from, to);
        }
        if !self.engine.truncate(slot, length) {
            self.clear(slot);
            *reused = 0;
            return true;
        }
        self.slots[slot].cached.truncate(length);
        *reused = length;
        true
    }

    /// Copies the prefixes of idle slots to RAM and forgets those that are there: the context is for what runs.
    fn send_idle_away(&mut self, beginning: usize) {
        for slot in (0..self.slots.len()).filter(|slot| *slot != beginning).collect::<Vec<_>>() {
            self.park(slot, 0);
            let s = &self.slots[slot];
            let there = s.cached.len() >= WORTH_PARKING && !self.parked.wants(&s.cached, &s.sets);
            if s.running.is_none() && there {
                self.clear(slot);
            }
        }
    }

    /// Digests that running requests still need.
    fn adapters_in_use(&self) -> HashSet<AdapterDigest> {
        let running = self.slots.iter().filter_map(|s| s.running.as_ref());
        let sets = running.flat_map(|r| r.job.lease.all_sets());
        sets.flat_map(|set| set.members().iter().map(|(digest, _)| *digest)).collect()
    }

    fn waiting(&self) -> Vec<Waiting<Party>> {
        let of = |(slot, s): (usize, &Slot)| {
            let r = s.running.as_ref().filter(|r| !r.paused)?;
            let set = s.sets.at(s.cached.len());
            Some(Waiting {
                slot,
                set: (!self.engine.mixes(set)).then(|| set.clone()),
                // A step goes on under one set.
                pending: (r.tokens.len() - s.cached.len()).min(s.sets.run(s.cached.len())),
                prefill: r.in_prefill(),
                admitted: r.admitted,
                served: r.served,
            })
        };
        let mut all: Vec<Waiting<Party>> = self.slots.iter().enumerate().filter_map(of).collect();
        if !self.limits.continuous && all.iter().any(|w| !w.prefill) {
            all.retain(|w| !w.prefill);
        }
        all
    }

    fn in_flight(&self) -> Vec<InFlight<'_>> {
        let running = self.slots.iter().filter_map(|s| s.running.as_ref().map(|r| (s, r)));
        let reading = running.filter(|(_, r)| r.in_prefill());
        reading.map(|(s, r)| InFlight { prompt: &r.tokens, evaluated: s.cached.len(), sets: &s.sets }).collect()
    }

    /// Makes room inside sequences that fill the whole context. The plan is void when that changed what is
    /// to be evaluated.
    fn shift_full_sequences(&mut self, plan: Plan<Party>) -> Option<Plan<Party>> {
        let (context, can_shift) = (self.engine.facts().sequence_context, self.engine.facts().shift);
        for (slot, n) in &plan.rows {
            let s = &self.slots[*slot];
            let Some(running) = &s.running else { continue };
            if s.cached.len() + n <= context {
                continue;
            }
            match running.shift_range().filter(|_| can_shift) {
                Some((from, to)) if to <= s.cached.len() => {
                    self.shift(*slot, from, to);
                    return None;
                }
                _ => {
                    self.end(*slot, |running| running.stop(FinishReason::ContextFull));
                    return None;
                }
            }
        }
        Some(plan)
    }

    /// Evaluates what the plan says, and the drafts; the number of rows.
    fn evaluate(&mut self, plan: &Plan<Party>) -> Result<usize, EngineError> {
        let mut rows = Vec::new();
        let mut sets: Vec<AdapterSet> = Vec::new();
        for (slot, n) in &plan.rows {
            let s = &mut self.slots[*slot];
            let Some(running) = &mut s.running else { continue };
            running.begin_step(self.clock);
            let from = s.cached.len();
            let current = s.sets.at(from);
            let set = sets.iter().position(|set| set == current).unwrap_or_else(|| {
                sets.push(current.clone());
                sets.len() - 1
            });
            let all = running.tokens.len();
            for position in from..from + n {
                let token = running.tokens[position];
                rows.push(Row { token, position, sequence: *slot, logits: position + 1 == all, set });
            }
            for (at, &token) in running.draft().iter().enumerate() {
                rows.push(Row { token, position: all + at, sequence: *slot, logits: true, set });
            }
        }
        self.engine.decode(&rows, &sets)?;
        for row in &rows {
            self.slots[row.sequence].cached.push(row.token);
        }
        Ok(rows.len())
    }

    /// Chooses the next token of every sequence whose last row was evaluated, and those after it as long as what is chosen
    /// is what was guessed.
    fn advance(&mut self, plan: &Plan<Party>) {
        let (context, can_shift) = (self.engine.facts().sequence_context, self.engine.facts().shift);
        let mut row = 0;
        for (slot, n) in &plan.rows {
            let s = &mut self.slots[*slot];
            let Slot { running: Some(running), cached, sets, .. } = s else {
                row += n;
                continue;
            };
            let (last, guessed) = (row + n - 1, running.draft().len());
            row += n + guessed;
            let before = running.tokens.len();
            if cached.len() < before {
                continue;
            }
            let set = sets.at(before - 1).clone();
            let mut ahead = 0;
            let next = loop {
                let next = match self.engine.logits(last + ahead) {
                    Ok(logits) => running.advance(logits, &*self.tokenizer, context, can_shift, sets),
                    Err(e) => running.fail(Failure::new(Code::Other, e.to_string())),
                };
                ahead = running.kept(sets, &set);
                if matches!(next, Next::Ended) || before + ahead < running.tokens.len() {
                    break next;
                }
            };
            if guessed > 0 {
                let (length, right) = running.end_draft(&mut self.pool);
                self.counts.checked(length, right);
                self.forget_from(*slot, before + ahead);
            }
            if matches!(next, Next::Ended) {
                self.end(*slot, |_| ());
            }
        }
    }

    /// The cache has no room for a step: forget the least recently used idle prefix; else set the youngest
    /// request aside until another ends; else the only one has filled the context.
    fn make_room(&mut self) {
        if self.forget_idle() {
            return;
        }
        let mut active: Vec<(u64, usize)> = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(slot, s)| s.running.as_ref().filter(|r| !r.paused).map(|r| (r.admitted, slot)))
            .collect();
        active.sort_unstable();
        let Some((_, youngest)) = active.pop() else { return };
        if active.is_empty() {
            return self.end(youngest, |running| running.stop(FinishReason::ContextFull));
        }
        self.clear(youngest);
        if let Some(running) = &mut self.slots[youngest].running {
            running.paused = true;
        }
    }

    /// Forgets the least recently used idle prefix; false when there is none.
    pub(super) fn forget_idle(&mut self) -> bool {
        let idle = self.slots.iter().enumerate().filter(|(_, s)| s.running.is_none() && !s.cached.is_empty());
        let oldest = idle.min_by_key(|(_, s)| s.used).map(|(slot, _)| slot);
        if let Some(slot) = oldest {
            self.park(slot, 0);
            self.clear(slot);
        }
        oldest.is_some()
    }

    /// How many slots there are.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// What a slot's sequence holds.
    pub(super) fn held(&self, slot: usize) -> (&[Token], &Timeline) {
        (&self.slots[slot].cached, &self.slots[slot].sets)
    }

    /// Notes what a slot's sequence, which was empty, holds now.
    pub(super) fn hold(&mut self, slot: usize, tokens: Vec<Token>, sets: Timeline) {
        let s = &mut self.slots[slot];
        (s.cached, s.sets, s.used, s.keep) = (tokens, sets, self.clock, true);
    }

    /// Ends the request in a slot, if one runs, and lets paused ones go on. Its cache stays for reuse.
    fn end(&mut self, slot: usize, last_words: impl FnOnce(&mut Running)) {
        let Some(mut running) = self.slots[slot].running.take() else {
            return;
        };
        last_words(&mut running);
        if let Some(keep) = running.job.keep.take()
            && self.slots[slot].cached.len() == running.tokens.len()
            && let Ok(saved) = self.save(slot)
        {
            let _ = keep.send(saved);
        }
        self.slots[slot].used = self.clock;
        for s in &mut self.slots {
            if let Some(r) = &mut s.running {
                r.paused = false;
            }
        }
    }

    /// Copies what an idle slot holds to RAM, before all but its first `kept` positions are forgotten; unless it is short,
    /// or another slot or RAM holds all of it.
    fn park(&mut self, slot: usize, kept: usize) {
        let s = &self.slots[slot];
        if s.running.is_some() || !s.keep || s.cached.len() < kept + WORTH_PARKING {
            return;
        }
        let all_of_it = |o: &Slot| o.cached.starts_with(&s.cached) && o.sets.agrees(&s.sets) >= s.cached.len();
        let elsewhere = self.slots.iter().enumerate().any(|(other, o)| other != slot && all_of_it(o));
        if !elsewhere
            && self.parked.wants(&s.cached, &s.sets)
            && let Ok(saved) = self.save(slot)
        {
            self.parked.park(saved);
        }
    }

    /// Forgets a slot's cache.
    pub(super) fn clear(&mut self, slot: usize) {
        self.engine.truncate(slot, 0);
        self.slots[slot].cached.clear();
        self.families += 1;
        self.slots[slot].family = self.families;
    }

    /// Moves positions of a sequence. A cell has one position for all its sequences, so others that may share cells
    /// with it forget theirs first; a running one evaluates its tokens again.
    fn shift(&mut self, slot: usize, from: usize, to: usize) {
        let family = self.slots[slot].family;
        for other in (0..self.slots.len()).filter(|other| *other != slot).collect::<Vec<_>>() {
            if self.slots[other].family == family && !self.slots[other].cached.is_empty() {
                self.park(other, 0);
                self.clear(other);
            }
        }
        self.engine.shift(slot, from, to);
        let s = &mut self.slots[slot];
        s.cached.drain(from..to);
        s.sets.forget(from, to);
        if let Some(running) = &mut s.running {
            running.forget(from, to);
        }
    }
}

impl Slot {
    fn view(&self, slot: usize) -> Cached<'_> {
        Cached { slot, tokens: &self.cached, sets: &self.sets, free: self.running.is_none(), used: self.used }
    }
}
