//! DoRA and IA3 as gains: exactly what PyTorch's merged weights do, and what the papers' formulas say in 64 bits.

use super::*;
use crate::gguf::{AdapterKind, check_adapter};

type Wide = ndarray::Array2<f64>;

/// An imported file taken apart, in 64 bits.
struct Applied {
    /// Rows of outputs.
    pairs: std::collections::BTreeMap<String, (Wide, Wide, f64)>,
    gains: std::collections::BTreeMap<String, Vec<f64>>,
}

fn apart(imported: &Imported, facts: &ModelFacts) -> Applied {
    let found = check_adapter(&imported.gguf, facts).expect("checked");
    let gguf = Gguf::read(&imported.gguf).expect("read");
    let half = |name: String| {
        let tensor = gguf.tensor(&name).expect("half");
        let numbers = dequant::decode(tensor.kind, gguf.tensor_bytes(tensor)).expect("numbers");
        let shape = (tensor.dims[1] as usize, tensor.dims[0] as usize);
        Matrix::from_shape_vec(shape, numbers).expect("shape").mapv(f64::from)
    };
    let pairs = found.pairs.iter().map(|pair| {
        let halves = (half(format!("{}.lora_a", pair.tensor)), half(format!("{}.lora_b", pair.tensor)));
        (pair.tensor.clone(), (halves.0, halves.1, f64::from(found.alpha) / f64::from(pair.rank)))
    });
    let words =
        |bytes: &[u8]| bytes.as_chunks::<4>().0.iter().map(|word| f64::from(f32::from_le_bytes(*word))).collect();
    let gains = gguf::gains(&imported.gguf).expect("read");
    Applied {
        pairs: pairs.collect(),
        gains: gains.iter().map(|(tensor, bytes)| ((*tensor).to_owned(), words(bytes))).collect(),
    }
}

impl Applied {
    /// `W x + s ((g - 1) * W x + strength B A x)` as a matrix.
    fn matrix(&self, tensor: &str, base: &Wide, scale: f64) -> Wide {
        let mut whole = base.clone();
        if let Some(gain) = self.gains.get(tensor) {
            for (mut row, less_one) in whole.rows_mut().into_iter().zip(gain) {
                row *= 1.0 + scale * less_one;
            }
        }
        if let Some((a, b, strength)) = self.pairs.get(tensor) {
            whole += &(b.dot(a) * (strength * scale));
        }
        whole
    }
}

fn weights(tensor: &str) -> Wide {
    let (bytes, _) = base();
    let parts = [Gguf::read(&bytes).expect("sound")];
    GgufWeights::new(&parts).dequantized(tensor).expect("numbers").mapv(f64::from)
}

/// Rows of q and k in the order of Hugging Face; the tiny llama's heads have 16 rows.
fn hugging_face(tensor: &str, matrix: &Wide) -> Wide {
    if !tensor.contains("attn_q") && !tensor.contains("attn_k") {
        return matrix.clone();
    }
    Wide::from_shape_fn(matrix.dim(), |(row, column)| {
        let (start, within) = (row / 16 * 16, row % 16);
        matrix[[start + within % 8 * 2 + within / 8, column]]
    })
}

fn tensor_of(module: &str) -> String {
    let (layer, part) = module.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')).expect("layer");
    let name = match part {
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => panic!("{other}"),
    };
    format!("blk.{layer}.{name}.weight")
}

/// The relative distance of two matrices.
fn distance(one: &Wide, other: &Wide) -> f64 {
    let square = |matrix: &Wide| matrix.iter().map(|number| number * number).sum::<f64>();
    (square(&(one - other)) / square(other)).sqrt()
}

