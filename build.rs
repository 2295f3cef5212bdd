//! Two build promises that Cargo cannot make.
//!
//! `--features native` must really give native kernels: llama.cpp's CPU code is compiled by `llama-cpp-sys-2`, which
//! turns on `GGML_NATIVE` exactly when the Rust flags say `-C target-cpu=native`. A Cargo feature cannot set those
//! flags, so the feature asserts them.
//!
//! Native kernels must not crash: some GCC releases lose the stores before `_tile_loadconfig` (GCC bug 114098), so
//! llama.cpp's AMX kernels load a random tile configuration. When such a compiler may have built them, the engine is
//! told not to use llama.cpp's special buffer types, which are the way to AMX. `scripts/lib.sh` avoids the case by
//! switching AMX off for such a compiler, which keeps the other special types.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["CARGO_ENCODED_RUSTFLAGS", "CXXFLAGS", "CXX"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    println!("cargo:rustc-check-cfg=cfg(broken_amx)");
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let native = flags.contains("target-cpu=native");
    println!("cargo:rustc-env=SMOA_CPU={}", if native { "native" } else { "generic" });
    println!("cargo:rustc-env=SMOA_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    if std::env::var_os("CARGO_FEATURE_NATIVE").is_some() && !native {
        panic!("feature `native` needs RUSTFLAGS=\"-C target-cpu=native\" (scripts/run.sh sets it)");
    }
    let amx = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default().contains("amx-tile");
    let off = std::env::var("CXXFLAGS").unwrap_or_default().contains("-mno-amx-tile");
    if native && amx && !off && compiler_loses_stores() {
        println!("cargo:rustc-cfg=broken_amx");
        println!(
            "cargo:warning=this GCC miscompiles AMX kernels; build with CXXFLAGS=\"-mno-amx-tile -mno-amx-int8 -mno-amx-bf16\" for full speed"
        );
    }
}

/// Whether the C++ compiler is a GCC before 11.5, 12.4, 13.3 or 14.
fn compiler_loses_stores() -> bool {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let ask = |args: &[&str]| {
        let output = Command::new(&compiler).args(args).output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    if ask(&["-dM", "-E", "-x", "c++", "/dev/null"]).is_none_or(|macros| macros.contains("__clang__")) {
        return false;
    }
    let version = ask(&["-dumpfullversion"]).unwrap_or_default();
    let mut numbers = version.trim().split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match major {
        0 => false,
        11 => minor < 5,
        12 => minor < 4,
        13 => minor < 3,
        m => m < 11,
    }
}
