//! The public suite; each history is a lineage of its own.
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use tidegate_core::testkit::backend::conformance;
use tidegate_testbed::{
    redis::{Cluster, Options},
    without,
};

use crate::world::{At, server, settings};

fn conforms(settings: &tidegate_core::settings::RedisSettings, cases: u32) {
    let count = AtomicU32::new(0);
    conformance(|| At::new(settings.clone(), &count.fetch_add(1, SeqCst).to_string()), cases);
}

#[test]
fn the_redis_backend_conforms() {
    if without::left_out("redis") {
        return;
    }
    let server = server();
    conforms(&settings(&server.url()), 60);
}

#[test]
fn it_conforms_in_a_cluster() {
    if without::left_out("redis") {
        return;
    }
    let cluster = Cluster::start(&Options::default()).unwrap();
    let urls = cluster.addresses().iter().map(|address| format!("redis://{address}")).collect::<Vec<_>>().join(",");
    let settings = tidegate_core::settings::RedisSettings { cluster: true, ..settings(&urls) };
    conforms(&settings, 10);
}
