//! Streams that are split, sampled, throttled, and have side outputs and state of no key, in jobs.
use crate::{
    kit::{Gated, assert_same, end, finished, paused, run, settings, until},
    store::Store,
};
use std::{collections::BTreeSet, time::Duration};
use tidegate::{
    Collect, Job, Kind, Redistribution, SideOutput, Stream,
    extend::env::{now, sleep},
};

const COUNT: u64 = 1_000;

#[test]
fn a_process_function_puts_records_of_other_types_aside_and_each_is_counted() {
    run(async {
        for parallelism in [1, 2] {
            let job = Job::new("sides", settings(parallelism));
            let (source, gate) = Gated::new(COUNT, 2);
            gate.open();
            let (out, threes, fives) = (Collect::new(), Collect::new(), Collect::new());
            let (main, (three, five)) = job.source("numbers", source).process(
                |n, out: &mut Vec<u64>, (three, five): &mut (SideOutput<String>, SideOutput<(u64, u64)>)| {
                    if n % 3 == 0 {
                        three.emit(n.to_string());
                    }
                    if n % 5 == 0 {
                        five.emit((n, n / 5));
                    }
                    out.extend((0..n % 3).map(|_| n));
                },
            );
            main.sink("out", out.clone());
            // Behind a union, so that the two wait for each other.
            let text = five.map(|(n, _)| n.to_string());
            three.clone().union(text).sink("both", fives.clone());
            three.sink("threes", threes.clone());
            let handle = job.start().unwrap();
            until(|| handle.status().state.is_end()).await;
            let metrics = handle.metrics();
            finished(handle).await;
            assert_same(out.take(), (0..COUNT).flat_map(|n| (0..n % 3).map(move |_| n)));
            let of = |divisor: u64| (0..COUNT).filter(move |n| n % divisor == 0).map(|n| n.to_string());
            assert_same(threes.take(), of(3));
            assert_same(fives.take(), of(3).chain(of(5)));
            let sides = metrics.operators.iter().filter(|o| o.operator == "side output").map(|o| o.records_out);
            assert_eq!(sides.collect::<Vec<_>>(), [COUNT.div_ceil(3), COUNT / 5]);
        }
    });
}

#[test]
fn a_split_sends_each_record_one_way_and_counts_it_there() {
    run(async {
        for parallelism in [1, 2] {
            let job = Job::new("split", settings(parallelism));
            let (source, gate) = Gated::new(COUNT, 2);
            gate.open();
            let [a, b, none] = job.source("numbers", source).split(|n| usize::from(n % 4 == 0));
            let outs = [Collect::new(), Collect::new(), Collect::new(), Collect::new()];
            a.sink("a", outs[0].clone());
            none.sink("none", outs[1].clone());
            let (small, large) = b.partition(|n| *n < 100);
            small.sink("small", outs[2].clone());
            large.sink("large", outs[3].clone());
            let handle = job.start().unwrap();
            until(|| handle.status().state.is_end()).await;
            let metrics = handle.metrics();
            finished(handle).await;
            let all: Vec<u64> = (0..COUNT).collect();
            let those = |which: &dyn Fn(u64) -> bool| all.iter().copied().filter(|n| which(*n)).collect::<Vec<_>>();
            let expected =
                [those(&|n| n % 4 != 0), vec![], those(&|n| n % 4 == 0 && n < 100), those(&|n| n % 4 == 0 && n >= 100)];
            for (out, expected) in outs.iter().zip(expected) {
                assert_same(out.take(), expected);
            }
            let branches = metrics.operators.iter().filter(|o| o.operator.starts_with("split "));
            let counts: Vec<_> = branches.map(|o| (o.records_in, o.records_out)).collect();
            assert_eq!(counts, [(750, 750), (250, 250), (0, 0), (25, 25), (225, 225)]);
        }
        let job = Job::new("wrong", settings(1));
        let (source, gate) = Gated::new(COUNT, 1);
        gate.open();
        let [only] = job.source("numbers", source).split(|n| usize::from(*n == 7));
        only.sink("out", Collect::new());
        let e = end(job.start().unwrap()).await.0.unwrap_err();
        assert!(e.kind() == Kind::User && e.to_string().contains("the function says 1, and there are 1"), "{e}");
    });
}

#[test]
fn a_sample_is_of_the_same_keys_each_time_and_of_about_the_fraction() {
    run(async {
        let kept = async |fraction: f64, parallelism: u32| {
            let job = Job::new("sample", settings(parallelism));
            let (source, gate) = Gated::new(20 * COUNT, 2);
            gate.open();
            let out = Collect::new();
            job.source("numbers", source).sample(fraction, |n| n / 2).sink("out", out.clone());
            finished(job.start().unwrap()).await;
            BTreeSet::from_iter(out.take())
        };
        let tenth = kept(0.1, 1).await;
        assert_eq!(tenth, kept(0.1, 3).await);
        assert!((1_700..2_300).contains(&tenth.len()), "{}", tenth.len());
        assert!(tenth.iter().all(|n| tenth.contains(&(n ^ 1))), "a key was torn apart");
        assert!(tenth.is_subset(&kept(0.2, 1).await));
        assert_eq!((kept(0.0, 1).await.len(), kept(1.0, 1).await.len() as u64), (0, 20 * COUNT));
    });
}

