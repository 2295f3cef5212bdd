//! A loaded model.

use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use super::backend::Backend;
use super::log;
use crate::engine::options::{EngineOptions, GpuLayers, LoadMode, Numa, Placement, SplitMode};
use crate::gguf::{Override, OverrideValue};

/// A loaded model. Immutable, shared by the context, the adapters and the tokenizer; freed when the last is gone.
#[derive(Debug)]
pub(super) struct Model {
    /// Owns the model and frees it on drop; gives the vocabulary.
    safe: LlamaModel,
    raw: NonNull<sys::llama_model>,
}

// SAFETY: llama.cpp's model is not changed after loading, except by registering adapters, which only the one engine
// thread does; `LlamaModel` itself is declared Send and Sync by llama-cpp-2 on the same grounds.
unsafe impl Send for Model {}
// SAFETY: as above; shared use is reading the vocabulary.
unsafe impl Sync for Model {}

/// Why a model could not be loaded.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the path holds a NUL byte")]
    Path,
    #[error("there is no device '{name}'; this machine has: {known}")]
    Device { name: String, known: String },
    #[error("there is no buffer type '{name}'; this machine has: {known}")]
    Buffer { name: String, known: String },
    #[error("loading was interrupted")]
    Interrupted,
    #[error("{0}")]
    Refused(String),
}

/// Receives loading progress from 0 to 1; false stops loading.
pub type Progress<'a> = dyn FnMut(f32) -> bool + 'a;

impl Model {
    /// Loads the model that `options` names. The file has been checked by [`crate::gguf`] before.
    pub(super) fn load(
        backend: Backend,
        options: &EngineOptions,
        progress: &mut Progress<'_>,
    ) -> Result<Arc<Self>, LoadError> {
        let path = c_path(&options.model)?;
        let mut devices = chosen_devices(backend, &options.devices)?;
        let mut split = options.tensor_split.clone();
        // SAFETY: no preconditions.
        split.resize(unsafe { sys::llama_max_devices() }.max(split.len()), 0.0);
        let mut interrupted = false;
        let mut stoppable = |done: f32| {
            let go_on = progress(done);
            interrupted |= !go_on;
            go_on
        };
        let mut callback: &mut Progress<'_> = &mut stoppable;
        // SAFETY: returns plain defaults.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = match options.gpu_layers {
            GpuLayers::All => -1,
            GpuLayers::Count(n) => i32::try_from(n).unwrap_or(i32::MAX),
        };
        params.split_mode = match options.split_mode {
            SplitMode::None => sys::LLAMA_SPLIT_MODE_NONE,
            SplitMode::Layer => sys::LLAMA_SPLIT_MODE_LAYER,
            SplitMode::Row => sys::LLAMA_SPLIT_MODE_ROW,
        };
        params.load_mode = match options.load_mode {
            LoadMode::Auto => sys::LLAMA_LOAD_MODE_AUTO,
            LoadMode::Read => sys::LLAMA_LOAD_MODE_NONE,
            LoadMode::Map => sys::LLAMA_LOAD_MODE_MMAP,
            LoadMode::Lock => sys::LLAMA_LOAD_MODE_MLOCK,
            LoadMode::MapAndLock => sys::LLAMA_LOAD_MODE_MMAP_MLOCK,
            LoadMode::Direct => sys::LLAMA_LOAD_MODE_DIRECT_IO,
        };
        let details = &options.details;
        let placements = Placements::of(&details.placements)?;
        if !placements.list.is_empty() {
            params.tensor_buft_overrides = placements.list.as_ptr();
        }
        let overrides = overrides(&details.overrides);
        if !overrides.is_empty() {
            params.kv_overrides = overrides.as_ptr();
        }
        params.check_tensors = details.check_tensors;
        params.no_host = details.no_host;
        spread(details.numa);
        // The special buffer types are the way to llama.cpp's AMX kernels; see build.rs.
        params.use_extra_bufts = !cfg!(broken_amx) && !details.no_repack;
        params.main_gpu = i32::try_from(options.main_gpu).unwrap_or(0);
        if !options.tensor_split.is_empty() {
            params.tensor_split = split.as_ptr();
        }
        if !options.devices.is_empty() {
            params.devices = devices.as_mut_ptr();
        }
        params.progress_callback = Some(report);
        params.progress_callback_user_data = ptr::from_mut(&mut callback).cast::<c_void>();
        log::take_errors();
        // SAFETY: `path`, `split`, `devices`, `placements`, `overrides` and `callback` live until the call returns; `split`
        // holds `llama_max_devices` numbers, `devices` and `placements` end with a null pointer and `overrides` with an
        // empty key, as `llama.h` asks.
        let raw = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
        let Some(raw) = NonNull::new(raw) else {
            let said = log::take_errors();
            return Err(match interrupted {
                true => LoadError::Interrupted,
                false => LoadError::Refused(if said.is_empty() { "llama.cpp refused it".into() } else { said }),
            });
        };
        // SAFETY: `LlamaModel` is `repr(transparent)` over a non-null `llama_model` pointer at the pinned version, and
        // takes ownership of it: its `Drop` is the one `llama_model_free`.
        let safe = unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(raw) };
        Ok(Arc::new(Self { safe, raw }))
    }

    /// The safe wrapper, for the vocabulary and the model's own figures.
    pub(super) fn safe(&self) -> &LlamaModel {
        &self.safe
    }

    /// The raw pointer, valid as long as `self`.
    pub(super) fn raw(&self) -> *mut sys::llama_model {
        self.raw.as_ptr()
    }

    /// Tokens of the sliding attention window; 0 when there is none.
    pub(super) fn sliding_window(&self) -> i32 {
        // SAFETY: the model is loaded and lives as long as `self`.
        unsafe { sys::llama_model_n_swa(self.raw.as_ptr()) }
    }
}

