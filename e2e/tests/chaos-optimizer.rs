//! The optimizer is killed in the middle of its work; that costs time and nothing else.

use anyhow::Result;
use edgeyard_e2e::chaos::{Kill, killed_in_the_middle};

#[test]
#[ignore = "needs a cluster: cargo xtask test --only chaos-optimizer"]
fn a_killed_optimizer_costs_time_only() -> Result<()> {
    killed_in_the_middle(Kill::Optimizer)
}
