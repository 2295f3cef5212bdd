//! Lines of `/metrics` about adapters in the engine and prefixes in RAM.

use std::fmt::Write as _;

use crate::engine::Batching;
use crate::pipeline::Pipeline;

/// The lines, as Prometheus reads them.
pub fn text(pipeline: &Pipeline) -> String {
    let mut out = String::new();
    let mut metric = |kind: &str, name: &str, help: &str, value: u64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let mixed = matches!(pipeline.facts().batching, Batching::Lanes);
    let help = "1 when requests with different adapters share steps, 0 when their adapters take turns.";
    metric("gauge", "smoa_adapters_mixed", help, u64::from(mixed));
    if let Some(r) = pipeline.resident_adapters() {
        metric("gauge", "smoa_resident_adapters", "Adapters laid out for the engine.", r.resident as u64);
        metric("gauge", "smoa_resident_adapter_bytes", "Bytes of them.", r.bytes as u64);
        metric("counter", "smoa_adapter_loads_total", "Adapters laid out.", r.loads);
        metric("counter", "smoa_adapter_hits_total", "Adapters found laid out.", r.hits);
        metric("counter", "smoa_adapter_evictions_total", "Adapters forgotten to make room.", r.evictions);
        let help = "Adapters laid out that are larger than --adapter-device-bytes.";
        metric("counter", "smoa_adapter_oversized_total", help, r.oversized);
    }
    let p = pipeline.parked_prefixes();
    metric("gauge", "smoa_ram_prefixes", "Prefixes kept in RAM.", p.prefixes);
    metric("gauge", "smoa_ram_prefix_bytes", "Bytes of them.", p.bytes);
    metric("counter", "smoa_ram_prefix_saves_total", "Prefixes copied out of the context.", p.saves);
    metric("counter", "smoa_ram_prefix_restores_total", "Prefixes copied back into it.", p.restores);
    metric("counter", "smoa_ram_prefix_evictions_total", "Prefixes forgotten to make room.", p.evictions);
    out
}
