//! Saved states on the real model: a sequence taken out and put back goes on with the same bits, slots go to files and
//! back, a prefix of examples is read once.

use serde_json::json;
use smoa::adapter::{AdapterSet, Timeline};
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, CacheType, EngineOptions, FlashAttention};
use smoa::engine::saved::Saved;
use smoa::engine::{Engine, EngineError, Row};
use smoa::pipeline::Pipeline;
use smoa::prompt::{ChatTemplate, SpecialTokens};
use smoa::request::{Input, Request};
use smoa::shelf::Shelf;

use crate::support::{App, Run, facts, model};

fn options(cache: CacheType, flash: FlashAttention) -> EngineOptions {
    let mut options = EngineOptions::new(model());
    (options.context, options.batch, options.micro_batch) = (512, 256, 256);
    (options.sequences, options.threads, options.threads_batch) = (2, 2, 2);
    (options.adapter_batching, options.flash_attention) = (AdapterBatching::Grouped, flash);
    (options.cache_type_k, options.cache_type_v) = (cache, cache);
    options
}

fn engine(options: &EngineOptions) -> LlamaEngine {
    LlamaEngine::load(options, facts(), &mut |_| true).expect("loaded")
}

/// Evaluates tokens after those of a sequence; the logits of the last.
fn read(engine: &mut LlamaEngine, sequence: usize, from: usize, tokens: &[u32]) -> Vec<f32> {
    let rows: Vec<Row> = (0..tokens.len())
        .map(|i| Row { token: tokens[i], position: from + i, sequence, logits: i + 1 == tokens.len(), set: 0 })
        .collect();
    engine.decode(&rows, &[AdapterSet::base()]).expect("decoded");
    engine.logits(rows.len() - 1).expect("logits").to_vec()
}

/// The largest difference of two rows of logits.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_restored_sequence_goes_on_with_the_same_bits() {
    let prompt: Vec<u32> = (0..40).map(|i| 1000 + i * 37).collect();
    for (cache, flash) in [
        (CacheType::F16, FlashAttention::Auto),
        (CacheType::F16, FlashAttention::Off),
        (CacheType::Q8_0, FlashAttention::On),
    ] {
        let mut first = engine(&options(cache, flash));
        read(&mut first, 0, 0, &prompt);
        let state = first.save(0).expect("saved");
        let stamp = first.stamp().expect("a stamp");
        let file = Saved::new(prompt.clone(), Timeline::default(), state).to_file(&stamp);
        let expected = read(&mut first, 0, prompt.len(), &[77]);

        let mut second = engine(&options(cache, flash));
        // Beside another sequence, so that the cells are others.
        read(&mut second, 0, 0, &[5, 6, 7]);
        let own = second.stamp().expect("a stamp");
        let saved = Saved::from_file(Box::new(file.clone()), &own, 512).expect("sound");
        second.restore(1, prompt.len(), saved.state()).expect("restored");
        let found = read(&mut second, 1, prompt.len(), &[77]);
        match flash {
            // Sums over cells run in vectors there, and the cells are others.
            FlashAttention::Off => assert!(distance(&found, &expected) < 1e-2, "{}", distance(&found, &expected)),
            _ => assert_eq!(found, expected, "{cache:?} {flash:?}"),
        }

        // What does not fit is refused, and the engine goes on.
        assert!(matches!(second.restore(1, 40, saved.state()), Err(EngineError::Misuse(_))), "it is not empty");
        second.truncate(1, 0);
        for bad in [&saved.state()[..1000], &[], &[0; 4096]] {
            assert!(matches!(second.restore(1, 40, bad), Err(EngineError::State(_))));
        }
        assert!(matches!(second.restore(1, 39, saved.state()), Err(EngineError::State(_))));
        let mut q4 = engine(&options(CacheType::Q4_0, FlashAttention::On));
        let own = q4.stamp().expect("a stamp");
        let refused = Saved::from_file(Box::new(file), &own, 512).expect_err("another cache").to_string();
        assert!(refused.contains("its cache is 'keys "), "{refused}");
        // Past the stamp, llama.cpp's own check is the last.
        assert!(matches!(q4.restore(0, 40, saved.state()), Err(EngineError::State(_))));
        read(&mut q4, 0, 0, &prompt);
        second.restore(1, prompt.len(), saved.state()).expect("restored again");
        assert_eq!(read(&mut second, 1, prompt.len(), &[77]), found);
        // No room: 500 of 512 cells are taken.
        second.truncate(1, 0);
        for from in (3..500).step_by(71) {
            read(&mut second, 0, from, &vec![9; 71.min(500 - from)]);
        }
        assert_eq!(second.restore(1, prompt.len(), saved.state()), Err(EngineError::ContextFull));
    }
}

