//! What a template may use up, and the functions and filters that keep count.
//!
//! Charged is what is built: operands of `+`, `~` and `*`, everything printed (also into a
//! `{% set %}` block), what filters and methods return that can return more than they were given,
//! and the number of values in every list and map that is passed on. Charges are never given
//! back, so that the budget bounds the memory in use to a small multiple of it.
//!
//! Not bounded but by the number of steps: time spent on large values, one step of which may take
//! as long as reading the whole budget (comparing two texts of its size, say). A template made
//! for it can keep one core busy for minutes, with little memory; none in use comes near.

use super::printing::{self, Layout};
use super::{CivilTime, meter};
use minijinja::formatting::{self, FormatStyle};
use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes a list takes up per item, about.
const ITEM_BYTES: usize = 32;

/// Bytes charged for each value inside a value, each time it is passed on.
const HELD_BYTES: usize = 8;

/// Lists and maps inside each other.
const MAX_DEPTH: usize = 500;

/// Bytes of text and lists a rendering may still build, counted together and never given back.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    left: AtomicUsize,
    /// The products being multiplied, innermost last: what has been multiplied so far.
    products: Mutex<Vec<Product>>,
}

/// Why a rendering ended early, carried inside the engine's own error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The template called `raise_exception`.
    Raised(String),
    /// The template built more than this many bytes.
    TooLarge(usize),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Raised(message) => f.write_str(message),
            Stop::TooLarge(limit) => write!(f, "more than {limit} bytes"),
        }
    }
}

impl std::error::Error for Stop {}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        Error::new(ErrorKind::InvalidOperation, stop.to_string()).with_source(stop)
    }
}

/// What is known of a product before it is computed.
#[derive(Clone, Copy, Debug)]
enum Product {
    /// This many bytes, however often.
    Bytes(usize),
    /// This many times.
    Times(usize),
    /// A number that is not known here.
    Unknown,
}

impl Product {
    fn of(value: &Value, held: usize, whole: bool) -> Self {
        if let Some(text) = value.as_str() {
            Product::Bytes(text.len())
        } else if is_list(value) {
            Product::Bytes(held.saturating_mul(ITEM_BYTES))
        } else if whole {
            Product::Times(value.as_usize().unwrap_or(0))
        } else {
            Product::Unknown
        }
    }

