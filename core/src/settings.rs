//! Settings are data: from code, from a TOML file, from the environment, later ones winning.
//!
//! A misspelt key must never be ignored: every key is checked against the schema, which is the serialised
//! default of [`Settings`] itself, and an unknown one is an error with the nearest right name.
mod duration;
mod state;
mod trigger;

pub use state::{ObjectStoreSettings, OperatorStateSettings, RedisSettings, RocksDbSettings, StateSettings};
pub use trigger::JobTrigger;

use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};
use toml::{Table, Value};

use tidegate_checkpoint::error::{Error, Result};

use crate::properties::{Properties, SecretUrl, flatten};

/// Everything about a job that is not its program.
///
/// ```
/// use tidegate_core::Settings;
/// let settings = Settings::from_toml("parallelism = 2\n[checkpoint]\ninterval = \"5s\"")?;
/// assert_eq!(settings.parallelism, 2);
/// let error = Settings::from_toml("[checkpoint]\nintervall = \"5s\"").unwrap_err();
/// assert!(error.to_string().contains("did you mean checkpoint.interval?"));
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Subtasks of every operator.
    pub parallelism: u32,
    /// Key groups: the most subtasks the job's keyed state can ever be spread over. A power of two, fixed
    /// at the job's first checkpoint.
    pub key_groups: u16,
    /// When the job reads, and where its epochs are cut: `"continuous"`, `"every 10s"`, `"available-now"`, `"once"`.
    pub trigger: JobTrigger,
    /// `[checkpoint]`
    pub checkpoint: CheckpointSettings,
    /// `[state]`
    pub state: StateSettings,
    /// `[restart]`
    pub restart: RestartSettings,
    /// `[heartbeat]`
    pub heartbeat: HeartbeatSettings,
    /// `[report]`
    pub report: ReportSettings,
    /// `[kafka]`: properties for every Kafka client of the job, under the names that librdkafka gives them.
    pub kafka: Properties,
    /// `[schema-registry]`: properties of the schema registry, under the names that Confluent's clients give them.
    pub schema_registry: Properties,
}

/// When and where checkpoints are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct CheckpointSettings {
    /// A directory or URL: `file:///var/lib/job`, `s3://bucket/job`; `memory:` keeps them in the process.
    pub store: String,
    /// Time from one checkpoint's start to the next; `"0s"`: only the final one and those asked for. With the triggers
    /// `every` and `once` each batch is a checkpoint, and this is nothing.
    #[serde(with = "duration")]
    pub interval: Duration,
    /// At least this long between the end of one and the start of the next.
    #[serde(with = "duration")]
    pub min_pause: Duration,
    /// A checkpoint that takes longer is abandoned, and the job goes on.
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// Committed checkpoints that are kept.
    pub retained: usize,
    /// Abandoned checkpoints in a row after which the attempt fails; 0: never.
    pub tolerated_failures: u32,
    /// Start from this epoch instead of the latest committed one; 0: the latest.
    pub from: u64,
    /// Start from nothing although manifests without a commit record are there.
    pub allow_fresh_start: bool,
    /// The URL of a savepoint to start from, where the job has no checkpoint of its own; empty: none.
    pub savepoint: SecretUrl,
}

/// What happens when an attempt fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RestartSettings {
    /// How restarts are granted.
    pub strategy: RestartStrategy,
    /// The delay before a restart; the first one of `exponential`.
    #[serde(with = "duration")]
    pub delay: Duration,
    /// The longest delay of `exponential`.
    #[serde(with = "duration")]
    pub max_delay: Duration,
    /// Restarts that are granted: in all (`fixed-delay`), in a row without a checkpoint between
    /// (`exponential`), or within `window` (`failure-rate`).
    pub max_restarts: u32,
    /// The window of `failure-rate`.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// How restarts are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartStrategy {
    /// The first failure fails the job.
    None,
    /// After a fixed delay.
    FixedDelay,
    /// After a delay that doubles, with jitter, and starts again after a completed checkpoint.
    Exponential,
    /// After a fixed delay, unless there were too many within a window.
    FailureRate,
}

