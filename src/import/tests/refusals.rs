//! Row A9 of the reliability page: every field and tensor that could only half apply is refused by name.

use super::*;

/// Imports with the plain LoRA folder's configuration changed, and gives the error.
fn refused(field: &str, value: &str) -> String {
    let config = config_with(field, value);
    match import_parts(&config, &lora_weights(), &Options::default()) {
        Ok(_) => panic!("{field}: {value} was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a9_fields_that_cannot_be_honoured_are_named() {
    for (field, value) in [
        ("modules_to_save", r#"["lm_head"]"#),
        ("bias", r#""all""#),
        ("bias", r#""lora_only""#),
        ("lora_bias", "true"),
        ("init_lora_weights", r#""pissa""#),
        ("init_lora_weights", r#""pissa_niter_16""#),
        ("init_lora_weights", r#""olora""#),
        ("init_lora_weights", r#""corda""#),
        ("init_lora_weights", r#""loftq""#),
        ("init_lora_weights", r#""lora_ga""#),
        ("loftq_config", r#"{"loftq_bits": 4}"#),
        ("use_qalora", "true"),
        ("use_bdlora", r#"{"target_modules_bd_a": ["q_proj"]}"#),
        ("trainable_token_indices", "[1, 2]"),
        ("layer_replication", "[[0, 1], [0, 2]]"),
        ("target_parameters", r#"["mlp.experts.gate_up_proj"]"#),
        ("invocation_string", r#""<|start|>assistant""#),
        ("arrow_config", r#"{"top_k": 3}"#),
        ("kasa_config", r#"{"beta": 1}"#),
        ("peft_type", r#""ADALORA""#),
        ("peft_type", r#""CPT""#),
        ("peft_type", r#""MULTITASK_PROMPT_TUNING""#),
        ("peft_type", r#""PREFIX_TUNING""#),
        ("peft_type", r#""OFT""#),
        ("peft_type", "7"),
        ("use_something_new", "true"),
        ("something_config", r#"{"on": 1}"#),
        ("lora_alpha", "0"),
        ("lora_alpha", "-3"),
        ("lora_alpha", r#""16""#),
        ("lora_alpha", "null"),
        ("r", "0"),
        ("r", "100000"),
        ("use_rslora", r#""yes""#),
        ("rank_pattern", "[]"),
        ("alpha_pattern", r#"{"q_proj": 0}"#),
        ("alpha_pattern", r#"{"(": 4}"#),
        ("alpha_pattern", r#"{"q_proj(?=x)": 4}"#),
        ("alora_invocation_tokens", r#"["a"]"#),
        ("alora_invocation_tokens", "[-1]"),
    ] {
        let error = refused(field, value);
        assert!(error.starts_with(&format!("adapter_config.json: '{field}' ")), "{field}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a9_prefix_tuning_says_what_to_do_instead() {
    let error = refused("peft_type", r#""PREFIX_TUNING""#);
    assert!(error.contains("smoa adapter from-examples"), "{error}");
}

#[test]
fn a9_folders_that_peft_made_are_refused_by_their_own_field() {
    for (name, field) in [
        ("refused_modules_to_save", "modules_to_save"),
        ("refused_bias", "bias"),
        ("refused_lora_bias", "lora_bias"),
        ("refused_pissa", "init_lora_weights"),
        ("refused_olora", "init_lora_weights"),
        ("refused_tokens", "trainable_token_indices"),
        ("refused_adalora", "peft_type"),
        ("refused_prefix_tuning", "peft_type"),
    ] {
        let config = String::from_utf8(corpus(&format!("{name}/adapter_config.json"))).expect("text");
        let error = import_parts(&config, &lora_weights(), &Options::default()).expect_err(name).to_string();
        assert!(error.starts_with(&format!("adapter_config.json: '{field}' ")), "{name}: {error}");
    }
}

#[test]
fn a9_fields_without_effect_are_accepted() {
    for (field, value) in [
        ("init_lora_weights", r#""gaussian""#),
        ("init_lora_weights", r#""eva""#),
        ("init_lora_weights", r#""orthogonal""#),
        ("fan_in_fan_out", "true"),
        ("layers_to_transform", "[0, 1]"),
        ("modules_to_save", "[]"),
        ("lora_dropout", "0.5"),
        ("qalora_group_size", "16"),
        ("some_new_number", "16"),
        ("some_new_switch", "false"),
        ("some_new_object", "{}"),
        ("peft_type", r#""lora""#),
        ("task_type", "null"),
    ] {
        let config = config_with(field, value);
        let imported = import_parts(&config, &lora_weights(), &Options::default());
        assert!(imported.is_ok(), "{field}: {value}: {:?}", imported.err());
    }
}

#[test]
fn a9_ranks_must_be_those_of_the_configuration() {
    let error = import_parts(&config_with("r", "4"), &lora_weights(), &Options::default()).expect_err("refused");
    assert!(error.to_string().contains("has rank 2, adapter_config.json says 4"), "{error}");
}

/// Imports the plain configuration with other tensors, and gives the error.
fn refused_tensors(tensors: &[(&str, &[u64], Vec<f32>)]) -> String {
    let config = String::from_utf8(corpus("lora/adapter_config.json")).expect("text");
    match import_parts(&config, &weights_of(tensors), &Options::default()) {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

const UP_A: &str = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight";
const UP_B: &str = "base_model.model.model.layers.0.mlp.up_proj.lora_B.weight";

fn up() -> [(&'static str, &'static [u64], Vec<f32>); 2] {
    [(UP_A, &[2, 64], vec![0.5; 128]), (UP_B, &[64, 2], vec![0.5; 128])]
}

#[test]
fn a9_tensors_that_cannot_be_carried_are_named() {
    for (name, hint) in [
        ("base_model.model.lm_head.weight", "merge the adapter"),
        ("base_model.model.model.embed_tokens.weight", "added tokens"),
        ("base_model.model.lm_head.modules_to_save.weight", "modules_to_save"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_B.bias", "bias"),
        ("base_model.model.model.layers.0.self_attn.q_proj.base_layer.bias", "bias"),
        ("base_model.model.model.layers.0.input_layernorm.weight", "norm"),
        ("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", "tokens"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_magnitude_vector", "does not belong"),
        ("base_model.model.model.layers.0.mlp.up_proj.hada_w1_a", "does not belong"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_E", "neither"),
        ("prompt_embeddings", "soft prompt"),
        ("nonsense", "neither"),
        ("base_model.model.model.layers.0.mlp.up_proj.lora_A.default.weight", "twice"),
        ("base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight", "ffn_up_exps"),
        ("base_model.model.model.vision_tower.layers.0.mlp.up_proj.lora_A.weight", "vision"),
        ("base_model.model.score.lora_A.weight", "classification"),
        ("base_model.model.model.layers.9.mlp.up_proj.lora_A.weight", "2 layers"),
        ("base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight", "has no lora_B"),
        ("base_model.model.model.layers.x.mlp.gate_proj.lora_A.weight", "does not know"),
    ] {
        let mut tensors = up().to_vec();
        tensors.push((name, &[2, 64], vec![0.5; 128]));
        let error = refused_tensors(&tensors);
        assert!(error.contains(hint), "{name}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn frozen_copies_of_embeddings_are_left_out_and_noted() {
    let mut tensors = up().to_vec();
    tensors.push(("base_model.model.lm_head.base_layer.weight", &[2, 64], vec![0.5; 128]));
    let config = String::from_utf8(corpus("lora/adapter_config.json")).expect("text");
    let imported = import_parts(&config, &weights_of(&tensors), &Options::default()).expect("imported");
    assert_eq!((imported.errors.len(), imported.notes.len()), (1, 1), "{:?}", imported.notes);
}

#[test]
fn a9_added_tokens_are_named() {
    let (a, b) = ("base_model.model.lm_head.lora_A.weight", "base_model.model.lm_head.lora_B.weight");
    let error = refused_tensors(&[(a, &[2, 64], vec![0.5; 128]), (b, &[290, 2], vec![0.5; 580])]);
    assert!(error.contains("vocabulary of 290 tokens, the model has 288"), "{error}");
}

#[test]
fn shapes_are_checked_against_the_base() {
    let error = refused_tensors(&[(UP_A, &[2, 32], vec![0.5; 64]), (UP_B, &[64, 2], vec![0.5; 128])]);
    assert!(error.contains("another base model?"), "{error}");
    let error = refused_tensors(&[(UP_A, &[2, 64], vec![0.5; 128]), (UP_B, &[64, 1], vec![0.5; 64])]);
    assert!(error.contains("rank 2 in A and 1 in B"), "{error}");
    let error = refused_tensors(&[(UP_A, &[128], vec![0.5; 128]), (UP_B, &[64, 2], vec![0.5; 128])]);
    assert!(error.contains("expected a matrix"), "{error}");
}

#[test]
fn prefixes_of_trainers_are_known() {
    for prefix in [
        "base_model.model.model.",
        "model.",
        "",
        "base_model.model.model.language_model.",
        "base_model.model.language_model.model.",
        "base_model.model._orig_mod.model.",
        "_fsdp_wrapped_module.base_model.model.model.",
    ] {
        let names = ["A", "B"].map(|half| format!("{prefix}layers.0.mlp.up_proj.lora_{half}.default.weight"));
        let config = String::from_utf8(corpus("lora/adapter_config.json")).expect("text");
        let weights = weights_of(&[(&names[0], &[2, 64], vec![0.5; 128]), (&names[1], &[64, 2], vec![0.5; 128])]);
        let imported = import_parts(&config, &weights, &Options::default());
        let imported = imported.unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert_eq!(imported.errors[0].tensor, "blk.0.ffn_up.weight");
    }
}

#[test]
fn models_that_share_or_fuse_tensors_are_told() {
    let config = String::from_utf8(corpus("embedding/adapter_config.json")).expect("text");
    let weights = corpus("embedding/adapter_model.safetensors");
    let (_, mut facts) = base();
    facts.tensors.remove("output.weight");
    let folder = PeftFolder { config: &config, weights: &weights };
    let error = import_peft(&folder, &facts, None, &Options::default()).expect_err("refused").to_string();
    assert!(error.contains("shares"), "{error}");
    let (_, mut facts) = base();
    facts.tensors.remove("blk.0.attn_q.weight");
    facts.tensors.insert("blk.0.attn_qkv.weight".to_owned(), [64, 128, 1, 1]);
    let error = import_peft(&folder, &facts, None, &Options::default()).expect_err("refused").to_string();
    assert!(error.contains("q, k and v in one"), "{error}");
    facts.architecture = "mamba".to_owned();
    let error = import_peft(&folder, &facts, None, &Options::default()).expect_err("refused").to_string();
    assert!(error.contains("'mamba'"), "{error}");
}

#[test]
fn vera_without_its_matrices_is_refused() {
    let config = String::from_utf8(corpus("vera/adapter_config.json")).expect("text");
    let weights = weights_of(&[
        ("base_model.model.model.layers.0.self_attn.o_proj.vera_lambda_b", &[64], vec![0.1; 64]),
        ("base_model.model.model.layers.0.self_attn.o_proj.vera_lambda_d", &[4], vec![0.1; 4]),
    ]);
    let error = import_parts(&config, &weights, &Options::default()).expect_err("refused").to_string();
    assert!(error.contains("save_projection=True"), "{error}");
}

#[test]
fn ia3_with_a_bias_is_refused() {
    let config = String::from_utf8(corpus("ia3/adapter_config.json")).expect("text");
    let weights = corpus("ia3/adapter_model.safetensors");
    let (bytes, mut facts) = base();
    facts.tensors.insert("blk.0.attn_k.bias".to_owned(), [32, 1, 1, 1]);
    let parts = [Gguf::read(&bytes).expect("read")];
    let folder = PeftFolder { config: &config, weights: &weights };
    let error = import_peft(&folder, &facts, Some(&GgufWeights::new(&parts)), &Options::default());
    assert!(error.expect_err("refused").to_string().contains("'blk.0.attn_k.bias'"));
}

#[test]
fn a9_switches_of_lora_are_refused_on_other_kinds() {
    for (field, value) in [("use_dora", "true"), ("use_rslora", "true"), ("alora_invocation_tokens", "[1]")] {
        let config = String::from_utf8(corpus("loha/adapter_config.json")).expect("text");
        let config = config.replacen('{', &format!("{{\"{field}\": {value},"), 1);
        let error = import_parts(&config, &corpus("loha/adapter_model.safetensors"), &Options::default());
        let error = error.expect_err(field).to_string();
        assert!(error.starts_with(&format!("adapter_config.json: '{field}' ")), "{error}");
    }
}
