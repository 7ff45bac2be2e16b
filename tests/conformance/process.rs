//! Process functions: state, timers of both kinds of time, side outputs, two inputs, time to live.
use crate::{Conformance, over_both};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidegate::{
    CoProcessFunction, Context, OutputTag, ProcessFunction, Stream, TimeToLive, Timer,
    testing::{TestStream, Way},
};

type Reading = (&'static str, u32);

/// Sums what a key brings; a second after its last record it tells the sum, and begins again.
#[derive(Clone)]
struct Quiet {
    by_the_clock: bool,
    too_high: OutputTag<String>,
}

impl Quiet {
    fn new(by_the_clock: bool) -> Self {
        Self { by_the_clock, too_high: OutputTag::new("too high") }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Heard {
    sum: u32,
    due: Option<i64>,
}

impl ProcessFunction<String, Reading> for Quiet {
    type State = Heard;
    type Output = (String, u32);

    fn process(&mut self, reading: Reading, heard: &mut Heard, ctx: &mut Context<'_, String, (String, u32)>) {
        heard.sum += reading.1;
        let now = if self.by_the_clock { ctx.processing_time() } else { ctx.timestamp() };
        let due = now + 1_000;
        match (heard.due.replace(due), self.by_the_clock) {
            (Some(before), true) => ctx.delete_processing_timer(before),
            (Some(before), false) => ctx.delete_timer(before),
            (None, _) => {}
        }
        if self.by_the_clock {
            ctx.set_processing_timer(due);
        } else {
            ctx.set_timer(due);
        }
        if reading.1 > 100 {
            ctx.side(&self.too_high, format!("{} {}", ctx.key(), reading.1));
        }
    }

    fn on_timer(&mut self, _: Timer, heard: &mut Heard, ctx: &mut Context<'_, String, (String, u32)>) {
        ctx.emit((ctx.key().clone(), heard.sum));
        ctx.clear();
    }
}

#[test]
fn timers_of_event_time() {
    over_both(|| {
        Conformance::of(|s: TestStream<Reading>| {
            s.key_by(|r| r.0.to_owned()).process("quiet", Quiet::new(false)).bounded_by("a second's silence")
        })
        .without(Way::ThreeSplits)
        .push(("a", 1), 0)
        .push(("b", 10), 100)
        .push(("a", 2), 500)
        .watermark(1_099)
        .watermark(1_100)
        .emits_at(("b", 10), 1_100)
        .push(("a", 3), 1_400)
        .watermark(2_399)
        .push(("b", 20), 2_000)
        .watermark(2_400)
        .emits_at(("a", 6), 2_400)
        .push(("a", 5), 3_000)
        .end()
        .emits_at(("b", 20), 3_000)
        .emits_at(("a", 5), 4_000)
    });
}

#[test]
fn timers_of_processing_time() {
    over_both(|| {
        Conformance::of(|s: TestStream<Reading>| {
            s.key_by(|r| r.0.to_owned()).process("quiet", Quiet::new(true)).bounded_by("a second's silence")
        })
        .push(("a", 1), 0)
        .advance(Duration::from_millis(600))
        .push(("a", 2), 0)
        .push(("b", 10), 0)
        .advance(Duration::from_millis(999))
        .advance(Duration::from_millis(1))
        .emits(("a", 3))
        .emits(("b", 10))
        .push(("a", 7), 0)
        .advance(Duration::from_secs(3_600))
        .emits(("a", 7))
    });
}

#[test]
fn side_outputs() {
    over_both(|| {
        Conformance::of_job(|job| {
            let readings = job.input::<Reading>("input").key_by(|r| r.0.to_owned());
            let quiet = Quiet::new(false);
            let too_high = quiet.too_high.clone();
            let mut sums = readings.process("quiet", quiet).bounded_by("a second's silence");
            job.output("too-high", sums.side_output(&too_high));
            job.output("output", sums);
        })
        .push_to("input", ("a", 101u32), 0)
        .emits_to("too-high", "a 101")
        .push_to("input", ("b", 1u32), 10)
        .push_to("input", ("b", 200u32), 20)
        .emits_to("too-high", "b 200")
        .watermark(1_020)
        .emits(("a", 101))
        .emits(("b", 201))
    });
}

#[test]
fn time_to_live() {
    #[derive(Clone)]
    struct Nth;
    impl ProcessFunction<u8, u8> for Nth {
        type State = u32;
        type Output = u32;
        fn process(&mut self, _: u8, n: &mut u32, ctx: &mut Context<'_, u8, u32>) {
            *n += 1;
            ctx.emit(*n);
        }
    }
    let second = Duration::from_secs(1);
    over_both(|| {
        Conformance::of(move |s: TestStream<u8>| {
            s.key_by(|k| *k).process("nth", Nth).time_to_live(TimeToLive::EventTime(second))
        })
        .without(Way::ThreeSplits)
        .push(1, 0)
        .emits(1)
        .push(1, 500)
        .emits(2)
        .watermark(1_400)
        .push(1, 1_450)
        .emits(3)
        .watermark(2_450)
        .push(1, 2_451)
        .emits(1)
        .end()
    });
    over_both(|| {
        Conformance::of(move |s: TestStream<u8>| {
            s.key_by(|k| *k).process("nth", Nth).time_to_live(TimeToLive::ProcessingTime(second))
        })
        .push(1, 0)
        .emits(1)
        .advance(Duration::from_millis(900))
        .push(1, 0)
        .emits(2)
        .advance(Duration::from_millis(900))
        .push(1, 0)
        .emits(3)
        .advance(Duration::from_millis(1_000))
        .push(1, 0)
        .emits(1)
    });
}

/// Tells for each order what has been paid for it by then.
#[derive(Clone)]
struct Paid;
impl CoProcessFunction<u32, (u32, &'static str), (u32, u32)> for Paid {
    type State = u32;
    type Output = (&'static str, u32);
    fn left(&mut self, order: (u32, &'static str), paid: &mut u32, ctx: &mut Context<'_, u32, Self::Output>) {
        ctx.emit((order.1, *paid));
    }
    fn right(&mut self, payment: (u32, u32), paid: &mut u32, _: &mut Context<'_, u32, Self::Output>) {
        *paid += payment.1;
    }
}

#[test]
fn two_connected_streams() {
    over_both(|| {
        Conformance::of_job(|job| {
            let orders = job.input::<(u32, &'static str)>("orders").key_by(|o| o.0);
            let payments = job.input::<(u32, u32)>("payments").key_by(|p| p.0);
            job.output(
                "output",
                orders.connect(payments).process("paid", Paid).bounded_by("the orders that there are"),
            );
        })
        .push_to("orders", (1u32, "early"), 0)
        .emits(("early", 0))
        .settle()
        .push_to("payments", (1u32, 10u32), 0)
        .settle()
        .push_to("orders", (1u32, "paid"), 0)
        .emits(("paid", 10))
        .push_to("orders", (2u32, "another"), 0)
        .emits(("another", 0))
        .settle()
        .push_to("payments", (1u32, 5u32), 0)
        .settle()
        .push_to("orders", (1u32, "more"), 0)
        .emits(("more", 15))
    });
}
