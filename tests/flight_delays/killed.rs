//! Killed, resumed, gone back, started twice: the sorted output is that of an undisturbed run.
//!
//! Nothing is timed. The input is read slowly, so that there is a middle; a kill comes after so many further
//! checkpoints, and what is judged is whatever the kill has met.
use std::fs;

use crate::{
    child::{Case, Started},
    reference::expected,
};

/// Started, and so many checkpoints further: far from its end, which takes nine seconds.
fn further(case: &Case, parallelism: &str, checkpoints: u64) -> Started {
    let before = case.committed();
    let mut started = case.start(&["--rate", "3000", "--parallelism", parallelism]);
    started.until(|| case.committed() >= before + checkpoints);
    started
}

fn killed_again_and_again(parallelisms: [&str; 6]) {
    let case = Case::with_checkpoints();
    for (further_checkpoints, parallelism) in [1, 6, 2, 9, 3, 1].into_iter().zip(parallelisms) {
        let started = further(&case, parallelism, further_checkpoints);
        assert!(started.process.kill(), "it had ended before it was killed");
    }
    let last = case.committed();
    let ended = case.finish(&["--parallelism", parallelisms[5]]);
    case.assert_exact_month();
    let flights = ended.stderr.lines().find(|l| l.starts_with("flights ")).unwrap();
    let read: u64 = flights.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(last >= 22 && (1..27_004).contains(&read), "it did not go on from a checkpoint: {flights}");
}

#[test]
fn killed_six_times_the_output_is_that_of_an_undisturbed_run_at_parallelism_1() {
    killed_again_and_again(["1"; 6]);
}

#[test]
fn killed_six_times_the_output_is_that_of_an_undisturbed_run_at_parallelism_2() {
    killed_again_and_again(["2"; 6]);
}

#[test]
fn killed_six_times_the_parallelism_may_change_each_time() {
    killed_again_and_again(["1", "2", "3", "1", "3", "2"]);
}

/// As it is documented: later parts are moved away first, and are made again.
#[test]
fn an_older_checkpoint_can_be_gone_on_from_in_a_copy_without_the_later_parts() {
    let case = Case::with_checkpoints();
    further(&case, "2", 12).process.kill();
    case.finish(&[]);
    case.assert_exact_month();
    let epochs = case.commits();
    let from = epochs[epochs.len() / 2];

    let copy = Case::with_checkpoints();
    let mut moved = 0;
    for (path, content) in case.files("out") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let part = name.strip_prefix("part-").map(|n| n[..8].parse::<u64>().unwrap());
        if part.is_some_and(|epoch| epoch > from) {
            moved += 1;
            continue;
        }
        let to = copy.at("out").join(path.strip_prefix(case.at("out")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, content).unwrap();
    }
    assert!(moved > 0 && !copy.files("out/delays").is_empty(), "checkpoint {from} is not in the middle");
    copy.finish(&["--from", &from.to_string(), "--parallelism", "2"]);
    copy.assert_exact_month();
}

#[test]
fn an_older_checkpoint_is_refused_over_the_output_of_later_ones_and_nothing_is_changed() {
    let case = Case::with_checkpoints();
    further(&case, "1", 12).process.kill();
    case.finish(&[]);
    let from = case.commits()[3].to_string();
    let ended = case.run(&["--from", &from]);
    assert_eq!(ended.code, Some(1));
    let said = ended.stderr.split_once("error: ").unwrap().1;
    assert!(said.contains(&format!("the job goes on from checkpoint {from}, but the output directory")), "{said}");
    assert!(said.contains("move the later parts away first"), "{said}");
    case.finish(&[]);
    case.assert_exact_month();
}

#[test]
fn a_second_run_takes_over_from_one_that_is_alive_and_they_never_both_write() {
    for parallelism in ["1", "2"] {
        let case = Case::with_checkpoints();
        let first = further(&case, parallelism, 3);
        let mut second = further(&case, parallelism, 3);
        let first = first.ended();
        assert_eq!(first.code, Some(1), "it does not know that it was replaced");
        let errors = &first.stderr;
        assert!(errors.contains("error: ") && errors.contains("has been fenced"), "{errors}");
        assert!(errors.contains("hint: two processes run this job"), "{errors}");
        let before = case.committed();
        second.until(|| case.committed() > before);
        // A third at the same time, to the end.
        case.finish(&[]);
        let second = second.ended();
        assert!(second.code == Some(1) && second.stderr.contains("has been fenced"), "{second:?}");
        case.assert_visible(&expected());
        case.finish(&[]);
        case.assert_exact_month();
    }
}

/// Stopped, replaced by one that ends the job, woken.
#[test]
fn a_run_that_wakes_up_after_another_has_finished_its_job_changes_nothing() {
    let case = Case::with_checkpoints();
    let zombie = further(&case, "2", 4);
    zombie.process.signal("STOP");
    case.finish(&["--parallelism", "2"]);
    zombie.process.signal("CONT");
    let zombie = zombie.ended();
    assert!(zombie.code == Some(1) && zombie.stderr.contains("has been fenced"), "{zombie:?}");
    case.assert_visible(&expected());
    case.finish(&[]);
    case.assert_exact_month();
}