/// How a subtask that is stuck in user code is found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct HeartbeatSettings {
    /// A subtask that has not returned to the engine for this long is reported as stuck.
    #[serde(with = "duration")]
    pub stuck_after: Duration,
    /// One that has not for this long fails the attempt; `"0s"`: never.
    #[serde(with = "duration")]
    pub fail_after: Duration,
}

/// What a job prints on standard error while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ReportSettings {
    /// One line a checkpoint.
    pub checkpoints: bool,
    /// A progress bar, where standard error is a terminal and a source is bounded.
    pub progress: bool,
    /// The closing table.
    pub summary: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            parallelism: 1,
            key_groups: 128,
            trigger: JobTrigger::Continuous,
            checkpoint: CheckpointSettings::default(),
            state: StateSettings::default(),
            restart: RestartSettings::default(),
            heartbeat: HeartbeatSettings { stuck_after: Duration::from_secs(10), fail_after: Duration::ZERO },
            report: ReportSettings { checkpoints: false, progress: false, summary: false },
            kafka: Properties::default(),
            schema_registry: Properties::default(),
        }
    }
}
impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            store: "memory:".into(),
            interval: Duration::from_secs(10),
            min_pause: Duration::ZERO,
            timeout: Duration::from_secs(600),
            retained: 3,
            tolerated_failures: 0,
            from: 0,
            allow_fresh_start: false,
            savepoint: SecretUrl::default(),
        }
    }
}
impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            strategy: RestartStrategy::Exponential,
            delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(60),
            max_restarts: 10,
            window: Duration::from_secs(300),
        }
    }
}
impl Default for HeartbeatSettings {
    fn default() -> Self {
        Settings::default().heartbeat
    }
}
impl Default for ReportSettings {
    fn default() -> Self {
        Settings::default().report
    }
}

