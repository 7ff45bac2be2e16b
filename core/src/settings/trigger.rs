//! When a job reads, and where its epochs are cut: Spark's triggers.
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, time::Duration};

use tidegate_checkpoint::error::Error;

/// When a job reads and where its epochs are cut. In a job file, in the environment and on a command line it is text.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{Settings, JobTrigger};
/// let settings = Settings::from_toml("trigger = \"every 10s\"")?;
/// assert_eq!(settings.trigger, JobTrigger::Every(Duration::from_secs(10)));
/// assert_eq!("available-now".parse::<JobTrigger>()?, JobTrigger::AvailableNow);
/// assert!("every 0s".parse::<JobTrigger>().is_err());
/// # Ok::<(), tidegate_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JobTrigger {
    /// `continuous`: whatever comes is read as it comes, and `checkpoint.interval` cuts it into epochs.
    #[default]
    Continuous,
    /// `every 10s`: a micro-batch at a time. So long after the last one began (at once if that is over already) what
    /// is there then is read, and is an epoch with a checkpoint of its own; between batches nothing is read.
    Every(Duration),
    /// `available-now`: what is there when the job starts, then the job ends. `checkpoint.interval` cuts it into epochs.
    AvailableNow,
    /// `once`: as `available-now`, in exactly one epoch.
    Once,
}

impl JobTrigger {
    /// Whether the job ends behind what is there when it starts.
    pub fn is_bounded(self) -> bool {
        matches!(self, Self::AvailableNow | Self::Once)
    }
}

impl fmt::Display for JobTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continuous => f.write_str("continuous"),
            Self::Every(pause) => write!(f, "every {}", humantime::format_duration(*pause)),
            Self::AvailableNow => f.write_str("available-now"),
            Self::Once => f.write_str("once"),
        }
    }
}

impl FromStr for JobTrigger {
    type Err = Error;

    /// `every=10s` is read too: it needs no quotes on a command line.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| {
            Error::config(format!("{text:?} is no trigger: {why}"))
                .hint("write \"continuous\", \"every 10s\", \"available-now\" or \"once\"")
        };
        match text {
            "continuous" => return Ok(Self::Continuous),
            "available-now" => return Ok(Self::AvailableNow),
            "once" => return Ok(Self::Once),
            _ => {}
        }
        let every = text.strip_prefix("every").filter(|rest| rest.is_empty() || rest.starts_with([' ', '=']));
        let Some(every) = every else { return Err(wrong("there is none of this name".into())) };
        let pause = every.trim_start_matches([' ', '=']).trim_end();
        if pause.is_empty() {
            return Err(wrong("every how long?".into()));
        }
        match humantime::parse_duration(pause) {
            Ok(pause) if pause.is_zero() => Err(wrong(
                "batches have to begin some time apart; without a pause between them it is continuous".into(),
            )),
            Ok(pause) => Ok(Self::Every(pause)),
            Err(e) => Err(wrong(format!("{pause:?} is not a duration ({e})"))),
        }
    }
}

impl Serialize for JobTrigger {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for JobTrigger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|e| D::Error::custom(format!("{e}: write \"every 10s\", for example")))?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;

    #[test]
    fn every_trigger_is_read_back_as_it_is_shown() {
        let every = |ms| JobTrigger::Every(Duration::from_millis(ms));
        for (text, trigger) in [
            ("continuous", JobTrigger::Continuous),
            ("every 10s", every(10_000)),
            ("every 1m 30s", every(90_000)),
            ("available-now", JobTrigger::AvailableNow),
            ("once", JobTrigger::Once),
        ] {
            assert_eq!((text.parse().unwrap(), trigger.to_string()), (trigger, text.to_owned()));
            let settings = Settings::from_toml(&format!("trigger = {text:?}")).unwrap();
            assert_eq!(settings.trigger, trigger);
            // Settings go through TOML when something is laid over them.
            assert_eq!(settings.with_toml("parallelism = 2").unwrap().trigger, trigger);
        }
        assert_eq!("every=250ms".parse::<JobTrigger>().unwrap(), every(250));
    }

    #[test]
    fn what_is_no_trigger_is_refused_with_the_reason_and_those_there_are() {
        for (text, why) in [
            ("every 0s", "some time apart"),
            ("every", "how long"),
            ("every soon", "not a duration"),
            ("everyday", "none of this name"),
            ("availablenow", "none of this name"),
            ("", "none of this name"),
        ] {
            let e = Settings::from_toml(&format!("trigger = {text:?}")).unwrap_err();
            assert_eq!(e.kind(), crate::Kind::Config);
            let e = e.to_string();
            let parts = ["trigger:", why, "available-now"];
            assert!(parts.iter().all(|part| e.contains(part)), "{text}: {e}");
        }
        for text in ["trigger = 10", "[trigger]\nevery = \"10s\"", "triger = \"once\""] {
            let e = Settings::from_toml(text).unwrap_err().to_string();
            assert!(e.contains("trigger"), "{e}");
        }
        // Not only where it is text.
        let zero = Settings { trigger: JobTrigger::Every(Duration::ZERO), ..Settings::default() };
        assert!(zero.checked().unwrap_err().to_string().contains("trigger"));
    }
}
