//! Two ways to mix adapters in one step that stay inside ggml's own operators, for measuring them against the kernels of
//! [`crate::engine::lanes`] (`benches/mixed_ways.rs`), and as a start for backends that our kernels cannot reach. Not used
//! when requests are served.
//!
//! Both rewrite the four nodes that a stub adapter makes llama.cpp put behind every linear (see [`super::lanes`]):
//!
//! - [`Way::Packed`]: all adapters side by side as one wide one, and a mask that leaves each row its own part:
//!   `MUL_MAT(A, x)`, `MUL(.., mask)` in the memory of the first, `MUL_MAT(B, ..)`. Costs with the sum of all ranks.
//! - [`Way::Gathered`]: all adapters as the experts of `MUL_MAT_ID`, padded to the largest rank, one for each row:
//!   `MUL_MAT_ID(A, x)`, `MUL_MAT_ID(B, ..)`, `MUL(.., weight)`. Costs with the largest rank; a mix would need a stub for
//!   each of its adapters.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::adapter::Loaded;
use super::backend::Backend;
use super::context::Context;
use super::model::Model;
use crate::adapter::AdapterFile;
use crate::engine::lanes::Sites;
use crate::engine::options::EngineOptions;
use crate::engine::{EngineError, Row};
use crate::gguf::{Gguf, GgufWriter, ModelFacts, TensorType};

/// How the rows of a step find their adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One wide adapter and a mask.
    Packed,
    /// `MUL_MAT_ID`.
    Gathered,
}

/// A context whose rows have adapters of a fixed pool.
pub struct InsideGgml {
    /// Dropped before what its callback sees.
    context: Context,
    state: Owned,
    _stub: Loaded,
    /// Where each adapter's ranks begin in the wide one, its rank, and its strength.
    slots: Vec<Slot>,
    way: Way,
}

#[derive(Clone, Copy)]
struct Slot {
    begin: usize,
    rank: usize,
    strength: f32,
}

/// What the callback sees. Changed only between steps.
struct State {
    way: Way,
    /// Of the step.
    rows: usize,
    /// Numbers for each row: the mask, or one weight.
    width: usize,
    all: Side,
    outputs: Side,
    /// Tensors of A and B of each linear, for `Gathered`.
    pools: HashMap<String, Pool>,
    /// Tensors that nodes point to: by their rows, and whether these are those with logits.
    numbers: HashMap<(usize, bool), [Box<sys::ggml_tensor>; 2]>,
    /// Boxed, since nodes of the graph point to them.
    #[allow(clippy::vec_box)]
    views: Vec<Box<sys::ggml_tensor>>,
    broken: bool,
}

/// The numbers of the rows of one kind: of all, or of those with logits. Their memory does not move.
#[derive(Default)]
struct Side {
    weights: Vec<f32>,
    ids: Vec<i32>,
}

struct Pool {
    /// `[n_in, rank, slots]` and `[rank, n_out, slots]`, the first slot of zeros.
    a: Vec<u16>,
    b: Vec<u16>,
    shape: (usize, usize, usize, usize),
}

