//! The states of a run: sets of stacks, shared and interned, and the moves between them.
//!
//! A stack is a state of an automaton on top of the places to return to. Stacks are never written out: an *item* is
//! a state and the set of frames that may lie under it, a *frame* is one place to return to and the set of frames
//! under that. Frames and sets are interned, so equal ones have equal numbers and all stacks share what they have in
//! common. A state of the run is a sorted list of items, interned too, which makes the run a deterministic automaton
//! built as it is walked: each move is worked out once and then looked up.
//!
//! That every call consumes (see `network`) makes the frames a graph without cycles and every loop here finite.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::network::{Callee, Network, Repetition};
use super::hash::{FastMap, FastSet};
use super::need::{NEVER, Needs, add};

/// A state of the run, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StateId(u32);

/// No stack is left: the text cannot be.
pub(super) const DEAD: StateId = StateId(0);

/// A set of frames, by index.
pub(super) type SetId = u32;

/// The set of the bottom alone: nothing to return to, the text may end.
pub(super) const BOTTOM_SET: SetId = 0;

/// A state of the network with what may lie under it. [`POP`] instead of a state: only what lies under it.
pub(super) type Item = (u32, SetId);

/// In an [`Item`]: return to every frame of the set.
pub(super) const POP: u32 = u32::MAX;

/// Why a move could not be worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Work,
    Memory,
}

/// One place to return to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Frame {
    Bottom,
    /// Go on in a state, over what lies below.
    Return {
        state: u32,
        below: SetId,
    },
    /// One more turn of a repetition is done: `count` of them.
    Repeat {
        repetition: u32,
        count: u32,
        below: SetId,
    },
}

struct RunState {
    /// Sorted by state, one item per state, none with a dead end on top.
    kernel: Arc<[Item]>,
    /// A stack has returned to the bottom.
    complete: bool,
    /// The kernel with all automata entered; worked out on first use.
    expanded: Option<Arc<[Item]>>,
    need: Need,
    /// Start of the moves in [`Arena::moves`], or [`NONE`].
    moves: u32,
}

const NONE: u32 = u32::MAX;

/// Bytes to the end of the text: of the best stack, and of the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    pub least: u32,
    pub most: u32,
}

impl Need {
    const NONE: Need = Need { least: NEVER, most: 0 };

