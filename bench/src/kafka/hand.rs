//! The hand-written loop of k1: consume a batch, work, produce a batch. No transaction, no checkpoint, no state; on
//! one thread, beside those of librdkafka.
use tidegate::Latency;

use super::{
    Failed, Run,
    batches::{Reader, Writer},
    meter::Meter,
    stand::PARTITIONS,
    work::{Order, in_euros, kept},
};

pub fn run(run: &Run) -> Result<String, Failed> {
    let mut writer = Writer::new(&run.at, &run.output, 5)?;
    let mut reader = Reader::new(&run.at, &run.input, &[0; PARTITIONS], true)?;
    let ends = reader.ends(&run.input, PARTITIONS as i32)?;
    let mut at = [0; PARTITIONS];
    let mut batches = 0;
    let meter = Meter::start();
    while at.iter().zip(&ends).any(|(at, end)| at < end) {
        batches += 1;
        let partition = batches % run.partitions as i32;
        reader.next(10, |message| {
            at[message.partition as usize] = message.offset + 1;
            let order: Order = serde_json::from_slice(message.value).map_err(|e| e.to_string())?;
            match kept(in_euros(order)) {
                Some(payment) => writer.write(partition, |bytes| serde_json::to_writer(bytes, &payment)),
                None => Ok(()),
            }
        })?;
        writer.hand_over()?;
    }
    writer.flush()?;
    Ok(meter.line(run, &[], Latency::default()))
}