impl Settings {
    /// Reads a job file; what it does not name keeps its default.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind): unreadable, not TOML, an unknown key, a value
    /// of the wrong type.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::default().with_file(path)
    }

    /// Overrides from a job file; what it does not name stays as it is.
    ///
    /// # Errors
    /// As [`Settings::from_file`].
    pub fn with_file(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::config(format!("cannot read the job file {}", path.display())).caused_by(e).hint("check the path")
        })?;
        parse(&text).and_then(|overlay| self.merged(overlay)).map_err(|e| e.at(path.display()))
    }

    /// Reads settings from TOML; what is not named keeps its default.
    ///
    /// # Errors
    /// As [`Settings::from_file`].
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::default().with_toml(text)
    }

    /// Overrides from TOML; what it does not name stays as it is.
    ///
    /// # Errors
    /// As [`Settings::from_file`].
    pub fn with_toml(self, text: impl AsRef<str>) -> Result<Self> {
        self.merged(parse(text.as_ref())?)
    }

    /// Overrides from the environment: `TIDEGATE_CHECKPOINT__INTERVAL=5s` for `checkpoint.interval`, with
    /// `__` for the dot and `_` for the dash; and `TIDEGATE_KAFKA__BOOTSTRAP_SERVERS` for a property of
    /// Kafka's (or of the schema registry's), with `_` for the dot.
    ///
    /// # Errors
    /// As [`Settings::from_file`]: a misspelt variable is an error as well.
    pub fn with_env(self) -> Result<Self> {
        self.with_vars(tidegate_checkpoint::store::variables())
    }

    fn with_vars(self, vars: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut overlay = Table::new();
        for (name, text) in vars {
            // Variables of the crash-test kit share the prefix and are no settings.
            let Some(path) =
                name.strip_prefix("TIDEGATE_").filter(|p| !p.starts_with("KILL_") && !p.starts_with("TEST_"))
            else {
                continue;
            };
            let path: Vec<String> = match path.split_once("__") {
                Some((section, property)) if OPEN.contains(&dashed(section).as_str()) => {
                    vec![dashed(section), property.to_lowercase().replace('_', ".")]
                }
                _ => path.split("__").map(dashed).collect(),
            };
            let value = text.parse::<i64>().map(Value::Integer).or_else(|_| text.parse::<bool>().map(Value::Boolean));
            let mut table = &mut overlay;
            for part in &path[..path.len() - 1] {
                let inner = table.entry(part.clone()).or_insert_with(|| Value::Table(Table::new()));
                let Value::Table(inner) = inner else {
                    return Err(Error::config(format!("the environment variable {name} contradicts another one")));
                };
                table = inner;
            }
            table.insert(path[path.len() - 1].clone(), value.unwrap_or(Value::String(text)));
        }
        self.merged(overlay).map_err(|e| {
            let hint = e.hint_text().map(|hint| format!("{hint} ")).unwrap_or_default();
            let form = "two underscores for a dot, one for a dash, as in TIDEGATE_CHECKPOINT__INTERVAL";
            e.hint(format!("{hint}({form})")).at("environment")
        })
    }

    fn merged(self, mut overlay: Table) -> Result<Self> {
        // However their properties are written, they are one flat table: else a later one would not replace them.
        for section in OPEN {
            let Some(Value::Table(properties)) = overlay.get_mut(section) else { continue };
            let mut flat = Table::new();
            flatten(std::mem::take(properties), "", &mut |name, value| {
                flat.insert(name, value);
                Ok::<_, Error>(())
            })?;
            *properties = flat;
        }
        let internal = |e: toml::ser::Error| Error::internal("settings do not serialise").caused_by(e);
        let mut base = Table::try_from(&self).map_err(internal)?;
        let schema = Table::try_from(Self::default()).map_err(internal)?;
        check_keys(&overlay, &schema, "")?;
        // One by one, so that an error can name the setting.
        for (way, value) in leaves(overlay, &[]) {
            let setting = way.join(".");
            merge(&mut base, nested(&way, value));
            let _: Self = Value::Table(base.clone()).try_into().map_err(|e: toml::de::Error| {
                Error::config(e.message().to_owned()).at(setting).hint("see the documentation of Settings")
            })?;
        }
        let settings: Self = Value::Table(base).try_into().map_err(|e: toml::de::Error| {
            Error::internal("settings that were checked one by one cannot be read").caused_by(e)
        })?;
        settings.checked()
    }

    /// From one checkpoint's start to the next, as the trigger has it; `None`: only those asked for, and the last.
    pub(crate) fn epoch_interval(&self) -> Option<Duration> {
        match self.trigger {
            JobTrigger::Every(pause) => Some(pause),
            JobTrigger::Once => None,
            JobTrigger::Continuous | JobTrigger::AvailableNow => {
                Some(self.checkpoint.interval).filter(|interval| !interval.is_zero())
            }
        }
    }

    /// Checks what types cannot say.
    ///
    /// # Errors
    /// [`Kind::Config`](tidegate_checkpoint::error::Kind) with the setting's name.
    pub fn checked(self) -> Result<Self> {
        let groups = u32::from(self.key_groups);
        if self.parallelism == 0 || self.parallelism > groups {
            return Err(Error::config(format!("parallelism = {} is not in 1..={groups}", self.parallelism))
                .hint("at most one subtask a key group: raise key-groups (before the first checkpoint)"));
        }
        if !self.key_groups.is_power_of_two() {
            return Err(
                Error::config(format!("key-groups = {groups} is not a power of two")).hint("128 suits most jobs")
            );
        }
        if self.trigger == JobTrigger::Every(Duration::ZERO) {
            return Err(Error::config("trigger = every 0s: batches have to begin some time apart")
                .hint("without a pause between them it is JobTrigger::Continuous"));
        }
        if self.checkpoint.retained == 0 {
            return Err(Error::config("checkpoint.retained = 0: there must be one to come back to")
                .hint("keep at least 1; 3 suits most jobs"));
        }
        if self.checkpoint.timeout.is_zero() {
            return Err(Error::config("checkpoint.timeout = 0s: every checkpoint would be abandoned at once")
                .hint("give a checkpoint more time than the store needs for it: 10m suits most jobs"));
        }
        Ok(self)
    }
}