struct Owned(NonNull<State>);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`; the context that knows it has been dropped (field order of `InsideGgml`).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl InsideGgml {
    /// Loads a model with a pool of these adapters (of half floats, on plain matrices).
    ///
    /// # Errors
    /// In one line.
    pub fn load(
        options: &EngineOptions,
        base: &ModelFacts,
        way: Way,
        files: &[Arc<AdapterFile>],
    ) -> Result<Self, String> {
        let model = Model::load(Backend::get(), options, &mut |_| true).map_err(|e| e.to_string())?;
        let sites = Sites::of(base);
        let mut slots = Vec::new();
        let mut wide = 0;
        for file in files {
            let gguf = Gguf::read(file.bytes()).map_err(|e| e.to_string())?;
            let ranks = gguf.tensors().iter().filter(|t| t.name.ends_with(".lora_a")).map(|t| t.dims[1]);
            let rank = ranks.max().ok_or("an adapter without pairs")? as usize;
            slots.push(Slot { begin: wide, rank, strength: file.facts().alpha / rank as f32 });
            wide += rank;
        }
        let padded = slots.iter().map(|s| s.rank).max().unwrap_or(1);
        let rank = if way == Way::Packed { wide } else { padded };
        let mut writer = GgufWriter::new();
        let text = |e: crate::gguf::GgufError| e.to_string();
        writer.set("general.type", "adapter").map_err(text)?.set("adapter.type", "lora").map_err(text)?;
        writer.set("general.architecture", base.architecture.as_str()).map_err(text)?;
        writer.set("adapter.lora.alpha", rank as f32).map_err(text)?;
        let mut pools = HashMap::new();
        for (name, n_in, n_out) in sites.iter() {
            let stacked = stack(name, (n_in, n_out), files, &slots, way, padded)?;
            let (a, b) = match way {
                Way::Packed => (bytes(&stacked.a), bytes(&stacked.b)),
                Way::Gathered => (vec![0; n_in * rank * 2], vec![0; n_out * rank * 2]),
            };
            writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[n_in as u64, rank as u64], a).map_err(text)?;
            writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[rank as u64, n_out as u64], b).map_err(text)?;
            if way == Way::Gathered {
                pools.insert(format!("{name}.lora_b"), stacked);
            }
        }
        let stub = Loaded::new(&model, &writer.to_bytes())?;
        let width = if way == Way::Packed { wide } else { 1 };
        let most = options.micro_batch as usize;
        let side = || Side { weights: vec![0.0; most * width], ids: vec![0; most] };
        let state = Box::new(State {
            way,
            rows: 0,
            width,
            all: side(),
            outputs: side(),
            pools,
            numbers: HashMap::new(),
            views: Vec::new(),
            broken: false,
        });
        // SAFETY: a box is never null.
        let state = Owned(unsafe { NonNull::new_unchecked(Box::into_raw(state)) });
        let callback = (Some(rewrite as unsafe extern "C" fn(_, _, _) -> _), state.0.as_ptr().cast());
        let mut context = Context::new(model, options, Some(callback)).map_err(|e| e.to_string())?;
        context.set_adapters(&mut [stub.raw()], &mut [1.0]);
        Ok(Self { context, state, _stub: stub, slots, way })
    }

    /// Evaluates rows; a row's `set` is the number of its adapter, or beyond them for none.
    ///
    /// # Errors
    /// As of an engine.
    pub fn decode(&mut self, rows: &[Row]) -> Result<(), EngineError> {
        // SAFETY: no step is being computed, so no callback looks.
        let state = unsafe { &mut *self.state.0.as_ptr() };
        if rows.len() * state.width > state.all.weights.len() {
            return Err(EngineError::Misuse(format!("{} rows", rows.len())));
        }
        state.rows = rows.len();
        let mut outputs = 0;
        for (i, row) in rows.iter().enumerate() {
            let slot = self.slots.get(row.set);
            fill(&mut state.all, i, state.width, self.way, slot, row.set);
            if row.logits {
                fill(&mut state.outputs, outputs, state.width, self.way, slot, row.set);
                outputs += 1;
            }
        }
        self.context.decode(rows)?;
        // SAFETY: as above.
        match unsafe { (*self.state.0.as_ptr()).broken } {
            true => Err(EngineError::Compute("the adapters' part of the graph was not as expected".into())),
            false => Ok(()),
        }
    }

    /// Logits of a row of the last step.
    ///
    /// # Errors
    /// It asked for none.
    pub fn logits(&self, index: usize) -> Result<&[f32], EngineError> {
        self.context.logits(index)
    }

    /// Removes all of a sequence.
    pub fn clear(&mut self, sequence: usize) {
        self.context.truncate(sequence, 0);
    }
}

fn fill(side: &mut Side, at: usize, width: usize, way: Way, slot: Option<&Slot>, number: usize) {
    let weights = &mut side.weights[at * width..(at + 1) * width];
    weights.fill(0.0);
    side.ids[at] = 0;
    let Some(slot) = slot else { return };
    match way {
        Way::Packed => weights[slot.begin..slot.begin + slot.rank].fill(slot.strength),
        Way::Gathered => {
            weights[0] = slot.strength;
            side.ids[at] = number as i32 + 1;
        }
    }
}

fn bytes(halves: &[u16]) -> Vec<u8> {
    bytemuck::cast_slice(halves).to_vec()
}

/// A and B of one linear of all adapters: side by side, or one after the other behind a slot of zeros.
fn stack(
    name: &str,
    (n_in, n_out): (usize, usize),
    files: &[Arc<AdapterFile>],
    slots: &[Slot],
    way: Way,
    padded: usize,
) -> Result<Pool, String> {
    let wide: usize = slots.iter().map(|s| s.rank).sum();
    let shape = match way {
        Way::Packed => (n_in, n_out, wide, 1),
        Way::Gathered => (n_in, n_out, padded, slots.len() + 1),
    };
    let (_, _, rank, count) = shape;
    let (mut a, mut b) = (vec![0u16; n_in * rank * count], vec![0u16; n_out * rank * count]);
    for (i, (file, slot)) in files.iter().zip(slots).enumerate() {
        let gguf = Gguf::read(file.bytes()).map_err(|e| e.to_string())?;
        let part = |suffix: &str| gguf.tensor(&format!("{name}.{suffix}"));
        let (Some(from_a), Some(from_b)) = (part("lora_a"), part("lora_b")) else { continue };
        if from_a.kind != TensorType::F16 || from_b.kind != TensorType::F16 || from_b.dims[0] as usize != slot.rank {
            return Err(format!("'{name}' is not of half floats of one rank"));
        }
        let half = |bytes: &[u8]| -> Vec<u16> { bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b)).collect() };
        let (from_a, from_b) = (half(gguf.tensor_bytes(from_a)), half(gguf.tensor_bytes(from_b)));
        let (first_row, b_at) = match way {
            Way::Packed => (slot.begin, slot.begin),
            Way::Gathered => ((i + 1) * rank, (i + 1) * rank * n_out),
        };
        a[first_row * n_in..][..from_a.len()].copy_from_slice(&from_a);
        for (o, row) in from_b.chunks_exact(slot.rank).enumerate() {
            b[b_at + o * rank..][..slot.rank].copy_from_slice(row);
        }
    }
    Ok(Pool { a, b, shape })
}

/// The evaluation callback.
unsafe extern "C" fn rewrite(node: *mut sys::ggml_tensor, ask: bool, user: *mut c_void) -> bool {
    if ask {
        // SAFETY: `user` is the `State` given with this function; llama.cpp asks on the thread that decodes, before it
        // computes. `node` is a node of the graph about to be computed.
        unsafe { rewrite_node(&mut *user.cast::<State>(), node) };
    }
    !ask
}

/// # Safety
/// `scaled` and what it leads to are nodes of a graph that is not being computed.
unsafe fn rewrite_node(state: &mut State, scaled: *mut sys::ggml_tensor) {
    // SAFETY: by the caller's promise; pointers come from nodes whose operators always have them.
    unsafe {
        if (*scaled).op != sys::GGML_OP_SCALE || (*(*scaled).src[0]).op != sys::GGML_OP_MUL_MAT {
            return;
        }
        let outer = (*scaled).src[0];
        let name = CStr::from_ptr((*(*outer).src[0]).name.as_ptr()).to_string_lossy();
        if !name.ends_with(".lora_b") {
            return;
        }
        let inner = (*outer).src[1];
        // The masked `A x` moves into the memory of `A x`, and `B h` takes the place of what was scaled there.
        let expected = (*inner).op == sys::GGML_OP_MUL_MAT && (*scaled).data == (*outer).data;
        let columns = (*outer).ne[1] as usize;
        if !expected || columns > state.rows {
            state.broken = true;
            return;
        }
        let key = (columns, columns != state.rows);
        let (side, width) = (if key.1 { &mut state.outputs } else { &mut state.all }, state.width);
        let template = *(*inner).src[0];
        let [weights, ids] = state.numbers.entry(key).or_insert_with(|| {
            let weights = side.weights.as_mut_ptr().cast();
            let ids = side.ids.as_mut_ptr().cast();
            let shape = [width as i64, columns as i64, 1, 1];
            [
                Box::new(tensor(template, sys::GGML_TYPE_F32, 4, shape, weights)),
                Box::new(tensor(template, sys::GGML_TYPE_I32, 4, [1, columns as i64, 1, 1], ids)),
            ]
        });
        let (weights, ids): (*mut sys::ggml_tensor, *mut sys::ggml_tensor) = (&raw mut **weights, &raw mut **ids);
        match state.way {
            Way::Packed => {
                let b = (*outer).src[0];
                set_op(outer, sys::GGML_OP_MUL, [inner, weights, ptr::null_mut()]);
                ((*outer).ne, (*outer).nb) = ((*inner).ne, (*inner).nb);
                ((*outer).data, (*outer).buffer, (*outer).view_src) = ((*inner).data, (*inner).buffer, inner);
                set_op(scaled, sys::GGML_OP_MUL_MAT, [b, outer, ptr::null_mut()]);
                (*scaled).view_src = ptr::null_mut();
            }
            Way::Gathered => {
                let Some(pool) = state.pools.get_mut(name.as_ref()) else {
                    state.broken = true;
                    return;
                };
                let (n_in, n_out, rank, count) = pool.shape;
                let [n_in, n_out, rank, count, t] = [n_in, n_out, rank, count, columns].map(|n| n as i64);
                let f16 = sys::GGML_TYPE_F16;
                let a = Box::new(tensor(template, f16, 2, [n_in, rank, count, 1], pool.a.as_mut_ptr().cast()));
                let b = Box::new(tensor(template, f16, 2, [rank, n_out, count, 1], pool.b.as_mut_ptr().cast()));
                let x = (*inner).src[1];
                let mut x3 = Box::new(view(x));
                x3.ne = [n_in, 1, t, 1];
                x3.nb = [4, (*x).nb[1], (*x).nb[1], (*x).nb[1] * columns];
                let shaped = |node: *mut sys::ggml_tensor, n: i64| {
                    (*node).ne = [n, 1, t, 1];
                    (*node).nb = [4, 4 * n as usize, 4 * n as usize, 4 * (n * t) as usize];
                };
                let mut kept = [a, b, x3];
                let [a, b, x3] = kept.each_mut().map(|k| &raw mut **k);
                set_op(inner, sys::GGML_OP_MUL_MAT_ID, [a, x3, ids]);
                shaped(inner, rank);
                set_op(outer, sys::GGML_OP_MUL_MAT_ID, [b, inner, ids]);
                shaped(outer, n_out);
                let mut flat = Box::new(view(outer));
                flat.ne = [n_out, t, 1, 1];
                flat.nb = [4, 4 * n_out as usize, 4 * (n_out * t) as usize, 4 * (n_out * t) as usize];
                set_op(scaled, sys::GGML_OP_MUL, [&raw mut *flat, weights, ptr::null_mut()]);
                // Graphs that llama.cpp keeps point to these; there are as many as graphs that were built.
                state.views.extend(kept);
                state.views.push(flat);
            }
        }
    }
}

/// # Safety
/// `node` is a node of a graph that is not being computed.
unsafe fn set_op(node: *mut sys::ggml_tensor, op: sys::ggml_op, sources: [*mut sys::ggml_tensor; 3]) {
    // SAFETY: by the caller's promise.
    unsafe {
        (*node).op = op;
        (*node).op_params = [0; 16];
        ((*node).src[0], (*node).src[1], (*node).src[2]) = (sources[0], sources[1], sources[2]);
    }
}

/// A leaf of our own memory, `size` bytes an element.
fn tensor(
    template: sys::ggml_tensor,
    kind: sys::ggml_type,
    size: usize,
    ne: [i64; 4],
    data: *mut c_void,
) -> sys::ggml_tensor {
    let mut t = template;
    (t.type_, t.ne, t.data, t.op) = (kind, ne, data, sys::GGML_OP_NONE);
    t.src = [ptr::null_mut(); 10];
    (t.view_src, t.view_offs) = (ptr::null_mut(), 0);
    let step = |i: usize| ne[..i].iter().product::<i64>() as usize * size;
    t.nb = [step(0), step(1), step(2), step(3)];
    t
}

/// A view of a node, still to be shaped.
///
/// # Safety
/// `of` is a tensor.
unsafe fn view(of: *mut sys::ggml_tensor) -> sys::ggml_tensor {
    // SAFETY: by the caller's promise.
    let mut t = unsafe { *of };
    t.op = sys::GGML_OP_NONE;
    t.src = [ptr::null_mut(); 10];
    (t.view_src, t.view_offs) = (of, 0);
    t
}
