//! Vectors of texts and scores of documents: llama-server's, OpenAI's, Ollama's, Jina's and TEI's forms.

use serde_json::{Map, Value, json};

use super::fields::{FieldError, Fields, expected};
use super::native::{Part, prompts};
use crate::error::Failure;

/// Most texts of one request, as OpenAI has it.
pub const MAX_TEXTS: usize = 2048;

/// Which API asks for vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VectorRoute {
    /// llama-server's `/embedding`.
    Native,
    /// OpenAI's `/v1/embeddings`.
    OpenAi,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's older `/api/embeddings`.
    OllamaOld,
}

/// A request for vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorCall {
    /// Which form the answer has.
    pub route: VectorRoute,
    /// The texts.
    pub inputs: Vec<Vec<Part>>,
    /// The model's name, told back.
    pub model: Value,
    /// Numbers as base64 of little-endian floats.
    pub base64: bool,
    /// Numbers wanted of each vector.
    pub dimensions: Option<usize>,
    /// How vectors are brought to one length; see [`normalise`].
    pub normalise: Option<i32>,
    /// Cut texts that are too long instead of refusing them.
    pub truncate: bool,
}

/// Reads a request for vectors.
///
/// # Errors
/// A field is wrong.
pub fn vectors(body: Map<String, Value>, route: VectorRoute) -> Result<VectorCall, Failure> {
    read_vectors(body, route).map_err(|e| Failure::usage(e.to_string()))
}

fn read_vectors(body: Map<String, Value>, mut route: VectorRoute) -> Result<VectorCall, FieldError> {
    let mut f = Fields::new(body);
    let model = f.take("model").unwrap_or(Value::Null);
    for name in ["lora", "adapters", "metadata"] {
        if f.take(name).is_some_and(|v| v != json!([]) && v != json!("none")) {
            return Err(FieldError::new(name, "vectors are those of the plain model; adapters do not change them"));
        }
    }
    let ollama = matches!(route, VectorRoute::Ollama | VectorRoute::OllamaOld);
    let (name, input) = match route {
        VectorRoute::OllamaOld => ("prompt", f.take("prompt")),
        _ => match f.take("input") {
            Some(input) => ("input", Some(input)),
            None if ollama => ("input", None),
            // As in llama-server: this name asks for its own form.
            None => {
                let content = f.take("content");
                if content.is_some() {
                    route = VectorRoute::Native;
                }
                ("content", content)
            }
        },
    };
    let input = input.ok_or_else(|| FieldError::new("input", "is missing"))?;
    let inputs = texts(name, &input)?;
    if inputs.len() > MAX_TEXTS {
        return Err(FieldError::new(name, format!("has {} texts; a request may have {MAX_TEXTS}", inputs.len())));
    }
    let format = f.string("encoding_format")?;
    let base64 = match format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            return Err(FieldError::new("encoding_format", format!("must be \"float\" or \"base64\", not {other:?}")));
        }
    };
    let normalise = f.i32("embd_normalize")?;
    if normalise.is_some_and(|n| n < -1) {
        return Err(FieldError::new("embd_normalize", "must be -1 (none), 0 (largest), 1, 2 (length) or higher"));
    }
    let dimensions = f.usize("dimensions")?.filter(|n| *n > 0 || !ollama);
    let truncate = f.bool("truncate")?.unwrap_or(ollama);
    Ok(VectorCall { route, inputs, model, base64, dimensions, normalise, truncate })
}

/// Texts in any shape of a prompt, and as parts of a message.
fn texts(field: &str, input: &Value) -> Result<Vec<Vec<Part>>, FieldError> {
    let parts = |v: &Value, at: &str| -> Result<Option<Vec<Part>>, FieldError> {
        let Some(content) = v.as_object().and_then(|o| o.get("content")) else { return Ok(None) };
        let Value::Array(items) = content else {
            return Err(expected(&format!("{at}.content"), "an array of parts", content));
        };
        let text = |item: &Value| match (item["type"].as_str(), item["text"].as_str()) {
            (Some("text"), Some(text)) => Ok(text.to_string()),
            (Some("text"), None) | (None, _) => Err(expected(&format!("{at}.content"), "text parts", item)),
            (Some(kind), _) => Err(FieldError::new(format!("{at}.content"), format!("{kind}: this model reads text"))),
        };
        let joined: String = items.iter().map(text).collect::<Result<_, _>>()?;
        Ok(Some(vec![Part::Text(joined)]))
    };
    if let Some(one) = parts(input, field)? {
        return Ok(vec![one]);
    }
    let Value::Array(items) = input else { return Ok(prompts(field, input)?.0) };
    if !items.iter().any(|v| v.get("content").is_some()) {
        return Ok(prompts(field, input)?.0);
    }
    let one = |(i, item): (usize, &Value)| -> Result<Vec<Part>, FieldError> {
        let at = format!("{field}[{i}]");
        match parts(item, &at)? {
            Some(parts) => Ok(parts),
            None => Ok(prompts(&at, item)?.0.into_iter().next().unwrap_or_default()),
        }
    };
    items.iter().enumerate().map(one).collect()
}

