//! What was measured for a library, on disk: weights and curves as JSON, the head as bytes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::upkeep::write_whole;
use super::{Report, RoutingError, Tuned};
use crate::adapter::AdapterDigest;
use crate::router::embed::Embedder;
use crate::router::head::{self, Head};
use crate::router::{Calibration, Rerank, SIGNALS, Strategy, Tuning};

const TUNING: &str = "tuning.json";
const HEAD: &str = "head";
const FORMAT: u64 = 2;

/// Writes what was measured. The head comes first: a tuning without its head is of no use.
pub fn save(folder: &Path, embedder: &dyn Embedder, tuned: &Tuned, report: &Report) -> Result<(), RoutingError> {
    let path = folder.join(HEAD);
    match &tuned.head {
        Some(head) => write_whole(&path, &head.to_bytes())?,
        None if path.exists() => fs::remove_file(&path).map_err(RoutingError::disk("remove", &path))?,
        None => {}
    }
    let r = &tuned.tuning.weights.rerank;
    let curves: serde_json::Map<String, Value> = tuned
        .tuning
        .calibrations
        .iter()
        .map(|(strategy, curve)| (strategy.name().to_owned(), json!({"weights": curve.weights, "bias": curve.bias})))
        .collect();
    let standing = tuned.tuning.standing.iter().map(|(digest, said)| (digest.to_hex(), json!(said)));
    let standing: serde_json::Map<String, Value> = standing.collect();
    let value = json!({
        "format": FORMAT,
        "embedder": blake3::Hash::from_bytes(embedder.fingerprint()).to_hex().as_str(),
        "rerank": [r.learned, r.semantic, r.centroid, r.name, r.keyword, r.unknown, r.standing],
        "standing": standing,
        "calibrations": curves,
        "report": report.to_json(),
    });
    write_whole(&folder.join(TUNING), format!("{value:#}\n").as_bytes())
}

/// Reads what was measured, if anything was.
///
/// # Errors
/// The head is damaged.
pub fn load(folder: &Path, embedder: &dyn Embedder) -> Result<Tuned, RoutingError> {
    let tuning = fs::read(folder.join(TUNING)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some((tuning, thresholds)) = tuning.as_ref().and_then(parse) else { return Ok(Tuned::default()) };
    let path = folder.join(HEAD);
    let head = match fs::read(&path) {
        Ok(bytes) => Some(Head::from_bytes(&bytes).map_err(|source| RoutingError::Head { path, source })?),
        Err(_) => None,
    };
    let head = head.filter(|head| head.embedder == head::identity(embedder)).map(Arc::new);
    Ok(Tuned { tuning, thresholds, head })
}

fn parse(value: &Value) -> Option<(Tuning, HashMap<Strategy, f32>)> {
    if value["format"].as_u64() != Some(FORMAT) {
        return None;
    }
    let numbers = |value: &Value| -> Option<Vec<f32>> {
        let list = value.as_array()?.iter().map(|n| n.as_f64().map(|n| n as f32).filter(|n| n.is_finite()));
        list.collect()
    };
    let mut tuning = Tuning::default();
    let mut rerank = numbers(&value["rerank"])?;
    // Earlier programs knew six.
    rerank.resize(rerank.len().max(7), 0.0);
    let [learned, semantic, centroid, name, keyword, unknown, standing] = rerank.try_into().ok()?;
    tuning.weights.rerank = Rerank { learned, semantic, centroid, name, keyword, unknown, standing };
    for (digest, said) in value["standing"].as_object().into_iter().flatten() {
        let said = said.as_f64().filter(|said| said.is_finite())? as f32;
        let digest = blake3::Hash::from_hex(digest).ok()?;
        tuning.standing.insert(AdapterDigest::from_bytes(*digest.as_bytes()), said);
    }
    for (name, curve) in value["calibrations"].as_object()? {
        let weights: [f32; SIGNALS] = numbers(&curve["weights"])?.try_into().ok()?;
        let bias = curve["bias"].as_f64()? as f32;
        tuning.calibrations.insert(name.parse::<Strategy>().ok()?, Calibration { weights, bias });
    }
    let mut thresholds = HashMap::new();
    for (name, number) in value["report"]["thresholds_98"].as_object().into_iter().flatten() {
        thresholds.insert(name.parse::<Strategy>().ok()?, number.as_f64()? as f32);
    }
    Some((tuning, thresholds))
}
