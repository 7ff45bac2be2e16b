//! Operators without state.
use crate::Conformance;
use tidegate::{Stream, testing::TestStream};

#[test]
fn map() {
    Conformance::of(|s: TestStream<u32>| s.map(|n| n * 2))
        .in_order()
        .push(1, 10)
        .emits_at(2, 10)
        .push(2, 5)
        .emits_at(4, 5)
        .watermark(20)
        .push(3, 15)
        .emits_at(6, 15)
        .end()
        .run();
}

#[test]
fn filter() {
    Conformance::of(|s: TestStream<u32>| s.filter(|n| n % 2 == 0))
        .in_order()
        .push(1, 10)
        .push(2, 20)
        .emits_at(2, 20)
        .push(4, 30)
        .emits_at(4, 30)
        .push(5, 40)
        .end()
        .run();
}

#[test]
fn filter_map() {
    Conformance::of(|s: TestStream<&'static str>| s.filter_map(|text| text.parse::<u8>().ok()))
        .in_order()
        .push("1", 10)
        .emits_at(1u8, 10)
        .push("one", 20)
        .push("256", 30)
        .push("255", 40)
        .emits_at(255u8, 40)
        .run();
}

#[test]
fn flat_map() {
    Conformance::of(|s: TestStream<&'static str>| s.flat_map(|line| line.split(' ')))
        .in_order()
        .push("a b c", 10)
        .emits_at("a", 10)
        .emits_at("b", 10)
        .emits_at("c", 10)
        .push("d", 5)
        .emits_at("d", 5)
        .run();
}

#[test]
fn try_map() {
    Conformance::of(|s: TestStream<&'static str>| s.try_map(str::parse::<u8>))
        .in_order()
        .push("1", 10)
        .emits_at(1u8, 10)
        .push("2", 5)
        .emits_at(2u8, 5)
        .run();
}

#[test]
fn inspect() {
    Conformance::of(|s: TestStream<u32>| s.inspect(|_| {}))
        .in_order()
        .push(1, 10)
        .emits_at(1, 10)
        .push(2, 5)
        .emits_at(2, 5)
        .run();
}

#[test]
fn union_of_two_inputs() {
    Conformance::of_job(|job| {
        let both = job.input::<u32>("a").union(job.input::<u32>("b"));
        job.output("output", both.map(|n| n + 1));
    })
    .push_to("a", 1u32, 10)
    .emits(2)
    .push_to("b", 10u32, 5)
    .emits(11)
    .watermark_of::<u32>("a", 100)
    .push_to("b", 20u32, 50)
    .emits(21)
    .end()
    .run();
}

#[test]
fn boxed_with_several_consumers() {
    Conformance::of_job(|job| {
        let numbers = job.input::<u32>("input").boxed();
        job.output("even", numbers.clone().filter(|n| n % 2 == 0));
        job.output("odd", numbers.clone().filter(|n| n % 2 == 1));
        job.output("all", numbers.clone().union(numbers));
    })
    .push_to("input", 1u32, 10)
    .emits_to("odd", 1)
    .emits_to("all", 1)
    .emits_to("all", 1)
    .push_to("input", 2u32, 20)
    .emits_to("even", 2)
    .emits_to("all", 2)
    .emits_to("all", 2)
    .end()
    .run();
}
