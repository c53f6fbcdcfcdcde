//! Which indexes of which axes belong together. Every index of every axis of a tensor has a label; joined labels go or stay
//! together (a union-find). Label 0 stands for what must stay. Nothing here knows operators; see `follow`.

use std::collections::{BTreeMap, BTreeSet};

/// The label of what must stay.
pub(super) const FROZEN: u32 = 0;

/// Labels of a tensor: for each axis, one for each index.
pub(super) type Axes = Vec<Vec<u32>>;

/// All labels of a graph.
#[derive(Debug)]
pub(super) struct Labels {
    parent: Vec<u32>,
    /// Labels by tensor; constants too.
    pub tensors: BTreeMap<String, Axes>,
    /// Why labels were frozen: what had channels that could have gone.
    pub reasons: BTreeSet<String>,
}

impl Labels {
    /// None yet.
    pub fn new() -> Self {
        Self { parent: vec![FROZEN], tensors: BTreeMap::new(), reasons: BTreeSet::new() }
    }

    /// New labels for one axis.
    pub fn fresh(&mut self, len: usize) -> Vec<u32> {
        let first = self.parent.len() as u32;
        self.parent.extend((0..len as u32).map(|at| first + at));
        (first..first + len as u32).collect()
    }

    /// The label that stands for all that are joined with this one.
    pub fn root(&mut self, label: u32) -> u32 {
        let mut at = label;
        while self.parent[at as usize] != at {
            let above = self.parent[self.parent[at as usize] as usize];
            self.parent[at as usize] = above;
            at = above;
        }
        at
    }

