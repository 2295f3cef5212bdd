//! The flags of llama-server at the pinned llama.cpp, and what each means here. `smoa doctor --flags` lists them; one
//! that is not here is refused by its name, on the command line and in the environment.

/// What a flag of llama-server means to `smoa serve`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The same.
    Same,
    /// The same, and more.
    Better(&'static str),
    /// It is always so; the flag is taken.
    Always(&'static str),
    /// Only the value that asks for what is so is taken; others are refused.
    Partly(&'static str),
    /// It is refused.
    Refused(&'static str),
}

impl Meaning {
    /// A word for it, and the reason.
    pub const fn words(self) -> (&'static str, &'static str) {
        match self {
            Meaning::Same => ("same", ""),
            Meaning::Better(why) => ("better", why),
            Meaning::Partly(why) => ("partly", why),
            Meaning::Always(why) => ("always", why),
            Meaning::Refused(why) => ("refused", why),
        }
    }
}

use Meaning::{Always, Better, Partly, Refused, Same};

/// Why threads of a draft model cannot be placed.
const PLACED: &str = "threads are placed by the system";
/// Why parts of a draft model cannot be placed.
const WHOLE: &str = "a draft model is small and goes where -ngld and -devd say as a whole";
/// Why tables of drafts are refused.
const TABLES: &str = "--spec-type ngram-cache is not in this version";
/// Why made-up acceptance is refused.
const SYNTH: &str = "answers would be wrong: it is for measuring llama-server";

/// Spellings, environment variable (or nothing), meaning. Made from llama-server's own list.
#[rustfmt::skip]
pub const FLAGS: &[(&[&str], &str, Meaning)] = &[
    (&["-h", "--help", "--usage"], "", Same),
    (&["--version"], "", Same),
    (&["-cl", "--cache-list"], "", Same),
    (&["--completion-bash"], "", Better("for both names of the program; other shells: smoa completions")),
    (&["-t", "--threads"], "LLAMA_ARG_THREADS", Same),
    (&["-tb", "--threads-batch"], "", Same),
    (&["-C", "--cpu-mask"], "", Refused("threads are placed by the system")),
    (&["-Cr", "--cpu-range"], "", Refused("threads are placed by the system")),
    (&["--cpu-strict"], "", Refused("threads are placed by the system")),
    (&["--prio"], "", Refused("threads are placed by the system")),
    (&["--poll"], "", Refused("threads are placed by the system")),
    (&["-Cb", "--cpu-mask-batch"], "", Refused("threads are placed by the system")),
    (&["-Crb", "--cpu-range-batch"], "", Refused("threads are placed by the system")),
    (&["--cpu-strict-batch"], "", Refused("threads are placed by the system")),
    (&["--prio-batch"], "", Refused("threads are placed by the system")),
    (&["--poll-batch"], "", Refused("threads are placed by the system")),
    (&["-c", "--ctx-size"], "LLAMA_ARG_CTX_SIZE", Same),
    (&["-n", "--predict", "--n-predict"], "LLAMA_ARG_N_PREDICT", Same),
    (&["-b", "--batch-size"], "LLAMA_ARG_BATCH", Same),
    (&["-ub", "--ubatch-size"], "LLAMA_ARG_UBATCH", Same),
    (&["--keep"], "", Same),
    (&["--swa-full"], "LLAMA_ARG_SWA_FULL", Same),
    (&["-fa", "--flash-attn"], "LLAMA_ARG_FLASH_ATTN", Same),
    (&["--perf"], "LLAMA_ARG_PERF", Refused("llama-server prints none of what it would measure; timings are in answers and /metrics")),
    (&["--no-perf"], "", Always("llama.cpp does not measure here")),
    (&["-e", "--escape"], "", Same),
    (&["--no-escape"], "", Same),
    (&["--rope-scaling"], "LLAMA_ARG_ROPE_SCALING_TYPE", Same),
    (&["--rope-scale"], "LLAMA_ARG_ROPE_SCALE", Same),
    (&["--rope-freq-base"], "LLAMA_ARG_ROPE_FREQ_BASE", Same),
    (&["--rope-freq-scale"], "LLAMA_ARG_ROPE_FREQ_SCALE", Same),
    (&["--yarn-orig-ctx"], "LLAMA_ARG_YARN_ORIG_CTX", Same),
    (&["--yarn-ext-factor"], "LLAMA_ARG_YARN_EXT_FACTOR", Same),
    (&["--yarn-attn-factor"], "LLAMA_ARG_YARN_ATTN_FACTOR", Same),
    (&["--yarn-beta-slow"], "LLAMA_ARG_YARN_BETA_SLOW", Same),
    (&["--yarn-beta-fast"], "LLAMA_ARG_YARN_BETA_FAST", Same),
    (&["-kvo", "--kv-offload"], "LLAMA_ARG_KV_OFFLOAD", Always("the cache is where the layers are")),
    (&["-nkvo", "--no-kv-offload"], "", Same),
    (&["--repack"], "LLAMA_ARG_REPACK", Always("weights are repacked where llama.cpp can")),
    (&["-nr", "--no-repack"], "", Same),
    (&["--no-host"], "LLAMA_ARG_NO_HOST", Same),
    (&["-ctk", "--cache-type-k"], "LLAMA_ARG_CACHE_TYPE_K", Same),
    (&["-ctv", "--cache-type-v"], "LLAMA_ARG_CACHE_TYPE_V", Same),
    (&["-dt", "--defrag-thold"], "LLAMA_ARG_DEFRAG_THOLD", Refused("not in this version")),
    (&["--rpc"], "LLAMA_ARG_RPC", Refused("not in this version")),
    (&["-lm", "--load-mode"], "LLAMA_ARG_LOAD_MODE", Same),
    (&["-lzm", "--lazy-mode"], "LLAMA_ARG_LAZY_MODE", Refused("see --no-mmap and --mlock")),
    (&["--numa"], "LLAMA_ARG_NUMA", Same),
    (&["-dev", "--device"], "LLAMA_ARG_DEVICE", Same),
    (&["--list-devices"], "", Same),
    (&["-ot", "--override-tensor"], "LLAMA_ARG_OVERRIDE_TENSOR", Same),
    (&["-cmoe", "--cpu-moe"], "LLAMA_ARG_CPU_MOE", Same),
    (&["-ncmoe", "--n-cpu-moe"], "LLAMA_ARG_N_CPU_MOE", Same),
    (&["-ncffn", "--n-cpu-ffn"], "LLAMA_ARG_N_CPU_FFN", Same),
    (&["-ngl", "--gpu-layers", "--n-gpu-layers"], "LLAMA_ARG_N_GPU_LAYERS", Same),
    (&["-sm", "--split-mode"], "LLAMA_ARG_SPLIT_MODE", Same),
    (&["-ts", "--tensor-split"], "LLAMA_ARG_TENSOR_SPLIT", Same),
    (&["-mg", "--main-gpu"], "LLAMA_ARG_MAIN_GPU", Same),
    (&["-fit", "--fit"], "LLAMA_ARG_FIT", Partly("off: -c and -ngl are taken as they are given; fitting is no part of llama.cpp's library")),
    (&["-fitt", "--fit-target"], "LLAMA_ARG_FIT_TARGET", Refused("give -c and -ngl")),
    (&["-fitc", "--fit-ctx"], "LLAMA_ARG_FIT_CTX", Refused("give -c and -ngl")),
    (&["--check-tensors"], "", Same),
    (&["--override-kv"], "", Same),
    (&["--op-offload"], "", Always("as llama.cpp decides")),
    (&["--no-op-offload"], "", Same),
    (&["--lora"], "", Better("also DoRA, IA3, soft prompts and prefixes; any number, by name from a library")),
    (&["--lora-scaled"], "", Same),
    (&["--control-vector"], "", Same),
    (&["--control-vector-scaled"], "", Same),
    (&["--control-vector-layer-range"], "", Same),
    (&["-m", "--model"], "LLAMA_ARG_MODEL", Same),
    (&["-mu", "--model-url"], "LLAMA_ARG_MODEL_URL", Better("out of llama.cpp's cache on this machine, without the network")),
    (&["-dr", "--docker-repo"], "LLAMA_ARG_DOCKER_REPO", Better("out of llama.cpp's cache on this machine, without the network")),
    (&["-hf", "-hfr", "--hf-repo"], "LLAMA_ARG_HF_REPO", Better("out of the caches of this machine, without the network")),
    (&["-hff", "--hf-file"], "LLAMA_ARG_HF_FILE", Same),
    (&["-hft", "--hf-token"], "HF_TOKEN", Partly("taken and not used: nothing is downloaded")),
    (&["--log-disable"], "", Same),
    (&["--log-file"], "LLAMA_ARG_LOG_FILE", Same),
    (&["--log-jsonl"], "LLAMA_ARG_LOG_JSONL", Same),
    (&["--no-log-jsonl"], "", Same),
    (&["--log-colors"], "LLAMA_ARG_LOG_COLORS", Same),
    (&["-v", "--verbose", "--log-verbose"], "", Same),
    (&["--offline"], "LLAMA_ARG_OFFLINE", Always("the network is never used")),
    (&["-lv", "--verbosity", "--log-verbosity"], "LLAMA_ARG_LOG_VERBOSITY", Same),
    (&["--log-prefix", "--no-log-prefix"], "LLAMA_ARG_LOG_PREFIX", Same),
    (&["--log-timestamps", "--no-log-timestamps"], "LLAMA_ARG_LOG_TIMESTAMPS", Same),
    (&["--spec-draft-type-k", "-ctkd", "--cache-type-k-draft"], "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K", Same),
    (&["--spec-draft-type-v", "-ctvd", "--cache-type-v-draft"], "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V", Same),
    (&["--samplers"], "", Same),
    (&["-s", "--seed"], "", Same),
    (&["--sampler-seq", "--sampling-seq"], "", Same),
    (&["--ignore-eos"], "", Same),
    (&["--temp", "--temperature"], "LLAMA_ARG_TEMPERATURE", Same),
    (&["--top-k"], "LLAMA_ARG_TOP_K", Same),
    (&["--top-p"], "LLAMA_ARG_TOP_P", Same),
    (&["--min-p"], "LLAMA_ARG_MIN_P", Same),
    (&["--top-nsigma", "--top-n-sigma"], "", Same),
    (&["--xtc-probability"], "", Same),
    (&["--xtc-threshold"], "", Same),
    (&["--typical", "--typical-p"], "", Same),
    (&["--repeat-last-n"], "", Same),
    (&["--repeat-penalty"], "LLAMA_ARG_REPEAT_PENALTY", Same),
    (&["--presence-penalty"], "LLAMA_ARG_PRESENCE_PENALTY", Same),
    (&["--frequency-penalty"], "LLAMA_ARG_FREQUENCY_PENALTY", Same),
    (&["--dry-multiplier"], "", Same),
    (&["--dry-base"], "", Same),
    (&["--dry-allowed-length"], "", Same),
    (&["--dry-penalty-last-n"], "", Same),
    (&["--dry-sequence-breaker"], "", Same),
    (&["--adaptive-target"], "", Same),
    (&["--adaptive-decay"], "", Same),
    (&["--dynatemp-range"], "", Same),
    (&["--dynatemp-exp"], "", Same),
    (&["--mirostat"], "", Same),
    (&["--mirostat-lr"], "", Same),
    (&["--mirostat-ent"], "", Same),
    (&["-l", "--logit-bias"], "", Same),
    (&["--grammar"], "", Same),
    (&["--grammar-file"], "", Same),
    (&["-j", "--json-schema"], "", Better("what cannot be kept is refused")),
    (&["-jf", "--json-schema-file"], "", Same),
    (&["-bs", "--backend-sampling"], "LLAMA_ARG_BACKEND_SAMPLING", Refused("this sampler is not in this version")),
    (&["-lcs", "--lookup-cache-static"], "", Refused(TABLES)),
    (&["-lcd", "--lookup-cache-dynamic"], "", Refused(TABLES)),
    (&["--kv-unified-per-slot"], "LLAMA_ARG_KV_UNIFIED_PER_SLOT", Same),
    (&["-ctxcp", "--ctx-checkpoints", "--swa-checkpoints"], "LLAMA_ARG_CTX_CHECKPOINTS", Partly("0: prefixes are kept in the context only")),
    (&["-cms", "--checkpoint-min-step"], "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT", Refused("prefixes are kept in the context only")),
    (&["-cram", "--cache-ram"], "LLAMA_ARG_CACHE_RAM", Same),
    (&["-kvu", "--kv-unified"], "LLAMA_ARG_KV_UNIFIED", Same),
    (&["-no-kvu", "--no-kv-unified"], "", Same),
    (&["--cache-idle-slots"], "LLAMA_ARG_CACHE_IDLE_SLOTS", Better("off unless it is given, needs --cache-ram; prefixes are found under their own adapters only")),
    (&["--no-cache-idle-slots"], "", Same),
    (&["--context-shift", "--no-context-shift"], "LLAMA_ARG_CONTEXT_SHIFT", Same),
    (&["-r", "--reverse-prompt"], "", Same),
    (&["-sp", "--special"], "", Same),
    (&["--warmup"], "", Same),
    (&["--no-warmup"], "", Always("there is no warm-up run")),
    (&["--spm-infill"], "", Same),
    (&["--pooling"], "LLAMA_ARG_POOLING", Same),
    (&["-np", "--parallel"], "LLAMA_ARG_N_PARALLEL", Same),
    (&["-cb", "--cont-batching"], "LLAMA_ARG_CONT_BATCHING", Same),
    (&["-nocb", "--no-cont-batching"], "", Same),
    (&["-mm", "--mmproj"], "LLAMA_ARG_MMPROJ", Refused("the model reads text only")),
    (&["-mmu", "--mmproj-url"], "LLAMA_ARG_MMPROJ_URL", Refused("the model reads text only")),
    (&["--mmproj-auto"], "LLAMA_ARG_MMPROJ_AUTO", Refused("the model reads text only")),
    (&["--no-mmproj", "--no-mmproj-auto"], "", Always("there is no projector")),
    (&["--mmproj-offload"], "LLAMA_ARG_MMPROJ_OFFLOAD", Refused("the model reads text only")),
    (&["--no-mmproj-offload"], "", Always("there is no projector")),
    (&["-mmdev", "--mmproj-device"], "MTMD_BACKEND_DEVICE", Refused("the model reads text only")),
    (&["--image-min-tokens"], "LLAMA_ARG_IMAGE_MIN_TOKENS", Refused("the model reads text only")),
    (&["--image-max-tokens"], "LLAMA_ARG_IMAGE_MAX_TOKENS", Refused("the model reads text only")),
    (&["--mtmd-batch-max-tokens"], "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS", Refused("the model reads text only")),
    (&["--video-fps"], "LLAMA_ARG_VIDEO_FPS", Refused("the model reads text only")),
    (&["--video-timestamp-interval"], "LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL", Refused("the model reads text only")),
    (&["--video-ffmpeg-dir"], "LLAMA_ARG_VIDEO_FFMPEG_DIR", Refused("the model reads text only")),
    (&["-a", "--alias"], "LLAMA_ARG_ALIAS", Same),
    (&["--tags"], "LLAMA_ARG_TAGS", Same),
    (&["--embd-normalize"], "", Same),
    (&["--host"], "LLAMA_ARG_HOST", Better("beyond this machine only with a key")),
    (&["--port"], "LLAMA_ARG_PORT", Same),
    (&["--reuse-port"], "LLAMA_ARG_REUSE_PORT", Same),
    (&["--path"], "LLAMA_ARG_STATIC_PATH", Same),
    (&["--cors-origins"], "LLAMA_ARG_CORS_ORIGINS", Same),
    (&["--cors-methods"], "LLAMA_ARG_CORS_METHODS", Same),
    (&["--cors-headers"], "LLAMA_ARG_CORS_HEADERS", Same),
    (&["--cors-credentials", "--no-cors-credentials"], "LLAMA_ARG_CORS_CREDENTIALS", Same),
    (&["--api-prefix"], "LLAMA_ARG_API_PREFIX", Same),
    (&["--ui-config", "--webui-config"], "LLAMA_ARG_UI_CONFIG", Better("settings of our page; an unknown one is an error")),
    (&["--ui-config-file", "--webui-config-file"], "LLAMA_ARG_UI_CONFIG_FILE", Better("settings of our page; an unknown one is an error")),
    (&["--ui-mcp-proxy", "--webui-mcp-proxy", "--no-ui-mcp-proxy", "--no-webui-mcp-proxy"], "LLAMA_ARG_UI_MCP_PROXY", Refused("the server runs no tools")),
    (&["--tools"], "LLAMA_ARG_TOOLS", Refused("the server runs no tools")),
    (&["--tools-runtime"], "LLAMA_ARG_TOOLS_RUNTIME", Refused("the server runs no tools")),
    (&["--mcp-servers-config"], "LLAMA_ARG_MCP_SERVERS_CONFIG", Refused("the server runs no tools")),
    (&["--mcp-servers-json"], "LLAMA_ARG_MCP_SERVERS_JSON", Refused("the server runs no tools")),
    (&["-ag", "--agent"], "LLAMA_ARG_AGENT", Refused("the server runs no tools")),
    (&["-no-ag", "--no-agent"], "", Always("there are no tools")),
    (&["--ui", "--webui", "--no-ui", "--no-webui"], "LLAMA_ARG_UI", Same),
    (&["--embedding", "--embeddings"], "LLAMA_ARG_EMBEDDINGS", Better("beside answers; models that only make vectors need no flag")),
    (&["--rerank", "--reranking"], "LLAMA_ARG_RERANKING", Better("encoders without such a head rank by how near vectors are")),
    (&["--api-key"], "LLAMA_API_KEY", Same),
    (&["--api-key-file"], "LLAMA_ARG_API_KEY_FILE", Better("a key may be limited to adapters")),
    (&["--ssl-key-file"], "LLAMA_ARG_SSL_KEY_FILE", Same),
    (&["--ssl-cert-file"], "LLAMA_ARG_SSL_CERT_FILE", Same),
    (&["--chat-template-kwargs"], "LLAMA_ARG_CHAT_TEMPLATE_KWARGS", Same),
    (&["-to", "--timeout"], "LLAMA_ARG_TIMEOUT", Same),
    (&["--sse-ping-interval"], "LLAMA_ARG_SSE_PING_INTERVAL", Same),
    (&["--threads-http"], "LLAMA_ARG_THREADS_HTTP", Same),
    (&["--cache-prompt", "--no-cache-prompt"], "LLAMA_ARG_CACHE_PROMPT", Same),
    (&["--cache-reuse"], "LLAMA_ARG_CACHE_REUSE", Better("only parts that were read under the same adapters and by the same key")),
    (&["--metrics"], "LLAMA_ARG_ENDPOINT_METRICS", Same),
    (&["--props"], "LLAMA_ARG_ENDPOINT_PROPS", Same),
    (&["--slots", "--no-slots"], "LLAMA_ARG_ENDPOINT_SLOTS", Same),
    (&["--slot-save-path"], "", Better("files hold the adapters and the engine they are for; others are refused")),
    (&["--media-path"], "", Refused("the model reads text only")),
    (&["--models-dir"], "LLAMA_ARG_MODELS_DIR", Refused("one process serves one model")),
    (&["--models-preset"], "LLAMA_ARG_MODELS_PRESET", Refused("one process serves one model")),
    (&["--models-max"], "LLAMA_ARG_MODELS_MAX", Refused("one process serves one model")),
    (&["--models-autoload", "--no-models-autoload"], "LLAMA_ARG_MODELS_AUTOLOAD", Refused("one process serves one model")),
    (&["--jinja"], "LLAMA_ARG_JINJA", Always("templates are always Jinja")),
    (&["--no-jinja"], "", Refused("templates are always Jinja")),
    (&["--reasoning-format"], "LLAMA_ARG_THINK", Same),
    (&["-rea", "--reasoning"], "LLAMA_ARG_REASONING", Same),
    (&["--reasoning-effort"], "LLAMA_ARG_REASONING_EFFORT", Same),
    (&["--reasoning-budget"], "LLAMA_ARG_THINK_BUDGET", Same),
    (&["--reasoning-budget-message"], "LLAMA_ARG_THINK_BUDGET_MESSAGE", Same),
    (&["--reasoning-preserve", "--no-reasoning-preserve"], "LLAMA_ARG_REASONING_PRESERVE", Same),
    (&["--chat-template"], "LLAMA_ARG_CHAT_TEMPLATE", Same),
    (&["--chat-template-file"], "LLAMA_ARG_CHAT_TEMPLATE_FILE", Same),
    (&["--skip-chat-parsing", "--no-skip-chat-parsing"], "LLAMA_ARG_SKIP_CHAT_PARSING", Same),
    (&["--prefill-assistant"], "LLAMA_ARG_PREFILL_ASSISTANT", Same),
    (&["--no-prefill-assistant"], "", Same),
    (&["-sps", "--slot-prompt-similarity"], "", Better("of any cached prefix, not only that of a slot; shared, not moved")),
    (&["--lora-init-without-apply"], "", Same),
    (&["--sleep-idle-seconds"], "", Better("neither /slots nor the page's dashboard wakes it; a model that cannot be loaded again is a 503, not the end")),
    (&["--log-prompts-dir"], "", Same),
    (&["--spec-draft-hf", "-hfd", "-hfrd", "--hf-repo-draft"], "LLAMA_ARG_SPEC_DRAFT_HF_REPO", Better("out of the caches of this machine, without the network")),
    (&["--spec-draft-threads", "-td", "--threads-draft"], "", Same),
    (&["--spec-draft-threads-batch", "-tbd", "--threads-batch-draft"], "", Same),
    (&["--spec-draft-cpu-mask", "-Cd", "--cpu-mask-draft"], "", Refused(PLACED)),
    (&["--spec-draft-cpu-range", "-Crd", "--cpu-range-draft"], "", Refused(PLACED)),
    (&["--spec-draft-cpu-strict", "--cpu-strict-draft"], "", Refused(PLACED)),
    (&["--spec-draft-prio", "--prio-draft"], "", Refused(PLACED)),
    (&["--spec-draft-poll", "--poll-draft"], "", Refused(PLACED)),
    (&["--spec-draft-cpu-mask-batch", "-Cbd", "--cpu-mask-batch-draft"], "", Refused(PLACED)),
    (&["--spec-draft-cpu-strict-batch", "--cpu-strict-batch-draft"], "", Refused(PLACED)),
    (&["--spec-draft-prio-batch", "--prio-batch-draft"], "", Refused(PLACED)),
    (&["--spec-draft-poll-batch", "--poll-batch-draft"], "", Refused(PLACED)),
    (&["--spec-draft-override-tensor", "-otd", "--override-tensor-draft"], "", Refused(WHOLE)),
    (&["--spec-draft-cpu-moe", "-cmoed", "--cpu-moe-draft"], "LLAMA_ARG_SPEC_DRAFT_CPU_MOE", Refused(WHOLE)),
    (&["--spec-draft-n-cpu-moe", "--spec-draft-ncmoe", "-ncmoed", "--n-cpu-moe-draft"], "LLAMA_ARG_SPEC_DRAFT_N_CPU_MOE", Refused(WHOLE)),
    (&["--spec-draft-n-max"], "LLAMA_ARG_SPEC_DRAFT_N_MAX", Same),
    (&["--spec-draft-n-min"], "LLAMA_ARG_SPEC_DRAFT_N_MIN", Same),
    (&["--spec-synth-len"], "LLAMA_ARG_SPEC_SYNTH_LEN", Refused(SYNTH)),
    (&["--spec-synth-rates"], "LLAMA_ARG_SPEC_SYNTH_RATES", Refused(SYNTH)),
    (&["--spec-draft-p-split", "--draft-p-split"], "LLAMA_ARG_SPEC_DRAFT_P_SPLIT", Refused("llama-server reads it and does not use it")),
    (&["--spec-draft-p-min", "--draft-p-min"], "LLAMA_ARG_SPEC_DRAFT_P_MIN", Same),
    (&["--spec-draft-backend-sampling", "--no-spec-draft-backend-sampling"], "LLAMA_ARG_SPEC_DRAFT_BACKEND_SAMPLING", Refused("this sampler is not in this version")),
    (&["--spec-draft-device", "-devd", "--device-draft"], "", Same),
    (&["--spec-draft-ngl", "-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft"], "LLAMA_ARG_N_GPU_LAYERS_DRAFT", Same),
    (&["--spec-draft-model", "-md", "--model-draft"], "LLAMA_ARG_SPEC_DRAFT_MODEL", Better("without --spec-type too; what keeps two vocabularies apart is named")),
    (&["--spec-type"], "LLAMA_ARG_SPEC_TYPE", Partly("none, draft-simple, ngram-simple, ngram-map-k, ngram-map-k4v, ngram-mod; ngram-cache and the types with a head are refused")),
    (&["--spec-ngram-mod-n-min"], "", Same),
    (&["--spec-ngram-mod-n-max"], "", Same),
    (&["--spec-ngram-mod-n-match"], "", Same),
    (&["--spec-ngram-simple-size-n"], "", Same),
    (&["--spec-ngram-simple-size-m"], "", Same),
    (&["--spec-ngram-simple-min-hits"], "", Better("it counts here; llama-server reads it and goes by one hit")),
    (&["--spec-ngram-map-k-size-n"], "", Same),
    (&["--spec-ngram-map-k-size-m"], "", Same),
    (&["--spec-ngram-map-k-min-hits"], "", Better("it counts here; llama-server reads it and goes by one hit")),
    (&["--spec-ngram-map-k4v-size-n"], "", Same),
    (&["--spec-ngram-map-k4v-size-m"], "", Same),
    (&["--spec-ngram-map-k4v-min-hits"], "", Same),
    (&["--draft", "--draft-n", "--draft-max"], "LLAMA_ARG_DRAFT_MAX", Refused("llama-server has it no more either")),
    (&["--draft-min", "--draft-n-min"], "LLAMA_ARG_DRAFT_MIN", Refused("llama-server has it no more either")),
    (&["--spec-ngram-size-n"], "", Refused("llama-server has it no more either")),
    (&["--spec-ngram-size-m"], "", Refused("llama-server has it no more either")),
    (&["--spec-ngram-min-hits"], "", Refused("llama-server has it no more either")),
    (&["--embd-gemma-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-1.5b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-3b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-7b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-7b-spec"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-14b-spec"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--fim-qwen-30b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--gpt-oss-20b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--gpt-oss-120b-default"], "", Refused("nothing is downloaded: fetch the file and give -m")),
    (&["--vision-gemma-4b-default"], "", Refused("the model reads text only")),
    (&["--vision-gemma-12b-default"], "", Refused("the model reads text only")),
    (&["--spec-default"], "", Same),
];

/// The row that has this spelling.
pub fn find(name: &str) -> Option<&'static (&'static [&'static str], &'static str, Meaning)> {
    FLAGS.iter().find(|(names, ..)| names.contains(&name))
}

/// Why a flag is refused, when it is.
pub fn refused(name: &str) -> Option<&'static str> {
    match find(name)?.2 {
        Refused(why) => Some(why),
        Same | Better(_) | Always(_) | Partly(_) => None,
    }
}

/// Whether the flag asks for what is always so.
pub fn is_always(name: &str) -> bool {
    find(name).is_some_and(|(.., meaning)| matches!(meaning, Always(_)))
}

/// The long spelling of a flag with one dash and several letters. Without it, `-mm FILE` would be read as `-m m`.
pub fn long(name: &str) -> Option<&'static str> {
    let (names, ..) = find(name).filter(|_| name.len() > 2 && !name.starts_with("--"))?;
    names.iter().copied().find(|n| n.starts_with("--"))
}

/// A flag of which people make use: all but those for placing threads, for testing, for models that the flag itself names,
/// for the shell, and those that llama-server has no more.
pub fn is_used(names: &[&str]) -> bool {
    USED.iter().any(|used| names.contains(used))
}

/// The leading spelling of each such flag, and of the other half of a pair only where it is used by itself.
#[rustfmt::skip]
const USED: &[&str] = &[
    // model
    "-m", "-mu", "-hf", "-hff", "-hft", "-dr", "--offline", "-a", "--tags", "--override-kv", "--check-tensors", "-lm", "-cl",
    // devices and threads
    "-ngl", "-sm", "-ts", "-mg", "-dev", "--list-devices", "-ot", "-cmoe", "-ncmoe", "-ncffn", "-fit", "-fitt", "-fitc",
    "--no-op-offload", "--repack", "--rpc", "--numa", "-t", "-tb",
    // context
    "-c", "-np", "-kvu", "--kv-unified-per-slot", "-ctk", "-ctv", "-fa", "--swa-full", "-kvo", "--context-shift", "--keep",
    "--rope-scaling", "--rope-scale", "--rope-freq-base", "--rope-freq-scale", "--yarn-orig-ctx", "--yarn-ext-factor",
    "--yarn-attn-factor", "--yarn-beta-slow", "--yarn-beta-fast", "-ctxcp", "-cms", "--cache-prompt", "--cache-reuse",
    "-cram", "--cache-idle-slots", "-sps",
    // batches
    "-b", "-ub", "-cb", "--warmup",
    // adapters
    "--lora", "--lora-scaled", "--lora-init-without-apply", "--control-vector", "--control-vector-scaled",
    "--control-vector-layer-range",
    // formats
    "--grammar", "--grammar-file", "-j", "-jf",
    // sampling
    "--samplers", "--sampler-seq", "-s", "--temp", "--top-k", "--top-p", "--min-p", "--typical", "--top-nsigma",
    "--xtc-probability", "--xtc-threshold", "--repeat-last-n", "--repeat-penalty", "--presence-penalty",
    "--frequency-penalty", "--dry-multiplier", "--dry-base", "--dry-allowed-length", "--dry-penalty-last-n",
    "--dry-sequence-breaker", "--adaptive-target", "--adaptive-decay", "--dynatemp-range", "--dynatemp-exp", "--mirostat",
    "--mirostat-lr", "--mirostat-ent", "-l", "-n", "-bs",
    // server
    "--host", "--port", "--reuse-port", "--path", "--api-prefix", "--api-key", "--api-key-file", "--ssl-key-file",
    "--ssl-cert-file", "-to", "--threads-http", "--sse-ping-interval", "--metrics", "--props", "--slots",
    "--slot-save-path", "--media-path", "--cors-origins", "--cors-methods", "--cors-headers", "--cors-credentials", "--ui",
    "--ui-config", "--ui-config-file", "--embedding", "--pooling", "--embd-normalize", "--rerank", "--spm-infill",
    "--sleep-idle-seconds", "--models-dir", "--models-preset", "--models-max", "--models-autoload", "--tools",
    "--tools-runtime", "--mcp-servers-config", "--mcp-servers-json", "-ag",
    // chat
    "--jinja", "--chat-template", "--chat-template-file", "--chat-template-kwargs", "--skip-chat-parsing",
    "--prefill-assistant", "--reasoning-format", "-rea", "--reasoning-effort", "--reasoning-budget",
    "--reasoning-budget-message", "--reasoning-preserve",
    // drafts
    "-md", "-hfd", "--spec-type", "--spec-draft-n-max", "--spec-draft-n-min", "--spec-draft-p-min", "-ngld", "-devd",
    "--spec-default",
    // pictures and sound
    "-mm", "-mmu", "--no-mmproj", "--no-mmproj-offload", "--image-min-tokens", "--image-max-tokens", "--video-fps",
    "--video-timestamp-interval", "--video-ffmpeg-dir",
    // log
    "-v", "-lv", "--log-file", "--log-jsonl", "--log-colors", "--log-prefix", "--log-timestamps", "--log-disable",
    "--log-prompts-dir",
];

/// The first variable that is off and stands for what is always so: `(variable, flag, why)`. The network is never used,
/// whatever is said of it.
pub fn always_variable(is_off: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str, &'static str)> {
    FLAGS.iter().find_map(|(names, variable, meaning)| match meaning {
        Always(why) if !variable.is_empty() && *variable != "LLAMA_ARG_OFFLINE" && is_off(variable) => {
            Some((*variable, names[0], *why))
        }
        _ => None,
    })
}

/// The first variable of the environment that stands for a refused flag: `(variable, flag, why)`.
pub fn refused_variable(is_set: impl Fn(&str) -> bool) -> Option<(&'static str, &'static str, &'static str)> {
    FLAGS.iter().find_map(|(names, variable, meaning)| match meaning {
        Refused(why) if !variable.is_empty() && is_set(variable) => Some((*variable, names[0], *why)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_is_there_once() {
        let mut seen = std::collections::HashSet::new();
        for (names, ..) in FLAGS {
            for name in *names {
                assert!(name.starts_with('-') && seen.insert(name), "{name}");
            }
        }
        assert!(refused("--mmproj").is_some() && refused("--port").is_none() && refused("--no-such-flag").is_none());
        assert_eq!(long("-mm"), Some("--mmproj"));
        for used in USED {
            assert!(find(used).is_some(), "{used}");
        }
        assert_eq!(always_variable(|v| v == "LLAMA_ARG_JINJA").map(|f| f.1), Some("--jinja"));
        assert_eq!(refused_variable(|v| v == "LLAMA_ARG_MMPROJ").map(|f| f.0), Some("LLAMA_ARG_MMPROJ"));
    }
}