/// Killed in the middle of a count, it goes on counting.
#[test]
fn state_of_no_key_comes_back_and_is_dealt_out_or_given_to_all_at_another_parallelism() {
    run(async {
        for (redistribution, after) in [
            (Redistribution::Split, 2),
            (Redistribution::Split, 3),
            (Redistribution::Union, 1),
            (Redistribution::Union, 3),
        ] {
            let store = Store::new();
            let job = |parallelism: u32| {
                let mut job = Job::new("listed", settings(parallelism));
                job.checkpoint_store(store.checkpoints("listed"));
                let (source, gate) = Gated::new(COUNT, 6);
                let out = Collect::new();
                // Of each record how many are known.
                let keep = |known: &mut Vec<u64>, n: u64, out: &mut Vec<(u64, usize)>| {
                    known.push(n);
                    out.push((n, known.len()));
                };
                job.source("numbers", source).process_with_state("keep", redistribution, keep).sink("out", out.clone());
                (job, gate, out)
            };
            let (first, gate, out) = job(2);
            gate.open_to(COUNT / 2);
            let handle = first.start().unwrap();
            until(|| handle.metrics().operator("keep").is_some_and(|o| o.records_in == COUNT / 2)).await;
            handle.checkpoint_now().await.unwrap();
            handle.cancel().await.unwrap();
            assert_eq!(out.take().len() as u64, COUNT / 2);
            let (second, gate, out) = job(after);
            gate.open();
            finished(second.start().unwrap()).await;
            let found = out.take();
            assert_same(found.iter().map(|(n, _)| *n), COUNT / 2..COUNT);
            let mut firsts: Vec<usize> = found.iter().map(|(_, known)| *known).collect();
            firsts.sort_unstable();
            let before = match redistribution {
                Redistribution::Union => COUNT / 2,
                _ => COUNT / 2 / u64::from(after),
            };
            assert!(firsts[0] as u64 > before - 1, "{} of {before}", firsts[0]);
            let most = before + 1 + (COUNT / 2).div_ceil(u64::from(after)) + 6;
            assert!(*firsts.last().unwrap() as u64 <= most, "{firsts:?} of {most}");
        }
    });
}

#[test]
fn every_nth_is_counted_on_across_a_restore() {
    run(async {
        let store = Store::new();
        let mut found = Vec::new();
        for part in 1..=4 {
            let mut job = Job::new("nth", settings(1));
            job.checkpoint_store(store.checkpoints("nth"));
            let (source, gate) = Gated::new(COUNT, 1);
            gate.open_to(if part == 4 { COUNT } else { 133 * part });
            let out = Collect::new();
            job.source("numbers", source).sample_every("nth", 10).sink("out", out.clone());
            let handle = job.start().unwrap();
            if part == 4 {
                finished(handle).await;
            } else {
                until(|| handle.metrics().operator("nth").is_some_and(|o| o.records_in == 133)).await;
                handle.checkpoint_now().await.unwrap();
                handle.cancel().await.unwrap();
            }
            found.extend(out.take());
        }
        assert_eq!(found, (0..COUNT).step_by(10).collect::<Vec<_>>());
    });
}

/// On a paused clock: it jumps when all wait for it, so what the job takes is what the throttle makes it take.
#[test]
fn a_throttle_lets_through_what_it_should_and_no_barrier_waits_for_it() {
    paused(async {
        for parallelism in [1, 2] {
            let job = Job::new("throttle", settings(parallelism));
            let (source, gate) = Gated::new(COUNT, 2);
            gate.open();
            let out = Collect::new();
            job.source("numbers", source).throttle(10.0).sink("out", out.clone());
            let began = now();
            let handle = job.start().unwrap();
            // A burst is of sixty-four at the most, and takes six seconds in one subtask.
            sleep(Duration::from_secs(30)).await;
            for _ in 0..3 {
                let asked = now();
                handle.checkpoint_now().await.unwrap();
                let waited = now().duration_since(asked);
                assert!(waited < Duration::from_secs(1), "a barrier has waited for {waited:?}");
            }
            let so_far = out.len() as u64;
            assert!((300 - 64..=300 + 64 * 2 * u64::from(parallelism)).contains(&so_far), "{so_far} in 30 s");
            finished(handle).await;
            let took = now().duration_since(began).as_secs();
            assert!((COUNT / 10 - 20..=COUNT / 10 + 1).contains(&took), "{took} s");
            assert_same(out.take(), 0..COUNT);
        }
    });
}

#[test]
fn what_is_wrong_with_a_shape_is_told_before_the_start() {
    let refused = |shape: &dyn Fn(tidegate::BoxedStream<u64>), says: &str| {
        let job = Job::new("wrong", settings(1));
        shape(job.source("numbers", Gated::new(1, 1).0).boxed());
        let e = job.explain().unwrap_err();
        assert!(e.kind() == Kind::Config && e.hint_text().is_some() && e.to_string().contains(says), "{e}");
    };
    for fraction in [-0.1, 1.1, f64::NAN] {
        refused(&|s| s.sample(fraction, |n| *n).sink("out", Collect::new()), "a fraction is between 0 and 1");
    }
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(&|s| s.throttle(rate).sink("out", Collect::new()), "is no rate");
    }
    refused(&|s| s.sample_every("none", 0).sink("out", Collect::new()), "would keep nothing");
    refused(&|s| s.split::<_, 2>(|_| 0)[0].clone().sink("out", Collect::new()), "nothing takes the records");
}