    /// Of both together.
    fn or(self, other: Need) -> Need {
        Need { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    fn plus(self, bytes: u32) -> Need {
        Need { least: add(self.least, bytes), most: add(self.most, bytes) }
    }
}

pub(super) struct Arena {
    needs: Arc<Needs>,
    frames: Vec<Frame>,
    frame_ids: FastMap<Frame, u32>,
    frame_needs: Vec<Need>,
    sets: Vec<Arc<[u32]>>,
    set_needs: Vec<Need>,
    set_ids: FastMap<Arc<[u32]>, SetId>,
    states: Vec<RunState>,
    state_ids: FastMap<(Arc<[Item]>, bool), u32>,
    /// Per state that was moved from, one target per byte class; [`NONE`] where not worked out.
    moves: Vec<u32>,
    bytes: usize,
    memory: usize,
    /// Work units left for this step.
    fuel: u64,
    /// Per network state, the last move that led there and what lay below: most doubles are caught here.
    led: Vec<(u64, SetId)>,
    /// Number of the current move, for `led`.
    turn: u64,
}

impl Arena {
    /// An arena that holds at most about `memory` bytes.
    pub fn new(memory: usize, needs: Arc<Needs>) -> Self {
        let mut arena = Arena {
            needs,
            frames: Vec::new(),
            frame_needs: Vec::new(),
            frame_ids: FastMap::default(),
            sets: Vec::new(),
            set_needs: Vec::new(),
            set_ids: FastMap::default(),
            states: Vec::new(),
            state_ids: FastMap::default(),
            moves: Vec::new(),
            bytes: 0,
            memory,
            fuel: 0,
            led: Vec::new(),
            turn: 0,
        };
        arena.frames.push(Frame::Bottom);
        arena.frame_ids.insert(Frame::Bottom, 0);
        arena.frame_needs.push(Need { least: 0, most: 0 });
        let bottom = 0;
        arena.set(vec![bottom]);
        arena.state(Vec::new(), false);
        arena
    }

    /// The state of a text not yet begun.
    pub fn start(&mut self, network: &Network) -> StateId {
        let mut items = vec![(network.starts[network.root as usize], BOTTOM_SET)];
        items.retain(|item| !network.states[item.0 as usize].is_dead_end());
        self.state(items, network.nullable)
    }

    /// `set` without its repetitions.
    pub fn without_repeats(&mut self, set: SetId) -> SetId {
        let frames = self.sets[set as usize]
            .iter()
            .copied()
            .filter(|&frame| !matches!(self.frames[frame as usize], Frame::Repeat { .. }))
            .collect();
        self.set(frames)
    }

    /// The set of one repetition with nothing below it.
    pub fn repeat_over_bottom(&mut self, network: &Network, repetition: u32, count: u32) -> SetId {
        let frame = self.frame(network, Frame::Repeat { repetition, count, below: BOTTOM_SET });
        self.set(vec![frame])
    }

    /// Sets the work units for the next step.
    pub fn refuel(&mut self, units: u64) {
        self.fuel = units;
    }

    /// Whether it is time for [`Arena::compact`].
    pub fn is_half_full(&self) -> bool {
        self.bytes > self.memory / 2
    }

    fn charge(&mut self, units: usize) -> Result<(), Stop> {
        if self.bytes > self.memory {
            return Err(Stop::Memory);
        }
        self.fuel = self.fuel.checked_sub(units as u64).ok_or(Stop::Work)?;
        Ok(())
    }

    /// Whether the text may end in `state`.
    pub fn complete(&self, state: StateId) -> bool {
        self.states[state.0 as usize].complete
    }

    /// Bytes from `state` to the end of the text.
    pub fn need(&self, state: StateId) -> Need {
        self.states[state.0 as usize].need
    }

    /// Bytes to the end of the text for one item.
    pub fn item_need(&self, (top, below): Item) -> Need {
        let tail = if top == POP { 0 } else { self.needs.tail(top) };
        self.set_needs[below as usize].plus(tail)
    }

    /// The items of `state`.
    pub fn kernel(&self, state: StateId) -> Arc<[Item]> {
        Arc::clone(&self.states[state.0 as usize].kernel)
    }

    /// The frames of a set.
    pub fn frames(&self, set: SetId) -> impl Iterator<Item = Frame> + '_ {
        self.sets[set as usize].iter().map(|&frame| self.frames[frame as usize])
    }

    /// The state after one byte of `class` in `state`.
    #[inline]
    pub fn step(&mut self, network: &Network, state: StateId, class: usize) -> Result<StateId, Stop> {
        let row = self.states[state.0 as usize].moves;
        if row != NONE {
            let to = self.moves[row as usize + class];
            if to != NONE {
                return Ok(StateId(to));
            }
        }
        self.move_anew(network, state, class)
    }

    #[cold]
    fn move_anew(&mut self, network: &Network, state: StateId, class: usize) -> Result<StateId, Stop> {
        let expanded = self.expanded(network, state)?;
        let sample = network.classes.sample(class);
        let mut items = Vec::new();
        self.led.resize(network.states.len(), (0, 0));
        self.turn += 1;
        for &(top, below) in expanded.iter() {
            let edges = &network.states[top as usize].bytes;
            let edges = &network.bytes[edges.start as usize..edges.end as usize];
            self.charge(1 + edges.len() / 4)?;
            for edge in edges {
                if edge.low <= sample && sample <= edge.high {
                    let led = &mut self.led[edge.to as usize];
                    if *led != (self.turn, below) {
                        *led = (self.turn, below);
                        items.push((edge.to, below));
                    }
                }
            }
        }
        let to = self.settle(network, items, false)?;
        let classes = network.classes.count();
        let slot = &mut self.states[state.0 as usize].moves;
        if *slot == NONE {
            *slot = self.moves.len() as u32;
            self.moves.resize(self.moves.len() + classes, NONE);
            self.bytes += classes * size_of::<u32>();
        }
        let row = *slot as usize;
        self.moves[row + class] = to.0;
        Ok(to)
    }

    /// The items of `state` and of every automaton they enter without consuming.
    pub fn expanded(&mut self, network: &Network, state: StateId) -> Result<Arc<[Item]>, Stop> {
        if let Some(expanded) = &self.states[state.0 as usize].expanded {
            return Ok(Arc::clone(expanded));
        }
        let mut items = Vec::new();
        // Frames under the starts that are entered, by automaton. Starts only enter later automata, so when one is
        // taken out all who enter it have had their turn.
        let mut entered: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &(top, below) in self.kernel(state).iter() {
            match network.states[top as usize].start_of {
                // A further turn of a repetition; it may be entered from elsewhere too.
                Some(automaton) => {
                    let frames = &self.sets[below as usize];
                    entered.entry(automaton).or_default().extend_from_slice(frames);
                }
                None => {
                    items.push((top, below));
                    self.enter(network, (top, below), &mut entered)?;
                }
            }
        }
        while let Some((automaton, frames)) = entered.pop_first() {
            self.charge(frames.len())?;
            let item = (network.starts[automaton as usize], self.merged(network, frames));
            items.push(item);
            self.enter(network, item, &mut entered)?;
        }
        let items: Arc<[Item]> = items.into();
        self.bytes += size_of_val(items.as_ref());
        self.states[state.0 as usize].expanded = Some(Arc::clone(&items));
        Ok(items)
    }

    /// Notes in `entered` what the calls of one item put under the automata they enter.
    fn enter(
        &mut self,
        network: &Network,
        (top, below): Item,
        entered: &mut BTreeMap<u32, Vec<u32>>,
    ) -> Result<(), Stop> {
        let calls = &network.states[top as usize].calls;
        for call in &network.calls[calls.start as usize..calls.end as usize] {
            self.charge(1)?;
            // A call in last place leaves nothing to return to, so lists that recurse at their end stay flat.
            let back = match call.tail {
                true => None,
                false => Some(self.frame(network, Frame::Return { state: call.back, below })),
            };
            match (call.callee, back) {
                (Callee::Automaton(automaton), Some(frame)) => {
                    entered.entry(automaton).or_default().push(frame);
                }
                (Callee::Automaton(automaton), None) => {
                    let frames = &self.sets[below as usize];
                    let count = frames.len();
                    entered.entry(automaton).or_default().extend_from_slice(frames);
                    self.charge(count)?;
                }
                (Callee::Repetition(repetition), back) => {
                    let below = match back {
                        Some(frame) => self.set(vec![frame]),
                        None => below,
                    };
                    let body = network.repetitions[repetition as usize].body;
                    let frame = self.frame(network, Frame::Repeat { repetition, count: 1, below });
                    entered.entry(body).or_default().push(frame);
                }
            }
        }
        Ok(())
    }

    /// The state of `items` after all that can return has returned. `complete`: the text may end whatever they say.
    pub fn settle(&mut self, network: &Network, items: Vec<Item>, mut complete: bool) -> Result<StateId, Stop> {
        let mut kernel: Vec<Item> = Vec::with_capacity(items.len());
        let mut seen: FastSet<Item> = FastSet::default();
        let mut stack = items;
        while let Some((top, below)) = stack.pop() {
            self.charge(1)?;
            if top != POP {
                let state = &network.states[top as usize];
                if state.last && !seen.insert((top, below)) {
                    continue;
                }
                if !state.is_dead_end() {
                    kernel.push((top, below));
                }
                if !state.last {
                    continue;
                }
            }
            // Returns to the same set need not be followed twice, whatever returns.
            if !seen.insert((POP, below)) {
                continue;
            }
            let frames = Arc::clone(&self.sets[below as usize]);
            self.charge(frames.len())?;
            for &frame in frames.iter() {
                match self.frames[frame as usize] {
                    Frame::Bottom => complete = true,
                    Frame::Return { state, below } => stack.push((state, below)),
                    Frame::Repeat { repetition, count, below } => {
                        let Repetition { body, min, max } = network.repetitions[repetition as usize];
                        if count >= min {
                            stack.push((POP, below));
                        }
                        if count < max {
                            // Past the minimum of an open repetition the count no longer matters.
                            let count = match max {
                                Repetition::OPEN => (count + 1).min(min.max(1)),
                                _ => count + 1,
                            };
                            let frame = self.frame(network, Frame::Repeat { repetition, count, below });
                            let set = self.set(vec![frame]);
                            kernel.push((network.starts[body as usize], set));
                        }
                    }
                }
            }
        }
        kernel.sort_unstable();
        kernel.dedup();
        let mut merged: Vec<Item> = Vec::with_capacity(kernel.len());
        for group in kernel.chunk_by(|a, b| a.0 == b.0) {
            match group {
                [item] => merged.push(*item),
                group => {
                    let mut frames = Vec::new();
                    for &(_, set) in group {
                        frames.extend_from_slice(&self.sets[set as usize]);
                    }
                    self.charge(frames.len())?;
                    let set = self.merged(network, frames);
                    merged.push((group[0].0, set));
                }
            }
        }
        Ok(self.state(merged, complete))
    }

    /// The set of `frames`, in any order, without those that another one makes superfluous.
    fn merged(&mut self, network: &Network, mut frames: Vec<u32>) -> SetId {
        frames.sort_unstable();
        frames.dedup();
        // Of two counts of one repetition that both may stop, the lower may do all that the higher may.
        let mut counts: Vec<(u32, SetId, u32, u32)> = Vec::new();
        for &id in &frames {
            if let Frame::Repeat { repetition, count, below } = self.frames[id as usize]
                && count >= network.repetitions[repetition as usize].min
            {
                counts.push((repetition, below, count, id));
            }
        }
        if counts.len() > 1 {
            counts.sort_unstable();
            let mut superfluous: FastSet<u32> = FastSet::default();
            for pair in counts.windows(2) {
                if (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1) {
                    superfluous.insert(pair[1].3);
                }
            }
            frames.retain(|frame| !superfluous.contains(frame));
        }
        self.set(frames)
    }

    fn frame(&mut self, network: &Network, frame: Frame) -> u32 {
        if let Some(&id) = self.frame_ids.get(&frame) {
            return id;
        }
        let id = self.frames.len() as u32;
        let need = match frame {
            Frame::Bottom => Need { least: 0, most: 0 },
            Frame::Return { state, below } => self.set_needs[below as usize].plus(self.needs.tail(state)),
            Frame::Repeat { repetition, count, below } => {
                self.set_needs[below as usize].plus(self.needs.missing(network, repetition, count))
            }
        };
        self.frames.push(frame);
        self.frame_needs.push(need);
        self.frame_ids.insert(frame, id);
        self.bytes += 3 * size_of::<Frame>() + size_of::<Need>();
        id
    }

    /// The set of `frames`, sorted and without doubles.
    fn set(&mut self, frames: Vec<u32>) -> SetId {
        if let Some(&id) = self.set_ids.get(frames.as_slice()) {
            return id;
        }
        let id = self.sets.len() as u32;
        let frames: Arc<[u32]> = frames.into();
        self.bytes += size_of_val(frames.as_ref()) + 64;
        let need = frames.iter().map(|&frame| self.frame_needs[frame as usize]).fold(Need::NONE, Need::or);
        self.set_needs.push(need);
        self.sets.push(Arc::clone(&frames));
        self.set_ids.insert(frames, id);
        id
    }

    fn state(&mut self, kernel: Vec<Item>, complete: bool) -> StateId {
        let key = (Arc::from(kernel), complete);
        if let Some(&id) = self.state_ids.get(&key) {
            return StateId(id);
        }
        let id = self.states.len() as u32;
        self.bytes += size_of_val(key.0.as_ref()) + 128;
        let mut need = key.0.iter().map(|&item| self.item_need(item)).fold(Need::NONE, Need::or);
        if complete {
            need.least = 0;
        }
        self.states.push(RunState { kernel: Arc::clone(&key.0), complete, expanded: None, need, moves: NONE });
        self.state_ids.insert(key, id);
        StateId(id)
    }

    /// Forgets everything but `keep`, whose new number is returned.
    pub fn compact(&mut self, network: &Network, keep: StateId) -> StateId {
        let mut fresh = Arena::new(self.memory, Arc::clone(&self.needs));
        fresh.fuel = self.fuel;
        let kernel = self.kernel(keep);
        let mut needed = vec![false; self.sets.len()];
        let mut stack: Vec<SetId> = kernel.iter().map(|&(_, set)| set).collect();
        while let Some(set) = stack.pop() {
            if std::mem::replace(&mut needed[set as usize], true) {
                continue;
            }
            stack.extend(self.frames(set).filter_map(|frame| match frame {
                Frame::Bottom => None,
                Frame::Return { below, .. } | Frame::Repeat { below, .. } => Some(below),
            }));
        }
        // A set is made after all sets below it, so rising order finds those in place.
        let mut number = vec![BOTTOM_SET; self.sets.len()];
        for set in (0..self.sets.len()).filter(|&set| needed[set]) {
            let frames: Vec<Frame> = self
                .frames(set as SetId)
                .map(|frame| match frame {
                    Frame::Bottom => Frame::Bottom,
                    Frame::Return { state, below } => Frame::Return { state, below: number[below as usize] },
                    Frame::Repeat { repetition, count, below } => {
                        Frame::Repeat { repetition, count, below: number[below as usize] }
                    }
                })
                .collect();
            let frames = frames.into_iter().map(|frame| fresh.frame(network, frame)).collect();
            number[set] = fresh.merged(network, frames);
        }
        let items = kernel.iter().map(|&(top, set)| (top, number[set as usize])).collect();
        let state = fresh.state(items, self.complete(keep));
        *self = fresh;
        state
    }
}