    /// From now on both go or stay together. The smaller root wins, so that what is frozen stays frozen.
    pub fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b) as usize] = a.min(b);
    }

    /// Joins two axes of the same length, index by index; false when they differ in length.
    pub fn join_axes(&mut self, a: &[u32], b: &[u32]) -> bool {
        if a.len() != b.len() {
            return false;
        }
        for (a, b) in a.iter().zip(b) {
            self.join(*a, *b);
        }
        true
    }

    /// True when every index of the axis must stay.
    pub fn is_frozen(&mut self, axis: &[u32]) -> bool {
        axis.iter().all(|label| self.root(*label) == FROZEN)
    }

    /// Keeps an axis whole; the reason is noted if something of it could have gone.
    pub fn freeze(&mut self, axis: &[u32], reason: &str) {
        if !self.is_frozen(axis) {
            self.reasons.insert(reason.to_owned());
            self.keep(axis);
        }
    }

    /// Keeps an axis whole that nobody would expect to be cut, such as a kernel's.
    pub fn keep(&mut self, axis: &[u32]) {
        for label in axis {
            self.join(*label, FROZEN);
        }
    }

    /// Labels after a reshape. Axes that are split or merged pass their channels on where one axis can carry them: of a
    /// split axis the one that needs the fewest joins (then the longest), of merged axes the only one that is not frozen.
    pub fn reshape(&mut self, from: &Axes, to: &[usize], reason: &str) -> Axes {
        let mut out: Axes = to.iter().map(|len| vec![FROZEN; *len]).collect();
        let total: usize = from.iter().map(Vec::len).product();
        if total == 0 || total != to.iter().product::<usize>() {
            from.iter().for_each(|axis| self.freeze(axis, reason));
            return out;
        }
        let mut sources: Vec<usize> = (0..from.len()).filter(|axis| from[*axis].len() != 1).collect();
        let mut targets: Vec<usize> = (0..to.len()).filter(|axis| to[*axis] != 1).collect();
        from.iter().filter(|axis| axis.len() == 1).for_each(|axis| self.freeze(axis, reason));
        sources.reverse();
        targets.reverse();
        while let (Some(source), Some(target)) = (sources.pop(), targets.pop()) {
            let (mut left, mut right) = (vec![source], vec![target]);
            let (mut have, mut want) = (from[source].len(), to[target]);
            while have != want {
                // Both products end equal, so the shorter side has another axis.
                if have < want {
                    let Some(next) = sources.pop() else { break };
                    have *= from[next].len();
                    left.push(next);
                } else {
                    let Some(next) = targets.pop() else { break };
                    want *= to[next];
                    right.push(next);
                }
            }
            let merged = self.merge(from, &left, reason);
            self.split(&merged, &right, to, &mut out);
        }
        out
    }

    /// One axis from several, row-major.
    fn merge(&mut self, from: &Axes, axes: &[usize], reason: &str) -> Vec<u32> {
        let open: Vec<usize> = axes.iter().copied().filter(|axis| !self.is_frozen(&from[*axis])).collect();
        let len: usize = axes.iter().map(|axis| from[*axis].len()).product();
        let [carrier] = open.as_slice() else {
            open.iter().for_each(|axis| self.freeze(&from[*axis], reason));
            return vec![FROZEN; len];
        };
        let inner: usize =
            axes.iter().skip_while(|axis| *axis != carrier).skip(1).map(|axis| from[*axis].len()).product();
        (0..len).map(|at| from[*carrier][at / inner % from[*carrier].len()]).collect()
    }

    /// Several axes from one, row-major.
    fn split(&mut self, merged: &[u32], axes: &[usize], to: &[usize], out: &mut Axes) {
        if let [axis] = axes {
            out[*axis] = merged.to_vec();
            return;
        }
        if self.is_frozen(merged) {
            return;
        }
        let roots: Vec<u32> = merged.iter().map(|label| self.root(*label)).collect();
        // For each axis: how many different labels meet at an index, beyond one.
        let place = |axis: usize| {
            let inner: usize =
                axes.iter().skip_while(|other| **other != axis).skip(1).map(|other| to[*other]).product();
            move |at: usize| at / inner % to[axis]
        };
        let joins = |axis: usize| {
            let at = place(axis);
            let pairs: BTreeSet<(usize, u32)> =
                roots.iter().enumerate().map(|(index, root)| (at(index), *root)).collect();
            pairs.len() - to[axis]
        };
        let carrier = axes.iter().copied().min_by_key(|axis| (joins(*axis), std::cmp::Reverse(to[*axis])));
        let Some(carrier) = carrier else { return };
        let at = place(carrier);
        let mut labels = vec![None; to[carrier]];
        for (index, root) in roots.iter().enumerate() {
            match labels[at(index)] {
                None => labels[at(index)] = Some(*root),
                Some(first) => self.join(first, *root),
            }
        }
        out[carrier] = labels.into_iter().map(|label| label.unwrap_or(FROZEN)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(labels: &mut Labels, axis: &[u32]) -> Vec<u32> {
        axis.iter().map(|label| labels.root(*label)).collect()
    }

    #[test]
    fn what_is_joined_with_the_frozen_is_frozen() {
        let mut labels = Labels::new();
        let (a, b) = (labels.fresh(3), labels.fresh(3));
        assert!(labels.join_axes(&a, &b) && !labels.join_axes(&a, &b[..2]));
        labels.freeze(&b[1..2], "why");
        assert_eq!(roots(&mut labels, &a), [1, FROZEN, 3]);
        labels.freeze(&a[1..2], "nothing left to freeze");
        assert_eq!(labels.reasons.iter().collect::<Vec<_>>(), ["why"]);
    }

    #[test]
    fn channels_are_followed_through_flattening_and_shuffling() {
        let mut labels = Labels::new();
        let channels = labels.fresh(4);
        let image = vec![vec![FROZEN], channels.clone(), vec![FROZEN; 2], vec![FROZEN; 3]];
        let flat = labels.reshape(&image, &[1, 24], "");
        assert_eq!(flat[1], [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
        let back = labels.reshape(&flat, &[1, 4, 2, 3], "");
        assert_eq!(back[1], channels);
        // Two groups of two, transposed: the first of each group goes with the first of the other.
        let groups = labels.reshape(&image, &[1, 2, 2, 6], "");
        let (outer, inner) = (roots(&mut labels, &groups[1]), roots(&mut labels, &groups[2]));
        assert!(outer == [1, 3] && inner == [0, 0] || outer == [0, 0] && inner == [1, 2], "{outer:?} {inner:?}");
    }

    #[test]
    fn axes_that_no_single_one_can_carry_are_frozen() {
        let mut labels = Labels::new();
        let two = vec![labels.fresh(2), labels.fresh(3)];
        let flat = labels.reshape(&two, &[6], "both");
        assert!(labels.is_frozen(&flat[0]) && labels.is_frozen(&two[0]) && labels.reasons.contains("both"));
    }
}
