//! Workload 2 by hand on two threads: each makes half of the events, keeps those whose key it owns, and
//! sends the others over in batches. Event time is kept together: a thread that is ahead waits.
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use std::time::Duration;

use super::windows::Windows;
use crate::{
    events::{Answer, BEGIN_MS, Bid, LAG_MS, WATERMARK_EVERY, Workload, bid},
    measure::fifth,
};

const BATCH: usize = 1024;
const DEPTH: usize = 32;
/// How far one thread may be ahead of the other, in ms of event time.
const LEAD_MS: i64 = 10_000;

enum Message {
    Batch(Vec<Bid>),
    Watermark(i64),
}

struct Peer {
    to: Producer<Message>,
    from: Consumer<Message>,
    give_back: Producer<Vec<Bid>>,
    empties: Consumer<Vec<Bid>>,
    watermark: i64,
}

pub fn two(workload: Workload, events: u64) -> Result<Answer, String> {
    if workload != Workload::W2 {
        return Err("the baseline on two threads is written for w2".into());
    }
    let ((a_to, b_from), (b_to, a_from)) = (RingBuffer::new(DEPTH), RingBuffer::new(DEPTH));
    let ((a_give, b_empties), (b_give, a_empties)) = (RingBuffer::new(2 * DEPTH), RingBuffer::new(2 * DEPTH));
    let before = BEGIN_MS - LAG_MS;
    let a = Peer { to: a_to, from: a_from, give_back: a_give, empties: a_empties, watermark: before };
    let b = Peer { to: b_to, from: b_from, give_back: b_give, empties: b_empties, watermark: before };
    let mut answer = Answer::default();
    std::thread::scope(|scope| {
        let threads = [(0, a), (1, b)].map(|(part, peer)| scope.spawn(move || half(part, events, peer)));
        for thread in threads {
            answer.add(thread.join().map_err(|_| "a thread has panicked".to_owned())?);
        }
        Ok(answer)
    })
}

#[inline(always)]
fn owner(auction: u64) -> u64 {
    auction.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63
}

struct Half {
    windows: Windows,
    answer: Answer,
    peer: Peer,
}

impl Half {
    #[inline]
    fn update(&mut self, batch: &[Bid]) {
        for bid in batch {
            let best = self.windows.table(bid.at_ms).entry(bid.auction).or_default();
            best.0 += 1;
            best.1 = best.1.max(bid.price);
        }
    }

    /// Handles a few messages: whoever drained until nothing is left could be kept at it for ever.
    fn drain(&mut self) -> bool {
        for turn in 0..4 {
            match self.peer.from.pop() {
                Err(_) => return turn > 0,
                Ok(Message::Watermark(watermark)) => self.peer.watermark = watermark,
                Ok(Message::Batch(mut batch)) => {
                    self.update(&batch);
                    batch.clear();
                    // A full ring means that the buffer is not needed.
                    let _ = self.peer.give_back.push(batch);
                }
            }
        }
        true
    }

    fn drain_or_wait(&mut self) {
        if !self.drain() {
            std::thread::park_timeout(Duration::from_micros(20));
        }
    }

    fn send(&mut self, mut message: Message) {
        while let Err(PushError::Full(refused)) = self.peer.to.push(message) {
            message = refused;
            self.drain_or_wait();
        }
    }

    fn send_batch(&mut self, batch: &mut Vec<Bid>) {
        if !batch.is_empty() {
            let empty = self.peer.empties.pop().unwrap_or_else(|_| Vec::with_capacity(BATCH));
            self.send(Message::Batch(std::mem::replace(batch, empty)));
        }
    }

    fn fire(&mut self, watermark: i64) {
        let answer = &mut self.answer;
        self.windows.advance(watermark, |v| answer.row(v.0, v.1));
    }
}

fn half(part: u64, events: u64, peer: Peer) -> Answer {
    let mut half = Half { windows: Windows::default(), answer: Answer::default(), peer };
    let count = events / 2 + u64::from(part < events % 2);
    let (mut mine, mut theirs) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
    let (mut watermark, mut fired) = (i64::MIN, i64::MIN);
    let mut made = 0;
    while made < count {
        while watermark > half.peer.watermark.saturating_add(LEAD_MS) {
            half.drain_or_wait();
        }
        let end = (made + BATCH as u64).min(count).min((made / WATERMARK_EVERY + 1) * WATERMARK_EVERY);
        if (made..end).contains(&(count / 5)) {
            fifth();
        }
        for i in made..end {
            let bid = bid(part + 2 * i);
            if owner(bid.auction) == part {
                mine.push(bid);
            } else {
                theirs.push(bid);
                if theirs.len() == BATCH {
                    half.send_batch(&mut theirs);
                }
            }
        }
        made = end;
        half.update(&mine);
        mine.clear();
        if made % WATERMARK_EVERY == 0 || made == count {
            half.send_batch(&mut theirs);
            watermark = if made == count { i64::MAX } else { bid(part + 2 * (made - 1)).at_ms - LAG_MS };
            half.send(Message::Watermark(watermark));
        }
        half.drain();
        let both = watermark.min(half.peer.watermark);
        if both > fired {
            fired = both;
            half.fire(both);
        }
    }
    while half.peer.watermark != i64::MAX {
        half.drain_or_wait();
    }
    half.fire(i64::MAX);
    half.answer
}
