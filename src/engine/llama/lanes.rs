//! Lanes inside llama.cpp: the nodes that a stub adapter makes llama.cpp put behind every linear are turned into calls
//! of [`kernel`].
//!
//! For an active adapter, `build_lora_mm` in `src/llama-graph.cpp` adds four nodes to a linear: `MUL_MAT(A, x)`,
//! `MUL_MAT(B, ..)`, `SCALE`, `ADD(y, ..)`. The stub is an adapter of zeros on every plain matrix. The scheduler's public
//! evaluation callback (`cb_eval`) is asked about every node of a split before the split is computed
//! (`ggml_backend_sched_compute_splits`), so it may rewrite them: the first becomes a custom operator that computes `h = A x`
//! into our own scratch, the two in the middle become empty, and the last becomes a custom operator that adds `B h` to
//! `y`. Sizes and memory stay as they were allocated; `x` lives until the first node and `y` until the last one,
//! as before. A graph that llama.cpp reuses keeps its rewritten nodes; a rebuilt one is rewritten again.
//!
//! This works where the linears are computed by the CPU backend, in row order: see [`refusal`] for what that excludes.

use std::collections::HashMap;
use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;

use super::adapter::Loaded;
use super::model::Model;
use crate::adapter::{AdapterDigest, AdapterSet, Scale};
use crate::engine::lanes::kernel::{self, OutputRows, Share};
use crate::engine::lanes::{LaneAdapter, Numerics, Residents, Sites, Step};
use crate::engine::{EngineError, Row};
use crate::gguf::{GgufWriter, ModelFacts, TensorType};

/// `struct ggml_map_custom2_op_params` of `ggml/src/ggml-impl.h`, which `ggml_compute_forward_map_custom2` copies out
/// of a node's `op_params`.
#[repr(C)]
struct CustomOp {
    fun: unsafe extern "C" fn(
        *mut sys::ggml_tensor,
        *const sys::ggml_tensor,
        *const sys::ggml_tensor,
        c_int,
        c_int,
        *mut c_void,
    ),
    n_tasks: c_int,
    userdata: *mut c_void,
}

/// `GGML_N_TASKS_MAX`: as many as there are threads.
const ALL_THREADS: c_int = -1;

/// What the callbacks see. Changed only between decodes.
struct Shared {
    /// Whether nodes are rewritten: only while the stub is the context's whole adapter set.
    on: bool,
    step: Step,
    by_name: HashMap<String, usize>,
    /// One for each site; their addresses are in the nodes.
    hooks: Box<[Hook]>,
    /// Something did not look as it should: the step's results are void.
    broken: AtomicBool,
}

/// What a custom node knows.
struct Hook {
    shared: *const Shared,
    site: usize,
    n_out: usize,
    /// Whether a graph has been seen that asks for adapters here.
    seen: AtomicBool,
}

