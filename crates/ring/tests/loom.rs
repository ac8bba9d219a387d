//! The ring under loom: every interleaving and every value the memory model allows. `make loom` runs it.
//!
//! loom has no clock: a wait here ends only by a wake-up, so a lost one is a deadlock, which loom reports.

#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use loom::thread;
use tapeline_ring::{Consumer, Wait, ring};

const FOREVER: Duration = Duration::from_secs(1_000_000);

/// Explores all schedules with at most `preemptions` involuntary switches.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

fn drain(consumer: &mut Consumer<u32>, seen: &mut Vec<u32>) {
    while let Some(block) = consumer.take() {
        assert_eq!(block.bytes()[0], block.tag.to_le_bytes()[0]);
        seen.push(block.tag);
        consumer.recycle(block);
    }
}

/// Fewer blocks than hand-overs: both sides sleep, both are woken, blocks go round.
#[test]
fn hand_over_with_reuse() {
    explore(3, || {
        let (mut producer, mut consumer) = ring(1, 1, || 0_u32).unwrap();
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            while consumer.wait(1, FOREVER) != Wait::Closed {
                drain(&mut consumer, &mut seen);
            }
            assert_eq!(seen, [1, 2]);
        });
        for number in 1..=2_u32 {
            let mut block = producer
                .claim_timeout(FOREVER)
                .expect("the consumer is there");
            block.tag = number;
            block.bytes_mut()[0] = number.to_le_bytes()[0];
            block.set_filled(1);
            producer.publish(block);
        }
        drop(producer);
        reader.join().unwrap();
    });
}

/// The second block meets the threshold; whichever publish the wait falls between, it ends.
#[test]
fn threshold_is_met_by_the_second_block() {
    explore(4, || {
        let (mut producer, mut consumer) = ring(1, 2, || 0_u32).unwrap();
        let writer = thread::spawn(move || {
            for number in 1..=2_u32 {
                let mut block = producer.claim().unwrap();
                block.tag = number;
                block.bytes_mut()[0] = number.to_le_bytes()[0];
                block.set_filled(1);
                producer.publish(block);
            }
            producer
        });
        assert_eq!(consumer.wait(2, FOREVER), Wait::Ready);
        let mut seen = Vec::new();
        drain(&mut consumer, &mut seen);
        assert_eq!(seen, [1, 2]);
        drop(writer.join().unwrap());
    });
}

#[test]
fn flush_ends_a_wait_for_more() {
    explore(4, || {
        let (mut producer, mut consumer) = ring(1, 1, || 0_u32).unwrap();
        let writer = thread::spawn(move || {
            let mut block = producer.claim().unwrap();
            block.set_filled(1);
            producer.publish(block);
            producer.flush();
            producer
        });
        assert_eq!(consumer.wait(100, FOREVER), Wait::Ready);
        assert!(consumer.take().is_some());
        drop(writer.join().unwrap());
    });
}

/// A producer out of blocks and a consumer that waits for more than there can be: neither sleeps for good.
#[test]
fn out_of_blocks_is_no_deadlock() {
    explore(2, || {
        let (mut producer, mut consumer) = ring(1, 1, || 0_u32).unwrap();
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            while consumer.wait(100, FOREVER) != Wait::Closed {
                drain(&mut consumer, &mut seen);
            }
            assert_eq!(seen.len(), 2);
        });
        for _ in 0..2 {
            let mut block = producer
                .claim_timeout(FOREVER)
                .expect("the consumer is there");
            block.tag = 0;
            block.set_filled(1);
            producer.publish(block);
        }
        drop(producer);
        reader.join().unwrap();
    });
}

#[test]
fn consumer_that_goes_away_frees_the_producer() {
    explore(4, || {
        let (mut producer, mut consumer) = ring(1, 1, || 0_u32).unwrap();
        let block = producer.claim().unwrap();
        producer.publish(block);
        let reader = thread::spawn(move || drop(consumer.take()));
        assert!(producer.claim_timeout(FOREVER).is_none());
        assert!(producer.consumer_gone());
        reader.join().unwrap();
    });
}