/// Brings a vector to one length: -1 leaves it, 0 makes its largest number 32760, 1 its sum of sizes 1, 2 its Euclidean
/// length 1, a higher one its p-norm 1; as llama.cpp does.
pub fn normalise(vector: &mut [f32], kind: i32) {
    let sizes = || vector.iter().map(|x| f64::from(x.abs()));
    let norm = match kind {
        ..0 => return,
        0 => sizes().fold(0.0, f64::max) / 32760.0,
        1 => sizes().sum(),
        2 => sizes().map(|x| x * x).sum::<f64>().sqrt(),
        p => sizes().map(|x| x.powi(p)).sum::<f64>().powf(1.0 / f64::from(p)),
    };
    let factor = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
}

/// The answer to a request for vectors. `vectors` holds, for each text, one vector or one for each token.
pub fn vectors_value(call: &VectorCall, vectors: &[Vec<Vec<f32>>], tokens: usize, nanoseconds: u64) -> Value {
    let flat = || vectors.iter().filter_map(|v| v.first());
    match call.route {
        VectorRoute::Native => {
            let spell = |v: &Vec<f32>| if call.base64 { json!(base64(v)) } else { json!(v) };
            let one = |(i, v): (usize, &Vec<Vec<f32>>)| json!({"index": i, "embedding": v.iter().map(spell).collect::<Vec<_>>()});
            vectors.iter().enumerate().map(one).collect()
        }
        VectorRoute::OpenAi => {
            let one = |(i, v): (usize, &Vec<f32>)| {
                let spelled = if call.base64 { json!(base64(v)) } else { json!(v) };
                let mut item = json!({"object": "embedding", "index": i, "embedding": spelled});
                if call.base64 {
                    item["encoding_format"] = "base64".into();
                }
                item
            };
            json!({"object": "list", "model": call.model, "data": flat().enumerate().map(one).collect::<Vec<_>>(),
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
        }
        VectorRoute::Ollama => json!({"model": call.model, "embeddings": flat().collect::<Vec<_>>(),
            "total_duration": nanoseconds, "load_duration": 0, "prompt_eval_count": tokens}),
        VectorRoute::OllamaOld => json!({"embedding": flat().next()}),
    }
}

/// Little-endian floats in base64 (RFC 4648).
fn base64(vector: &[f32]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], chunk.get(1).copied().unwrap_or(0), chunk.get(2).copied().unwrap_or(0)];
        let n = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for i in 0..4 {
            let letter = LETTERS[(n >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { letter as char } else { '=' });
        }
    }
    out
}

/// A request to order documents by how well they answer a question.
#[derive(Clone, Debug, PartialEq)]
pub struct RankCall {
    /// The question.
    pub query: String,
    /// The documents.
    pub documents: Vec<String>,
    /// The model's name, told back.
    pub model: Value,
    /// So many of the best.
    top: usize,
    /// TEI's form.
    tei: bool,
    /// With the documents.
    text: bool,
}

/// Reads a request to rank documents.
///
/// # Errors
/// A field is wrong.
pub fn ranking(body: Map<String, Value>) -> Result<RankCall, Failure> {
    read_ranking(body).map_err(|e| Failure::usage(e.to_string()))
}

fn read_ranking(body: Map<String, Value>) -> Result<RankCall, FieldError> {
    let mut f = Fields::new(body);
    let query = f.string("query")?.ok_or_else(|| FieldError::new("query", "is missing"))?;
    let tei = f.take("texts");
    let (name, documents) = match tei {
        Some(texts) => ("texts", Some(texts)),
        None => ("documents", f.take("documents")),
    };
    let text = |v: &Value| match v {
        Value::String(text) => Some(text.clone()),
        other => other.get("text").and_then(Value::as_str).map(String::from),
    };
    let documents = match documents {
        Some(Value::Array(items)) if !items.is_empty() => {
            let wrong = |v: &Value| expected(name, "an array of texts", v);
            items.iter().map(|v| text(v).ok_or_else(|| wrong(v))).collect::<Result<Vec<_>, _>>()?
        }
        Some(other) => return Err(expected(name, "an array of texts with at least one", &other)),
        None => return Err(FieldError::new("documents", "is missing")),
    };
    if documents.len() > MAX_TEXTS {
        let count = documents.len();
        return Err(FieldError::new(name, format!("has {count} texts; a request may have {MAX_TEXTS}")));
    }
    let top = f.usize("top_n")?.unwrap_or(documents.len()).min(documents.len());
    let with = [f.bool("return_text")?, f.bool("return_documents")?].contains(&Some(true));
    let model = f.take("model").unwrap_or(Value::Null);
    Ok(RankCall { query, documents, model, top, tei: name == "texts", text: with })
}

