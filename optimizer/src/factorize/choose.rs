//! Which choice each layer takes.

use super::options::Choice;

/// Slack for comparisons of shares that were summed in floating point.
const SLACK: f64 = 1e-9;

/// For one layer: the cheapest choice that keeps this share of energy; `None` keeps the layer.
pub(super) fn by_energy(choices: &[Choice], energy: f64) -> Option<usize> {
    let enough = (0..choices.len()).filter(|at| choices[*at].error <= 1.0 - energy + SLACK);
    enough.min_by(|a, b| {
        let (a, b) = (&choices[*a], &choices[*b]);
        a.macs.cmp(&b.macs).then(a.error.total_cmp(&b.error))
    })
}

/// For all layers: choices whose multiply-accumulates are at most `budget` in sum, with a small sum of errors. `whole` are
/// the layers' own multiply-accumulates, which cost no error. `None` when even the least are too many.
///
/// A multiple-choice knapsack: steps along each layer's lower convex hull in the order of error for each multiply-accumulate
/// saved (the Lagrangian relaxation, Sinha & Zoltners 1979), then what the last step saved too much is given back where it
/// helps most.
pub(super) fn by_budget(layers: &[Vec<Choice>], whole: &[u64], budget: u64) -> Option<Vec<Option<usize>>> {
    let mut steps: Vec<(f64, usize, Option<usize>)> = Vec::new();
    for (layer, choices) in layers.iter().enumerate() {
        let mut at: Option<usize> = None;
        let place = |at: Option<usize>| at.map_or((whole[layer], 0.0), |at| (choices[at].macs, choices[at].weighted));
        loop {
            let (macs, error) = place(at);
            let slope = |next: usize| (choices[next].weighted - error) / (macs - choices[next].macs) as f64;
            let next = (0..choices.len()).filter(|next| choices[*next].macs < macs).min_by(|a, b| {
                // Of equally steep steps the longest, so that none is taken in pieces.
                slope(*a).total_cmp(&slope(*b)).then(choices[*a].macs.cmp(&choices[*b].macs))
            });
            let Some(next) = next else { break };
            steps.push((slope(next), layer, Some(next)));
            at = Some(next);
        }
    }
    // Stable: a layer's own steps stay in order, because its slopes never fall.
    steps.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut taken: Vec<Option<usize>> = vec![None; layers.len()];
    let place = |layer: usize, at: Option<usize>| {
        at.map_or((whole[layer], 0.0), |at| (layers[layer][at].macs, layers[layer][at].weighted))
    };
    let mut macs: u64 = whole.iter().sum();
    for (_, layer, next) in steps {
        if macs <= budget {
            break;
        }
        macs = macs - place(layer, taken[layer]).0 + place(layer, next).0;
        taken[layer] = next;
    }
    if macs > budget {
        return None;
    }
    loop {
        let mut best: Option<(f64, usize, Option<usize>, u64)> = None;
        for layer in 0..layers.len() {
            let (own, error) = place(layer, taken[layer]);
            for next in (0..layers[layer].len()).map(Some).chain([None]) {
                let (other, less) = place(layer, next);
                let gain = error - less;
                if gain > SLACK && macs - own + other <= budget && best.as_ref().is_none_or(|best| gain > best.0) {
                    best = Some((gain, layer, next, macs - own + other));
                }
            }
        }
        let Some((_, layer, next, sum)) = best else { return Some(taken) };
        (taken[layer], macs) = (next, sum);
    }
}

/// The fewest multiply-accumulates that all layers can have together.
pub(super) fn least(layers: &[Vec<Choice>], whole: &[u64]) -> u64 {
    let own =
        |(choices, whole): (&Vec<Choice>, &u64)| choices.iter().map(|c| c.macs).chain([*whole]).min().unwrap_or(0);
    layers.iter().zip(whole).map(own).sum()
}

#[cfg(test)]
mod tests {
    use super::super::options::Method;
    use super::*;

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    fn instance(random: &mut Random) -> (Vec<Vec<Choice>>, Vec<u64>) {
        let mut layers = Vec::new();
        let mut whole = Vec::new();
        for _ in 0..4 {
            let own = 100 + random.below(900);
            let choice = |random: &mut Random| {
                let macs = 1 + random.below(own - 1);
                let saved = 1.0 - macs as f64 / own as f64;
                let error = saved * saved * (0.5 + random.below(1000) as f64 / 1000.0);
                Choice { method: Method::Svd, ranks: [1, 0], macs, error, weighted: error }
            };
            layers.push((0..6).map(|_| choice(random)).collect());
            whole.push(own);
        }
        (layers, whole)
    }

    #[test]
    fn the_budget_is_met_with_about_the_least_error() {
        let mut random = Random(7);
        let (mut ours, mut best, mut solved) = (0.0, 0.0, 0);
        for _ in 0..300 {
            let (layers, whole) = instance(&mut random);
            let budget = whole.iter().sum::<u64>() * (30 + random.below(60)) / 100;
            // Brute force over all combinations, 0 for the layer itself.
            let mut least = f64::INFINITY;
            for code in 0..7usize.pow(4) {
                let picks: Vec<usize> = (0..4).map(|at| code / 7usize.pow(at) % 7).collect();
                let of = |at: usize| match picks[at] {
                    0 => (whole[at], 0.0),
                    pick => (layers[at][pick - 1].macs, layers[at][pick - 1].weighted),
                };
                if (0..4).map(|at| of(at).0).sum::<u64>() <= budget {
                    least = least.min((0..4).map(|at| of(at).1).sum());
                }
            }
            match by_budget(&layers, &whole, budget) {
                None => assert!(least.is_infinite() && super::least(&layers, &whole) > budget),
                Some(taken) => {
                    let of = |at: usize| {
                        taken[at].map_or((whole[at], 0.0), |pick| (layers[at][pick].macs, layers[at][pick].weighted))
                    };
                    assert!((0..4).map(|at| of(at).0).sum::<u64>() <= budget);
                    let error: f64 = (0..4).map(|at| of(at).1).sum();
                    assert!(error >= least - 1e-12);
                    (ours, best, solved) = (ours + error, best + least, solved + 1);
                }
            }
        }
        assert!(solved > 200 && ours < best * 1.15, "{ours} against {best} in {solved}");
    }

    #[test]
    fn energy_takes_the_cheapest_that_keeps_enough() {
        let choice = |macs, error| Choice { method: Method::Svd, ranks: [1, 0], macs, error, weighted: error };
        let choices = [choice(90, 0.0), choice(50, 0.1), choice(40, 0.1), choice(10, 0.5)];
        assert_eq!(by_energy(&choices, 0.9), Some(2));
        assert_eq!(by_energy(&choices, 1.0), Some(0));
        assert_eq!(by_energy(&choices[1..], 0.95), None);
    }
}