    fn times(self, other: Self) -> Self {
        match (self, other) {
            (Product::Bytes(a), Product::Times(b) | Product::Bytes(b)) | (Product::Times(a), Product::Bytes(b)) => {
                Product::Bytes(a.saturating_mul(b))
            }
            (Product::Times(a), Product::Times(b)) => Product::Times(a.saturating_mul(b)),
            (Product::Bytes(_), Product::Unknown) | (Product::Unknown, Product::Bytes(_)) => Product::Bytes(usize::MAX),
            (Product::Unknown, _) | (_, Product::Unknown) => Product::Unknown,
        }
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, left: AtomicUsize::new(limit), products: Mutex::default() }
    }

    /// Takes `bytes` off, before they are built.
    fn charge(&self, bytes: usize) -> Result<(), Error> {
        let left = self.left.load(Ordering::Relaxed);
        let Some(left) = left.checked_sub(bytes) else {
            return Err(Stop::TooLarge(self.limit).into());
        };
        self.left.store(left, Ordering::Relaxed);
        Ok(())
    }

    /// The text of any value, as Python writes it.
    fn print(&self, value: &Value) -> Result<String, Error> {
        self.printed(|left| printing::display(value, left))
    }

    fn printed(&self, print: impl FnOnce(usize) -> Result<String, printing::Unprintable>) -> Result<String, Error> {
        let text = print(self.left.load(Ordering::Relaxed)).map_err(|error| match error {
            printing::Unprintable::TooLarge => Stop::TooLarge(self.limit).into(),
            printing::Unprintable::TooDeep => Error::new(ErrorKind::InvalidOperation, "value is nested too deeply"),
            printing::Unprintable::Other(error) => error,
        })?;
        self.charge(text.len())?;
        Ok(text)
    }

    /// Charges all the values inside a value, as often as they are there.
    fn held(&self, value: &Value, keep: bool) -> Result<usize, Error> {
        let mut count = 0;
        self.count(value, keep, 0, &mut count)?;
        self.charge(count.saturating_mul(HELD_BYTES))?;
        Ok(count)
    }

    fn count(&self, value: &Value, keep: bool, depth: usize, count: &mut usize) -> Result<(), Error> {
        let is_map = value.kind() == ValueKind::Map;
        if !is_map && !is_list(value) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::InvalidOperation, "value is nested too deeply"));
        }
        if keep && value.as_object().is_some_and(|object| object.type_name().ends_with("Namespace")) {
            return Err(Error::new(ErrorKind::InvalidOperation, "a namespace inside a namespace"));
        }
        for item in value.try_iter()? {
            *count += 1;
            if *count > self.left.load(Ordering::Relaxed) / HELD_BYTES {
                return Err(Stop::TooLarge(self.limit).into());
            }
            if is_map {
                self.count(&value.get_item(&item)?, keep, depth + 1, count)?;
            }
            self.count(&item, keep, depth + 1, count)?;
        }
        Ok(())
    }

    /// Passes on what goes into brackets or a variable: a list where it was a lazy one.
    fn item(&self, value: Value, keep: bool) -> Result<Value, Error> {
        let held = self.held(&value, keep)?;
        if value.kind() != ValueKind::Iterable {
            return Ok(value);
        }
        self.charge(held.saturating_mul(ITEM_BYTES))?;
        Ok(value.try_iter()?.collect())
    }

    fn part(&self, value: Value) -> Result<Value, Error> {
        if let Some(text) = value.as_str() {
            self.charge(text.len())?;
        }
        self.item(value, false)
    }

    fn text(&self, value: Value) -> Result<Value, Error> {
        if value.as_str().is_some() {
            return self.part(value);
        }
        Ok(Value::from(self.print(&value)?))
    }

    fn factor(&self, value: Value, first: bool, last: bool, whole: bool) -> Result<Value, Error> {
        let held = self.held(&value, false)?;
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        let mut product = Product::of(&value, held, whole);
        if !first {
            product = products.pop().unwrap_or(Product::Unknown).times(product);
            if let Product::Bytes(bytes) = product {
                self.charge(bytes)?;
            }
        }
        if !last {
            products.push(product);
        }
        Ok(value)
    }

    fn replace(&self, text: &str, from: &str, to: &str) -> Result<(), Error> {
        let found = text.matches(from).count();
        self.charge(text.len().saturating_add(found.saturating_mul(to.len())))
    }

    fn pieces(&self, text: &str, count: usize) -> Result<(), Error> {
        self.charge(text.len().saturating_add(count.saturating_mul(ITEM_BYTES)))
    }

    fn split(&self, text: &str, separator: Option<&str>) -> Result<(), Error> {
        let count = match separator {
            Some(separator) => text.matches(separator).count() + 1,
            None => text.split_whitespace().count(),
        };
        self.pieces(text, count)
    }

    fn join(&self, values: &Value, joiner: &str, attribute: Option<&str>) -> Result<String, Error> {
        let mut out = String::new();
        for (index, item) in values.try_iter()?.enumerate() {
            if index > 0 {
                self.charge(joiner.len())?;
                out.push_str(joiner);
            }
            let item = match attribute {
                Some(name) => item.get_attr(name)?,
                None => item,
            };
            out.push_str(&self.print(&item)?);
        }
        Ok(out)
    }

    /// Charges for a format string: every number in it may be a width, and so may every integer
    /// among its arguments.
    fn format(&self, format: &str, arguments: &[Value]) -> Result<(), Error> {
        let widths = format
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().unwrap_or(usize::MAX));
        let mut longest = 0;
        let mut sum = format.len();
        for width in widths {
            sum = sum.saturating_add(width);
        }
        for argument in arguments {
            longest = longest.max(self.print(argument)?.len());
            if argument.is_number() {
                let width = argument.as_i64().map_or(0, i64::unsigned_abs);
                longest = longest.max(usize::try_from(width).unwrap_or(usize::MAX));
            }
        }
        let fields = format.matches(['{', '%']).count();
        self.charge(sum.saturating_add(fields.saturating_mul(longest)))
    }

    /// Charges for a method of a string, before it is called.
    fn method(&self, text: &str, method: &str, arguments: &[Value]) -> Result<(), Error> {
        let argument = |index: usize| arguments.get(index).and_then(Value::as_str);
        match method {
            "replace" => self.replace(text, argument(0).unwrap_or_default(), argument(1).unwrap_or_default()),
            "split" => self.split(text, argument(0)),
            "splitlines" => self.pieces(text, text.matches('\n').count() + 1),
            "format" => self.format(text, arguments),
            _ => self.charge(text.len()),
        }
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

/// Puts everything a chat template may call into `env`, charged to `budget`.
pub(super) fn install(env: &mut Environment<'_>, budget: &Arc<Budget>, now: Option<CivilTime>) {
    // Nothing in use needs these, and they build more than they are given.
    for filter in ["batch", "slice", "pprint"] {
        env.remove_filter(filter);
    }
    env.remove_global("debug");
    install_meters(env, budget);
    install_filters(env, budget);

    let spent = Arc::clone(budget);
    env.set_formatter(move |out, _state, value| {
        let written = match value.as_str() {
            Some(text) => {
                spent.charge(text.len())?;
                out.write_str(text)
            }
            None => out.write_str(&spent.print(value)?),
        };
        written.map_err(Error::from)
    });
    let spent = Arc::clone(budget);
    env.set_unknown_method_callback(move |state, value, method, arguments| {
        match (value.as_str(), method) {
            (Some(joiner), "join") if arguments.len() == 1 => {
                return spent.join(&arguments[0], joiner, None).map(Value::from);
            }
            (Some(text), _) => spent.method(text, method, arguments)?,
            _ => {}
        }
        unknown_method_callback(state, value, method, arguments)
    });
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Stop::Raised(message).into())
    });
    if let Some(now) = now {
        let spent = Arc::clone(budget);
        env.add_function("strftime_now", move |format: &str| -> Result<String, Error> {
            // No directive writes more than 20 characters for its two.
            spent.charge(format.len().saturating_mul(10))?;
            Ok(now.strftime(format))
        });
    }
}

