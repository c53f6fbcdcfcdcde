//! The optimizer's command line.

fn main() {}
