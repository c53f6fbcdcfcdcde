//! What people would look at when something went wrong.

use crate::Cluster;

/// Prints objects, events, pods and logs that may explain a failure; what cannot be had is left out.
pub fn print(cluster: &Cluster, namespace: &str) {
    let show = |arguments: &[&str]| {
        if let Ok(text) = cluster.kubectl(arguments) {
            eprintln!("── kubectl {}\n{}", arguments.join(" "), text.trim_end());
        }
    };
    show(&["get", "mo,eb,br,dl,jobs,pods", "-n", namespace, "-o", "wide"]);
    show(&[
        "get",
        "mo,eb,br,dl",
        "-n",
        namespace,
        "-o",
        "jsonpath={range .items[*]}{.kind} {.metadata.name} {.status}{\"\\n\"}{end}",
    ]);
    show(&["get", "events", "-n", namespace, "--sort-by=.lastTimestamp"]);
    show(&["get", "ed,lq,pods", "-n", crate::lab::NAMESPACE, "-o", "wide"]);
    show(&["logs", "-n", crate::lab::SYSTEM, "deploy/edgeyard-operator", "--tail=60"]);
    show(&["logs", "-n", crate::lab::SYSTEM, "deploy/edgeyard-store", "--tail=20"]);
}
