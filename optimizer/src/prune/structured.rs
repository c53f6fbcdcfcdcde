//! Structured pruning: which units of channels there are, which sets of them compete, and how many of each set stay.

use std::collections::{BTreeMap, BTreeSet};

use crate::cost::shaped;
use crate::ir::{Graph, Model};

use super::activations::Data;
use super::follow::Follow;
use super::labels::{FROZEN, Labels};
use super::refit::refit;
use super::score::{Members, effects, magnitude};
use super::slice::cut;
use super::{Outcome, Pattern, PruneError, Removed};

/// Units that stand along the same axes of the same constants: the channels of a layer, with all that depends on them.
struct Set {
    /// The labels and places of its units, in the order of their channels.
    units: Vec<(u32, Members)>,
}

/// Prunes whole channels: of every set of units the share `sparsity`.
pub(super) fn structured(
    model: &mut Model,
    sparsity: f64,
    multiple: usize,
    data: Option<&Data<'_>>,
) -> Result<Outcome, PruneError> {
    let (one, two) = (shaped(&model.graph, 1)?, shaped(&model.graph, 2)?);
    let follow = Follow { graph: &model.graph, shaped: &one, two: &two, labels: Labels::new() };
    let mut labels = follow.run();
    let sets = sets(&model.graph, &mut labels);
    let effects = match data {
        Some(data) => Some(effects(model, &mut labels, data)?),
        None => None,
    };
    let mut outcome = Outcome::default();
    let mut gone: BTreeSet<u32> = BTreeSet::new();
    for set in &sets {
        let Some((_, first)) = set.units.first() else { continue };
        let Some((place, indices)) = first.iter().next() else { continue };
        let width = indices.len();
        let step = multiple / gcd(multiple, width);
        let (units, keep) = (set.units.len(), kept(set.units.len(), sparsity, step));
        if keep == units {
            continue;
        }
        let members: Vec<&Members> = set.units.iter().map(|(_, members)| members).collect();
        let scores: Vec<f64> = match &effects {
            Some(effects) => set.units.iter().map(|(root, _)| effects.get(root).copied().unwrap_or(0.0)).collect(),
            None => magnitude(&model.graph, &members)?,
        };
        let mut order: Vec<usize> = (0..units).collect();
        // The largest first; of equal ones the first stays.
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
        gone.extend(order[keep..].iter().map(|at| set.units[*at].0));
        outcome.notes.push(format!("{}: {} of {} channels stay", place.0, keep * width, units * width));
    }
    outcome.notes.extend(labels.reasons.iter().map(|reason| format!("{reason} keeps all its channels")));
    if gone.is_empty() {
        let why = match (sets.is_empty(), labels.reasons.is_empty()) {
            (false, _) => "its layers have too few channels for that sparsity".to_owned(),
            (true, true) => "no channels lie between two layers with constant weights".to_owned(),
            (true, false) => {
                let reasons: Vec<&str> = labels.reasons.iter().take(3).map(String::as_str).collect();
                format!("all channels are tied to what must stay: {}", reasons.join(", "))
            }
        };
        return Err(PruneError::Nothing { pattern: Pattern::Structured, why });
    }
    let before = parameters(&model.graph);
    outcome.removed = removed(&model.graph, &mut labels, &gone);
    let mut work = model.clone();
    if let Some(data) = data {
        let count = refit(&mut work, &one, &mut labels, &gone, data)?;
        outcome.notes.push(format!("{count} layers were fitted to the channels that stay"));
    }
    model.graph = cut(&work.graph, &one, &two, &mut labels, &gone)?;
    outcome.removed_parameters = before.saturating_sub(parameters(&model.graph));
    Ok(outcome)
}

/// How many of `units` stay: the rounded share, as a multiple of `step` where there are more units than that; never none.
fn kept(units: usize, sparsity: f64, step: usize) -> usize {
    let share = units as f64 * (1.0 - sparsity);
    if units <= step {
        return (share.round() as usize).clamp(1, units);
    }
    (((share / step as f64).round() as usize).max(1) * step).min(units)
}

/// The units that may go, by the constants and axes in which they stand.
fn sets(graph: &Graph, labels: &mut Labels) -> Vec<Set> {
    let mut units: BTreeMap<u32, Members> = BTreeMap::new();
    // In the graph's order, so that notes and ties do not depend on names.
    let mut first_seen: Vec<u32> = Vec::new();
    let mut done = BTreeSet::new();
    for name in graph.nodes.iter().flat_map(|node| &node.inputs) {
        if graph.constant(name).is_none() || !done.insert(name) {
            continue;
        }
        let Some(axes) = labels.tensors.get(name).cloned() else { continue };
        for (axis, indices) in axes.iter().enumerate() {
            for (at, label) in indices.iter().enumerate() {
                let root = labels.root(*label);
                if root == FROZEN {
                    continue;
                }
                let members = units.entry(root).or_insert_with(|| {
                    first_seen.push(root);
                    Members::new()
                });
                members.entry((name.clone(), axis)).or_default().push(at);
            }
        }
    }
    let mut sets: Vec<Set> = Vec::new();
    let mut known: BTreeMap<Vec<(String, usize)>, usize> = BTreeMap::new();
    for root in first_seen {
        let Some(members) = units.remove(&root) else { continue };
        let places: Vec<(String, usize)> = members.keys().cloned().collect();
        let at = *known.entry(places).or_insert_with(|| {
            sets.push(Set { units: Vec::new() });
            sets.len() - 1
        });
        sets[at].units.push((root, members));
    }
    sets.retain(|set| set.units.len() > 1);
    sets
}

fn removed(graph: &Graph, labels: &mut Labels, gone: &BTreeSet<u32>) -> Vec<Removed> {
    let mut removed = Vec::new();
    for name in graph.initializers.keys() {
        for (axis, indices) in labels.tensors.get(name).cloned().unwrap_or_default().into_iter().enumerate() {
            let indices: Vec<usize> =
                (0..indices.len()).filter(|at| gone.contains(&labels.root(indices[*at]))).collect();
            if !indices.is_empty() {
                removed.push(Removed { tensor: name.clone(), axis, indices });
            }
        }
    }
    removed
}

fn parameters(graph: &Graph) -> u64 {
    graph.initializers.values().filter(|tensor| tensor.as_f32().is_some()).map(|tensor| tensor.len() as u64).sum()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_a_multiple_where_it_can_be() {
        assert_eq!(kept(32, 0.5, 4), 16);
        assert_eq!(kept(24, 0.3, 8), 16);
        assert_eq!(kept(10, 0.5, 4), 4);
        assert_eq!(kept(6, 0.9, 4), 4);
        assert_eq!(kept(4, 0.5, 4), 2);
        assert_eq!(kept(3, 0.9, 1), 1);
        assert_eq!(kept(3, 0.01, 4), 3);
    }
}
