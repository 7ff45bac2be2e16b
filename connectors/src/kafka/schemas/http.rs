//! The registry over HTTP: one request and one answer, which blocks.
//!
//! Each of the registry's addresses is asked in turn, until one knows the answer: a copy may lag behind. The hard case
//! is what an answer means: a registry that is busy, or a proxy before it, is away for now and asked again later; credentials that are refused
//! and a path that no registry has are the job file's fault; and only what the registry itself says of a schema is
//! about that schema. Were a mistyped path taken for a schema that does not exist, good records would be skipped.
use base64::Engine as _;
use serde_json::Value;
use std::time::Duration;
use tidegate_core::{Error, Result, properties::Properties};
use ureq::Agent;

/// Properties that there are, in the order in which people look for them.
const KNOWN: [&str; 6] = [
    "url",
    "basic.auth.user.info",
    "bearer.auth.token",
    "ssl.ca.location",
    "auto.register.schemas",
    "request.timeout.ms",
];
const TIMEOUT_MS: u64 = 5_000;
/// No schema is longer.
const ANSWER_MAX: u64 = 16 << 20;
const JSON: &str = "application/vnd.schemaregistry.v1+json";

/// The registry's answer.
pub(super) enum Answer {
    /// What was asked for.
    Given(Value),
    /// There is no such schema, subject or version, by the registry's own word.
    Unknown(String),
    /// The schema is not compatible with those before it.
    Incompatible(String),
    /// The schema is none.
    Invalid(String),
}

/// A client of one registry.
pub(super) struct Client {
    agent: Agent,
    urls: Vec<String>,
    authorization: Option<String>,
    properties: Properties,
}

impl Client {
    /// # Errors
    /// That a property is missing or wrong.
    pub fn new(properties: &Properties) -> Result<Self> {
        let wrong = |name: &str, why: &str| Error::config(format!("schema-registry.{name} {why}"));
        if let Some((name, _)) = properties.iter().find(|(name, _)| !KNOWN.contains(name)) {
            return Err(wrong(name, "is no property").hint(format!("there are {}", KNOWN.join(", "))));
        }
        let urls = properties.get("url").unwrap_or_default().split(',').map(|url| url.trim().trim_end_matches('/'));
        let urls: Vec<String> = urls.filter(|url| !url.is_empty()).map(str::to_owned).collect();
        if urls.is_empty() {
            return Err(wrong("url", "is not set")
                .hint("write it in the job file, below [schema-registry]: url = \"http://host:8081\""));
        }
        for url in &urls {
            // Not shown before it is known that no password is in it.
            if url.contains('@') {
                return Err(wrong("url", "has a user in it").hint("set basic.auth.user.info = \"user:password\""));
            }
            if !url.starts_with("http://") && !url.starts_with("https://") {
                return Err(
                    wrong("url", &format!("= {url:?} is neither http:// nor https://")).hint("write it in full")
                );
            }
            if url.starts_with("https://") && !cfg!(feature = "kafka-tls") {
                return Err(wrong("url", &format!("= {url:?} needs TLS")).hint("build with the feature kafka-tls"));
            }
        }
        if !matches!(properties.get("auto.register.schemas"), None | Some("true" | "false")) {
            return Err(wrong("auto.register.schemas", "is neither true nor false").hint("true is the default"));
        }
        let timeout = match properties.get("request.timeout.ms").map(str::parse) {
            None => Ok(TIMEOUT_MS),
            Some(Ok(ms)) if ms > 0 => Ok(ms),
            Some(_) => Err(wrong("request.timeout.ms", "is no number of milliseconds").hint("5000 is the default")),
        }?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_millis(timeout)))
            .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        #[cfg(feature = "kafka-tls")]
        let config = config.tls_config(tls(properties)?);
        let authorization = match (properties.get("basic.auth.user.info"), properties.get("bearer.auth.token")) {
            (Some(_), Some(_)) => {
                return Err(wrong("basic.auth.user.info", "and bearer.auth.token are both set").hint("leave one out"));
            }
            (Some(user), None) if !user.contains(':') => {
                return Err(wrong("basic.auth.user.info", "has no colon in it").hint("write user:password"));
            }
            (Some(user), None) => Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user))),
            (None, Some(token)) => Some(format!("Bearer {token}")),
            (None, None) => None,
        };
        Ok(Self { agent: config.build().into(), urls, authorization, properties: properties.clone() })
    }

    /// Asks for a path; with a body, posts it.
    ///
    /// # Errors
    /// [`Kind::Unavailable`](tidegate_core::Kind): nobody answers, or not now. `Config`: who answers is no registry, or
    /// refuses the credentials.
    pub fn ask(&self, path: &str, body: Option<&Value>) -> Result<Answer> {
        let (mut unknown, mut away) = (None, None);
        for url in &self.urls {
            match self.ask_at(url, path, body) {
                Ok(Answer::Unknown(said)) => unknown = unknown.or(Some(Answer::Unknown(said))),
                Err(error) if error.kind() == tidegate_core::Kind::Unavailable => away = away.or(Some(error)),
                answered => return answered,
            }
        }
        match (unknown, away) {
            (Some(unknown), _) => Ok(unknown),
            (None, Some(away)) => Err(away),
            (None, None) => Err(Error::internal("the schema registry has no address")),
        }
    }

    fn ask_at(&self, url: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let address = format!("{url}{path}");
        let away = |why: &str| {
            Error::unavailable(format!(
                "the schema registry does not answer at schema-registry.url = {url:?}: {}",
                self.properties.redact(why)
            ))
            .hint("check the address, and that a registry runs there")
        };
        let failed = |e: ureq::Error| away(&e.to_string());
        let mut response = match body {
            None => {
                let mut request = self.agent.get(&address).header("accept", JSON);
                if let Some(authorization) = &self.authorization {
                    request = request.header("authorization", authorization);
                }
                request.call()
            }
            Some(body) => {
                let mut request = self.agent.post(&address).header("accept", JSON).content_type(JSON);
                if let Some(authorization) = &self.authorization {
                    request = request.header("authorization", authorization);
                }
                request.send(body.to_string())
            }
        }
        .map_err(failed)?;
        let status = response.status().as_u16();
        let bytes = response.body_mut().with_config().limit(ANSWER_MAX).read_to_vec().map_err(failed)?;
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        let code = answer.as_ref().and_then(|a| a["error_code"].as_u64());
        let said = answer.as_ref().and_then(|a| a["message"].as_str()).unwrap_or("it does not say why");
        let said = self.properties.redact(said);
        match (status, answer) {
            (200, Some(answer)) => Ok(Answer::Given(answer)),
            (404, _) if code.is_some_and(|code| (40401..=40499).contains(&code)) => Ok(Answer::Unknown(said)),
            (409, _) if body.is_some() => Ok(Answer::Incompatible(said)),
            (422, _) if body.is_some() => Ok(Answer::Invalid(said)),
            (401 | 403, _) => Err(Error::config(format!("the schema registry at {url:?} refuses ({status}): {said}"))
                .hint("check schema-registry.basic.auth.user.info or bearer.auth.token, and what they may do")),
            (408 | 429 | 500.., _) => Err(away(&format!("{status}, {said}"))),
            _ => Err(Error::config(format!("what answers at {address:?} ({status}) is no schema registry"))
                .hint("check schema-registry.url, with the path that some have: http://host:8080/apis/ccompat/v7")),
        }
    }
}

