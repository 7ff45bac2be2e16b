//! The crash example proves what it says: its job survives, and its judgement is one that can fail.
//!
//! The child is this very test binary, told to run the first test below with a directory in the environment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
#[path = "../examples/exactly_once_crash.rs"]
#[allow(dead_code, reason = "its main")]
mod example;

mod tests {
    use super::example;
    use std::{env, fs, path::Path, process::Command};

    const DIRECTORY: &str = "TIDEGATE_TEST_CRASH_EXAMPLE";
    const TEST: &str = "tests::twenty_kills_lose_nothing_and_double_nothing";

    #[test]
    fn twenty_kills_lose_nothing_and_double_nothing() {
        if let Some(dir) = env::var_os(DIRECTORY) {
            if let Err(e) = example::run(Path::new(&dir)) {
                panic!("{e}");
            }
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let exact = example::prove(dir.path(), &|| {
            let mut child = Command::new(env::current_exe().unwrap());
            child.args(["--exact", TEST, "--nocapture"]).env(DIRECTORY, dir.path());
            child
        });
        assert!(exact.unwrap(), "the output is not exact");
    }

    /// What the example finds when a part of its output has been changed like this.
    fn judged(change: impl Fn(&mut Vec<String>)) -> (i64, i64) {
        let dir = tempfile::tempdir().unwrap();
        let expected = example::reference();
        for sink in ["balances", "totals"] {
            let name = format!("{sink}:");
            let mut lines: Vec<_> = expected.keys().filter_map(|l| l.strip_prefix(&name)).map(str::to_owned).collect();
            lines.sort();
            if sink == "balances" {
                change(&mut lines);
            }
            fs::create_dir_all(dir.path().join(sink).join(".staging")).unwrap();
            for (n, lines) in lines.chunks(lines.len() / 2 + 1).enumerate() {
                fs::write(
                    dir.path().join(sink).join(format!("part-{n}.csv")),
                    format!("header\n{}\n", lines.join("\n")),
                )
                .unwrap();
            }
        }
        example::compare(&expected, &example::found(dir.path()).unwrap())
    }

    #[test]
    fn its_judgement_sees_a_lost_a_doubled_and_a_changed_line() {
        assert_eq!(judged(|_| ()), (0, 0));
        assert_eq!(judged(|lines| drop(lines.pop())), (1, 0));
        assert_eq!(judged(|lines| lines.push(lines[17].clone())), (0, 1));
        assert_eq!(judged(|lines| lines[3].push('0')), (1, 1));
        assert_eq!(judged(Vec::clear), (40_000, 0));
    }
}
