#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Wait, ring};

/// Long enough that only a lost wake-up meets it.
const FOREVER: Duration = Duration::from_secs(100);

#[test]
fn bytes_and_tag_arrive_and_blocks_come_back_last_first() {
    let (mut producer, mut consumer) = ring(16, 3, Vec::<u32>::new).unwrap();
    let mut block = producer.claim().unwrap();
    block.tag.push(7);
    block.bytes_mut()[..5].copy_from_slice(b"hello");
    block.set_filled(5);
    let address = block.bytes().as_ptr();
    producer.publish(block);
    assert_eq!(
        (
            producer.in_flight_bytes(),
            producer.high_water_bytes(),
            producer.idle()
        ),
        (5, 5, false)
    );
    let block = consumer.take().unwrap();
    assert!(producer.idle());
    assert_eq!(
        (&block.bytes()[..block.filled()], &block.tag[..]),
        (&b"hello"[..], &[7][..])
    );
    assert!(consumer.take().is_none());
    consumer.recycle(block);
    assert_eq!(
        (producer.in_flight_bytes(), producer.high_water_bytes()),
        (0, 5)
    );
    let block = producer.claim().unwrap();
    assert_eq!(
        (block.bytes().as_ptr(), block.filled()),
        (address, 0),
        "the block used last is still warm"
    );
    assert_eq!(block.tag, [7], "tags are kept, with what they allocated");
}

#[test]
fn capacity_is_what_was_asked_for() {
    let (mut producer, mut consumer) = ring(8, 3, || ()).unwrap();
    for _ in 0..3 {
        let block = producer.claim().unwrap();
        producer.publish(block);
    }
    assert!(producer.claim().is_none());
    assert!(producer.claim_timeout(Duration::from_millis(1)).is_none());
    let block = consumer.take().unwrap();
    consumer.recycle(block);
    assert!(producer.claim().is_some());
}

#[test]
fn impossible_rings_are_errors() {
    for (block_bytes, blocks) in [(0, 1), (1, 0), (usize::MAX, 2)] {
        assert!(ring(block_bytes, blocks, || ()).is_err());
    }
}

#[test]
fn filled_never_exceeds_the_block() {
    let (mut producer, _consumer) = ring(8, 1, || ()).unwrap();
    let mut block = producer.claim().unwrap();
    block.set_filled(9);
    assert_eq!(block.filled(), 8);
}

#[test]
fn waiting_honours_bytes_flush_and_close() {
    let (mut producer, mut consumer) = ring(8, 4, || ()).unwrap();
    assert_eq!(consumer.wait(1, Duration::ZERO), Wait::Timeout);
    let mut block = producer.claim().unwrap();
    block.set_filled(8);
    producer.publish(block);
    assert_eq!(consumer.wait(9, Duration::from_millis(1)), Wait::Timeout);
    assert_eq!(consumer.wait(8, Duration::ZERO), Wait::Ready);
    producer.flush();
    assert_eq!(
        consumer.wait(9, FOREVER),
        Wait::Ready,
        "a flush is answered"
    );
    assert_eq!(consumer.wait(9, Duration::ZERO), Wait::Timeout, "once");
    producer.close();
    assert_eq!(consumer.wait(9, FOREVER), Wait::Ready, "a block is left");
    consumer.take().unwrap();
    assert_eq!(consumer.wait(1, FOREVER), Wait::Closed);
}

#[test]
fn out_of_blocks_wakes_a_consumer_that_waits_for_more_than_there_is() {
    let (mut producer, mut consumer) = ring(8, 2, || ()).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..100 {
                let mut block = producer.claim_timeout(FOREVER).expect("a block comes back");
                block.set_filled(8);
                producer.publish(block);
            }
        });
        let mut taken = 0;
        while consumer.wait(1 << 20, FOREVER) != Wait::Closed {
            while let Some(block) = consumer.take() {
                taken += 1;
                consumer.recycle(block);
            }
        }
        assert_eq!(taken, 100);
    });
}

#[test]
fn ends_that_go_away_are_noticed() {
    let (mut producer, consumer) = ring(8, 1, || ()).unwrap();
    let block = producer.claim().unwrap();
    producer.publish(block);
    let waiting = thread::spawn(move || {
        (
            producer.claim_timeout(FOREVER).is_none(),
            producer.consumer_gone(),
        )
    });
    drop(consumer);
    assert_eq!(waiting.join().unwrap(), (true, true));

    let (producer, mut consumer) = ring(8, 1, || ()).unwrap();
    let waiting = thread::spawn(move || consumer.wait(1, FOREVER));
    drop(producer);
    assert_eq!(waiting.join().unwrap(), Wait::Closed);
}

#[test]
fn blocks_outlive_both_ends_and_every_tag_is_dropped_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let (mut producer, mut consumer) = ring(8, 4, || Counted(Arc::clone(&dropped))).unwrap();
    for _ in 0..3 {
        let mut block = producer.claim().unwrap();
        block.bytes_mut().fill(3);
        producer.publish(block);
    }
    let kept = consumer.take().unwrap();
    let back = consumer.take().unwrap();
    consumer.recycle(back);
    drop(consumer);
    drop(producer);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
    assert_eq!(kept.bytes(), [3; 8]);
    drop(kept);
    assert_eq!(dropped.load(Ordering::Relaxed), 4);
}

#[test]
fn blocks_of_another_ring_are_not_let_in() {
    let (mut one, _consumer) = ring(8, 1, || ()).unwrap();
    let (mut other, mut consumer) = ring(8, 1, || ()).unwrap();
    other.publish(one.claim().unwrap());
    assert!(consumer.take().is_none());
    let (mut third, _other_consumer) = ring(8, 1, || ()).unwrap();
    consumer.recycle(third.claim().unwrap());
    assert!(other.claim().is_some());
    assert!(other.claim().is_none());
}

/// Two threads, blocks of random fill, random waits, the consumer holding some blocks for a while: every byte
/// arrives, in order.
#[test]
fn two_threads_lose_nothing() {
    let blocks = if cfg!(miri) { 60 } else { 200_000 };
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut producer, mut consumer) = ring(64, 7, || 0_u64).unwrap();
    let reader = thread::spawn(move || {
        let (mut hash, mut count, mut held) = (0_u64, 0_u64, Vec::new());
        loop {
            let wait = consumer.wait(1 + (count % 300) as usize, FOREVER);
            while let Some(block) = consumer.take() {
                assert_eq!(block.tag, count, "in order");
                count += 1;
                for byte in &block.bytes()[..block.filled()] {
                    hash = hash.wrapping_mul(31).wrapping_add(u64::from(*byte));
                }
                held.push(block);
                if held.len() == 5 {
                    held.drain(..)
                        .rev()
                        .for_each(|block| consumer.recycle(block));
                }
            }
            held.drain(..).for_each(|block| consumer.recycle(block));
            if wait == Wait::Closed {
                return (count, hash);
            }
            assert_eq!(wait, Wait::Ready);
        }
    });
    let mut hash = 0_u64;
    for number in 0..blocks {
        let mut block = producer.claim_timeout(FOREVER).expect("a block comes back");
        block.tag = number;
        let filled = (next() % 65) as usize;
        for place in &mut block.bytes_mut()[..filled] {
            let byte = next().to_le_bytes()[3];
            *place = byte;
            hash = hash.wrapping_mul(31).wrapping_add(u64::from(byte));
        }
        block.set_filled(filled);
        producer.publish(block);
        if next() % 1000 == 0 {
            producer.flush();
        }
    }
    drop(producer);
    assert_eq!(reader.join().unwrap(), (blocks, hash));
}
