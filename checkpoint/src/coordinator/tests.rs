//! The coordinator under hand-written and under random histories.
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn participant(name: &str, subtask: u32) -> Participant {
    Participant { operator: OperatorId::new(name).unwrap(), subtask: Subtask(subtask) }
}
fn config() -> Config {
    Config {
        cut: Cut::Anywhere,
        interval_ms: Some(100),
        timeout_ms: 1000,
        min_pause_ms: 0,
        tolerated_failures: 0,
        first_epoch: Epoch(1),
        attempt: Attempt(1),
        lineage: "l".into(),
        carries: true,
    }
}
fn coordinator(config: Config) -> Coordinator {
    let all = [participant("in", 0), participant("state", 0), participant("out", 0), participant("out", 1)];
    Coordinator::new(config, all.into(), [participant("in", 0)].into(), 0)
}
fn ack(c: &mut Coordinator, name: &str, subtask: u32, epoch: u64, committables: &[&str], now: u64) -> Vec<Command> {
    let committables = committables.iter().map(|s| json!(s)).collect();
    let ack = Ack { committables, ..Ack::default() };
    c.on(Event::Acknowledged(participant(name, subtask), Epoch(epoch), ack), now)
}
fn ack_all(c: &mut Coordinator, epoch: u64, now: u64) -> Vec<Command> {
    ack(c, "in", 0, epoch, &[], now);
    ack(c, "state", 0, epoch, &[], now);
    ack(c, "out", 0, epoch, &["a"], now);
    ack(c, "out", 1, epoch, &["b"], now)
}
/// Acknowledges, writes, commits, finalises.
fn complete(c: &mut Coordinator, epoch: u64, now: u64) -> Vec<Command> {
    assert!(matches!(ack_all(c, epoch, now)[..], [Command::WriteManifest { .. }]));
    let e = Epoch(epoch);
    assert!(matches!(c.on(Event::ManifestWritten(e, Ok("m".into())), now)[..], [Command::Commit(_)]));
    assert!(matches!(c.on(Event::Committed(e, Ok(())), now)[..], [Command::Finalise(_)]));
    c.on(Event::Finalised(e, Ok(())), now)
}
fn committables(commands: &[Command]) -> Vec<String> {
    let [Command::WriteManifest { acks, .. }] = commands else { panic!("{commands:?}") };
    acks.values().flat_map(|a| &a.committables).map(|v| v.as_str().unwrap().to_owned()).collect()
}

#[test]
fn it_triggers_at_the_interval_and_not_before() {
    let mut c = coordinator(config());
    assert!(c.on(Event::Tick, 99).is_empty());
    assert!(matches!(c.on(Event::Tick, 100)[..], [Command::Trigger { epoch: Epoch(1), last: false }]));
    assert!(c.on(Event::Tick, 250).is_empty(), "one in flight at a time");
    assert!(matches!(complete(&mut c, 1, 150)[..], [Command::Completed { duration_ms: 50, .. }]));
    assert!(matches!(c.on(Event::Tick, 200)[..], [Command::Trigger { epoch: Epoch(2), .. }]));
}

#[test]
fn the_minimum_pause_counts_from_the_end_of_the_last_one() {
    let mut c = coordinator(Config { min_pause_ms: 500, ..config() });
    c.on(Event::Tick, 100);
    complete(&mut c, 1, 300);
    assert!(c.on(Event::Tick, 799).is_empty());
    assert!(matches!(c.on(Event::Tick, 800)[..], [Command::Trigger { .. }]));
}

#[test]
fn a_checkpoint_that_takes_too_long_is_abandoned_and_says_who_is_missing() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack(&mut c, "in", 0, 1, &[], 200);
    let commands = c.on(Event::Tick, 1100);
    let [Command::Abandoned { reason, .. }, ..] = &commands[..] else { panic!("{commands:?}") };
    assert!(reason.contains("state/0") && reason.contains("out/1") && !reason.contains("in/0"), "{reason}");
}

#[test]
fn what_an_abandoned_epoch_staged_is_carried_into_the_next_manifest() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack(&mut c, "out", 0, 1, &["early"], 150);
    let commands = c.on(Event::Declined(participant("state", 0), Epoch(1), "busy".into()), 160);
    assert!(matches!(commands[..], [Command::Abandoned { .. }]), "{commands:?}");
    assert!(matches!(c.on(Event::Tick, 260)[..], [Command::Trigger { epoch: Epoch(2), .. }]));
    assert!(ack_all(&mut c, 2, 300).is_empty(), "the answers for epoch 1 may still hold committables");
    assert!(ack(&mut c, "in", 0, 1, &[], 310).is_empty());
    let commands = ack(&mut c, "out", 1, 1, &["late"], 320);
    assert_eq!(committables(&commands), ["early", "a", "late", "b"]);
}

