//! A real server of the S3 protocol: versitygw over a temporary folder, which keeps what a conditional write promises
//! also among many writers (not every double does). Clients may come through a [`Proxy`](crate::http::Proxy) that
//! answers as an overloaded server does, and loses replies. Requests of a test's own are signed here, so that no client
//! library is its own witness.
//!
//! ```no_run
//! use tidegate_testbed::{http::Fault, s3::S3};
//!
//! let s3 = S3::start()?;
//! s3.proxy().on("PUT /bucket/", 2, Fault::Answer(503));
//! s3.put("/bucket/key", b"text")?;
//! assert_eq!(s3.get("/bucket/key")?, b"text");
//! # Ok::<(), tidegate_testbed::Failed>(())
//! ```
mod hash;
mod server;
mod sign;

use std::path::PathBuf;

pub use self::server::S3;
use crate::{Failed, go};

/// Who may do everything.
pub const ACCESS_KEY: &str = "tidegate";
/// Their secret.
pub const SECRET_KEY: &str = "tidegate-secret";
/// What clients are to believe about where it is.
pub const REGION: &str = "us-east-1";
/// The bucket that is there from the beginning.
pub const BUCKET: &str = "bucket";

const GATEWAY: &str = "v1.8.0";

/// Builds the server, if that was not done: once on a machine, it takes some minutes. Otherwise the first start does so.
pub fn prepare() -> Result<(), Failed> {
    program().map(drop)
}

fn program() -> Result<PathBuf, Failed> {
    go::program("github.com/versity/versitygw/cmd/versitygw", GATEWAY)
}