/// Overridden metadata as `llama.h` wants it, ended by an empty key; empty for none.
fn overrides(all: &[Override]) -> Vec<sys::llama_model_kv_override> {
    type Union = sys::llama_model_kv_override__bindgen_ty_1;
    // Texts are shorter than the fields: `Override::parse` has seen to it.
    let chars = |text: &str| {
        let mut field = [0; 128];
        field.iter_mut().zip(text.bytes().take(127)).for_each(|(to, from)| *to = from as std::ffi::c_char);
        field
    };
    let end = sys::llama_model_kv_override { tag: 0, key: [0; 128], __bindgen_anon_1: Union { val_i64: 0 } };
    let of = |one: &Override| {
        let (tag, value) = match &one.value {
            OverrideValue::Int(n) => (sys::LLAMA_KV_OVERRIDE_TYPE_INT, Union { val_i64: *n }),
            OverrideValue::Float(n) => (sys::LLAMA_KV_OVERRIDE_TYPE_FLOAT, Union { val_f64: *n }),
            OverrideValue::Bool(flag) => (sys::LLAMA_KV_OVERRIDE_TYPE_BOOL, Union { val_bool: *flag }),
            OverrideValue::Str(text) => (sys::LLAMA_KV_OVERRIDE_TYPE_STR, Union { val_str: chars(text) }),
        };
        sys::llama_model_kv_override { tag, key: chars(&one.key), __bindgen_anon_1: value }
    };
    match all.is_empty() {
        true => Vec::new(),
        false => all.iter().map(of).chain([end]).collect(),
    }
}

/// Tells ggml once how to spread; later calls change nothing.
fn spread(numa: Option<Numa>) {
    let strategy = match numa {
        None => return,
        Some(Numa::Distribute) => sys::GGML_NUMA_STRATEGY_DISTRIBUTE,
        Some(Numa::Isolate) => sys::GGML_NUMA_STRATEGY_ISOLATE,
        Some(Numa::Numactl) => sys::GGML_NUMA_STRATEGY_NUMACTL,
    };
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: no preconditions but that it is called once, before the model is loaded.
    ONCE.call_once(|| unsafe { sys::llama_numa_init(strategy) });
}

