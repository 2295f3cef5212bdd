//! A parsed chat template, and rendering with it.

use super::limits::{self, Budget, Stop};
use super::meter::{self, Metered};
use super::paint::{self, Coat, Palette};
use super::provenance::{Attributed, COATS};
use super::spellings::Spellings;
use super::{CivilTime, Message, Prompt, TemplateError, builtin};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

/// Bytes of template source accepted. The longest in use have some 30 thousand.
const MAX_SOURCE_BYTES: usize = 128 << 10;

/// Steps of a rendering, and further ones for each message and tool. A message takes about 100.
const BASE_STEPS: u64 = 200_000;
const STEPS_PER_MESSAGE: u64 = 2_000;
const MAX_STEPS: u64 = 4_000_000;

/// Bytes of output, and further ones for each byte of input.
const BASE_OUTPUT_BYTES: usize = 1 << 20;
const OUTPUT_BYTES_PER_BYTE: usize = 4;

/// Bytes of text and lists built on the way, and further ones for each byte of input.
const BASE_WORK_BYTES: usize = 32 << 20;
const WORK_BYTES_PER_BYTE: usize = 256;

/// Macros, loops and blocks inside each other.
const MAX_NESTING: usize = 200;

/// Stack of the thread that runs the engine, most of it never touched. The engine recurses over
/// expressions of thousands of operators and over values hundreds of lists deep.
const STACK_BYTES: usize = 256 << 20;

const NAME: &str = "chat_template";

/// Token spellings a template writes or must not let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Spelling of the token a text begins with; empty when the model has none.
    pub bos: String,
    /// Spelling of the token a text ends with; empty when the model has none.
    pub eos: String,
    /// Every spelling the tokenizer would parse as a control token. One that consists of white
    /// space and quotes alone is not protected.
    pub control: Vec<String>,
}

/// What a template is told besides the messages.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderOptions {
    /// Whether the prompt ends with the opening of the model's answer. Default: true.
    pub add_generation_prompt: bool,
    /// Tools in the format of the OpenAI API. Default: none.
    pub tools: Option<Value>,
    /// Further variables, such as `enable_thinking` or `documents`; their text is a user's.
    /// Default: none.
    pub kwargs: Map<String, Value>,
    /// What `strftime_now` tells. Default: none, and the function is not defined, which
    /// templates answer with a date of their own.
    pub now: Option<CivilTime>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self { add_generation_prompt: true, tools: None, kwargs: Map::new(), now: None }
    }
}

/// A chat template, parsed once.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: SpecialTokens,
    spellings: Spellings,
    /// What the template has in quotes.
    literals: Spellings,
    /// The characters of the template and of its tokens that are no good as paint.
    characters: HashSet<char>,
}

impl ChatTemplate {
    /// Parses template text as it stands in a model file.
    pub fn parse(source: &str, tokens: SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::SourceTooLarge { bytes: source.len(), limit: MAX_SOURCE_BYTES });
        }
        on_big_stack(|| Self::parse_here(source, tokens))?
    }

    /// The template known by `name`, if it is one of [`ChatTemplate::names`].
    pub fn named(name: &str, tokens: SpecialTokens) -> Option<Self> {
        let (_, source) = builtin::TEMPLATES.iter().find(|(known, _)| *known == name)?;
        Self::parse(source, tokens).ok()
    }

    /// The names [`ChatTemplate::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        builtin::TEMPLATES.iter().map(|(name, _)| *name)
    }

    /// Renders a conversation.
    ///
    /// Runs the template two to four times, see `provenance`, each time within the limits.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<Prompt, TemplateError> {
        on_big_stack(|| self.render_here(&Conversation { messages, options }))?
    }

    fn parse_here(source: &str, tokens: SpecialTokens) -> Result<Self, TemplateError> {
        let Metered { source: metered, literals } = meter::meter(source).map_err(|unmeterable| {
            TemplateError::Syntax { line: unmeterable.line, reason: unmeterable.reason.to_owned() }
        })?;
        let mut environment = environment();
        environment.add_template_owned(NAME, metered).map_err(|error| syntax_error(&error))?;
        Ok(Self {
            environment,
            spellings: Spellings::new(tokens.control.iter().map(String::as_str)),
            literals: Spellings::new(literals.iter().map(String::as_str)),
            characters: [source, &tokens.bos, &tokens.eos]
                .into_iter()
                .chain(tokens.control.iter().map(String::as_str))
                .flat_map(paint::candidates)
                .collect(),
            tokens,
        })
    }

    fn render_here(&self, conversation: &Conversation<'_>) -> Result<Prompt, TemplateError> {
        let mut used = self.characters.clone();
        let input_bytes = conversation.collect(&mut used);
        let palette = Palette::new(&self.spellings, &self.literals, &used).ok_or_else(|| TemplateError::Failed {
            line: 0,
            reason: "the conversation uses every character there is".to_owned(),
        })?;
        let run = |coat| self.run(conversation.variables(self, &palette, coat), conversation, input_bytes);

        let plain = run(Coat::None)?;
        if self.spellings.find(&plain).next().is_none() {
            return Ok(Prompt::raw(plain));
        }
        let mut painted = Ok(String::new());
        for coat in COATS {
            painted = run(coat);
            if let Ok(painted) = &painted
                && let Some(attributed) = Attributed::compare(&plain, painted, &palette)
            {
                return Ok(attributed.into_prompt(&self.spellings));
            }
        }
        Ok(Attributed::clean(&painted?, &palette).into_prompt(&self.spellings))
    }

    /// Runs the template once, within its limits.
    fn run(
        &self,
        variables: BTreeMap<String, minijinja::Value>,
        conversation: &Conversation<'_>,
        input_bytes: usize,
    ) -> Result<String, TemplateError> {
        let scaled = |base: usize, factor: usize| base.saturating_add(input_bytes.saturating_mul(factor));
        let budget = Arc::new(Budget::new(scaled(BASE_WORK_BYTES, WORK_BYTES_PER_BYTE)));
        let steps = conversation.steps();
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        limits::install(&mut environment, &budget, conversation.options.now);

        let mut output = Output { text: Vec::new(), limit: scaled(BASE_OUTPUT_BYTES, OUTPUT_BYTES_PER_BYTE) };
        let context = minijinja::Value::from_pairs(variables);
        environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut output).map(drop))
            .map_err(|error| render_error(&error, steps, output.limit))?;
        Ok(String::from_utf8_lossy(&output.text).into_owned())
    }
}