#[test]
fn slots_go_to_files_and_back() {
    let app = App::new();
    let start = |cache| {
        let options = options(cache, FlashAttention::Auto);
        let template = |_: &dyn smoa::engine::Tokenizer, _: &smoa::gguf::ModelFacts| {
            Ok(ChatTemplate::named("chatml", SpecialTokens::default()).expect("known"))
        };
        let make = move || LlamaEngine::load(&options, facts(), &mut |_| true);
        Pipeline::start(facts().clone(), 4, Shelf::default(), make, template).expect("started")
    };
    let ask = |pipeline: &Pipeline| {
        let mut request = Request::new(Input::Raw("The capital of France is a city of many museums, and".into()));
        request.limits.max_tokens = Some(4);
        request.sampling.temperature = 0.0;
        let answer = pipeline.submit(request).expect("queued").wait(|_| ()).expect("answered");
        (answer.text, answer.finished.timings.cache_n)
    };
    let file = app.path("slot.bin");
    let first = start(CacheType::F16);
    let (text, cached) = ask(&first);
    assert_eq!(cached, 0);
    let saved = first.save_slot(0, &file).expect("saved");
    assert_eq!(saved.bytes as u64, std::fs::metadata(&file).expect("there").len());
    assert!(first.save_slot(1, &file).is_err(), "an empty slot");
    assert_eq!(std::fs::metadata(&file).expect("still there").len(), saved.bytes as u64);
    assert!(first.save_slot(2, &file).is_err(), "no such slot");
    drop(first);

    let second = start(CacheType::F16);
    assert_eq!(second.restore_slot(1, &file, 0).expect("restored"), saved);
    let (again, cached) = ask(&second);
    assert_eq!(again, text);
    assert!(cached > 8, "{cached}");
    assert!(second.erase_slot(1).expect("erased") > 0);
    let mut bytes = std::fs::read(&file).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = app.write("damaged.bin", &bytes);
    for (path, words) in [(damaged, "checksum"), (app.path("none.bin"), "no such file"), (model(), "not a saved state")]
    {
        let refused = second.restore_slot(0, &path, 0).expect_err("refused").message;
        assert!(refused.contains(words), "{refused}");
    }
    let other = start(CacheType::F32);
    let refused = other.restore_slot(0, &file, 0).expect_err("another cache").message;
    assert!(refused.contains("its cache is 'keys f16, values f16"), "{refused}");
}

/// `smoa adapter ...` on the library of this test.
fn adapter(app: &App, args: &[&str]) -> Run {
    let library = app.path("library").display().to_string();
    app.run(&[&["adapter"], args, &["--library", &library]].concat(), "")
}

#[test]
fn a_prefix_of_examples_is_read_once() {
    let app = App::new();
    let examples: String =
        (0..8).map(|i| format!("[\"Is {i} plus {i} equal to {}?\", \"Yes, it is.\"]\n", 2 * i)).collect();
    let examples = app.write("sums.jsonl", examples).display().to_string();
    let model = model().display().to_string();
    adapter(&app, &["from-examples", &examples, "-m", &model]).ok();
    adapter(&app, &["from-examples", &examples, "-m", &model, "--name", "bare", "--no-state", "--system", "Sums."])
        .ok();
    let states = app.path("library/derived/states");
    let list = || -> Vec<_> { states.read_dir().expect("a folder").map(|f| f.expect("a file").path()).collect() };
    let kept = list();
    assert_eq!(kept.len(), 1, "{kept:?}");

    let library = app.path("library").display().to_string();
    let reading = |name: &str, more: &[&str], cache: bool| {
        let line = json!({"id": 1, "messages": [{"role": "user", "content": "Is 3 plus 3 equal to 6?"}], "n_predict": 6,
            "cache_prompt": cache, "adapters": [{"name": name}]});
        let args = [&["--library", library.as_str()], more].concat();
        let answer = app.lines(&args, &[line]).ok().json_lines().remove(0);
        let text = answer["content"].as_str().or(answer["text"].as_str()).expect("a text").to_owned();
        (text, answer["timings"]["cache_n"].as_u64().expect("cache_n"))
    };
    let ask = |name: &str, more: &[&str]| reading(name, more, true);
    let (text, cached) = ask("sums", &[]);
    assert!(cached > 100, "{cached}");
    assert_eq!(reading("sums", &[], false), (text.clone(), 0), "the state changes no answer");

    // Damaged, or of another cache: the messages are read instead, and the state is made anew.
    let sound = std::fs::read(&kept[0]).expect("read");
    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 1;
    std::fs::write(&kept[0], damaged).expect("written");
    assert_eq!(ask("sums", &[]).0, text);
    assert_eq!(list().len(), 1);
    let bytes = std::fs::read(&kept[0]).expect("read");
    assert!(Saved::check_file(&bytes).is_ok(), "made anew");
    ask("sums", &["-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on"]);
    assert_eq!(list().len(), 2, "one for each cache format");
    ask("bare", &[]);
    assert_eq!(list().len(), 3, "made at the first use");
    assert!(ask("bare", &[]).1 > 100);

    // Removal and gc take them away; a file brings its own along.
    let file = app.path("sums.gguf").display().to_string();
    adapter(&app, &["from-examples", &examples, "-m", &model, "-o", &file]).ok();
    adapter(&app, &["rm", "sums"]).ok();
    adapter(&app, &["gc"]).ok();
    assert_eq!(list().len(), 1);
    let line = json!({"id": 1, "messages": [{"role": "user", "content": "Is 3 plus 3 equal to 6?"}], "n_predict": 6});
    let answer = app.lines(&["--lora", &file], &[line]).ok().json_lines().remove(0);
    assert!(answer["timings"]["cache_n"].as_u64().expect("cache_n") > 100, "{answer}");
}