#[test]
fn gains_change_what_pytorch_changed() {
    let (_, facts) = base();
    for name in ["dora", "dora_near", "ia3"] {
        let imported = import(name, &whole()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((imported.exact, &imported.facts.kind), (true, &AdapterKind::Gain), "{name}");
        let applied = apart(&imported, &facts);
        let bytes = reference(name);
        let reference = read(&bytes);
        let mut seen = 0;
        for delta in reference.tensors().iter().filter(|tensor| tensor.name.starts_with("delta.")) {
            let module = delta.name.trim_start_matches("delta.");
            if name == "ia3" && module.ends_with("down_proj") {
                continue; // its gain stands on ffn_up: see below
            }
            let tensor = tensor_of(module);
            let base = weights(&tensor);
            let change = hugging_face(&tensor, &(applied.matrix(&tensor, &base, 1.0) - &base));
            let probe = reference.get(&format!("probe.{}", change.ncols())).expect("probe").matrix().expect("matrix");
            let theirs = delta.matrix().expect("matrix").mapv(f64::from);
            let error = distance(&change.dot(&probe.mapv(f64::from)), &theirs);
            assert!(error < 2e-5, "{name}: {module}: {error}");
            seen += 1;
        }
        assert_eq!(seen, if name == "ia3" { 4 } else { 14 }, "{name}");
    }
}

/// `m (W + s B A) / |W + s B A|` by the paper, in 64 bits and in the order of Hugging Face.
#[test]
fn dora_is_the_papers_formula() {
    let (_, facts) = base();
    let applied = apart(&import("dora", &whole()).expect("imported"), &facts);
    let bytes = corpus("dora/adapter_model.safetensors");
    let file = read(&bytes);
    for (part, name) in [("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("mlp.up_proj", "ffn_up")] {
        let tensor = format!("blk.1.{name}.weight");
        let of = |end: &str| file.get(&format!("base_model.model.model.layers.1.{part}.{end}")).expect("there");
        let (a, b) = (of("lora_A.weight").matrix().expect("a"), of("lora_B.weight").matrix().expect("b"));
        let lengths = of("lora_magnitude_vector").vector().expect("lengths");
        let base = weights(&tensor);
        // The fixture has r = 2 and alpha = 6.
        let mut direct = hugging_face(&tensor, &base) + b.mapv(f64::from).dot(&a.mapv(f64::from)) * 3.0;
        for (mut row, length) in direct.rows_mut().into_iter().zip(&lengths) {
            let norm = row.iter().map(|number| number * number).sum::<f64>().sqrt();
            row *= f64::from(*length) / norm;
        }
        let ours = hugging_face(&tensor, &applied.matrix(&tensor, &base, 1.0));
        assert!(distance(&ours, &direct) < 1e-6, "{tensor}: {}", distance(&ours, &direct));
        // The scale of a request goes from the base to the adapter in a straight line.
        let half = applied.matrix(&tensor, &base, 0.5) * 2.0 - &base;
        assert!(distance(&half, &applied.matrix(&tensor, &base, 1.0)) < 1e-12);
    }
}

/// The whole feed-forward block with IA3 on the inputs of its last linear, and with the gain on its first.
#[test]
fn ia3_on_inputs_of_the_last_linear_is_a_gain_of_the_first() {
    let (_, facts) = base();
    let applied = apart(&import("ia3", &whole()).expect("imported"), &facts);
    let bytes = corpus("ia3/adapter_model.safetensors");
    let file = read(&bytes);
    for layer in 0..2 {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let l = file.get(&format!("base_model.model.model.layers.{layer}.mlp.down_proj.ia3_l")).expect("there");
        let l: Vec<f64> = l.vector().expect("factors").into_iter().map(f64::from).collect();
        let (gate, up, down) = (weights(&name("ffn_gate")), weights(&name("ffn_up")), weights(&name("ffn_down")));
        let x = Wide::from_shape_fn((64, 5), |(row, column)| ((row * 7 + column * 13) % 11) as f64 / 5.0 - 1.0);
        let silu = gate.dot(&x).mapv(|number| number / (1.0 + (-number).exp()));
        let direct = {
            let mut inner = &silu * &up.dot(&x);
            for (mut row, factor) in inner.rows_mut().into_iter().zip(&l) {
                row *= *factor;
            }
            down.dot(&inner)
        };
        assert!(!applied.gains.contains_key(&name("ffn_down")), "nothing is left on the last linear");
        let ours = down.dot(&(&silu * &applied.matrix(&name("ffn_up"), &up, 1.0).dot(&x)));
        assert!(distance(&ours, &direct) < 1e-6, "layer {layer}: {}", distance(&ours, &direct));
    }
}

const UP: &str = "base_model.model.model.layers.0.mlp.up_proj.ia3_l";
const DOWN: &str = "base_model.model.model.layers.0.mlp.down_proj.ia3_l";

/// Factors that differ from one another.
fn factors(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 37 + seed * 11) % 17) as f32 / 16.0 + 0.5).collect()
}

