//! Properties that are handed to a client library as they are: Kafka's, with names like `security.protocol`.
//!
//! The library knows and checks them, this does not. In a job file a name may be written with or without quotes:
//! TOML makes a table of tables of `security.protocol = "ssl"`, which is flattened here. What looks like a secret
//! is never shown.
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use std::{collections::BTreeMap, fmt};
use toml::Value;

/// Names with dots, and what they are set to.
///
/// ```
/// use tidegate_core::properties::Properties;
/// let mut properties = Properties::default();
/// properties.set("bootstrap.servers", "broker:9092");
/// properties.set("sasl.password", "hunter2");
/// assert_eq!(format!("{properties:?}"), r#"{"bootstrap.servers": "broker:9092", "sasl.password": "(hidden)"}"#);
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Properties(BTreeMap<String, String>);

/// What is shown in a secret's place.
pub const HIDDEN: &str = "(hidden)";

impl Properties {
    /// Sets one; what it was before is forgotten.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }
    /// What a property is set to.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Hides, in a text of the client library, every secret that is set.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.0.iter().filter(|(name, value)| is_secret(name) && !value.is_empty());
        secrets.fold(text.to_owned(), |text, (_, value)| text.replace(value.as_str(), HIDDEN))
    }
}

/// An address that may have a user and a password in it, which are never shown.
///
/// ```
/// use tidegate_core::properties::SecretUrl;
/// let url = SecretUrl::from("redis://tidegate:hunter2@host:6379/0");
/// assert_eq!(url.to_string(), "redis://(hidden)@host:6379/0");
/// assert_eq!(url.reveal(), "redis://tidegate:hunter2@host:6379/0");
/// let several = SecretUrl::from("redis://u:p,1/@a:1,u:p2@b:2/0?token=x");
/// assert_eq!(several.to_string(), "redis://(hidden)@b:2/0?(hidden)");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// With everything that is in it: for whoever connects.
    pub fn reveal(&self) -> &str {
        &self.0
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        Self(url.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    /// Up to the last @ anything may be a secret, and whatever is behind a question mark.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").map_or(("", self.0.as_str()), |(scheme, rest)| (scheme, rest));
        let (hidden, rest) = rest.rsplit_once('@').map_or((false, rest), |(_, rest)| (true, rest));
        let (rest, query) = rest.split_once('?').map_or((rest, false), |(rest, _)| (rest, true));
        let separator = if scheme.is_empty() { "" } else { "://" };
        write!(f, "{scheme}{separator}")?;
        if hidden {
            write!(f, "{HIDDEN}@")?;
        }
        write!(f, "{rest}")?;
        if query { write!(f, "?{HIDDEN}") } else { Ok(()) }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Whether the property of this name must never be shown: better one too many than one too few.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["password", "passphrase", "secret", "token", "key.pem", "jaas", "oauthbearer.config", "user.info", "credential"]
        .iter()
        .any(|part| name.contains(part))
        && !name.ends_with(".endpoint.url")
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, if is_secret(name) { HIDDEN } else { value })))
            .finish()
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut properties = Self::default();
        flatten(BTreeMap::<String, Value>::deserialize(deserializer)?, "", &mut |name, value| {
            // The value is not shown: it may be a secret.
            let text = match value {
                Value::String(text) => text,
                Value::Integer(n) => n.to_string(),
                Value::Float(x) => x.to_string(),
                Value::Boolean(b) => b.to_string(),
                _ => return Err(D::Error::custom(format!("{name} must be text, a number or a truth value"))),
            };
            properties.set(name, text);
            Ok(())
        })?;
        Ok(properties)
    }
}

/// Every value in a table of tables, by its full name.
pub(crate) fn flatten<E>(
    table: impl IntoIterator<Item = (String, Value)>,
    prefix: &str,
    each: &mut impl FnMut(String, Value) -> Result<(), E>,
) -> Result<(), E> {
    for (name, value) in table {
        match value {
            Value::Table(inner) => flatten(inner, &format!("{prefix}{name}."), each)?,
            value => each(format!("{prefix}{name}"), value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_with_and_without_quotes_and_values_are_text() {
        let quoted: Properties = toml::from_str("\"queue.buffering.max.kbytes\" = 5\n\"a.b\" = true").unwrap();
        let bare: Properties = toml::from_str("queue.buffering.max.kbytes = 5\na.b = true").unwrap();
        assert_eq!(quoted, bare);
        assert_eq!((bare.get("queue.buffering.max.kbytes"), bare.get("a.b")), (Some("5"), Some("true")));
        let e = toml::from_str::<Properties>("sasl.password = [\"canary\"]").unwrap_err().to_string();
        assert!(e.contains("sasl.password"), "{e}");
    }

    #[test]
    fn secrets_are_shown_nowhere() {
        let secret = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
        ];
        let mut properties = Properties::default();
        secret.iter().enumerate().for_each(|(n, name)| properties.set(*name, format!("canary{n}")));
        assert!(!format!("{properties:?}").contains("canary"), "{properties:?}");
        assert!(!properties.redact("login with canary0 and canary3 failed").contains("canary"));
        assert!(
            ["bootstrap.servers", "ssl.ca.location", "sasl.oauthbearer.token.endpoint.url"]
                .iter()
                .all(|name| !is_secret(name))
        );
    }
}
