//! The program as a child process, and what it leaves.
//!
//! The child is this very test binary, told to run the one test below with the arguments in the environment:
//! whatever builds the tests has built the program, and there is no binary to be found or stale.
use std::{
    cell::Cell,
    collections::BTreeMap,
    env, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

use crate::{
    process::Running,
    program,
    reference::{DELAYS_HEADER, Expected, expected},
};

const ARGUMENTS: &str = "TIDEGATE_TEST_FLIGHT_DELAYS";
const TEST: &str = "child::help_names_every_option";

/// A directory for the input, output and checkpoints of one test.
pub struct Case {
    dir: TempDir,
    environment: Vec<(&'static str, &'static str)>,
    started: Cell<u32>,
}

/// A started program.
pub struct Started {
    pub process: Running,
    printed: PathBuf,
}

/// What has become of it.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Case {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), environment: Vec::new(), started: Cell::new(0) }
    }

    /// With many checkpoints, all of them kept.
    pub fn with_checkpoints() -> Self {
        let environment = vec![("TIDEGATE_CHECKPOINT__INTERVAL", "20ms"), ("TIDEGATE_CHECKPOINT__RETAINED", "100000")];
        Self { environment, ..Self::new() }
    }

    pub fn environment(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same, as an argument.
    pub fn arg(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// Starts the program; its output goes to `out`, unless the arguments say otherwise.
    pub fn start(&self, arguments: &[&str]) -> Started {
        self.started.set(self.started.get() + 1);
        let printed = self.at(&format!("printed-{}", self.started.get()));
        let out = self.arg("out");
        let all: Vec<&str> = ["--out", &out].iter().chain(arguments).copied().collect();
        let mut command = Command::new(env::current_exe().unwrap());
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TIDEGATE_")) {
            command.env_remove(name);
        }
        command.args(["--exact", TEST, "--nocapture"]).env(ARGUMENTS, all.join("\n"));
        command.envs(self.environment.iter().copied()).stdin(Stdio::null());
        command.stdout(File::create(printed.with_extension("out")).unwrap());
        command.stderr(File::create(printed.with_extension("err")).unwrap());
        Started { process: Running(command.spawn().unwrap()), printed }
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended()
    }

    /// Runs it to a good end.
    #[track_caller]
    pub fn finish(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended
    }

    /// Committed checkpoints, in order.
    pub fn commits(&self) -> Vec<u64> {
        let records = fs::read_dir(self.at("out/checkpoints/flight-delays/commits")).into_iter().flatten();
        let names = records.map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
        let mut epochs: Vec<u64> =
            names.filter_map(|n| n.strip_suffix(".commit").and_then(|n| n.parse().ok())).collect();
        epochs.sort_unstable();
        epochs
    }

    pub fn committed(&self) -> u64 {
        self.commits().last().copied().unwrap_or(0)
    }

    /// Every file below `folder`, with its content.
    pub fn files(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.at(folder), &mut files);
        files
    }

    /// The lines of all parts of a sink, sorted; every part has the header and is whole.
    pub fn lines(&self, sink: &str, header: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, content) in self.files(&format!("out/{sink}")) {
            if is_staged(&path) {
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(name.starts_with("part-") && name.ends_with(".csv"), "{} is no part", path.display());
            let text = String::from_utf8(content).unwrap();
            assert!(text.ends_with('\n'), "{name} is half-written");
            let mut rows = text.lines();
            assert_eq!(rows.next(), Some(header), "{name}");
            lines.extend(rows.map(str::to_owned));
        }
        lines.sort();
        lines
    }

    /// The output is the reference's, line for line, and nothing is left staged.
    #[track_caller]
    pub fn assert_exact(&self, expected: &Expected) {
        self.assert_visible(expected);
        let staged: Vec<_> = self.files("out").into_keys().filter(|path| is_staged(path)).collect();
        assert!(staged.is_empty(), "left in the staging area: {staged:?}");
    }

    /// The visible output is: a run that has been replaced may have staged something since, until another
    /// start sweeps it.
    #[track_caller]
    pub fn assert_visible(&self, expected: &Expected) {
        assert_same("delays", &self.lines("delays", DELAYS_HEADER), &expected.delays);
        assert_same("late", &self.lines("late", &expected.header), &expected.late);
    }

    /// Of the bundled file.
    #[track_caller]
    pub fn assert_exact_month(&self) {
        self.assert_exact(&expected());
    }
}

fn is_staged(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == ".staging")
}

/// Both are sorted; says where they part.
#[track_caller]
fn assert_same(sink: &str, found: &[String], expected: &[String]) {
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let next = |lines: &[String]| lines.get(same).cloned();
    assert!(
        found.len() == same && expected.len() == same,
        "{sink}: {} lines, expected {}; the first that differ: {:?}, expected {:?}",
        found.len(),
        expected.len(),
        next(found),
        next(expected)
    );
}

fn collect(folder: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
}

impl Started {
    pub fn errors(&self) -> String {
        fs::read_to_string(self.printed.with_extension("err")).unwrap()
    }

    /// Lets it run until a condition holds.
    #[track_caller]
    pub fn until(&mut self, condition: impl Fn() -> bool) {
        assert!(self.process.runs_until(condition), "it has ended before: {}", self.errors());
    }

    pub fn ended(mut self) -> Ended {
        let code = self.process.ended().code();
        Ended { code, stdout: fs::read_to_string(self.printed.with_extension("out")).unwrap(), stderr: self.errors() }
    }
}

#[test]
fn help_names_every_option() {
    if let Ok(arguments) = env::var(ARGUMENTS) {
        std::process::exit(program::run(arguments.split('\n').map(Into::into)).into());
    }
    let help = Case::new().finish(&["--help"]).stdout;
    for option in ["--input", "--out", "--checkpoints", "--parallelism", "--rate", "--job-file", "--from"] {
        assert!(help.contains(option), "{help}");
    }
}
