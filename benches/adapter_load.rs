//! What an adapter that comes new costs those who are being answered: the longest gap between two tokens of running streams
//! while a request arrives without an adapter, under one that is laid out, and under one never seen; and how long the
//! request's own thread takes to open, check, hash and lay it out under that load. Prints a table.
//!
//!   cargo bench --bench adapter_load -- [--model FILE] [--streams N] [--adapters N] [--threads N] [--json OUT]

mod real;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use real::fail;
use smoa::engine::llama::LlamaEngine;
use smoa::engine::options::{AdapterBatching, EngineOptions};
use smoa::event::Event;
use smoa::gguf::ModelFacts;
use smoa::pipeline::Pipeline;
use smoa::prompt::{ChatTemplate, SpecialTokens};
use smoa::request::{AdapterChoice, Input, Request};
use smoa::shelf::Shelf;

fn request(tokens: Vec<u32>, adapter: Option<&Path>, n: usize) -> Request {
    let mut request = Request::new(Input::Tokens(tokens));
    request.adapters = adapter.map(|path| AdapterChoice::file(path, 1.0)).into_iter().collect();
    request.sampling.temperature = 0.0;
    request.sampling.ignore_eos = true;
    request.limits.max_tokens = Some(n);
    request.cache_prompt = false;
    request
}

/// The value below which a share of them lie.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Keeps a stream going: notes when each of its tokens came, and begins again when it has ended.
fn stream(
    pipeline: &Pipeline,
    which: usize,
    adapter: Option<&Path>,
    times: &std::sync::mpsc::Sender<(usize, Instant)>,
) {
    loop {
        let tokens = (0..8).map(|i| 1000 + 37 * i + 991 * which as u32 % 10_000).collect();
        let Ok(ticket) = pipeline.submit(request(tokens, adapter, 400)) else { return };
        for event in &ticket.events {
            match event {
                Event::Token(_) => {
                    if times.send((which, Instant::now())).is_err() {
                        return ticket.cancel.cancel();
                    }
                }
                Event::Finished(_) | Event::Failed(_) => break,
                Event::Prefilled { .. } => (),
            }
        }
    }
}

/// The longest gap of any stream that overlaps a time.
fn longest_gap(times: &[Vec<Instant>], from: Instant, to: Instant) -> Duration {
    let gaps = times.iter().flat_map(|t| t.windows(2)).filter(|w| w[1] > from && w[0] < to);
    gaps.map(|w| w[1] - w[0]).max().unwrap_or_default()
}

fn main() {
    let args = real::args([("--streams", 6), ("--adapters", 60)]).unwrap_or_else(|e| fail(&e));
    let [streams, adapters] = args.counts;
    let base = smoa::model_file::check(&args.model).unwrap_or_else(|e| fail(&e.message));
    let folder = std::env::temp_dir().join(format!("smoa-adapter-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| fail(&e.to_string()));
    let files: Vec<PathBuf> = (0..adapters + streams + 1)
        .map(|i| {
            let path = folder.join(format!("{i}.gguf"));
            std::fs::write(&path, real::adapter_bytes(&base, i as u64 + 1, 8)).unwrap_or_else(|e| fail(&e.to_string()));
            path
        })
        .collect();
    let (own, fresh) = files.split_at(streams + 1);

    let mut options = EngineOptions::new(&args.model);
    options.context = (streams as u32 + 2) * 512;
    options.sequences = streams as u32 + 2;
    (options.threads, options.threads_batch) = (args.threads, args.threads);
    options.adapter_batching = AdapterBatching::Lanes;
    let facts = base.clone();
    let make = move || LlamaEngine::load(&options, &facts, &mut |_| true);
    let template = |_: &dyn smoa::engine::Tokenizer, _: &ModelFacts| {
        let tokens = SpecialTokens { bos: String::new(), eos: String::new(), control: Vec::new() };
        ChatTemplate::named("chatml", tokens).ok_or_else(|| smoa::error::Failure::usage("no chatml"))
    };
    let pipeline = Pipeline::start(base, 64, Shelf::default(), make, template).unwrap_or_else(|e| fail(&e.message));

    // What arrives: its label, whether its adapter is new.
    let kinds = ["no adapter", "an adapter laid out before", "an adapter never seen"];
    let mut submits: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    let mut windows: Vec<Vec<(Instant, Instant)>> = vec![Vec::new(); kinds.len()];
    let mut times: Vec<Vec<Instant>> = vec![Vec::new(); streams];
    let (sender, arrived): (_, Receiver<(usize, Instant)>) = channel();
    std::thread::scope(|scope| {
        for (which, adapter) in own.iter().take(streams).enumerate() {
            let (pipeline, sender) = (&pipeline, sender.clone());
            scope.spawn(move || stream(pipeline, which, Some(adapter), &sender));
        }
        let pause = || std::thread::sleep(Duration::from_millis(150));
        std::thread::sleep(Duration::from_secs(2));
        // Once before, so that it is laid out.
        let warm = &own[streams];
        let ticket = pipeline.submit(request(vec![5, 6], Some(warm), 1)).unwrap_or_else(|e| fail(&e.message));
        ticket.wait(|_| ()).unwrap_or_else(|e| fail(&e.message));
        for new in fresh {
            for (kind, adapter) in [None, Some(warm), Some(new)].into_iter().enumerate() {
                pause();
                let begin = Instant::now();
                let asked = request(vec![5, 6], adapter.map(PathBuf::as_path), 1);
                let ticket = pipeline.submit(asked).unwrap_or_else(|e| fail(&e.message));
                submits[kind].push(begin.elapsed().as_secs_f64() * 1e3);
                ticket.wait(|_| ()).unwrap_or_else(|e| fail(&e.message));
                windows[kind].push((begin, Instant::now()));
            }
        }
        arrived.try_iter().for_each(|(which, at)| times[which].push(at));
        drop((sender, arrived));
    });
    let mut all: Vec<f64> =
        times.iter().flat_map(|t| t.windows(2)).map(|w| (w[1] - w[0]).as_secs_f64() * 1e3).collect();
    let step = quantile(&mut all, 0.5);
    println!("{} streams, each with its adapter; median gap between two tokens {step:.1} ms\n", streams);
    println!("| a request arrives with | longest gap p50 ms | p99 ms | submitting p50 ms | p99 ms |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let mut json = Vec::new();
    for (kind, name) in kinds.iter().enumerate() {
        let mut gaps: Vec<f64> =
            windows[kind].iter().map(|(from, to)| longest_gap(&times, *from, *to).as_secs_f64() * 1e3).collect();
        let gap = [quantile(&mut gaps, 0.5), quantile(&mut gaps, 0.99)];
        let submit = [quantile(&mut submits[kind], 0.5), quantile(&mut submits[kind], 0.99)];
        println!("| {name} | {:.1} | {:.1} | {:.2} | {:.2} |", gap[0], gap[1], submit[0], submit[1]);
        json.push(serde_json::json!({"arrives": name, "gap_ms": gap, "submit_ms": submit}));
    }
    real::keep(&args, &serde_json::json!({"median_gap_ms": step, "cases": json}));
    let _ = std::fs::remove_dir_all(folder);
}
