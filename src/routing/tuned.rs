//! What was measured for a library, on disk: weights and curves as JSON, the head as bytes.

use std::collections::{BTreeMap, HashMap};
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
const FORMAT: u64 = 4;

/// Writes what was measured. The head comes first: a tuning without its head is of no use.
pub fn save(folder: &Path, embedder: &dyn Embedder, tuned: &Tuned, report: &Report) -> Result<(), RoutingError> {
    let path = folder.join(HEAD);
    match &tuned.head {
        Some(head) => write_whole(&path, &head.to_bytes())?,
        None if path.exists() => fs::remove_file(&path).map_err(RoutingError::disk("remove", &path))?,
        None => {}
    }
    let r = &tuned.tuning.weights.rerank;
    let curves = |of: &BTreeMap<Strategy, Calibration>| -> serde_json::Map<String, Value> {
        let curve = |c: &Calibration| json!({"weights": c.weights, "bias": c.bias});
        of.iter().map(|(strategy, c)| (strategy.name().to_owned(), curve(c))).collect()
    };
    let standing = tuned.tuning.standing.iter().map(|(digest, said)| (digest.to_hex(), json!(said)));
    let standing: serde_json::Map<String, Value> = standing.collect();
    let value = json!({
        "format": FORMAT,
        "embedder": blake3::Hash::from_bytes(embedder.fingerprint()).to_hex().as_str(),
        "rerank": [r.learned, r.semantic, r.centroid, r.name, r.keyword, r.unknown, r.close, r.standing],
        "standing": standing,
        "calibrations": curves(&tuned.tuning.calibrations),
        "scopes": curves(&tuned.tuning.scopes),
        "report": report.to_json(),
    });
    write_whole(&folder.join(TUNING), format!("{value:#}\n").as_bytes())
}

/// Reads what was measured, if anything was.
///
/// # Errors
/// The weights, the curves or the head are damaged, or of another format.
pub fn load(folder: &Path, embedder: &dyn Embedder) -> Result<Tuned, RoutingError> {
    let path = folder.join(TUNING);
    let Ok(bytes) = fs::read(&path) else { return Ok(Tuned::default()) };
    let tuning: Option<Value> = serde_json::from_slice(&bytes).ok();
    let Some((tuning, thresholds)) = tuning.as_ref().and_then(parse) else { return Err(RoutingError::Tuning { path }) };
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
    let [learned, semantic, centroid, name, keyword, unknown, close, standing] =
        numbers(&value["rerank"])?.try_into().ok()?;
    tuning.weights.rerank = Rerank { learned, semantic, centroid, name, keyword, unknown, close, standing };
    for (digest, said) in value["standing"].as_object()? {
        let said = said.as_f64().filter(|said| said.is_finite())? as f32;
        let digest = blake3::Hash::from_hex(digest).ok()?;
        tuning.standing.insert(AdapterDigest::from_bytes(*digest.as_bytes()), said);
    }
    let curves = |value: &Value| -> Option<BTreeMap<Strategy, Calibration>> {
        let curve = |curve: &Value| -> Option<Calibration> {
            let weights: [f32; SIGNALS] = numbers(&curve["weights"])?.try_into().ok()?;
            Some(Calibration { weights, bias: curve["bias"].as_f64()? as f32 })
        };
        value.as_object()?.iter().map(|(name, value)| Some((name.parse().ok()?, curve(value)?))).collect()
    };
    (tuning.calibrations, tuning.scopes) = (curves(&value["calibrations"])?, curves(&value["scopes"])?);
    let mut thresholds = HashMap::new();
    for (name, number) in value["report"]["thresholds_98"].as_object().into_iter().flatten() {
        thresholds.insert(name.parse::<Strategy>().ok()?, number.as_f64()? as f32);
    }
    Some((tuning, thresholds))
}
