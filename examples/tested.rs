//! A job and its tests, in one file: which orders have not been paid within half an hour, and what has been paid late.
//!
//!     cargo run --release --example tested --features testing
//!     cargo test --example tested --features testing
//!
//! The job is a function of streams: here they come from collections, in production from Kafka, in the tests from the tests.
use serde::{Deserialize, Serialize};
use std::{error::Error, time::Duration};
use tidegate::{CoProcessFunction, Collect, Collection, Context, Job, OutputTag, Settings, Stream, Timer, Watermarks};

const HALF_AN_HOUR_MS: i64 = 30 * 60_000;

#[derive(Clone, Debug)]
struct Order {
    id: u32,
    cents: u64,
    at: i64,
}

#[derive(Clone, Debug)]
struct Payment {
    order: u32,
    at: i64,
}

/// An order that has not been paid in time.
#[derive(Clone, Debug, PartialEq)]
struct Unpaid {
    order: u32,
    cents: u64,
}

/// What is known of an order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
enum Known {
    #[default]
    Nothing,
    /// It waits for its payment.
    Ordered { cents: u64 },
    /// The payment was quicker.
    Paid,
    /// It waits for nothing any more.
    GivenUp,
}

#[derive(Clone)]
struct WaitForPayment {
    /// Payments that came when their order had been given up.
    too_late: OutputTag<u32>,
}

impl CoProcessFunction<u32, Order, Payment> for WaitForPayment {
    type State = Known;
    type Output = Unpaid;

    fn left(&mut self, order: Order, known: &mut Known, ctx: &mut Context<'_, u32, Unpaid>) {
        if matches!(known, Known::Paid) {
            return ctx.clear();
        }
        *known = Known::Ordered { cents: order.cents };
        ctx.set_timer(ctx.timestamp() + HALF_AN_HOUR_MS);
    }

    fn right(&mut self, _: Payment, known: &mut Known, ctx: &mut Context<'_, u32, Unpaid>) {
        match known {
            Known::Nothing => {
                *known = Known::Paid;
                // An order that never comes is not waited for longer than one that is not paid.
                ctx.set_timer(ctx.timestamp() + HALF_AN_HOUR_MS);
            }
            Known::GivenUp => ctx.side(&self.too_late, *ctx.key()),
            Known::Ordered { .. } | Known::Paid => ctx.clear(),
        }
    }

    fn on_timer(&mut self, timer: Timer, known: &mut Known, ctx: &mut Context<'_, u32, Unpaid>) {
        match *known {
            Known::Ordered { cents } => {
                ctx.emit(Unpaid { order: *ctx.key(), cents });
                *known = Known::GivenUp;
                let Timer::Event(at) = timer else { return };
                // A day on nobody will pay it.
                ctx.set_timer(at + 24 * 60 * 60_000);
            }
            // It was paid, or is long over.
            _ => ctx.clear(),
        }
    }
}

/// The job: orders that have not been paid, and payments that came too late.
fn unpaid(
    orders: impl Stream<Item = Order>,
    payments: impl Stream<Item = Payment>,
) -> (impl Stream<Item = Unpaid>, impl Stream<Item = u32>) {
    let too_late = OutputTag::new("too late");
    let mut unpaid = orders
        .key_by(|order| order.id)
        .connect(payments.key_by(|payment| payment.order))
        .process("unpaid", WaitForPayment { too_late: too_late.clone() })
        .bounded_by("a day after the order");
    let late = unpaid.side_output(&too_late);
    (unpaid, late)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let orders = [Order { id: 1, cents: 1_999, at: 0 }, Order { id: 2, cents: 500, at: 60_000 }];
    let payments = [Payment { order: 2, at: 120_000 }];
    let (alerts, late) = (Collect::new(), Collect::new());
    let job = Job::new("unpaid-orders", Settings::default());
    let in_time = Watermarks::bounded(Duration::from_secs(60));
    let orders = job.source("orders", Collection::new(orders)).event_time(|order| order.at, in_time.clone());
    let payments = job.source("payments", Collection::new(payments)).event_time(|payment| payment.at, in_time);
    let (unpaid, too_late) = unpaid(orders, payments);
    unpaid.sink("alerts", alerts.clone());
    too_late.sink("late", late.clone());
    job.run().await?;
    println!("not paid: {:?}; paid too late: {:?}", alerts.take(), late.take());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate::{Result, testing::JobHarness};

    const MINUTE: i64 = 60_000;

    async fn job() -> Result<JobHarness> {
        let build = |job: &tidegate::testing::TestJob| {
            let (unpaid, late) = unpaid(job.input("orders"), job.input("payments"));
            job.output("alerts", unpaid);
            job.output("late", late);
        };
        JobHarness::new(build).parallelism(2).start().await
    }

    fn order(job: &JobHarness, id: u32, at: i64) {
        job.input("orders").push(Order { id, cents: 100, at }, at);
    }

    fn payment(job: &JobHarness, order: u32, at: i64) {
        job.input("payments").push(Payment { order, at }, at);
    }

    fn alerts(job: &JobHarness) -> Vec<u32> {
        job.output::<Unpaid>("alerts").take().into_iter().map(|unpaid| unpaid.order).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_is_not_paid_within_half_an_hour_is_told_once() -> Result<()> {
        let mut job = job().await?;
        order(&job, 1, 0);
        job.watermark(30 * MINUTE - 1);
        job.settle().await?;
        assert!(alerts(&job).is_empty());
        job.watermark(30 * MINUTE);
        job.settle().await?;
        assert_eq!(alerts(&job), [1]);
        job.finish().await?;
        assert!(alerts(&job).is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_paid_is_not_told_whichever_comes_first() -> Result<()> {
        let mut job = job().await?;
        order(&job, 1, 0);
        payment(&job, 2, MINUTE);
        job.settle().await?;
        payment(&job, 1, 29 * MINUTE);
        order(&job, 2, 2 * MINUTE);
        job.settle().await?;
        job.watermark(60 * MINUTE);
        job.settle().await?;
        assert!(alerts(&job).is_empty());
        assert_eq!(job.state("unpaid").await?.iter().filter(|e| e.value.to_string().contains("Ordered")).count(), 0);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_that_comes_too_late_goes_aside() -> Result<()> {
        let mut job = job().await?;
        order(&job, 1, 0);
        job.watermark(30 * MINUTE);
        job.settle().await?;
        payment(&job, 1, 31 * MINUTE);
        job.settle().await?;
        assert_eq!(job.output::<u32>("late").take(), [1]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_waits_over_a_restart_at_another_parallelism_and_over_a_kill() -> Result<()> {
        let mut job = job().await?;
        order(&job, 1, 0);
        let snapshot = job.snapshot().await?;
        for parallelism in [1, 3] {
            let mut again = job.restore(&snapshot, parallelism).await?;
            order(&again, 2, MINUTE);
            again.kill(2).await?;
            again.watermark(31 * MINUTE);
            again.settle().await?;
            let mut alerts = alerts(&again);
            alerts.sort_unstable();
            assert_eq!(alerts, [1, 2]);
        }
        Ok(())
    }
}
