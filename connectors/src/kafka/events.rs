//! What a client says by itself: log lines, errors, failed deliveries, statistics.
//!
//! While a broker is down librdkafka says so thousands of times: one line a second and kind is enough. The hard
//! case is a delivery that fails without anybody waiting for it: it is kept, and whoever drains must look.
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tidegate_core::{
    connect::Figure,
    env::{Instant, now},
    properties::Properties,
};

use super::{
    client::lock,
    statistics::{Latest, OnStatistics},
};

/// The context of a client.
#[derive(Debug)]
pub(super) struct Events {
    properties: Arc<Properties>,
    /// What figures name the client by.
    client: String,
    on_statistics: Option<OnStatistics>,
    statistics: Mutex<Latest>,
    /// Whether `fault` is set: cheap to ask.
    failed: AtomicBool,
    /// The first delivery that has failed, or the client's end.
    fault: Mutex<Option<KafkaError>>,
    said: Mutex<Option<(KafkaError, Instant)>>,
    /// The last error and its reason; that brokers do not let the client in explains more than what comes after.
    heard: Mutex<Option<(KafkaError, String)>>,
    /// How often something was wrong: a connection that broke, a broker that is down.
    disturbances: AtomicU64,
}

const SAY_EVERY: Duration = Duration::from_secs(1);

impl Events {
    pub(super) fn new(properties: Arc<Properties>, client: &str, on_statistics: Option<OnStatistics>) -> Self {
        Self {
            properties,
            client: client.to_owned(),
            on_statistics,
            statistics: Mutex::default(),
            failed: AtomicBool::new(false),
            fault: Mutex::default(),
            said: Mutex::default(),
            heard: Mutex::default(),
            disturbances: AtomicU64::new(0),
        }
    }

    /// How the client is: what it has complained of, and what is known from its last statistics.
    pub(super) fn figures(&self) -> Vec<Figure> {
        let known = lock(&self.statistics).figures();
        let disturbances = Figure::count("tidegate_kafka_disturbances_total", self.disturbances.load(Relaxed));
        known.into_iter().chain([disturbances]).map(|figure| figure.with("client", &*self.client)).collect()
    }

    /// What was wrong of late, and why.
    pub(super) fn heard(&self) -> Option<(KafkaError, String)> {
        lock(&self.heard).clone()
    }

    /// What has failed so far, if anything.
    pub(super) fn fault(&self) -> Option<KafkaError> {
        if !self.failed.load(Relaxed) {
            return None;
        }
        lock(&self.fault).clone()
    }

    /// The first fault stands: those after it follow from it. But that the producer has been fenced explains more
    /// than that its messages were purged.
    pub(super) fn note_fault(&self, error: KafkaError) {
        let mut fault = lock(&self.fault);
        if fault.is_none() || (is_fenced(&error) && !fault.as_ref().is_some_and(is_fenced)) {
            *fault = Some(error);
        }
        self.failed.store(true, Relaxed);
    }
}

/// Whether a newer producer of the same id has taken over.
pub(super) fn is_fenced(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{Fenced, InvalidProducerEpoch, ProducerFenced};
    matches!(error.rdkafka_error_code(), Some(Fenced | InvalidProducerEpoch | ProducerFenced))
}

/// Whether brokers do not let the client in, or it does not trust them.
pub(super) fn is_refusal(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let text = self.properties.redact(text);
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::warn!(facility, text, "librdkafka");
            }
            _ => tracing::debug!(facility, text, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.disturbances.fetch_add(1, Relaxed);
        if is_fenced(&error) || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.note_fault(error.clone());
        }
        let mut heard = lock(&self.heard);
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)
            && (is_refusal(&error) || !heard.as_ref().is_some_and(|(error, _)| is_refusal(error)))
        {
            *heard = Some((error.clone(), self.properties.redact(reason)));
        }
        drop(heard);
        let mut said = lock(&self.said);
        if said.as_ref().is_none_or(|(last, at)| *last != error || now().duration_since(*at) >= SAY_EVERY) {
            tracing::warn!(%error, reason = self.properties.redact(reason), "Kafka");
            *said = Some((error, now()));
        }
    }

    fn stats_raw(&self, json: &[u8]) {
        *lock(&self.statistics) = Latest::Raw(json.to_vec());
        if let Some(listener) = &self.on_statistics {
            listener.hear(&self.client, &self.properties.redact(&String::from_utf8_lossy(json)));
        }
    }
}

impl ConsumerContext for Events {}

impl ProducerContext for Events {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.note_fault(error.clone());
        }
    }
}
