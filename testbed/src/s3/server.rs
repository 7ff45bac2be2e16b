//! One server, in one process and one temporary folder, in which buckets are folders and objects files. It can be killed
//! at any moment, and restarted over the same data on the same port.
use std::{fs, path::Path, sync::Arc, time::Duration};

use super::{ACCESS_KEY, BUCKET, SECRET_KEY, sign};
use crate::{
    Failed,
    http::{self, Proxy, Reply},
    ports,
    process::{self, Folder, Process},
};

const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server of the S3 protocol that is there until it is dropped.
pub struct S3 {
    port: u16,
    proxy: Proxy,
    process: Process,
    folder: Arc<Folder>,
}

impl S3 {
    /// Starts one, on a free port and with one bucket ([`BUCKET`]), and waits until it is ready.
    pub fn start() -> Result<Self, Failed> {
        Self::at(None)
    }

    /// Starts one on a given port; without it, on a free one.
    pub fn at(port: Option<u16>) -> Result<Self, Failed> {
        ports::start(port, 1, |ports| {
            let (port, folder) = (ports[0], Folder::new("s3")?);
            let mut s3 = Self { port, proxy: Proxy::to(port)?, process: Process::new("S3", &folder), folder };
            s3.make_bucket(BUCKET)?;
            s3.restart()?;
            Ok(s3)
        })
    }

    /// Where clients begin. Buckets are part of the path, not of the host.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The way through the [`Proxy`].
    pub fn endpoint_of_proxy(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    /// What answers in the server's place, delays and loses.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The server's process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Its log since it was last started.
    pub fn log(&self) -> &Path {
        self.process.log()
    }

    /// Its folder; the buckets are in `data`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) -> Result<(), Failed> {
        let bucket = self.folder.path().join("data").join(name);
        fs::create_dir_all(&bucket).map_err(|e| format!("{}: {e}", bucket.display()))
    }

    /// Asks the server itself one thing, signed: `GET`, `/bucket?list-type=2`. What is no letter, digit or `-._~/` in a
    /// path or query must be escaped.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, Failed> {
        ask(&self.address(), method, path, headers, body)
    }

    /// Asks through the proxy, once: what a client does that does not try again.
    pub fn ask_through_proxy(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Reply, Failed> {
        ask(&self.proxy.address().to_string(), method, path, headers, body)
    }

    fn done(&self, method: &str, path: &str, body: &[u8]) -> Result<Reply, Failed> {
        let reply = self.ask(method, path, &[], body)?;
        if reply.status < 300 {
            return Ok(reply);
        }
        Err(format!("S3, {method} {path}: {} {}", reply.status, reply.text()))
    }

    /// Writes an object: `/bucket/key`.
    pub fn put(&self, path: &str, body: &[u8]) -> Result<(), Failed> {
        self.done("PUT", path, body).map(drop)
    }

    /// Reads an object.
    pub fn get(&self, path: &str) -> Result<Vec<u8>, Failed> {
        self.done("GET", path, &[]).map(|reply| reply.body)
    }

    /// Removes an object.
    pub fn remove(&self, path: &str) -> Result<(), Failed> {
        self.done("DELETE", path, &[]).map(drop)
    }

    /// The keys of a bucket that begin so, in order: the first thousand.
    pub fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<String>, Failed> {
        let prefix = prefix.replace('/', "%2F");
        let text = self.done("GET", &format!("/{bucket}?list-type=2&prefix={prefix}"), &[])?.text();
        let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        Ok(keys.map(str::to_owned).collect())
    }

    /// Ends it at once (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in good order.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts it over what it has, and waits until it is ready. One that runs is killed before.
    pub fn restart(&mut self) -> Result<(), Failed> {
        let mut command = process::server(super::program()?);
        command.arg("--quiet").arg("--port").arg(self.address()).args(["posix", "data"]);
        command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY).current_dir(self.folder.path());
        self.process.spawn(command)?;
        let address = self.address();
        // Nobody may ask that without a signature, and who says so is there.
        self.process.ready(READY_WITHIN, || http::ask(&address, "GET", "/", &[], &[]).is_ok_and(|r| r.status == 403))
    }

    /// Waits until it ends by itself; says what it said last.
    pub fn wait(&mut self) -> String {
        self.process.wait()
    }
}

fn ask(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, Failed> {
    let signed = sign::headers(method, address, path, body);
    let signed = signed.iter().map(|(name, value)| (*name, value.as_str()));
    let all: Vec<_> = signed.chain(headers.iter().copied()).collect();
    http::ask(address, method, path, &all, body)
}
