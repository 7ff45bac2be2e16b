//! What the runs stand on: a broker, filled topics, clients as processes, and a look at what they have written.
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use tidegate_testbed::kafka::Broker;

use super::{
    Failed, Run,
    batches::{Reader, Writer},
    work::{Rows, made_up, numbered},
};

/// Of the orders, and of what comes out where nothing else is asked for.
pub const PARTITIONS: usize = 2;

pub struct Stand {
    pub broker: Broker,
    topics: u32,
}

/// What stands in an output topic.
pub struct Output {
    pub rows: Rows,
    /// When the broker has appended each row, in ms since 1970, in order.
    pub appended_ms: Vec<i64>,
}

impl Stand {
    pub fn new() -> Result<Self, Failed> {
        eprintln!("starting a broker");
        Ok(Self { broker: Broker::start()?, topics: 0 })
    }

    pub fn servers(&self) -> &str {
        self.broker.bootstrap()
    }

    /// A new topic. The broker stamps its records when it appends them.
    pub fn topic(&mut self, what: &str, partitions: usize) -> Result<String, Failed> {
        self.topics += 1;
        let name = format!("{what}-{}", self.topics);
        let settings = [("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")];
        self.broker.judge()?.create_topic(&name, partitions as i32, &settings)?;
        Ok(name)
    }

    /// Writes orders, as many to each partition.
    pub fn fill(&self, topic: &str, events: u64) -> Result<(), Failed> {
        eprintln!("writing {events} orders");
        let mut writer = Writer::new(self.servers(), topic, 5)?;
        for n in 0..events {
            let (partition, order) = numbered(n, made_up(n));
            writer.write(partition, |bytes| serde_json::to_writer(bytes, &order))?;
            if writer.buffered() == 1024 {
                writer.hand_over()?;
            }
        }
        writer.flush()
    }

    /// Reads a topic as far as transactions have been committed.
    pub fn output(&self, topic: &str, partitions: usize) -> Result<Output, Failed> {
        let mut reader = Reader::new(self.servers(), topic, &vec![0; partitions], true)?;
        let ends = reader.ends(topic, partitions as i32)?;
        let mut found = Output { rows: Rows::default(), appended_ms: Vec::new() };
        let (mut at, mut idle) = (vec![0; partitions], 0);
        // Behind the last row there is a marker, which nobody sees.
        while at.iter().zip(&ends).any(|(at, end)| at + 1 < *end) && idle < 20 {
            idle += 1;
            reader.next(100, |row| {
                idle = 0;
                at[row.partition as usize] = row.offset + 1;
                found.rows.add(row.value);
                found.appended_ms.push(row.timestamp_ms);
                Ok(())
            })?;
        }
        found.appended_ms.sort_unstable();
        Ok(found)
    }
}

impl Output {
    /// The longest times in which nothing was appended, in ms, longest first. The start does not count.
    pub fn gaps_ms(&self) -> Vec<i64> {
        let mut gaps: Vec<_> = self.appended_ms.windows(2).map(|pair| pair[1] - pair[0]).collect();
        gaps.sort_unstable_by(|a, b| b.cmp(a));
        gaps.truncate(10);
        gaps
    }
}

/// Puts a profiler in front of a client: `TIDEGATE_BENCH_UNDER="perf record -g -o %.data"`, where `%` is the job's
/// name.
const UNDER: &str = "TIDEGATE_BENCH_UNDER";

/// Starts a client.
pub fn spawn(run: &Run) -> Result<Child, Failed> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let under = std::env::var(UNDER).unwrap_or_default().replace('%', &run.job);
    let mut words = under.split_whitespace();
    let mut command = match words.next() {
        None => Command::new(program),
        Some(profiler) => {
            let mut command = Command::new(profiler);
            command.args(words).arg(program);
            command
        }
    };
    command.arg("client").arg(serde_json::to_string(run).map_err(|e| e.to_string())?);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())
}

/// Waits for a client's end, and for what it says of itself. An endless one is told to end.
pub fn finish(client: Child) -> Result<Value, Failed> {
    let output = client.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("the client has failed: {}", output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}
