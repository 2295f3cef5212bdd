//! Which way each adapter of a request goes: lanes, llama.cpp's own path, or rows and directions beside both.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Active, LlamaEngine, lanes_check};
use crate::adapter::{AdapterDigest, AdapterFile, AdapterSet};
use crate::engine::lanes::LaneAdapter;
use crate::engine::{Batching, EngineError};
use crate::gguf::AdapterKind;

impl LlamaEngine {
    /// See [`crate::engine::Engine::load_adapters`]. `files` are the adapters of one request: if one of them has no lane,
    /// all of them go by llama.cpp's own path, which knows one set at a time.
    pub(super) fn load_all(
        &mut self,
        files: &[Arc<AdapterFile>],
        in_use: &HashSet<AdapterDigest>,
    ) -> Result<(), EngineError> {
        let mut in_use = in_use.clone();
        in_use.extend(files.iter().map(|f| f.digest()));
        let mut on_linears = Vec::new();
        for file in files {
            if !self.extras.load(file, &self.base)? {
                on_linears.push(file);
            }
        }
        let (mut ready, mut without) = (Vec::new(), None);
        for file in &on_linears {
            match self.lane(file)? {
                Ok(adapter) => ready.push(adapter),
                Err(why) => without = Some((file.label(), why)),
            }
        }
        if let Some((label, why)) = without {
            if let Some(gain) = on_linears.iter().find(|f| f.facts().kind == AdapterKind::Gain) {
                let reason = format!("its gains need mixed batching, which '{label}' beside it cannot have: {why}");
                return Err(EngineError::Adapter { name: gain.label(), reason });
            }
            for file in on_linears {
                if self.adapters.would_evict(file) && matches!(self.active, Active::Set(_)) {
                    // An adapter in the context's active set must not be freed under it.
                    self.context.set_adapters(&mut [], &mut []);
                    self.active = Active::Set(AdapterSet::base());
                }
                self.adapters.load(file, &in_use)?;
            }
        }
        if let Some(lanes) = &mut self.lanes {
            lanes.lease(ready, |digest| in_use.contains(digest));
        }
        self.extras.keep(|digest| in_use.contains(digest));
        Ok(())
    }

    /// The adapter laid out for lanes, or why it has none. Laid out by the thread that submitted the request, as a rule;
    /// here it is looked up. One with gains exists in lanes only, so that it is refused without them.
    fn lane(&mut self, file: &Arc<AdapterFile>) -> Result<Result<Arc<LaneAdapter>, String>, EngineError> {
        let refused = |reason: String| EngineError::Adapter { name: file.label(), reason };
        let gains = file.facts().kind == AdapterKind::Gain;
        if gains {
            self.start_lanes().map_err(|why| {
                refused(format!(
                    "its gains need mixed batching, which is not to be had here: {why}; import with --as-lora"
                ))
            })?;
        }
        let Some(lanes) = self.lanes.as_ref().filter(|l| l.started()) else {
            return Ok(Err("adapters take turns here".into()));
        };
        match lanes.residents().ready(file) {
            Ok(adapter) if lanes.reaches(&adapter) => Ok(Ok(adapter)),
            Ok(_) if gains => Err(refused("the model's graph does not reach all its gains".into())),
            Err(why) if gains => Err(refused(why.to_string())),
            Ok(_) => Ok(Err("the model's graph does not reach all it changes".into())),
            Err(why) => Ok(Err(why.to_string())),
        }
    }

    /// Starts the lanes, if they have not started: adapters with gains exist nowhere else.
    fn start_lanes(&mut self) -> Result<(), String> {
        let why = match &self.facts.batching {
            Batching::Grouped { why: Some(why) } => why.clone(),
            _ => "--adapter-batching grouped".to_string(),
        };
        let lanes = self.lanes.as_mut().ok_or(why)?;
        if !lanes.started() {
            let reached = lanes_check::check(&self.model, &self.base, &self.options)?;
            lanes.start(&self.model, &self.base, reached)?;
        }
        Ok(())
    }
}
