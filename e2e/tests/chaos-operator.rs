//! The operator is killed in the middle of a run; that costs time and nothing else.

use anyhow::Result;
use edgeyard_e2e::chaos::{Kill, killed_in_the_middle};

#[test]
#[ignore = "needs a cluster: cargo xtask test --only chaos-operator"]
fn a_killed_operator_costs_time_only() -> Result<()> {
    killed_in_the_middle(Kill::Operator)
}