/// What one rendering is about.
struct Conversation<'a> {
    messages: &'a [Message],
    options: &'a RenderOptions,
}

impl Conversation<'_> {
    /// Adds what every string uses up of the paint to `used`; the bytes of all strings.
    fn collect(&self, used: &mut HashSet<char>) -> usize {
        let mut bytes = 0;
        let mut add = |text: &str| {
            bytes += text.len();
            used.extend(paint::candidates(text));
        };
        for message in self.messages {
            add(&message.content);
            each_string_in(&message.extras, &mut add);
        }
        each_string_in(&self.options.kwargs, &mut add);
        if let Some(tools) = &self.options.tools {
            each_string(tools, &mut add);
        }
        bytes
    }

    fn steps(&self) -> u64 {
        let tools = self.options.tools.as_ref().and_then(Value::as_array);
        let count = self.messages.len() + tools.map_or(0, Vec::len);
        u64::try_from(count)
            .unwrap_or(u64::MAX)
            .saturating_mul(STEPS_PER_MESSAGE)
            .saturating_add(BASE_STEPS)
            .min(MAX_STEPS)
    }

    /// The variables of the template, by the names Hugging Face gives them.
    fn variables(
        &self,
        template: &ChatTemplate,
        palette: &Palette<'_>,
        coat: Coat,
    ) -> BTreeMap<String, minijinja::Value> {
        let messages: minijinja::Value = self
            .messages
            .iter()
            .map(|message| {
                let own = [
                    ("role", minijinja::Value::from(message.role.as_str())),
                    ("content", palette.text(&message.content, coat).into()),
                ];
                let extras =
                    palette.fields(&message.extras, coat).filter(|(name, _)| name != "role" && name != "content");
                minijinja::Value::from_pairs(
                    own.map(|(name, value)| (name.to_owned(), value)).into_iter().chain(extras),
                )
            })
            .collect();
        let tools = self.options.tools.as_ref().unwrap_or(&Value::Null);
        let mut variables = BTreeMap::from([("documents".to_owned(), minijinja::Value::from(()))]);
        variables.extend(palette.fields(&self.options.kwargs, coat));
        variables.extend(
            [
                ("messages", messages),
                ("tools", palette.value(tools, coat)),
                ("bos_token", minijinja::Value::from(template.tokens.bos.as_str())),
                ("eos_token", minijinja::Value::from(template.tokens.eos.as_str())),
                ("add_generation_prompt", minijinja::Value::from(self.options.add_generation_prompt)),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        variables
    }
}

fn each_string(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, visit)),
        Value::Object(fields) => each_string_in(fields, visit),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn each_string_in(fields: &Map<String, Value>, visit: &mut impl FnMut(&str)) {
    for (name, value) in fields {
        visit(name);
        each_string(value, visit);
    }
}

/// Output that refuses to grow beyond its limit.
struct Output {
    text: Vec<u8>,
    limit: usize,
}

impl io::Write for Output {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if text.len() > self.limit - self.text.len() {
            return Err(io::Error::other("too large"));
        }
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An engine that reads templates as Hugging Face's transformers does.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(false)
        .build()
        .expect("the default delimiters are valid");
    environment.set_syntax(syntax);
    environment.set_recursion_limit(MAX_NESTING);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    // Debug information would copy source and variables into every error.
    environment.set_debug(false);
    environment
}

/// Runs `work` with stack to spare: neither the parser nor the engine bounds its recursion by
/// the stack there is.
fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, TemplateError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| TemplateError::NoThread { reason: error.to_string() })?;
        thread.join().map_err(|_| TemplateError::Failed { line: 0, reason: "the template engine gave up".to_owned() })
    })
}

fn syntax_error(error: &minijinja::Error) -> TemplateError {
    TemplateError::Syntax { line: error.line().unwrap_or(0), reason: one_line(error) }
}

fn render_error(error: &minijinja::Error, steps: u64, output_limit: usize) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut line = error.line();
    while let Some(current) = cause {
        match current.downcast_ref::<Stop>() {
            Some(Stop::Raised(message)) => {
                return TemplateError::Raised { message: message.split_whitespace().collect::<Vec<_>>().join(" ") };
            }
            Some(Stop::TooLarge(limit)) => return TemplateError::TooLarge { limit: *limit },
            None => {}
        }
        if let Some(error) = current.downcast_ref::<minijinja::Error>() {
            line = error.line().or(line);
            match error.kind() {
                ErrorKind::OutOfFuel => return TemplateError::TooManySteps { steps },
                ErrorKind::WriteFailure => {
                    return TemplateError::TooLarge { limit: output_limit };
                }
                _ => {}
            }
        }
        cause = current.source();
    }
    TemplateError::Failed { line: line.unwrap_or(0), reason: one_line(error) }
}

/// What the engine says, without the place, which we name ourselves.
fn one_line(error: &minijinja::Error) -> String {
    let text = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().take(300).collect()
}
