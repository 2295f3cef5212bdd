//! The started backend, and what devices it has.

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_sys_2 as sys;

/// Proof that llama.cpp is initialised. There is one for the whole process; it is never shut down, so nothing
/// can outlive it.
#[derive(Clone, Copy, Debug)]
pub struct Backend(&'static LlamaBackend);

impl Backend {
    /// Starts llama.cpp on the first call; later calls give the same backend.
    pub fn get() -> Self {
        static BACKEND: OnceLock<LlamaBackend> = OnceLock::new();
        Self(BACKEND.get_or_init(|| {
            super::log::install();
            // The only error is "already initialised", which the `OnceLock` rules out; the proof object is empty.
            LlamaBackend::init().unwrap_or(LlamaBackend {})
        }))
    }

    /// Whether this build can offload to a GPU that is present.
    pub fn can_offload(self) -> bool {
        self.0.supports_gpu_offload()
    }
}

/// A device llama.cpp can compute on.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// The name `-dev` takes.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Bytes of memory.
    pub memory_total: u64,
    /// Bytes of it that are free.
    pub memory_free: u64,
    /// Whether it is a GPU or another accelerator.
    pub accelerator: bool,
}

/// The devices of this machine.
pub fn devices(_: Backend) -> Vec<Device> {
    use llama_cpp_2::LlamaBackendDeviceType as Kind;
    let of = |d: llama_cpp_2::LlamaBackendDevice| Device {
        name: d.name,
        description: d.description,
        memory_total: d.memory_total as u64,
        memory_free: d.memory_free as u64,
        accelerator: !matches!(d.device_type, Kind::Cpu | Kind::Unknown),
    };
    llama_cpp_2::list_llama_ggml_backend_devices().into_iter().map(of).collect()
}

/// Which instruction sets and libraries llama.cpp was built with, in its own words (`llama_print_system_info`).
pub fn system_info(_: Backend) -> String {
    // SAFETY: the function returns a pointer to a static, NUL-terminated string; the backend is initialised.
    let text = unsafe { std::ffi::CStr::from_ptr(sys::llama_print_system_info()) };
    text.to_string_lossy().trim().to_string()
}