/// Where tensors go, as `llama.h` wants it: patterns with buffer types, ended by a null pattern; empty for none.
struct Placements {
    list: Vec<sys::llama_model_tensor_buft_override>,
    /// What `list` points to.
    _patterns: Vec<CString>,
}

impl Placements {
    fn of(placements: &[Placement]) -> Result<Self, LoadError> {
        let types = buffer_types();
        let mut list = Vec::new();
        let mut patterns = Vec::new();
        for placement in placements {
            let buft = match &placement.buffer {
                // SAFETY: no preconditions.
                None => unsafe { sys::ggml_backend_cpu_buffer_type() },
                Some(name) => match types.iter().find(|(known, _)| known == name) {
                    Some((_, buft)) => *buft,
                    None => {
                        let known = types.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
                        return Err(LoadError::Buffer { name: name.clone(), known });
                    }
                },
            };
            let pattern = CString::new(placement.pattern.as_str()).map_err(|_| LoadError::Path)?;
            // The text of a `CString` stays where it is when the value moves.
            list.push(sys::llama_model_tensor_buft_override { pattern: pattern.as_ptr(), buft });
            patterns.push(pattern);
        }
        if !list.is_empty() {
            list.push(sys::llama_model_tensor_buft_override { pattern: ptr::null(), buft: ptr::null_mut() });
        }
        Ok(Self { list, _patterns: patterns })
    }
}

/// The buffer types of this machine's devices, by name.
fn buffer_types() -> Vec<(String, sys::ggml_backend_buffer_type_t)> {
    let mut all: Vec<(String, sys::ggml_backend_buffer_type_t)> = Vec::new();
    // SAFETY: no preconditions; indices are below the count, devices and buffer types are static, names are
    // NUL-terminated.
    unsafe {
        for index in 0..sys::ggml_backend_dev_count() {
            let buft = sys::ggml_backend_dev_buffer_type(sys::ggml_backend_dev_get(index));
            if !buft.is_null() {
                let name = std::ffi::CStr::from_ptr(sys::ggml_backend_buft_name(buft));
                all.push((name.to_string_lossy().into_owned(), buft));
            }
        }
    }
    all
}

unsafe extern "C" fn report(done: f32, user: *mut c_void) -> bool {
    // SAFETY: `user` points to the `&mut Progress` of `Model::load`, which is alive and not otherwise used while
    // loading; llama.cpp calls this on the loading thread.
    let progress = unsafe { &mut *user.cast::<&mut Progress<'_>>() };
    progress(done)
}

/// The chosen devices, null-terminated.
fn chosen_devices(backend: Backend, names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, LoadError> {
    let mut chosen = Vec::new();
    for name in names.iter().filter(|n| n.as_str() != "none") {
        let known = || super::backend::devices(backend).into_iter().map(|d| d.name).collect::<Vec<_>>().join(", ");
        let missing = || LoadError::Device { name: name.clone(), known: known() };
        let c_name = CString::new(name.as_str()).map_err(|_| missing())?;
        // SAFETY: the name is NUL-terminated; the backend is initialised (proof object).
        let device = unsafe { sys::ggml_backend_dev_by_name(c_name.as_ptr()) };
        if device.is_null() {
            return Err(missing());
        }
        chosen.push(device);
    }
    chosen.push(ptr::null_mut());
    Ok(chosen)
}

fn c_path(path: &Path) -> Result<CString, LoadError> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(not(unix))]
    let bytes = path.to_string_lossy().into_owned().into_bytes();
    CString::new(bytes).map_err(|_| LoadError::Path)
}