/// The answer to a request to rank, best first. `by` says what the scores are.
pub fn ranking_value(call: &RankCall, scores: &[f32], tokens: usize, by: &str) -> Value {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let one = |i: &usize| {
        let mut item = json!({"index": i});
        item[if call.tei { "score" } else { "relevance_score" }] = scores[*i].into();
        match (call.text, call.tei) {
            (true, true) => item["text"] = call.documents[*i].clone().into(),
            (true, false) => item["document"] = json!({"text": call.documents[*i]}),
            _ => (),
        }
        item
    };
    let results: Vec<Value> = order.iter().take(call.top).map(one).collect();
    match call.tei {
        true => results.into(),
        false => json!({"object": "list", "model": call.model, "results": results, "scored_by": by,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<VectorCall, String> {
        let Value::Object(body) = body else { panic!("an object") };
        vectors(body, VectorRoute::OpenAi).map_err(|e| e.message)
    }

    #[test]
    fn every_shape_of_input_is_read() {
        let table = [
            (json!("text"), 1),
            (json!(""), 1),
            (json!([12, 34, 56]), 1),
            (json!([12, 34, "text", 56]), 1),
            (json!(["a", "b"]), 2),
            (json!(["a", [12, 34]]), 2),
            (json!([[12, 34], [12, "a", 56]]), 2),
            (json!({"prompt_string": "a"}), 1),
            (json!({"content": [{"type": "text", "text": "a"}]}), 1),
            (json!(["a", {"content": [{"type": "text", "text": "b"}]}, {"prompt_string": "c"}]), 3),
        ];
        for (input, count) in table {
            assert_eq!(read(json!({"input": input})).map(|c| c.inputs.len()), Ok(count), "{input}");
        }
        let joined =
            read(json!({"input": {"content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}}));
        assert_eq!(joined.map(|c| c.inputs), Ok(vec![vec![Part::Text("a b".into())]]));
        assert_eq!(read(json!({"content": "a"})).map(|c| c.route), Ok(VectorRoute::Native));
    }

    #[test]
    fn wrong_requests_name_their_field() {
        let table = [
            (json!({}), "input: is missing"),
            (json!({"input": []}), "input: is an empty"),
            (json!({"input": {"content": "a"}}), "input.content: must be an array"),
            (json!({"input": {"content": [{"type": "image_url"}]}}), "input.content: image_url"),
            (json!({"input": "a", "encoding_format": "hex"}), "encoding_format: must be"),
            (json!({"input": "a", "lora": [{"id": 0}]}), "lora: vectors are"),
            (json!({"input": "a", "embd_normalize": -2}), "embd_normalize: must be"),
        ];
        for (body, expected) in table {
            let message = read(body.clone()).expect_err(expected);
            assert!(message.starts_with(expected), "{body}: {message}");
        }
        for body in [json!({}), json!({"query": "q", "documents": []}), json!({"query": "q", "documents": [1]})] {
            let Value::Object(body) = body else { panic!("an object") };
            assert!(ranking(body).is_err());
        }
    }

    #[test]
    fn lengths_are_llama_cpps() {
        let table = [(-1, [3.0, -4.0]), (0, [24570.0, -32760.0]), (1, [3.0 / 7.0, -4.0 / 7.0]), (2, [0.6, -0.8])];
        for (kind, expected) in table {
            let mut v = [3.0_f32, -4.0];
            normalise(&mut v, kind);
            assert!(v.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-2 * b.abs().max(1e-3)), "{kind}: {v:?}");
        }
        let mut zero = [0.0_f32; 2];
        normalise(&mut zero, 2);
        assert_eq!(zero, [0.0, 0.0]);
    }

    #[test]
    fn base64_is_the_standard_one() {
        assert_eq!(base64(&[1.0]), "AACAPw==");
        assert_eq!(base64(&[1.0, -2.0, 0.5]), "AACAPwAAAMAAAAA/");
    }

    #[test]
    fn documents_come_best_first() {
        let body = json!({"query": "q", "documents": ["a", "b", "c"], "top_n": 2, "return_documents": true});
        let Value::Object(body) = body else { panic!("an object") };
        let call = ranking(body).expect("read");
        let told = ranking_value(&call, &[0.1, 0.9, 0.5], 7, "rank");
        assert_eq!(told["results"][0]["index"], 1);
        assert_eq!(told["results"][1]["document"]["text"], "c");
        assert_eq!((told["results"].as_array().map(Vec::len), &told["usage"]["total_tokens"]), (Some(2), &json!(7)));
        let Value::Object(body) = json!({"query": "q", "texts": ["a", "b"]}) else { panic!("an object") };
        let told = ranking_value(&ranking(body).expect("read"), &[0.5, 0.75], 7, "rank");
        assert_eq!(told[0], json!({"index": 1, "score": 0.75}));
    }
}
