//! Three brokers of which one dies: who leads the output, then who coordinates the transactions. What is written is
//! on two of them at least, so nothing is lost, and the job goes on with those that are left.
use tidegate_testbed::kafka::{Broker, Judge};

use crate::child::Case;

#[test]
fn a_leader_and_then_the_coordinator_of_a_cluster_are_killed_and_come_back() {
    let mut others = Broker::cluster(3).unwrap();
    let mut case = Case::on(others.remove(0), 2, 80_000);
    case.arguments.restarts = 20;
    let mut job = case.started(3);
    // Nobody, for a while.
    type Node = fn(&Judge) -> Option<usize>;
    let leader: Node = |judge| judge.leader_of("copies", 0).ok();
    let coordinator: Node = |judge| judge.coordinator_of("crash-0").ok();
    for who in [leader, coordinator] {
        let node = who(case.broker.judge().unwrap()).unwrap();
        let dead = |case: &mut Case, others: &mut [Broker], act: fn(&mut Broker)| {
            act(if node == 1 { &mut case.broker } else { &mut others[node - 2] });
        };
        dead(&mut case, &mut others, Broker::kill);
        // Others have taken over what it did, and transactions commit without it.
        assert!(job.runs_until(|| who(case.broker.judge().unwrap()).is_some_and(|n| n != node)), "{}", case.errors());
        let before = case.committed();
        assert!(job.runs_until(|| case.committed() > before + 2), "{}", case.errors());
        dead(&mut case, &mut others, |broker| broker.restart().unwrap());
    }
    let before = case.committed();
    assert!(job.runs_until(|| case.committed() > before + 2), "{}", case.errors());
    job.kill();
    case.finish();
}
