//! The plan as people read it: which operators run fused in one task, and where records change hands.
//!
//! What keeps state without a bound is marked: nothing else in a plan fills a disk a year later.
use humantime::format_duration;
use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::graph::{Graph, Node, NodeId, NodeKind, StateBound};
use crate::settings::{JobTrigger, Settings};

/// Draws the plan of `graph` as these settings have it: a block a task, its fused operators in order, its inputs, and
/// where they keep state.
pub fn explain(job: &str, graph: &Graph, settings: &Settings) -> String {
    let (nodes, parallelism) = (graph.nodes(), settings.parallelism);
    let mut task_of = BTreeMap::<NodeId, NodeId>::new();
    for node in &nodes {
        let head = is_head(node, parallelism).then_some(node.id);
        let head = head.or_else(|| node.inputs.first().and_then(|i| task_of.get(i).copied())).unwrap_or(node.id);
        task_of.insert(node.id, head);
    }
    let mut text = format!("job {job} · parallelism {parallelism}\n");
    if settings.trigger != JobTrigger::Continuous {
        let _ = writeln!(text, "trigger {}", settings.trigger);
    }
    if let Some(point) = graph.commit_point() {
        let _ = writeln!(text, "commits in {}", point.place());
    }
    let heads: Vec<_> = nodes.iter().filter(|n| task_of[&n.id] == n.id).collect();
    let number = |head: NodeId| heads.iter().position(|h| h.id == head).map_or(0, |i| i + 1);
    for head in &heads {
        let _ = writeln!(text, "task {} × {parallelism}{}", number(head.id), inputs(head, &task_of, number));
        for node in nodes.iter().filter(|n| task_of[&n.id] == head.id) {
            let name = node.name.as_ref().map(|n| format!(" {n:?}")).unwrap_or_default();
            let time = if node.kind == NodeKind::Source && node.event_time { " (event time)" } else { "" };
            let from = match node.inputs.first() {
                Some(i) if task_of[i] == head.id && i.0 + 1 != node.id.0 => {
                    format!("   <- {}", nodes[i.0 as usize].label())
                }
                _ => String::new(),
            };
            let state = match node.kind {
                NodeKind::Keyed => state(node, settings),
                NodeKind::Stateful => format!("   state: in the checkpoint, {}", bound(node)),
                _ => String::new(),
            };
            let _ = writeln!(text, "  {}{name}{time}{state}{from}", node.operator);
        }
    }
    text
}

fn is_head(node: &Node, parallelism: u32) -> bool {
    match node.kind {
        NodeKind::Source | NodeKind::Union => true,
        NodeKind::Keyed => parallelism > 1,
        _ => false,
    }
}

fn inputs(head: &Node, task_of: &BTreeMap<NodeId, NodeId>, number: impl Fn(NodeId) -> usize) -> String {
    if head.inputs.is_empty() {
        return String::new();
    }
    let from: Vec<_> = head.inputs.iter().map(|i| format!("task {}", number(task_of[i]))).collect();
    let how = if head.kind == NodeKind::Keyed { "exchange by key group" } else { "in the same subtask" };
    format!("   <- {} ({how})", from.join(", "))
}

fn state(node: &Node, settings: &Settings) -> String {
    let backend = settings.state.backend_of(node.name.as_deref().unwrap_or_default());
    let bound = match &node.bound {
        Some(StateBound::Windows { lateness_ms: 0 }) => "bounded by open windows".to_owned(),
        Some(StateBound::Windows { lateness_ms }) => {
            let lateness = Duration::from_millis(lateness_ms.unsigned_abs());
            format!("bounded by open windows and {} of lateness", format_duration(lateness))
        }
        Some(StateBound::TimeToLive(time)) => format!("bounded by a time to live of {}", format_duration(*time)),
        Some(StateBound::By(what)) => format!("bounded by {what}"),
        None => "WITHOUT A BOUND: one entry a key, for ever".to_owned(),
    };
    format!("   state: {backend}, {bound}")
}

/// What bounds the operator state of a node.
fn bound(node: &Node) -> &'static str {
    match &*node.operator {
        "async_map" | "lookup_join" => "bounded by its capacity and a batch",
        "sample_every" => "one counter a subtask",
        _ => "as long as its function lets it grow",
    }
}