fn ia3(tensors: &[(&str, &[u64], Vec<f32>)], facts: &ModelFacts, as_lora: bool) -> Result<Imported, ImportError> {
    let config = String::from_utf8(corpus("ia3/adapter_config.json")).expect("text");
    let weights = weights_of(tensors);
    let options = Options { as_lora, ..whole() };
    import_peft(&PeftFolder { config: &config, weights: &weights }, facts, None, &options)
}

#[test]
fn gains_of_outputs_and_of_the_next_inputs_multiply() {
    let (_, facts) = base();
    let (one, other) = (factors(1, 64), factors(2, 64));
    let both = [(UP, &[64, 1][..], one.clone()), (DOWN, &[1, 64][..], other.clone())];
    let imported = ia3(&both, &facts, false).expect("no weights are needed");
    assert_eq!((imported.targets.as_slice(), imported.rank_max), (&["ffn_up".to_owned()][..], 0));
    let applied = apart(&imported, &facts);
    for (at, less_one) in applied.gains["blk.0.ffn_up.weight"].iter().enumerate() {
        let expected = f64::from(one[at]) * f64::from(other[at]);
        assert!((less_one + 1.0 - expected).abs() < 1e-6, "{at}: {less_one} and {expected}");
    }
}

#[test]
fn fused_gates_keep_their_half_and_models_without_gates_are_refused() {
    let (_, mut facts) = base();
    facts.tensors.remove("blk.0.ffn_gate.weight");
    facts.tensors.insert("blk.0.ffn_up.weight".to_owned(), [64, 128, 1, 1]);
    let down = [(DOWN, &[1, 64][..], factors(3, 64))];
    let applied = apart(&ia3(&down, &facts, false).expect("fused"), &facts);
    let gain = &applied.gains["blk.0.ffn_up.weight"];
    assert!(gain[..64].iter().all(|number| *number == 0.0), "the gate stays");
    assert!((gain[64 + 5] + 1.0 - f64::from(down[0].2[5])).abs() < 1e-6);

    facts.tensors.insert("blk.0.ffn_up.weight".to_owned(), [64, 64, 1, 1]);
    let error = ia3(&down, &facts, false).expect_err("no gate").to_string();
    assert!(error.contains("has no gate") && error.contains("--as-lora"), "{error}");
    facts.tensors.insert("blk.0.ffn_gate.weight".to_owned(), [64, 64, 1, 1]);
    facts.tensors.insert("blk.0.ffn_up.bias".to_owned(), [64, 1, 1, 1]);
    let error = ia3(&down, &facts, false).expect_err("a bias").to_string();
    assert!(error.contains("has a bias"), "{error}");
    let inputs = [("base_model.model.model.layers.0.mlp.gate_proj.ia3_l", &[1, 64][..], factors(3, 64))];
    let error = ia3(&inputs, &facts, false).expect_err("no product").to_string();
    assert!(error.contains("--as-lora"), "{error}");
}

#[test]
fn quantized_gain_adapters_keep_their_gains() {
    let (_, facts) = base();
    let exact = import("dora", &whole()).expect("imported");
    let (bytes, error) = requantize(&exact.gguf, Storage::Q8_0).expect("stored");
    let found = check_adapter(&bytes, &facts).expect("checked");
    assert_eq!((&found.kind, found.gains.len()), (&AdapterKind::Gain, 14));
    assert_eq!(gguf::gains(&bytes).expect("read"), gguf::gains(&exact.gguf).expect("read"));
    assert!(error < 0.01, "{error}");
}
