//! What an imported adapter changes is what PyTorch's merged weights changed.

use super::*;
use crate::gguf::{LoraPair, check_adapter};

/// Conversion to LoRA, whatever it costs.
fn converted() -> Options {
    Options { as_lora: true, max_relative_error: None, ..whole() }
}

/// A pair of an imported file as a difference, with the rows of q and k back in the order of Hugging Face.
fn difference(gguf: &Gguf<'_>, pair: &LoraPair, alpha: f32) -> Matrix {
    let half = |end: &str| {
        let tensor = gguf.tensor(&format!("{}.{end}", pair.tensor)).expect("half");
        let numbers = dequant::decode(tensor.kind, gguf.tensor_bytes(tensor)).expect("numbers");
        Matrix::from_shape_vec((tensor.dims[1] as usize, tensor.dims[0] as usize), numbers).expect("shape")
    };
    let (a, b) = (half("lora_a"), half("lora_b"));
    let product = if pair.embedding { a.dot(&b.t()) } else { b.dot(&a) } * (alpha / pair.rank as f32);
    // The tiny llama's heads have 16 rows.
    match pair.target.as_str() {
        "attn_q" | "attn_k" => Matrix::from_shape_fn(product.dim(), |(row, column)| {
            let (start, within) = (row / 16 * 16, row % 16);
            product[[start + within % 8 * 2 + within / 8, column]]
        }),
        _ => product,
    }
}

pub(super) fn module_of(pair: &LoraPair) -> String {
    let part = match pair.target.as_str() {
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        "token_embd" => return "model.embed_tokens".to_owned(),
        "output" => return "lm_head".to_owned(),
        other => panic!("{other}"),
    };
    format!("model.layers.{}.{part}", pair.layer.expect("layer"))
}

/// The largest relative error of any module against PyTorch's reference, and that over all.
fn errors(name: &str, imported: &Imported) -> (f64, f64) {
    let (_, facts) = base();
    let found = check_adapter(&imported.gguf, &facts).expect("checked");
    let gguf = Gguf::read(&imported.gguf).expect("read");
    let bytes = reference(name);
    let reference = read(&bytes);
    let expected = reference.tensors().iter().filter(|tensor| tensor.name.starts_with("delta.")).count();
    assert_eq!(expected, found.pairs.len(), "{name}: as many modules as PyTorch changed");
    let (mut worst, mut missing, mut whole) = (0.0_f64, 0.0, 0.0);
    for pair in &found.pairs {
        let ours = difference(&gguf, pair, found.alpha);
        let probe = reference.get(&format!("probe.{}", ours.ncols())).expect("probe").matrix().expect("matrix");
        let delta = reference.get(&format!("delta.{}", module_of(pair))).expect("delta").matrix().expect("matrix");
        let square = |matrix: &Matrix| matrix.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>();
        let (lost, all) = (square(&(ours.dot(&probe) - &delta)), square(&delta));
        worst = worst.max((lost / all).sqrt());
        missing += lost;
        whole += all;
    }
    (worst, (missing / whole).sqrt())
}

/// Folders whose import is exact.
const EXACT: [(&str, PeftKind); 10] = [
    ("lora", PeftKind::Lora),
    ("rslora", PeftKind::RsLora),
    ("alora", PeftKind::ALora),
    ("patterns", PeftKind::Lora),
    ("rslora_patterns", PeftKind::RsLora),
    ("embedding", PeftKind::Lora),
    ("loha", PeftKind::LoHa),
    ("lokr", PeftKind::LoKr),
    ("lokr_both", PeftKind::LoKr),
    ("vera", PeftKind::Vera),
];

