//! The planner's promises: what lives together does not overlap, and the peak is never below the live set and seldom far
//! above it.

use edgeyard_engine::plan::{ALIGNMENT, Buffer, plan};
use proptest::prelude::*;

fn rounded(size: u32) -> u32 {
    size.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// The most bytes alive at one time: no plan can need less.
fn live_peak(buffers: &[Buffer]) -> u32 {
    let alive = |t: u32| buffers.iter().filter(|b| b.first <= t && t <= b.last).map(|b| rounded(b.size)).sum();
    (0..=30).map(alive).max().unwrap_or(0)
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    let buffer = (0u32..5000, 0u32..30, 0u32..6).prop_map(|(size, first, length)| Buffer {
        size,
        first,
        last: first + length,
        ..Buffer::default()
    });
    prop::collection::vec(buffer, 0..40).prop_map(|mut all| {
        all.iter_mut().enumerate().for_each(|(i, b)| b.owner = i as u32);
        all
    })
}

proptest! {
    #[test]
    fn what_lives_together_does_not_overlap(mut all in buffers()) {
        let peak = plan(&mut all).unwrap();
        for (i, a) in all.iter().enumerate() {
            prop_assert_eq!(a.offset % ALIGNMENT, 0);
            prop_assert!(a.offset + a.size <= peak);
            for b in &all[i + 1..] {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = a.offset + a.size <= b.offset || b.offset + b.size <= a.offset;
                prop_assert!(!together || apart || a.size == 0 || b.size == 0, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn the_peak_is_near_the_live_set(mut all in buffers()) {
        let live = live_peak(&all);
        let peak = plan(&mut all).unwrap();
        prop_assert!(live <= peak && peak <= 2 * live.max(1), "live {live}, planned {peak}");
    }

    #[test]
    fn the_plan_does_not_depend_on_the_order(all in buffers(), seed in any::<u64>()) {
        let (mut a, mut b) = (all.clone(), all);
        let turn = (seed as usize).checked_rem(b.len()).unwrap_or(0);
        b.rotate_left(turn);
        prop_assert_eq!(plan(&mut a), plan(&mut b));
        a.sort_by_key(|x| x.owner);
        b.sort_by_key(|x| x.owner);
        prop_assert_eq!(a, b);
    }
}

#[test]
fn a_chain_needs_two_neighbours() {
    let link = |i: u32| Buffer { size: 1000, first: i, last: i + 1, ..Buffer::default() };
    let mut chain: Vec<Buffer> = (0..10).map(link).collect();
    assert_eq!(plan(&mut chain), Some(2 * rounded(1000)));
}

#[test]
fn sizes_past_the_address_space_are_refused() {
    assert_eq!(plan(&mut [Buffer { size: u32::MAX, ..Buffer::default() }]), None);
}
