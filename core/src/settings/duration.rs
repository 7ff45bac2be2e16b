//! Durations are written as people write them: `"500ms"`, `"10s"`, `"2h"`.
use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::time::Duration;

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&humantime::format_duration(*duration).to_string())
}
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    const WRITE: &str = "write \"500ms\", \"10s\" or \"2h\"";
    let text = String::deserialize(deserializer).map_err(|e| D::Error::custom(format!("{e}: {WRITE}")))?;
    humantime::parse_duration(&text).map_err(|e| D::Error::custom(format!("{text:?} is not a duration ({e}): {WRITE}")))
}