#[test]
fn what_is_carried_keeps_the_order_of_its_epochs_whoever_answers_first() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    c.on(Event::Tick, 1100);
    c.on(Event::Tick, 1200);
    ack(&mut c, "out", 0, 2, &["second"], 1210);
    c.on(Event::Tick, 2200);
    ack(&mut c, "out", 0, 1, &["first"], 2210);
    for (name, subtask) in [("in", 0), ("state", 0), ("out", 1)] {
        ack(&mut c, name, subtask, 1, &[], 2220);
        ack(&mut c, name, subtask, 2, &[], 2220);
    }
    c.on(Event::Tick, 2300);
    assert_eq!(committables(&ack_all(&mut c, 3, 2310)), ["first", "second", "a", "b"]);
}

#[test]
fn committables_survive_a_manifest_that_cannot_be_written() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack_all(&mut c, 1, 110);
    let commands = c.on(Event::ManifestWritten(Epoch(1), Err(Error::unavailable("disk full"))), 120);
    assert!(matches!(&commands[..], [Command::Abandoned { reason, .. }] if reason.contains("disk full")));
    c.on(Event::Tick, 220);
    assert_eq!(committables(&ack_all(&mut c, 2, 230)), ["a", "a", "b", "b"]);
}

#[test]
fn a_manifest_that_takes_too_long_is_given_up_and_its_late_answer_is_ignored() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack_all(&mut c, 1, 110);
    assert_eq!(c.deadline_ms(), Some(1100));
    let commands = c.on(Event::Tick, 1100);
    assert!(
        matches!(&commands[..], [Command::Abandoned { reason, .. }] if reason.contains("manifest")),
        "{commands:?}"
    );
    c.on(Event::Tick, 1200);
    assert!(c.on(Event::ManifestWritten(Epoch(1), Ok("m".into())), 1210).is_empty());
    assert_eq!(committables(&ack_all(&mut c, 2, 1230)), ["a", "a", "b", "b"]);
}

#[test]
fn an_unknown_commit_outcome_ends_the_attempt() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack_all(&mut c, 1, 110);
    c.on(Event::ManifestWritten(Epoch(1), Ok("m".into())), 120);
    assert!(matches!(c.on(Event::Committed(Epoch(1), Err(Error::unavailable("?"))), 130)[..], [Command::Fail(_)]));
}

#[test]
fn the_end_of_the_input_makes_a_last_checkpoint_at_once_and_again_until_one_completes() {
    let mut c = coordinator(config());
    assert!(matches!(c.on(Event::Exhausted(participant("in", 0)), 10)[..], [Command::Trigger { last: true, .. }]));
    assert!(matches!(c.on(Event::Tick, 1010)[..], [Command::Abandoned { .. }]));
    for (name, subtask) in [("in", 0), ("state", 0), ("out", 0)] {
        assert!(ack(&mut c, name, subtask, 1, &[], 1012).is_empty());
    }
    let commands = ack(&mut c, "out", 1, 1, &[], 1020);
    assert!(matches!(commands[..], [Command::Trigger { last: true, epoch: Epoch(2) }]), "{commands:?}");
    assert!(matches!(complete(&mut c, 2, 1020)[..], [Command::Completed { .. }, Command::Done]));
}

/// Whoever has not answered for the one before would only decline it, and so on without a pause.
#[test]
fn a_last_checkpoint_is_not_tried_again_while_an_answer_is_owed_but_for_the_timeout() {
    for answered in [true, false] {
        let mut c = coordinator(config());
        c.on(Event::Tick, 100);
        for (name, subtask) in [("in", 0), ("out", 0), ("out", 1)] {
            ack(&mut c, name, subtask, 1, &[], 110);
        }
        assert!(matches!(c.on(Event::Tick, 1100)[..], [Command::Abandoned { .. }]));
        assert!(c.on(Event::Exhausted(participant("in", 0)), 1300).is_empty());
        assert!(c.on(Event::Tick, 2099).is_empty());
        let commands = if answered { ack(&mut c, "state", 0, 1, &[], 2099) } else { c.on(Event::Tick, 2100) };
        assert!(matches!(commands[..], [Command::Trigger { last: true, epoch: Epoch(2) }]), "{commands:?}");
    }
}