/// The filters and the function `meter` writes into the source.
fn install_meters(env: &mut Environment<'_>, budget: &Arc<Budget>) {
    let spent = Arc::clone(budget);
    env.add_filter(meter::PART, move |value: Value| spent.part(value));
    let spent = Arc::clone(budget);
    env.add_filter(meter::ITEM, move |value: Value| spent.item(value, false));
    let spent = Arc::clone(budget);
    env.add_filter(meter::KEPT, move |value: Value| spent.item(value, true));
    let spent = Arc::clone(budget);
    env.add_filter(meter::TEXT, move |value: Value| spent.text(value));
    let spent = Arc::clone(budget);
    env.add_filter(meter::FACTOR, move |value: Value, first: bool, last: bool, whole: bool| {
        spent.factor(value, first, last, whole)
    });
    let spent = Arc::clone(budget);
    env.add_function(meter::DATA, move |bytes: usize| -> Result<&str, Error> {
        spent.charge(bytes)?;
        Ok("")
    });
}

/// The filters that can build more than they are given.
fn install_filters(env: &mut Environment<'_>, budget: &Arc<Budget>) {
    let spent = Arc::clone(budget);
    env.add_filter("string", move |value: &Value| spent.print(value));
    let spent = Arc::clone(budget);
    env.add_filter("tojson", move |value: &Value, indent: Option<usize>, named: Kwargs| {
        let layout = Layout::from_arguments(indent, &named)?;
        spent.printed(|left| printing::json(value, &layout, left))
    });
    let spent = Arc::clone(budget);
    env.add_filter(
        "replace",
        move |value: &Value, from: &str, to: &str, count: Option<usize>| -> Result<String, Error> {
            let text = spent.print(value)?;
            spent.replace(&text, from, to)?;
            Ok(match count {
                Some(count) => text.replacen(from, to, count),
                None => text.replace(from, to),
            })
        },
    );
    let spent = Arc::clone(budget);
    env.add_filter("join", move |values: &Value, joiner: Option<String>, attribute: Option<String>, named: Kwargs| {
        let joiner = match joiner {
            Some(joiner) => joiner,
            None => named.get::<Option<String>>("d")?.unwrap_or_default(),
        };
        let attribute = match attribute {
            Some(attribute) => Some(attribute),
            None => named.get::<Option<String>>("attribute")?,
        };
        spent.join(values, &joiner, attribute.as_deref())
    });
    let spent = Arc::clone(budget);
    env.add_filter("indent", move |value: &Value, width: Option<Value>, first: Option<bool>, named: Kwargs| {
        indent(&spent, value, width, first, &named)
    });
    let spent = Arc::clone(budget);
    env.add_filter("format", move |format: &str, arguments: Rest<Value>| -> Result<String, Error> {
        spent.format(format, &arguments)?;
        formatting::format(FormatStyle::Printf, format, &arguments)
    });
    let spent = Arc::clone(budget);
    env.add_filter("list", move |value: &Value| -> Result<Value, Error> {
        let mut items = Vec::new();
        for item in value.try_iter()? {
            spent.charge(ITEM_BYTES)?;
            items.push(item);
        }
        Ok(Value::from(items))
    });
    let spent = Arc::clone(budget);
    env.add_filter("split", move |value: &Value, separator: Option<Arc<str>>, most: Option<i64>| {
        spent.split(value.as_str().unwrap_or_default(), separator.as_deref())?;
        minijinja::filters::split(value, separator, most)
    });
    let spent = Arc::clone(budget);
    env.add_filter("lines", move |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        spent.pieces(text, text.matches('\n').count() + 1)?;
        minijinja::filters::lines(value)
    });
}

fn indent(
    budget: &Budget,
    value: &Value,
    width: Option<Value>,
    first: Option<bool>,
    named: &Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(width) => width,
        None => named.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4)),
    };
    let first = match first {
        Some(first) => first,
        None => named.get::<Option<bool>>("first")?.unwrap_or(false),
    };
    let blank = named.get::<Option<bool>>("blank")?.unwrap_or(false);
    let text = budget.print(value)?;
    let lines = text.matches('\n').count() + 1;
    let (unit, times) = match width.as_str() {
        Some(unit) => (unit, 1),
        None => (" ", width.as_usize().unwrap_or(0)),
    };
    let indent_bytes = unit.len().saturating_mul(times);
    budget.charge(lines.saturating_add(1).saturating_mul(indent_bytes).saturating_add(text.len()))?;
    let indent = unit.repeat(times);
    let mut out = String::new();
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let indented = if index == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(out)
}