/// The state of lanes for one context.
pub(super) struct Lanes {
    shared: NonNull<Shared>,
    /// Loaded when lanes start.
    stub: Option<Loaded>,
    residents: Arc<Residents>,
    /// Adapters that running requests use, held whatever the bounds of the residents.
    leased: HashMap<AdapterDigest, Arc<LaneAdapter>>,
    /// Linears at which the model's graph asks for adapters.
    reached: Vec<bool>,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`; the context that knows the pointer is dropped before (field order of
        // `LlamaEngine`, and of the self-check).
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

/// Why a model or a machine cannot have lanes; `None` when it can.
pub(super) fn refusal(base: &ModelFacts, model: &Model, accelerator: bool) -> Option<String> {
    if accelerator {
        return Some("an accelerator computes this model, and the kernels for mixed batches are for the CPU".into());
    }
    if model.safe().is_recurrent() || model.safe().is_hybrid() {
        return Some("a recurrent model's rows are not computed in order".into());
    }
    (base.expert_count > 0).then(|| "adapters on experts have no lanes yet".into())
}

impl Lanes {
    /// Makes the hooks, so that a context can be told of them; nothing else happens until [`Lanes::start`].
    pub(super) fn new(residents: Arc<Residents>) -> Self {
        let sites = residents.sites();
        let shared = Box::into_raw(Box::new(Shared {
            on: false,
            step: Step::default(),
            by_name: sites.iter().enumerate().map(|(site, (name, ..))| (format!("{name}.lora_b"), site)).collect(),
            hooks: Box::default(),
            broken: AtomicBool::new(false),
        }));
        let hook = |(site, (_, _, n_out))| Hook { shared, site, n_out, seen: AtomicBool::new(false) };
        // SAFETY: `shared` was just made and nobody else knows it.
        unsafe { (*shared).hooks = sites.iter().enumerate().map(hook).collect() };
        // SAFETY: a box is never null.
        let shared = unsafe { NonNull::new_unchecked(shared) };
        let reached = vec![true; residents.sites().len()];
        Self { shared, stub: None, residents, leased: HashMap::new(), reached }
    }

    /// Loads the stub. `reached` are the linears at which the model's graph asks for adapters; those that change others
    /// are not taken.
    pub(super) fn start(&mut self, model: &Arc<Model>, base: &ModelFacts, reached: Vec<bool>) -> Result<(), String> {
        let bytes = stub(&base.architecture, self.residents.sites()).map_err(|e| e.to_string())?;
        self.stub = Some(Loaded::new(model, &bytes)?);
        self.reached = reached;
        Ok(())
    }

    /// Whether [`Lanes::start`] has been called.
    pub(super) fn started(&self) -> bool {
        self.stub.is_some()
    }

    /// What a context needs to know at its making.
    pub(super) fn callback(&self) -> (sys::ggml_backend_sched_eval_callback, *mut c_void) {
        (Some(rewrite), self.shared.as_ptr().cast())
    }

    /// The ready adapters.
    pub(super) fn residents(&self) -> &Arc<Residents> {
        &self.residents
    }

    /// The stub, to be made the context's whole adapter set while lanes are on.
    pub(super) fn stub(&self) -> Result<*mut sys::llama_adapter_lora, EngineError> {
        let stub = self.stub.as_ref().ok_or_else(|| EngineError::Misuse("lanes have not started".into()))?;
        Ok(stub.raw())
    }

    /// Turns rewriting on or off; the context's adapter set must follow.
    pub(super) fn switch(&mut self, on: bool) {
        // SAFETY: no decode is running (`&mut self` of the engine's one owner), so no callback looks.
        unsafe { (*self.shared.as_ptr()).on = on };
    }

    /// Holds these adapters for running requests, and lets go of those no longer in use.
    pub(super) fn lease(&mut self, adapters: Vec<Arc<LaneAdapter>>, in_use: impl Fn(&AdapterDigest) -> bool) {
        self.leased.retain(|digest, _| in_use(digest));
        self.leased.extend(adapters.into_iter().map(|a| (a.digest(), a)));
    }

    /// Whether an adapter is ready for lanes.
    pub(super) fn has(&self, digest: &AdapterDigest) -> bool {
        self.leased.contains_key(digest)
    }

    /// Linears at which a graph computed so far has asked for adapters.
    pub(super) fn seen(&self) -> Vec<bool> {
        // SAFETY: no decode is running; hooks are only read.
        let hooks = unsafe { &(*self.shared.as_ptr()).hooks };
        hooks.iter().map(|hook| hook.seen.load(Ordering::Relaxed)).collect()
    }

    /// Whether the model's graph asks for adapters at every linear that this one changes.
    pub(super) fn reaches(&self, adapter: &LaneAdapter) -> bool {
        adapter.sites().all(|site| self.reached[site])
    }

    /// Lays out the next step: rows of one sequence and set are neighbours or come in several runs.
    pub(super) fn plan(&mut self, rows: &[Row], sets: &[AdapterSet]) -> Result<(), EngineError> {
        // SAFETY: no decode is running, so no callback looks.
        let step = unsafe { &mut (*self.shared.as_ptr()).step };
        step.clear();
        for run in rows.chunk_by(|a, b| a.sequence == b.sequence && a.set == b.set) {
            let missing = || EngineError::Misuse("an adapter of the step is not loaded".into());
            let set = sets.get(run[0].set).ok_or_else(missing)?;
            // Soft prompts and control vectors have no lanes; the caller has seen to it that the others are here.
            let carried =
                |(digest, scale): &(AdapterDigest, Scale)| Some((self.leased.get(digest)?.clone(), scale.get()));
            let members: Vec<_> = set.members().iter().filter_map(carried).collect();
            let wants: Vec<bool> = run.iter().map(|r| r.logits).collect();
            step.push(&members, &wants);
        }
        Ok(())
    }

    /// Whether the last step went wrong inside; forgets it.
    pub(super) fn was_broken(&mut self) -> bool {
        // SAFETY: no decode is running.
        unsafe { (*self.shared.as_ptr()).broken.swap(false, Ordering::Relaxed) }
    }
}

/// An adapter of zeros, rank 1, on every site.
fn stub(architecture: &str, sites: &Sites) -> Result<Vec<u8>, crate::gguf::GgufError> {
    let mut writer = GgufWriter::new();
    writer.set("general.type", "adapter")?.set("adapter.type", "lora")?;
    writer.set("general.architecture", architecture)?.set("adapter.lora.alpha", 1.0f32)?;
    let zeros = vec![0u8; sites.iter().map(|(_, n_in, n_out)| n_in.max(n_out) * 2).max().unwrap_or(0)];
    for (name, n_in, n_out) in sites.iter() {
        writer.tensor(&format!("{name}.lora_a"), TensorType::F16, &[n_in as u64, 1], &zeros[..n_in * 2])?;
        writer.tensor(&format!("{name}.lora_b"), TensorType::F16, &[1, n_out as u64], &zeros[..n_out * 2])?;
    }
    Ok(writer.to_bytes())
}

/// The evaluation callback: rewrites the stub's nodes, and never wants to see a result.
unsafe extern "C" fn rewrite(node: *mut sys::ggml_tensor, ask: bool, user: *mut c_void) -> bool {
    // SAFETY: `user` is the `Shared` given with this function; llama.cpp asks on the thread that decodes, before it
    // computes, so nobody writes to it meanwhile.
    let shared = unsafe { &*user.cast::<Shared>() };
    if ask && shared.on {
        // SAFETY: a node of the graph that is about to be computed, allocated and not shared with another thread yet.
        unsafe { rewrite_node(shared, node) };
    }
    !ask
}

/// # Safety
/// `sum` and what it leads to are nodes of a graph that is not being computed.
unsafe fn rewrite_node(shared: &Shared, sum: *mut sys::ggml_tensor) {
    // SAFETY: by the caller's promise; every pointer followed is checked for null or comes from a node whose operator
    // always has it.
    unsafe {
        if (*sum).op != sys::GGML_OP_ADD {
            return;
        }
        let (y, scaled) = ((*sum).src[0], (*sum).src[1]);
        if scaled.is_null() || (*scaled).op != sys::GGML_OP_SCALE {
            return;
        }
        let outer = (*scaled).src[0];
        if (*outer).op != sys::GGML_OP_MUL_MAT {
            return;
        }
        let name = CStr::from_ptr((*(*outer).src[0]).name.as_ptr());
        let Some(site) = name.to_str().ok().and_then(|name| shared.by_name.get(name)) else { return };
        let inner = (*outer).src[1];
        if (*inner).op != sys::GGML_OP_MUL_MAT || !is_matrix((*inner).src[1]) || !is_matrix(y) || !is_matrix(sum) {
            shared.broken.store(true, Ordering::Relaxed);
            return;
        }
        let hook = &shared.hooks[*site];
        hook.seen.store(true, Ordering::Relaxed);
        let userdata = ptr::from_ref(hook).cast_mut().cast();
        set_custom(inner, CustomOp { fun: project, n_tasks: ALL_THREADS, userdata });
        (*outer).op = sys::GGML_OP_NONE;
        (*scaled).op = sys::GGML_OP_NONE;
        set_custom(sum, CustomOp { fun: expand, n_tasks: ALL_THREADS, userdata });
        (*sum).src[1] = inner;
    }
}

/// # Safety
/// `node` is a node of a graph that is not being computed.
unsafe fn set_custom(node: *mut sys::ggml_tensor, op: CustomOp) {
    const { assert!(size_of::<CustomOp>() <= 64) };
    // SAFETY: `op_params` has 64 bytes; ggml copies the operator out of them, so alignment does not matter.
    unsafe {
        (*node).op = sys::GGML_OP_MAP_CUSTOM2;
        (*node).op_params = [0; 16];
        ptr::write_unaligned((&raw mut (*node).op_params).cast::<CustomOp>(), op);
    }
}

/// # Safety
/// `t` is a tensor.
unsafe fn is_matrix(t: *const sys::ggml_tensor) -> bool {
    // SAFETY: by the caller's promise.
    unsafe { (*t).type_ == sys::GGML_TYPE_F32 && (*t).nb[0] == 4 && (*t).ne[2] == 1 && (*t).ne[3] == 1 }
}

/// A row of a matrix of floats.
///
/// # Safety
/// `t` passed [`is_matrix`], holds data that lives for `'a`, and `column` is below `ne[1]`.
unsafe fn row<'a>(t: *const sys::ggml_tensor, column: usize) -> &'a [f32] {
    // SAFETY: by the caller's promise.
    unsafe {
        let start = (*t).data.cast::<u8>().add(column * (*t).nb[1]);
        std::slice::from_raw_parts(start.cast(), (*t).ne[0] as usize)
    }
}

/// `h = A x`, as a custom operator of ggml.
unsafe extern "C" fn project(
    _dst: *mut sys::ggml_tensor,
    _a: *const sys::ggml_tensor,
    x: *const sys::ggml_tensor,
    thread: c_int,
    threads: c_int,
    user: *mut c_void,
) {
    // SAFETY: `user` is the hook put into the node; it lives as long as the context's `Lanes`.
    let (hook, shared) = unsafe { (&*user.cast::<Hook>(), &*(*user.cast::<Hook>()).shared) };
    // SAFETY: `x` passed `is_matrix` when the node was rewritten, and its data is there while the node is computed.
    let columns = unsafe { (*x).ne[1] } as usize;
    let Some(which) = shared.step.columns(columns) else {
        return shared.broken.store(true, Ordering::Relaxed);
    };
    let share = Share { thread: thread as usize, threads: threads.max(1) as usize };
    // SAFETY: as above; columns of the step are below `ne[1]`, since `columns` matched its number of rows.
    let x = |column| unsafe { row(x, column) };
    let at = (hook.site, hook.n_out);
    let done = catch_unwind(AssertUnwindSafe(|| kernel::project(&shared.step, which, at, &Ggml, share, x)));
    if done.is_err() {
        shared.broken.store(true, Ordering::Relaxed);
    }
}

/// `y += B h`, as a custom operator of ggml.
unsafe extern "C" fn expand(
    dst: *mut sys::ggml_tensor,
    y: *const sys::ggml_tensor,
    _h: *const sys::ggml_tensor,
    thread: c_int,
    threads: c_int,
    user: *mut c_void,
) {
    // SAFETY: as in `project`.
    let (hook, shared) = unsafe { (&*user.cast::<Hook>(), &*(*user.cast::<Hook>()).shared) };
    let share = Share { thread: thread as usize, threads: threads.max(1) as usize };
    // SAFETY: both passed `is_matrix`; `ADD` made `dst` of the same sizes as `y`.
    let (n_out, columns) = unsafe { ((*dst).ne[0] as usize, (*dst).ne[1] as usize) };
    let mine = share.outputs(n_out);
    let mut out = Destination(dst);
    // SAFETY: the allocator may have given `dst` the memory of `y`, wholly; else they are apart.
    if unsafe { (*dst).data != (*y).data } {
        for column in 0..columns {
            // SAFETY: as above.
            let from = unsafe { row(y, column) };
            out.part(column, mine.clone()).copy_from_slice(&from[mine.clone()]);
        }
    }
    let Some(which) = shared.step.columns(columns) else {
        return shared.broken.store(true, Ordering::Relaxed);
    };
    let done = catch_unwind(AssertUnwindSafe(|| {
        kernel::expand(&shared.step, which, hook.site, mine, &Ggml, &mut out);
    }));
    if done.is_err() {
        shared.broken.store(true, Ordering::Relaxed);
    }
}

/// The matrix that a node computes. Each thread asks for parts of its own.
struct Destination(*mut sys::ggml_tensor);

impl OutputRows for Destination {
    fn part(&mut self, column: usize, range: Range<usize>) -> &mut [f32] {
        // SAFETY: a part of a row of a matrix that passed `is_matrix` and is being computed; columns and ranges come from
        // its sizes. Parts of different threads do not overlap, and one is held at a time.
        unsafe {
            let start = (*self.0).data.cast::<u8>().add(column * (*self.0).nb[1]).cast::<f32>();
            std::slice::from_raw_parts_mut(start.add(range.start), range.len())
        }
    }
}

/// ggml's own number formats (`ggml_get_type_traits_cpu`).
struct Ggml;

impl Ggml {
    fn traits(kind: TensorType) -> &'static sys::ggml_type_traits_cpu {
        // SAFETY: returns a pointer into a static table for every type that a checked adapter may have.
        unsafe { &*sys::ggml_get_type_traits_cpu(kind.id() as sys::ggml_type) }
    }
}