#[test]
fn a_last_checkpoint_that_fails_at_once_is_tried_again_after_longer_and_longer_pauses() {
    let mut c = coordinator(config());
    let mut now = 100;
    c.on(Event::Exhausted(participant("in", 0)), now);
    let mut pauses = Vec::new();
    for epoch in 1..=12 {
        assert!(matches!(ack_all(&mut c, epoch, now)[..], [Command::WriteManifest { .. }]));
        c.on(Event::ManifestWritten(Epoch(epoch), Err(Error::unavailable("disk full"))), now);
        let again = c.deadline_ms().unwrap();
        assert!(c.on(Event::Tick, again - 1).is_empty());
        assert!(matches!(c.on(Event::Tick, again)[..], [Command::Trigger { last: true, .. }]));
        pauses.push(again - now);
        now = again;
    }
    assert!(pauses.is_sorted() && pauses[0] > 0 && pauses[11] <= 10_000, "{pauses:?}");
}

#[test]
fn times_without_end_are_never_reached() {
    let forever = u64::MAX;
    let mut c = coordinator(Config { interval_ms: Some(forever), timeout_ms: forever, min_pause_ms: 1, ..config() });
    assert!(c.on(Event::Tick, 1_000).is_empty());
    assert!(matches!(c.on(Event::Requested { token: 1 }, 1_000)[..], [Command::Trigger { .. }]));
    assert!(c.on(Event::Tick, 1_000_000).is_empty());
    assert!(matches!(complete(&mut c, 1, 1_000_000)[..], [Command::Completed { .. }]));
    assert!(c.on(Event::Tick, 1_000_001).is_empty());
}

#[test]
fn a_stop_waits_for_the_checkpoint_in_flight() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    assert!(c.on(Event::StopRequested, 110).is_empty());
    let commands = complete(&mut c, 1, 120);
    assert!(matches!(commands[..], [Command::Completed { .. }, Command::Trigger { last: true, .. }]), "{commands:?}");
}

#[test]
fn a_request_triggers_at_once_and_is_told_the_outcome() {
    let mut c = coordinator(Config { interval_ms: None, ..config() });
    assert!(c.on(Event::Tick, 10_000).is_empty());
    assert!(matches!(c.on(Event::Requested { token: 7 }, 10_001)[..], [Command::Trigger { .. }]));
    let commands = complete(&mut c, 1, 10_010);
    assert!(matches!(&commands[..], [Command::Completed { tokens, .. }] if tokens == &[7]));
}

#[test]
fn too_many_failures_in_a_row_fail_the_attempt_and_a_success_forgives() {
    let mut c = coordinator(Config { tolerated_failures: 1, ..config() });
    let decline = |c: &mut Coordinator, e| c.on(Event::Declined(participant("in", 0), Epoch(e), "x".into()), e * 1000);
    c.on(Event::Tick, 100);
    assert_eq!(decline(&mut c, 1).len(), 1);
    c.on(Event::Tick, 1100);
    assert!(matches!(decline(&mut c, 2)[..], [Command::Abandoned { .. }, Command::Fail(_)]));
}

#[test]
fn output_that_cannot_be_carried_ends_the_attempt_with_its_checkpoint() {
    let mut c = coordinator(Config { carries: false, ..config() });
    c.on(Event::Tick, 100);
    let commands = c.on(Event::Declined(participant("in", 0), Epoch(1), "x".into()), 110);
    assert!(matches!(&commands[..], [Command::Abandoned { .. }, Command::Fail(e)] if e.kind().is_retriable()));
}

#[test]
fn answers_of_strangers_and_of_the_future_are_ignored() {
    let mut c = coordinator(config());
    c.on(Event::Tick, 100);
    ack(&mut c, "stranger", 0, 1, &["x"], 110);
    ack(&mut c, "out", 0, 9, &["x"], 110);
    assert_eq!(committables(&ack_all(&mut c, 1, 120)), ["a", "b"]);
}