/// The certificates that a server's is checked with: those of the file, or the web's.
#[cfg(feature = "kafka-tls")]
fn tls(properties: &Properties) -> Result<ureq::tls::TlsConfig> {
    use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
    let Some(file) = properties.get("ssl.ca.location") else { return Ok(TlsConfig::builder().build()) };
    let failed = |why: String| {
        Error::config(format!("schema-registry.ssl.ca.location = {file:?}: {why}"))
            .hint("name a file of certificates in PEM")
    };
    let text = std::fs::read(file).map_err(|e| failed(e.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| failed(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(failed("no certificate is in it".into()));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(properties: &[(&str, &str)]) -> Result<Client> {
        let mut all = Properties::default();
        for (name, value) in properties {
            all.set(*name, *value);
        }
        Client::new(&all)
    }

    #[test]
    fn what_is_wrong_in_the_job_file_is_named_without_its_secrets() {
        for (properties, named) in [
            (&[][..], "schema-registry.url is not set"),
            (&[("ulr", "http://a")], "schema-registry.ulr is no property"),
            (&[("url", "a:8081")], "schema-registry.url"),
            (&[("url", "http://me:canary@a")], "schema-registry.url has a user in it"),
            (&[("url", "http://a"), ("basic.auth.user.info", "canary")], "schema-registry.basic.auth.user.info"),
            (&[("url", "http://a"), ("basic.auth.user.info", "a:canary"), ("bearer.auth.token", "canary")], "both"),
            (&[("url", "http://a"), ("request.timeout.ms", "soon")], "schema-registry.request.timeout.ms"),
            (&[("url", "http://a"), ("auto.register.schemas", "flase")], "schema-registry.auto.register.schemas"),
        ] {
            let error = made(properties).map(drop).unwrap_err();
            assert_eq!(error.kind(), tidegate_core::Kind::Config);
            let text = format!("{error} {:?}", error.hint_text());
            assert!(text.contains(named) && !text.contains("canary") && error.hint_text().is_some(), "{text}");
        }
    }

    #[test]
    fn there_may_be_several_addresses_and_credentials() {
        let client = made(&[("url", "http://a:1/, http://b:2/x"), ("basic.auth.user.info", "me:secret")]).unwrap();
        assert_eq!(client.urls, ["http://a:1", "http://b:2/x"]);
        assert_eq!(client.authorization.as_deref(), Some("Basic bWU6c2VjcmV0"));
        let client = made(&[("url", "http://a:1"), ("bearer.auth.token", "t")]).unwrap();
        assert_eq!(client.authorization.as_deref(), Some("Bearer t"));
    }
}
