//! What a server must be like, asked at the start.
//!
//! One that evicts keys under pressure loses state while it confirms everything: it is refused. One that confirms before
//! its disk has it is a matter of taste, and told. WAITAOF is no way around that: under `appendfsync everysec` some
//! versions answer it before they have synced (redis/redis#13793), and nothing shows it but a loss of power.
use redis::Value;
use std::collections::BTreeMap;

use tidegate_checkpoint::error::{Error, Result};

use super::link::Link;

/// Checks what can be asked; `tells`: whether warnings are not told by somebody else.
pub(super) async fn check(link: &Link, tells: bool) -> Result<()> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("maxmemory-policy").arg("appendonly").arg("appendfsync");
    // Hosted servers do not let it be asked.
    let settings = link.ask_all(command).await?.map(read).unwrap_or_default();
    let setting = |name: &str| settings.get(name).map(String::as_str);
    match setting("maxmemory-policy") {
        Some("noeviction") => {}
        Some(policy) => {
            return Err(Error::config(format!(
                "Redis at {} has maxmemory-policy {policy}: under pressure it would drop parts of the state",
                link.place()
            ))
            .hint("CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration"));
        }
        None if tells => tracing::warn!(
            redis = link.place(),
            "Redis does not say whether it evicts keys; state survives only under maxmemory-policy noeviction"
        ),
        None => {}
    }
    if tells && (setting("appendonly"), setting("appendfsync")) != (Some("yes"), Some("always")) {
        tracing::warn!(
            redis = link.place(),
            appendonly = setting("appendonly").unwrap_or("unknown"),
            appendfsync = setting("appendfsync").unwrap_or("unknown"),
            "Redis confirms what is not on its disk: state of completed checkpoints may be lost with the server's power, \
             and the job will then refuse to go on; set appendonly yes and appendfsync always"
        );
    }
    Ok(())
}

/// Of one server, or of the nodes of a cluster: the worst counts.
fn read(value: Value) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    gather(value, &mut settings);
    settings
}

fn gather(value: Value, settings: &mut BTreeMap<String, String>) {
    if let Ok(pairs) = redis::from_redis_value::<BTreeMap<String, String>>(value.clone()) {
        for (name, value) in pairs {
            let fine = matches!(value.as_str(), "noeviction" | "yes" | "always");
            if !fine || !settings.contains_key(&name) {
                settings.insert(name, value);
            }
        }
    } else if let Value::Map(nodes) = value {
        for (_, node) in nodes {
            gather(node, settings);
        }
    } else if let Value::Array(nodes) = value {
        for node in nodes {
            gather(node, settings);
        }
    }
}