/// The sections whose keys are not ours: a client library knows them.
const OPEN: [&str; 2] = ["kafka", "schema-registry"];

/// The part of a setting's name that a part of an environment variable's stands for.
fn dashed(part: &str) -> String {
    part.to_lowercase().replace('_', "-")
}

fn parse(text: &str) -> Result<Table> {
    text.parse::<Table>()
        .map_err(|e| Error::config("the job file is not TOML").caused_by(e).hint("write a setting as: parallelism = 2"))
}

fn merge(base: &mut Table, overlay: Table) {
    for (key, value) in overlay {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(more)) => merge(inner, more),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Every setting in a table, with the way to it: names of operators and of properties may have dots in them.
fn leaves(table: Table, way: &[String]) -> Vec<(Vec<String>, Value)> {
    let named = |(key, value)| {
        let way = [way, &[key]].concat();
        match value {
            Value::Table(inner) => leaves(inner, &way),
            value => vec![(way, value)],
        }
    };
    table.into_iter().flat_map(named).collect()
}

/// The table that one setting is in.
fn nested(way: &[String], value: Value) -> Table {
    match way {
        [name] => Table::from_iter([(name.clone(), value)]),
        [section, rest @ ..] => Table::from_iter([(section.clone(), Value::Table(nested(rest, value)))]),
        [] => Table::new(),
    }
}

/// Every key of `given` must be in `schema`; an unknown one is reported with the nearest right name.
fn check_keys(given: &Table, schema: &Table, prefix: &str) -> Result<()> {
    for (key, value) in given {
        match (schema.get(key), value) {
            (Some(Value::Table(_)), Value::Table(_)) if prefix.is_empty() && OPEN.contains(&key.as_str()) => {}
            (Some(Value::Table(_)), Value::Table(operators)) if prefix == "state." && key == "operators" => {
                let schema = Table::try_from(OperatorStateSettings::default()).unwrap_or_default();
                for (operator, given) in operators {
                    let Value::Table(given) = given else {
                        return Err(Error::config(format!("state.operators.{operator} is a section, not a value"))
                            .hint(format!("write [state.operators.{operator:?}] and its settings below it")));
                    };
                    check_keys(given, &schema, &format!("state.operators.{operator}."))?;
                }
            }
            (Some(Value::Table(inner)), Value::Table(given)) => check_keys(given, inner, &format!("{prefix}{key}."))?,
            (Some(Value::Table(_)), _) => {
                return Err(Error::config(format!("{prefix}{key} is a section, not a value"))
                    .hint(format!("write [{prefix}{key}] and its settings below it")));
            }
            (Some(_), _) => {}
            (None, _) => {
                let nearest = names(schema, prefix)
                    .into_iter()
                    .max_by(|a, b| closeness(a, prefix, key).total_cmp(&closeness(b, prefix, key)));
                let error = Error::config(format!("unknown setting {prefix}{key}"));
                return Err(match nearest {
                    Some(name) => error.hint(format!("did you mean {name}?")),
                    None => error,
                });
            }
        }
    }
    Ok(())
}

fn names(schema: &Table, prefix: &str) -> Vec<String> {
    schema.keys().map(|k| format!("{prefix}{k}")).collect()
}

fn closeness(candidate: &str, prefix: &str, key: &str) -> f64 {
    strsim::jaro_winkler(candidate, &format!("{prefix}{key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_section_and_a_misspelt_key_name_the_nearest_right_one() {
        let e = Settings::from_toml("[chekpoint]\ninterval = \"1s\"").unwrap_err().to_string();
        assert!(e.contains("unknown setting chekpoint") && e.contains("did you mean checkpoint?"), "{e}");
        let e = Settings::from_toml("paralelism = 2").unwrap_err().to_string();
        assert!(e.contains("did you mean parallelism?"), "{e}");
    }

    #[test]
    fn the_environment_wins_over_the_file_and_its_typos_are_errors_too() {
        let vars = |k: &str, v: &str| vec![(k.to_owned(), v.to_owned())].into_iter();
        let file = Settings::from_toml("parallelism = 2\n[checkpoint]\ninterval = \"1m\"").unwrap();
        let s = file.clone().with_vars(vars("TIDEGATE_CHECKPOINT__MIN_PAUSE", "250ms")).unwrap();
        assert_eq!((s.parallelism, s.checkpoint.min_pause), (2, Duration::from_millis(250)));
        assert_eq!(file.clone().with_vars(vars("TIDEGATE_PARALLELISM", "4")).unwrap().parallelism, 4);
        let e = file.with_vars(vars("TIDEGATE_PARALELISM", "4")).unwrap_err().to_string();
        assert!(e.contains("did you mean parallelism?"), "{e}");
    }

    #[test]
    fn kafkas_properties_pass_through_and_the_later_one_wins_however_it_is_written() {
        let file = Settings::from_toml("[kafka]\nbootstrap.servers = \"a:1\"\n\"linger.ms\" = 5").unwrap();
        let vars = [("TIDEGATE_KAFKA__BOOTSTRAP_SERVERS".to_owned(), "b:2".to_owned())];
        let kafka = file.with_vars(vars.into_iter()).unwrap().kafka;
        assert_eq!(kafka.iter().collect::<Vec<_>>(), [("bootstrap.servers", "b:2"), ("linger.ms", "5")]);
        let e = Settings::from_toml("kafka = 3").unwrap_err().to_string();
        assert!(e.contains("section"), "{e}");
        let e = Settings::from_toml("[kafka]\nsasl.password = [\"canary\"]").unwrap_err().to_string();
        assert!(e.contains("kafka.sasl.password") && !e.contains("canary"), "{e}");
        let secret = Settings::from_toml("[kafka]\nsasl.password = \"canary\"").unwrap();
        assert!(!format!("{secret:?}").contains("canary"), "{secret:?}");
    }

    #[test]
    fn the_schema_registrys_properties_pass_through_too() {
        let vars = [("TIDEGATE_SCHEMA_REGISTRY__BASIC_AUTH_USER_INFO".to_owned(), "me:canary".to_owned())];
        let settings = Settings::from_toml("[schema-registry]\nurl = \"http://a:1\"").unwrap();
        let settings = settings.with_vars(vars.into_iter()).unwrap();
        assert_eq!(settings.schema_registry.get("basic.auth.user.info"), Some("me:canary"));
        assert!(!format!("{settings:?}").contains("canary"), "{settings:?}");
    }

    #[test]
    fn a_job_file_wins_over_the_code_where_it_says_something() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "[checkpoint]\nretained = 7").unwrap();
        let code = Settings { parallelism: 3, ..Settings::default() };
        let both = code.clone().with_file(&file).unwrap();
        assert_eq!((both.parallelism, both.checkpoint.retained), (3, 7));
        std::fs::write(&file, "[checkpoint]\nretaind = 7").unwrap();
        let e = code.with_file(&file).unwrap_err().to_string();
        assert!(e.contains(file.path().to_str().unwrap()) && e.contains("did you mean checkpoint.retained?"), "{e}");
    }

    #[test]
    fn a_wrong_type_a_bad_duration_and_an_impossible_number_are_errors() {
        for text in [
            "parallelism = \"two\"",
            "[checkpoint]\ninterval = \"soon\"",
            "parallelism = 0",
            "key-groups = 100",
            "checkpoint = 3",
            "[checkpoint]\nretained = 0",
            "not toml at all",
        ] {
            assert!(Settings::from_toml(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_refused_with_those_that_are() {
        let e = Settings::from_toml("[state]\ncodec = \"bincode\"").unwrap_err();
        let text = e.to_string();
        assert!(["state.codec", "`bincode`", "`named`", "`compact`"].iter().all(|part| text.contains(part)), "{text}");
        assert!(e.hint_text().is_some(), "{text}");
        assert_eq!(
            Settings::from_toml("[state]\ncodec = \"compact\"").unwrap().state.codec,
            crate::state::codec::Codec::Compact
        );
    }
}
