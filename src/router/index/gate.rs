//! Who may be found: requirements on attributes, and what they mean.

/// A conjunction of requirements on attributes. The default lets everything through.
///
/// An adapter that lacks a required key passes, as one that says nothing about its region fits every region; under a
/// [strict](Gate::strict) gate it does not. Of a key with several values, one must be among those allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gate {
    requirements: Vec<Requirement>,
    strict: bool,
}

/// One key and the values allowed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Requirement {
    pub key: String,
    /// Sorted, each once.
    pub values: Vec<String>,
}

impl Gate {
    /// The gate that lets everything through.
    pub fn open() -> Self {
        Self::default()
    }

    /// Requires that `key` has this value.
    #[must_use]
    pub fn require(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.any_of(key, [value.into()])
    }

    /// Requires that `key` has one of these values. With none given, only adapters without the key pass.
    #[must_use]
    pub fn any_of<V: Into<String>>(mut self, key: impl Into<String>, values: impl IntoIterator<Item = V>) -> Self {
        let mut values: Vec<String> = values.into_iter().map(Into::into).collect();
        values.sort();
        values.dedup();
        self.requirements.push(Requirement { key: key.into(), values });
        self
    }

    /// Adapters that lack a required key do not pass.
    #[must_use]
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Whether everything passes.
    pub fn is_open(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an adapter with these attributes passes: the definition that the index's bitmaps must agree with. For the
    /// index, a profile's path counts as values of the attribute `path`.
    pub fn allows(&self, attributes: &[(String, String)]) -> bool {
        self.requirements.iter().all(|requirement| {
            let mut has_key = false;
            let fits = attributes.iter().filter(|(key, _)| *key == requirement.key).any(|(_, value)| {
                has_key = true;
                requirement.values.binary_search(value).is_ok()
            });
            fits || (!has_key && !self.strict)
        })
    }

    pub(super) fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }
}
