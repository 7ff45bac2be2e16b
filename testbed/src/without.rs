//! Servers that a machine may have to do without: no Go, no Java, no network. A test that cannot have its server fails,
//! or nobody would notice that it tests nothing. It is left out only if the server is named in the variable
//! [`WITHOUT`], and says so. `cargo xtask test --without hdfs,s3` sets it, and says so too, since a runner does
//! not show what tests that pass have to say.
//!
//! ```no_run
//! # fn test() {
//! if tidegate_testbed::without::left_out("hdfs") {
//!     return;
//! }
//! # }
//! ```
use std::env;

/// The variable with the names of what is to be done without, with commas between them.
pub const WITHOUT: &str = "TESTBED_WITHOUT";

/// What can be done without.
pub const SERVERS: [&str; 3] = ["redis", "hdfs", "s3"];

/// Whether a test that needs this server is to be left out.
pub fn left_out(server: &str) -> bool {
    let is_left_out = env::var(WITHOUT).is_ok_and(|names| is_named(server, &names));
    if is_left_out {
        eprintln!("left out: {server} is named in {WITHOUT}");
    }
    is_left_out
}

fn is_named(server: &str, names: &str) -> bool {
    names.split(',').any(|name| name.trim() == server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_is_left_out() {
        assert!(is_named("s3", "s3") && is_named("s3", "hdfs, s3") && is_named("hdfs", "hdfs,s3"));
        assert!(!is_named("s3", "") && !is_named("s3", "s33,redis"));
    }
}