impl Numerics for Ggml {
    fn convert(&self, kind: TensorType, x: &[f32], out: &mut Vec<u8>) {
        let wanted = Self::traits(kind).vec_dot_type;
        if wanted == sys::GGML_TYPE_F32 {
            return out.extend_from_slice(bytemuck::cast_slice(x));
        }
        // SAFETY: a valid type of the static table.
        let bytes = unsafe { sys::ggml_row_size(wanted, x.len() as i64) };
        let at = out.len();
        out.resize(at + bytes, 0);
        // SAFETY: a valid type of the static table.
        let Some(from_float) = (unsafe { &*sys::ggml_get_type_traits_cpu(wanted) }).from_float else { return };
        // SAFETY: reads `x.len()` floats and writes `ggml_row_size` bytes; rows of adapters are whole blocks (checked when
        // the file was read).
        unsafe { from_float(x.as_ptr(), out[at..].as_mut_ptr().cast(), x.len() as i64) }
    }

    fn dot(&self, kind: TensorType, row: &[u8], x: &[u8], n: usize) -> f32 {
        let mut sum = 0f32;
        if let Some(vec_dot) = Self::traits(kind).vec_dot {
            // SAFETY: `row` holds `n` elements of `kind` and `x` as many of its `vec_dot_type` (see `convert`); one row and
            // one column (`nrc` 1), for which strides are not looked at.
            unsafe { vec_dot(n as c_int, &mut sum, 0, row.as_ptr().cast(), 0, x.as_ptr().cast(), 0, 1) }
        }
        sum
    }

    fn prefetch(&self, bytes: &[u8]) {
        #[cfg(target_arch = "x86_64")]
        for line in bytes.chunks(64) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, which reads nothing and cannot fail.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = bytes;
    }
}
