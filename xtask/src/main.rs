//! The project's chores. `cargo xtask test` runs every check and every test on a fresh machine: it fetches the
//! tools it needs, says so, and fails clearly where it cannot. The runner comes last, so that its
//! summary is the end of the output. `cargo xtask kafka` is a server to try jobs on, and there are others.
#![allow(clippy::disallowed_methods, reason = "no engine code: real processes and the real clock")]
mod libclang;
mod server;
mod tidy;
mod tools;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use tidegate_testbed::without;

const HELP: &str = "\
cargo xtask test [--quick] [--tls] [--without SERVER,...] [-- RUNNER ARGUMENTS]

  Every check (format, tidiness, lints, documentation, licences) and every test, in the release profile.
  --quick     the tests alone
  --tls       with the features kafka-tls and redis-tls, and their tests: builds OpenSSL, which takes perl and, once,
              some minutes
  --without   leaves out the tests that need these servers: redis, hdfs, s3 (it is said to them in TESTBED_WITHOUT)
  --          what follows is handed to cargo nextest, for example the name of a test

cargo xtask kafka [--port N] [--topic NAME:PARTITIONS]...

  A real Kafka broker on 127.0.0.1, to try jobs on. It lasts until Ctrl-C, and its records no longer.
  --port      where clients find it (9092)
  --topic     a topic that is to be there; may be given more than once

cargo xtask redis [--port N] [--set NAME=VALUE]...
cargo xtask hdfs [--port N]
cargo xtask s3 [--port N] [--bucket NAME]...

  The same with Redis (Valkey), HDFS, and a server of the S3 protocol.
  --port      where clients find it (6379, 9000, 7070)
  --set       a line of Redis's configuration, as maxmemory=10mb
  --bucket    a bucket that is to be there beside the one that always is

CARGO_TARGET_DIR is honoured; without it builds go to ~/.cache/tidegate/target, downloads beside it.";

/// Stores, and what keeps state in them.
const STORES: &str = "tidegate/s3,tidegate/hdfs,tidegate/object-store,tidegate/redis";

/// What went wrong, for people.
type Failed = String;