fn batches() -> Coordinator {
    let sources: BTreeSet<_> = [participant("in", 0), participant("in", 1)].into();
    let all = sources.iter().cloned().chain([participant("out", 0)]).collect();
    Coordinator::new(Config { cut: Cut::Batches, ..config() }, all, sources, 0)
}
fn read(c: &mut Coordinator, subtask: u32, now: u64) -> Vec<Command> {
    c.on(Event::Read(participant("in", subtask)), now)
}
fn complete_batch(c: &mut Coordinator, epoch: u64, now: u64) -> Vec<Command> {
    for (name, subtask) in [("in", 0), ("in", 1), ("out", 0)] {
        ack(c, name, subtask, epoch, &[], now);
    }
    let e = Epoch(epoch);
    c.on(Event::ManifestWritten(e, Ok("m".into())), now);
    c.on(Event::Committed(e, Ok(())), now);
    c.on(Event::Finalised(e, Ok(())), now)
}

#[test]
fn a_batch_is_cut_when_all_sources_have_read_it_and_the_next_begins_an_interval_after_it() {
    let mut c = batches();
    assert_eq!(c.deadline_ms(), Some(0), "the first one at once");
    assert!(matches!(c.on(Event::Tick, 3)[..], [Command::Read]));
    assert!(read(&mut c, 0, 20).is_empty() && read(&mut c, 0, 21).is_empty());
    assert_eq!(c.deadline_ms(), None);
    assert!(matches!(read(&mut c, 1, 30)[..], [Command::Trigger { epoch: Epoch(1), last: false }]));
    assert!(matches!(complete_batch(&mut c, 1, 40)[..], [Command::Completed { .. }]));
    assert!(c.on(Event::Tick, 102).is_empty());
    assert!(matches!(c.on(Event::Tick, 103)[..], [Command::Read]));
    read(&mut c, 0, 110);
    read(&mut c, 1, 110);
    let late = complete_batch(&mut c, 2, 400);
    assert!(matches!(late[..], [Command::Completed { .. }, Command::Read]), "{late:?}");
    assert!(c.on(Event::Tick, 499).is_empty(), "counted from when it began");
}

#[test]
fn a_source_that_is_exhausted_has_read_every_batch_and_when_all_are_it_is_the_last() {
    let mut c = batches();
    c.on(Event::Tick, 0);
    assert!(c.on(Event::Exhausted(participant("in", 1)), 5).is_empty());
    assert!(matches!(read(&mut c, 0, 10)[..], [Command::Trigger { last: false, .. }]));
    complete_batch(&mut c, 1, 20);
    assert!(matches!(c.on(Event::Tick, 100)[..], [Command::Read]));
    assert!(matches!(c.on(Event::Exhausted(participant("in", 0)), 110)[..], [Command::Trigger { last: true, .. }]));
    assert!(matches!(complete_batch(&mut c, 2, 120)[..], [Command::Completed { .. }, Command::Done]));
}

#[test]
fn a_stop_cuts_the_batch_and_a_request_waits_for_it_or_is_met_between_two() {
    let mut c = batches();
    c.on(Event::Tick, 0);
    assert!(c.on(Event::Requested { token: 7 }, 1).is_empty());
    read(&mut c, 0, 2);
    read(&mut c, 1, 2);
    let commands = complete_batch(&mut c, 1, 10);
    assert!(matches!(&commands[..], [Command::Completed { tokens, .. }] if tokens == &[7]));
    assert!(matches!(c.on(Event::Requested { token: 8 }, 20)[..], [Command::Trigger { last: false, .. }]));
    complete_batch(&mut c, 2, 30);
    assert!(matches!(c.on(Event::Tick, 100)[..], [Command::Read]));
    assert!(matches!(c.on(Event::StopRequested, 105)[..], [Command::Trigger { last: true, .. }]));
}

#[test]
fn an_abandoned_batch_is_followed_by_the_next_when_that_is_due() {
    let mut c = batches();
    c.on(Event::Tick, 0);
    read(&mut c, 0, 1);
    read(&mut c, 1, 1);
    let given_up = c.on(Event::Declined(participant("out", 0), Epoch(1), "x".into()), 10);
    assert!(matches!(given_up[..], [Command::Abandoned { .. }]));
    assert!(c.on(Event::Tick, 99).is_empty());
    assert!(matches!(c.on(Event::Tick, 100)[..], [Command::Read]));
}