#[test]
fn exact_kinds_change_what_pytorch_changed() {
    for (name, kind) in EXACT {
        for (storage, limit) in [(Storage::F32, 2e-6), (Storage::F16, 1e-3), (Storage::Source, 2e-6)] {
            let options = Options { storage, ..Options::default() };
            let imported = import(name, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((imported.kind, imported.exact, imported.relative_error), (kind, true, None), "{name}");
            let (worst, _) = errors(name, &imported);
            assert!(worst < limit, "{name} as {storage:?}: {worst}");
            assert!(imported.storage_error < 1e-3, "{name}: {}", imported.storage_error);
            println!("{name} as {storage:?}: {worst:.1e}, rank {} to {}", imported.rank_min, imported.rank_max);
        }
    }
}

#[test]
fn converted_kinds_err_by_what_they_say() {
    for name in ["dora", "dora_near", "ia3"] {
        for rank in [2, 8, 16, 32] {
            let options = Options { rank: Some(rank), ..converted() };
            let imported = import(name, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
            let told = f64::from(imported.relative_error.expect("converted"));
            let (_, seen) = errors(name, &imported);
            println!("{name} at rank {rank}: told {told:.4}, seen {seen:.4}");
            // Six random columns see the error within some 15 percent.
            assert!((seen - told).abs() <= 0.25 * told + 1e-5, "{name} at rank {rank}: told {told}, seen {seen}");
        }
        // At full rank nothing is cut.
        let imported = import(name, &Options { rank: Some(64), ..converted() }).expect("imported");
        assert!(errors(name, &imported).0 < 1e-4, "{name}: {:?}", errors(name, &imported));
    }
}

#[test]
fn few_factors_of_ia3_are_exact() {
    let name = "ia3";
    let config = String::from_utf8(corpus("ia3/adapter_config.json")).expect("text");
    let mut factors = vec![1.0; 64];
    factors[5] = 1.5;
    factors[60] = -2.0;
    let weights = weights_of(&[("base_model.model.model.layers.1.mlp.down_proj.ia3_l", &[1, 64], factors)]);
    let imported = import_parts(&config, &weights, &Options { as_lora: true, ..whole() }).expect("imported");
    assert!(imported.exact, "{name}");
    assert_eq!((imported.rank_min, imported.rank_max), (2, 2));
}

#[test]
fn too_much_loss_is_refused_unless_accepted() {
    let limited = Options { rank: Some(4), as_lora: true, max_relative_error: Some(0.05), ..Options::default() };
    let error = import("dora", &limited).expect_err("refused");
    assert!(matches!(error, ImportError::TooInexact { rank: 4, .. }), "{error}");
    assert!(error.to_string().contains("DoRA as LoRA of rank 4 misses"), "{error}");
    let accepted = Options { max_relative_error: None, ..limited };
    let imported = import("dora", &accepted).expect("accepted");
    assert!(imported.relative_error.expect("converted") > 0.05);
    let gguf = Gguf::read(&imported.gguf).expect("read");
    assert_eq!(gguf.f32("smoa.import.relative_error").expect("number"), imported.relative_error);
    assert_eq!(gguf.str("smoa.import.kind").expect("text"), Some("DoRA"));
}

#[test]
fn a_rank_cuts_plain_adapters_too() {
    let options = Options { rank: Some(1), max_relative_error: None, ..whole() };
    let imported = import("lora", &options).expect("imported");
    assert_eq!((imported.exact, imported.rank_max), (false, 1));
    let (_, seen) = errors("lora", &imported);
    let told = f64::from(imported.relative_error.expect("cut"));
    assert!((seen - told).abs() < 0.25 * told, "told {told}, seen {seen}");
}

#[test]
fn conversions_need_the_base_weights() {
    let (_, facts) = base();
    let config = String::from_utf8(corpus("dora/adapter_config.json")).expect("text");
    let weights = corpus("dora/adapter_model.safetensors");
    let folder = PeftFolder { config: &config, weights: &weights };
    let error = import_peft(&folder, &facts, None, &whole()).expect_err("refused");
    assert!(matches!(&error, ImportError::Base { .. }), "{error}");
}

#[test]
fn invocation_tokens_and_name_are_kept() {
    let options = Options { name: Some("mine".to_owned()), ..Options::default() };
    let imported = import("alora", &options).expect("imported");
    let (_, facts) = base();
    let found = check_adapter(&imported.gguf, &facts).expect("checked");
    assert_eq!(found.invocation_tokens, [111, 44]);
    assert_eq!(found.name.as_deref(), Some("mine"));
}

#[test]
fn the_same_folder_gives_the_same_bytes() {
    for name in ["lora", "dora"] {
        let many = Options { max_relative_error: None, rank: Some(8), as_lora: name == "dora", ..Options::default() };
        let one = Options { threads: 1, ..many.clone() };
        assert_eq!(import(name, &many).expect("imported").gguf, import(name, &one).expect("imported").gguf, "{name}");
    }
}

/// Folders with llama.cpp's own conversion beside them, and the architecture it gave them.
const CONVERTED: [(&str, &str); 21] = [
    ("mistral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3", "gemma3"),
    ("phi3", "phi3"),
    ("granite", "granite"),
    ("smollm3", "smollm3"),
    ("olmo2", "olmo2"),
    ("starcoder2", "starcoder2"),
    ("stablelm", "stablelm"),
    ("arcee", "arcee"),
    ("cohere", "command-r"),
    ("cohere2", "cohere2"),
    ("ernie4_5", "ernie4_5"),
    ("exaone4", "exaone4"),
    ("glm4", "glm4"),
    ("olmo", "olmo"),
    ("phi", "phi2"),
    ("seed_oss", "seed_oss"),
];

#[test]
fn tensors_are_those_of_llama_cpps_converter() {
    for (name, architecture) in CONVERTED {
        let bytes = corpus(&format!("arch_{name}/llama_cpp.gguf"));
        let theirs = Gguf::read(&bytes).expect("a sound adapter");
        assert_eq!(theirs.str("general.architecture").expect("text"), Some(architecture), "{name}");
        let (_, mut facts) = base();
        // The shapes of a base model are told by the adapter's own.
        facts.architecture = architecture.to_owned();
        (facts.n_head, facts.n_head_kv) = (4, 2);
        facts.tensors.clear();
        for a in theirs.tensors() {
            let Some(tensor) = a.name.strip_suffix(".lora_a") else { continue };
            let b = theirs.tensor(&format!("{tensor}.lora_b")).expect("half");
            facts.tensors.insert(tensor.to_owned(), [a.dims[0], b.dims[1], 1, 1]);
        }
        let config = String::from_utf8(corpus(&format!("arch_{name}/adapter_config.json"))).expect("text");
        let weights = corpus(&format!("arch_{name}/adapter_model.safetensors"));
        let folder = PeftFolder { config: &config, weights: &weights };
        let imported = import_peft(&folder, &facts, None, &Options::default());
        let imported = imported.unwrap_or_else(|error| panic!("{name}: {error}"));
        let ours = Gguf::read(&imported.gguf).expect("read");
        let names = |gguf: &Gguf<'_>| gguf.tensors().iter().map(|tensor| tensor.name.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{name}: names in order");
        for (our, their) in ours.tensors().iter().zip(theirs.tensors()) {
            assert_eq!((our.dims, our.kind), (their.dims, their.kind), "{name}: {}", our.name);
            let same = ours.tensor_bytes(our) == theirs.tensor_bytes(their);
            assert!(same, "{name}: the numbers of {} differ", our.name);
        }
        assert_eq!(ours.f32("adapter.lora.alpha"), theirs.f32("adapter.lora.alpha"), "{name}");
    }
}

#[test]
fn quantized_adapters_lose_what_they_say() {
    let options = Options { rank: Some(32), as_lora: true, ..whole() };
    // A rank of 32, so that both halves are whole blocks.
    let exact = import("dora", &Options { max_relative_error: None, ..options.clone() }).expect("imported");
    let (_, facts) = base();
    for (storage, most) in [(Storage::Q8_0, 0.02), (Storage::Q4_0, 0.2), (Storage::F16, 1e-3), (Storage::F32, 0.0)] {
        let (bytes, error) = requantize(&exact.gguf, storage).expect("stored");
        let found = check_adapter(&bytes, &facts).expect("checked");
        assert!(error <= most, "{storage:?}: {error}");
        assert!(found.pairs.iter().any(|pair| pair.b == storage.kind()), "{storage:?}: {:?}", found.pairs[0]);
        let direct = Options { storage, max_relative_error: None, ..options.clone() };
        let direct = import("dora", &direct).expect("imported");
        assert!((direct.storage_error - error).abs() < 1e-6, "{storage:?}: {error} and {}", direct.storage_error);
    }
}

#[test]
fn block_formats_keep_ragged_rows_wide() {
    let imported = import("lora", &Options { storage: Storage::Q8_0, ..Options::default() }).expect("imported");
    let (_, facts) = base();
    let found = check_adapter(&imported.gguf, &facts).expect("checked");
    assert!(found.pairs.iter().all(|pair| pair.a == gguf::TensorType::Q8_0 && pair.b == gguf::TensorType::F16));
    assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
}

#[test]
fn numbers_too_small_or_large_for_f16_are_kept_in_32_bits() {
    let (a, b) = (
        "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight",
    );
    let config = config_with("rank_pattern", "{}");
    for size in [1e-7, 1e6] {
        let numbers: Vec<f32> = (0..128).map(|at| (at as f32 - 60.3) * size).collect();
        let weights = weights_of(&[(a, &[2, 64], numbers.clone()), (b, &[64, 2], vec![0.01; 128])]);
        let imported = import_parts(&config, &weights, &Options::default()).expect("imported");
        assert!(imported.storage_error < 1e-6, "{size}: {}", imported.storage_error);
        assert_eq!(imported.notes.len(), 1, "{:?}", imported.notes);
    }
}

#[test]
fn blocks_are_read_and_made_as_ggml_does() {
    let bytes = corpus("blocks.safetensors");
    let file = read(&bytes);
    let kinds = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"];
    for kind in kinds {
        let blocks = file.get(&format!("{kind}.blocks")).expect("blocks").bytes;
        let theirs = file.get(&format!("{kind}.numbers")).expect("numbers").matrix().expect("matrix");
        let id = (0..60).filter_map(gguf::TensorType::from_id).find(|found| found.name() == kind).expect("kind");
        let ours = dequant::decode(id, blocks).expect("numbers");
        assert_eq!(ours.len(), theirs.len(), "{kind}");
        for (our, their) in ours.iter().zip(theirs.iter()) {
            assert!((our - their).abs() <= their.abs() * 1e-6 + 1e-7, "{kind}: {our} and {their}");
        }
    }
    let numbers = file.get("numbers").expect("numbers").matrix().expect("matrix");
    for kind in [gguf::TensorType::Q4_0, gguf::TensorType::Q8_0] {
        let theirs = file.get(&format!("{}.made", kind.name())).expect("blocks").bytes;
        let (ours, _) = quantize::store(&numbers, kind, gguf::TensorType::F16);
        assert_eq!((ours.kind, ours.bytes.as_slice()), (kind, theirs));
    }
}

#[test]
fn products_of_too_many_ranks_are_cut() {
    let names = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"]
        .map(|part| format!("base_model.model.model.layers.0.mlp.down_proj.{part}"));
    let hash = |at: u32| (at ^ (at >> 7)).wrapping_mul(2_654_435_761);
    let number = |at: u32| hash(hash(hash(at))) as f32 / u32::MAX as f32 - 0.5;
    let numbers = |seed: u32| (0..640).map(|at| number(at + 640 * seed)).collect();
    let weights = weights_of(&[
        (&names[0], &[64, 10], numbers(1)),
        (&names[1], &[10, 64], numbers(2)),
        (&names[2], &[64, 10], numbers(3)),
        (&names[3], &[10, 64], numbers(4)),
    ]);
    let config = String::from_utf8(corpus("loha/adapter_config.json")).expect("text").replace("\"r\": 2", "\"r\": 10");
    // 100 ranks of a matrix of 64: worked out in full, and of rank 64 again.
    let imported = import_parts(&config, &weights, &whole()).expect("imported");
    assert_eq!((imported.exact, imported.rank_max), (false, 64));
    assert!(imported.relative_error.expect("cut") < 1e-5);
}