#[derive(Debug, PartialEq)]
enum Chore {
    Help,
    Test { quick: bool, tls: bool, without: Vec<String>, runner: Vec<String> },
    Server(server::Asked),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = chore(&arguments).and_then(|chore| match chore {
        Chore::Help => {
            println!("{HELP}");
            Ok(())
        }
        Chore::Test { quick, tls, without, runner } => test(quick, tls, &without, &runner),
        Chore::Server(asked) => server::run(&asked),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("\nfailed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn chore(arguments: &[String]) -> Result<Chore, Failed> {
    let (ours, runner) = match arguments.iter().position(|a| a == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[][..]),
    };
    let Some((command, options)) = ours.split_first() else { return Ok(Chore::Help) };
    if ours.iter().any(|a| matches!(a.as_str(), "-h" | "--help" | "help")) {
        return Ok(Chore::Help);
    }
    let helped = |why| format!("{why}\n\n{HELP}");
    if let (Some(asked), []) = (server::asked(command, options), runner) {
        return asked.map(Chore::Server).map_err(helped);
    }
    if command != "test" {
        return Err(helped(format!("there is no chore {command:?}")));
    }
    let (mut quick, mut tls, mut without) = (false, false, Vec::new());
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.as_str() {
            "--quick" => quick = true,
            "--tls" => tls = true,
            "--without" => {
                let names = options.next().ok_or_else(|| helped("--without needs a value".into()))?;
                without.extend(names.split(',').map(str::to_owned));
            }
            _ => return Err(helped(format!("there is no option {option:?}"))),
        }
    }
    if let Some(unknown) = without.iter().find(|name| !without::SERVERS.contains(&name.as_str())) {
        return Err(helped(format!("there is no server {unknown:?} that can be left out")));
    }
    Ok(Chore::Test { quick, tls, without, runner: runner.to_vec() })
}

/// Fetches the servers of the tests beforehand, as no test has time for it. What is missing fails the tests that need it,
/// and no other.
fn prepare(without: &[String]) {
    type Prepare = fn() -> Result<(), Failed>;
    let servers: [(&str, Prepare); 5] = [
        ("kafka", tidegate_testbed::kafka::prepare),
        ("schema registry", tidegate_testbed::registry::prepare),
        ("redis", tidegate_testbed::redis::prepare),
        ("hdfs", tidegate_testbed::hdfs::prepare),
        ("s3", tidegate_testbed::s3::prepare),
    ];
    for (name, prepare) in servers {
        if without.iter().any(|left_out| left_out == name) {
            println!("== {name}: LEFT OUT: tests that need it do nothing, and pass");
        } else if let Err(why) = prepare() {
            println!("== {name}: tests that start it WILL FAIL: {why}");
            if without::SERVERS.contains(&name) {
                println!("   they are left out with --without {name}");
            }
        }
    }
}

/// The workspace. Asked when it runs: clones may share one target folder, and so this program.
fn root() -> Result<PathBuf, Failed> {
    let here = env::var_os("CARGO_MANIFEST_DIR").ok_or("start this with `cargo xtask`")?;
    Ok(Path::new(&here).parent().ok_or("the workspace has no directory")?.to_owned())
}

fn test(quick: bool, tls: bool, without: &[String], runner: &[String]) -> Result<(), Failed> {
    let root = &root()?;
    let tools = tools::Tools::find(root)?;
    // First, so that what is missing is found out before anything is built.
    let mut nextest = tools.nextest()?;
    let rocksdb = match libclang::prepare() {
        Ok(()) => ",tidegate/rocksdb",
        Err(why) => {
            println!("== RocksDB: LEFT OUT, neither built nor tested: {why}");
            ""
        }
    };
    tools.take_over()?;
    prepare(without);
    let tls = if tls { ",tidegate/kafka-tls,tidegate/redis-tls" } else { "" };
    let features = format!("tidegate/failpoints,tidegate/testing,tidegate/kafka-schemas,{STORES}{rocksdb}{tls}");
    let features = ["--workspace", "--features", &features];
    if !quick {
        tools.check_components()?;
        let deny = tools.deny();
        step("format", &mut tools.cargo(&["fmt", "--all", "--check"]))?;
        println!("== tidiness");
        tidy::check(root)?;
        step(
            "lints",
            tools.cargo(&["clippy", "--release", "--all-targets"]).args(features).args(["--", "-D", "warnings"]),
        )?;
        let mut documentation = tools.cargo(&["doc", "--release", "--no-deps"]);
        step("documentation", documentation.args(features).env("RUSTDOCFLAGS", "-D warnings"))?;
        match deny {
            Ok(mut deny) => step("licences, bans, sources", &mut deny)?,
            Err(why) => println!(
                "== licences, bans, sources: LEFT OUT: {why}\n   with cargo-deny on the PATH they are checked: cargo install --locked cargo-deny"
            ),
        }
        // With the profile of everything else: RocksDB takes a quarter of an hour for each.
        step("examples in the documentation", tools.cargo(&["test", "--doc", "--release"]).args(features))?;
    }
    // Only what was asked for here is left out, whatever the environment says.
    nextest.env(without::WITHOUT, without.join(","));
    step("tests", nextest.arg("run").arg("--release").args(features).args(runner))
}

fn step(name: &str, command: &mut Command) -> Result<(), Failed> {
    println!("== {name}");
    let began = Instant::now();
    let status = command.status().map_err(|e| format!("{name}: cannot be started: {e}"))?;
    if !status.success() {
        return Err(format!("{name} ({status})"));
    }
    // The runner's own summary is to be the end.
    if name != "tests" {
        println!("== {name}: {} s", began.elapsed().as_secs());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{server::Server, *};

    fn asked(line: &str) -> Result<Chore, Failed> {
        chore(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_asked_for_is_understood() {
        let test = |quick, tls, without: &[&str], runner: &[&str]| {
            let [without, runner] = [without, runner].map(|all| all.iter().map(ToString::to_string).collect());
            Chore::Test { quick, tls, without, runner }
        };
        assert_eq!(asked("test"), Ok(test(false, false, &[], &[])));
        assert_eq!(asked("test --tls"), Ok(test(false, true, &[], &[])));
        assert_eq!(asked("test --tls --quick -- late --help"), Ok(test(true, true, &[], &["late", "--help"])));
        assert_eq!(asked("test --without hdfs,s3 -- late"), Ok(test(false, false, &["hdfs", "s3"], &["late"])));
        let server = |port, server| Ok(Chore::Server(server::Asked { port, server }));
        let kafka = |port, topics: &[(&str, i32)]| {
            let topics = topics.iter().map(|(name, partitions)| ((*name).to_owned(), *partitions)).collect();
            server(port, Server::Kafka(topics))
        };
        assert_eq!(asked("kafka"), kafka(9092, &[]));
        assert_eq!(asked("kafka --topic a:4 --port 19092 --topic b:1"), kafka(19092, &[("a", 4), ("b", 1)]));
        let lines = vec![("save".to_owned(), String::new()), ("user".to_owned(), "a=b".to_owned())];
        assert_eq!(asked("redis --set save= --set user=a=b"), server(6379, Server::Redis(lines)));
        assert_eq!(asked("hdfs --port 1"), server(1, Server::Hdfs));
        assert_eq!(asked("s3 --bucket a"), server(7070, Server::S3(vec!["a".to_owned()])));
        for help in ["", "help", "--help", "-h", "test --help", "kafka --help"] {
            assert_eq!(asked(help), Ok(Chore::Help));
        }
    }

    #[test]
    fn what_is_not_known_is_named_beside_the_help() {
        for (line, word) in [
            ("tset", "chore \"tset\""),
            ("test --fast", "option \"--fast\""),
            ("test late", "\"late\""),
            ("kafka --fast", "option \"--fast\""),
            ("kafka --port", "--port"),
            ("kafka --port 70000", "\"70000\""),
            ("kafka --topic a", "\"a\""),
            ("kafka --topic a:0", "\"a:0\""),
            ("kafka --topic :1", "\":1\""),
            ("kafka -- late", "chore \"kafka\""),
            ("redis --set a", "\"a\""),
            ("hdfs --bucket a", "option \"--bucket\""),
            ("test --without", "--without"),
            ("test --without hdfs,kafka", "\"kafka\""),
        ] {
            let error = asked(line).unwrap_err();
            assert!(error.contains(word) && error.contains(HELP), "{error}");
        }
    }
}
