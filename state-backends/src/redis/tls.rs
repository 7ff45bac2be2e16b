//! TLS, and whom it trusts: what the system trusts, or a CA of one's own instead (`state.redis.ca-file`).
//!
//! The library reads the system's certificates for every connection; one's own are read once, when the attempt begins,
//! so that a file that cannot be used is told then and by its setting.
use redis::{Client, ConnectionAddr, ConnectionInfo, TlsCertificates};
use std::{fmt, fs};

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::settings::RedisSettings;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What is trusted instead of what the system trusts, if anything is; the nodes know it afterwards.
pub(super) fn trusted(settings: &RedisSettings, nodes: &mut [ConnectionInfo]) -> Result<Option<TlsCertificates>> {
    if !nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { .. })) {
        return Ok(None);
    }
    // The library takes what the process has. If there is one already, that is the user's choice.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = &settings.ca_file;
    if file.is_empty() {
        return Ok(None);
    }
    let wrong = |why: &dyn fmt::Display| {
        Error::config(format!("state.redis.ca-file = {file:?} cannot be used: {why}"))
            .hint("name a file with the certificate of the CA that the server's is from, in PEM")
    };
    let pem = fs::read(file).map_err(|e| wrong(&e))?;
    // Of a file without any the library makes a client that trusts nobody.
    if !pem.windows(BEGIN.len()).any(|part| part == BEGIN) {
        return Err(wrong(&"it has no certificate in PEM"));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    for node in nodes {
        let client = Client::build_with_tls(node.clone(), certificates.clone()).map_err(|e| wrong(&e))?;
        *node = client.get_connection_info().clone();
    }
    Ok(Some(certificates))
}
