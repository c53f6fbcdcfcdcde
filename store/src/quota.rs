//! How much each namespace may store.

use std::collections::BTreeMap;

/// Quotas by namespace.
#[derive(Debug, Clone)]
pub struct Quotas {
    default: u64,
    namespaces: BTreeMap<String, u64>,
}

impl Quotas {
    /// A default and the namespaces that differ from it.
    pub fn new(default: u64, namespaces: impl IntoIterator<Item = (String, u64)>) -> Self {
        Self { default, namespaces: namespaces.into_iter().collect() }
    }

    /// Bytes that a namespace may store.
    pub fn of(&self, namespace: &str) -> u64 {
        self.namespaces.get(namespace).copied().unwrap_or(self.default)
    }
}