#[test]
fn with_one_checkpoint_at_the_end_nothing_is_cut_before_it() {
    let mut c = coordinator(Config { cut: Cut::End, interval_ms: None, ..config() });
    assert!(c.on(Event::Requested { token: 7 }, 10).is_empty());
    assert!(c.on(Event::Tick, 10_000).is_empty());
    let last = c.on(Event::Exhausted(participant("in", 0)), 10_001);
    assert!(matches!(last[..], [Command::Trigger { epoch: Epoch(1), last: true }]), "{last:?}");
    let commands = complete(&mut c, 1, 10_002);
    assert!(matches!(&commands[..], [Command::Completed { tokens, .. }, Command::Done] if tokens == &[7]));
}

proptest! {
    /// A driver that answers in any order, late, with declines and failed manifests: epochs rise, one is in
    /// flight, and every committable is in exactly one *written* manifest once things calm down.
    #[test]
    fn nothing_staged_is_lost_or_doubled(choices in proptest::collection::vec(0u8..100, 50..300)) {
        let mut c = coordinator(Config { timeout_ms: 120, ..config() });
        let names = [("in", 0), ("state", 0), ("out", 0), ("out", 1)];
        let mut now = 0;
        let mut pending: Vec<(Participant, Epoch)> = Vec::new();
        let (mut staged, mut committed) = (Vec::<String>::new(), Vec::<String>::new());
        let (mut newest, mut in_flight) = (0u64, None::<Epoch>);
        let mut writing: Option<(Epoch, Vec<String>)> = None;
        let calm = std::iter::repeat_n(99u8, 400);
        for choice in choices.into_iter().chain(calm) {
            now += 10;
            let mut commands = if let Some((epoch, named)) = writing.take() {
                if choice < 20 {
                    c.on(Event::ManifestWritten(epoch, Err(Error::unavailable("x"))), now)
                } else {
                    // One that was given up meanwhile is not committed, though its manifest is there.
                    let commands = c.on(Event::ManifestWritten(epoch, Ok("m".into())), now);
                    if commands.iter().any(|command| matches!(command, Command::Commit(_))) {
                        c.on(Event::Committed(epoch, Ok(())), now);
                        committed.extend(named);
                        c.on(Event::Finalised(epoch, Ok(())), now)
                    } else {
                        commands
                    }
                }
            } else if !pending.is_empty() && choice >= 30 {
                let (who, epoch) = pending.swap_remove(usize::from(choice) * 7 % pending.len());
                if choice < 40 && who.operator.as_str() == "state" {
                    c.on(Event::Declined(who, epoch, "busy".into()), now)
                } else {
                    let mut ack = Ack::default();
                    if who.operator.as_str() == "out" {
                        let part = format!("{epoch}-{}", who.subtask);
                        ack.committables.push(json!(part));
                        staged.push(part);
                    }
                    c.on(Event::Acknowledged(who, epoch, ack), now)
                }
            } else {
                c.on(Event::Tick, now)
            };
            commands.extend(c.on(Event::Tick, now));
            for command in commands {
                match command {
                    Command::Trigger { epoch, .. } => {
                        prop_assert!(epoch.0 > newest && in_flight.is_none());
                        (newest, in_flight) = (epoch.0, Some(epoch));
                        pending.extend(names.iter().map(|(n, s)| (participant(n, *s), epoch)));
                    }
                    Command::WriteManifest { epoch, acks, .. } => {
                        prop_assert_eq!(acks.len(), names.len());
                        let named = acks.values().flat_map(|a| &a.committables).map(|v| v.as_str().unwrap().to_owned()).collect();
                        writing = Some((epoch, named));
                    }
                    Command::Completed { epoch, .. } | Command::Abandoned { epoch, .. } => {
                        prop_assert_eq!(in_flight, Some(epoch));
                        in_flight = None;
                    }
                    Command::Fail(e) => prop_assert!(false, "{}", e),
                    Command::Commit(_) | Command::Finalise(_) | Command::Read | Command::Done => {}
                }
            }
        }
        let mut distinct = committed.clone();
        distinct.sort();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), committed.len(), "doubled");
        let last_staged: u64 = committed.iter().filter_map(|p| p.split('-').next()?.parse().ok()).max().unwrap_or(0);
        prop_assert!(last_staged + 2 >= newest, "no progress: {} of {}", last_staged, newest);
        for part in staged {
            let epoch: u64 = part.split('-').next().unwrap().parse().unwrap();
            prop_assert!(epoch > last_staged || committed.contains(&part), "{} is lost", part);
        }
    }
}
