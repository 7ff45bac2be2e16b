//! An independent witness: Kafka's own Java clients, in a process of their own. A test that writes with one
//! client library and reads with the same one believes that library about itself; the engine's library is
//! therefore never asked. Nothing but lines of words crosses the pipe (see [`protocol`](super::protocol)).
//!
//! The hard case is the transaction that is left open: its producer lives on in the judge until the test says
//! how it ends, so that a test can look at a topic which nobody can read to its end.
use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    sync::{Mutex, PoisonError},
};

use super::{
    End, Isolation, Offsets, Placed, Read, Record, Transaction,
    jars::Jars,
    protocol::{Words, bytes, record, text},
};
use crate::Failed;

/// How much of its complaints is worth reading, in bytes.
const COMPLAINTS: usize = 3000;

/// Kafka's Java clients, at somebody's service.
pub struct Judge {
    process: Child,
    pipe: Mutex<(BufWriter<ChildStdin>, BufReader<ChildStdout>)>,
    /// What it says beside its replies. The file has no name: nobody need remove it.
    complaints: File,
}

impl Judge {
    /// Starts one. Nothing is asked of the broker before the first request.
    pub fn start(bootstrap: &str) -> Result<Self, Failed> {
        let failed = |e: std::io::Error| format!("a temporary file: {e}");
        let complaints = tempfile::tempfile().map_err(failed)?;
        let mut java = Jars::find()?.program("Judge")?;
        java.arg(bootstrap).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        java.stderr(complaints.try_clone().map_err(failed)?);
        let mut process = java.spawn().map_err(|e| format!("java cannot be started: {e}"))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the judge has no pipes".into());
        };
        let pipe = Mutex::new((BufWriter::new(stdin), BufReader::with_capacity(1 << 18, stdout)));
        Ok(Self { process, pipe, complaints })
    }

    /// Creates a topic, with settings of its own.
    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<(), Failed> {
        let configs: String = configs.iter().map(|(name, value)| format!(" {} {}", text(name), text(value))).collect();
        self.done(&format!("create {} {partitions}{configs}", text(name)))
    }

    /// Gives a topic more partitions: `count` in all.
    pub fn add_partitions(&self, name: &str, count: i32) -> Result<(), Failed> {
        self.done(&format!("grow {} {count}", text(name)))
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) -> Result<(), Failed> {
        self.done(&format!("delete {}", text(name)))
    }

    /// Deletes what is before an offset, as the retention of a topic does.
    pub fn delete_records(&self, topic: &str, partition: i32, before_offset: i64) -> Result<(), Failed> {
        self.done(&format!("truncate {} {partition} {before_offset}", text(topic)))
    }

    /// Writes records outside transactions; says where each of them went.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<Vec<Placed>, Failed> {
        self.write(&format!("produce {} {}", text(topic), records.len()), records)
    }

    /// Writes records outside transactions, compressed: `gzip`, `snappy`, `lz4` or `zstd`.
    pub fn produce_compressed(&self, codec: &str, topic: &str, records: &[Record]) -> Result<Vec<Placed>, Failed> {
        self.write(&format!("compressed {} {} {}", text(codec), text(topic), records.len()), records)
    }

    /// Writes records in a transaction and ends it.
    pub fn produce_transaction(
        &self,
        id: &str,
        topic: &str,
        records: &[Record],
        end: End,
    ) -> Result<Vec<Placed>, Failed> {
        self.write(&format!("transaction {} {} {} {}", text(id), text(topic), records.len(), word(end)), records)
    }

    /// Writes records in a transaction and leaves it open.
    pub fn leave_open_transaction(&self, id: &str, topic: &str, records: &[Record]) -> Result<Vec<Placed>, Failed> {
        self.write(&format!("transaction {} {} {} open", text(id), text(topic), records.len()), records)
    }

    /// Ends a transaction that was left open.
    pub fn end_transaction(&self, id: &str, end: End) -> Result<(), Failed> {
        self.done(&format!("end {} {}", text(id), word(end)))
    }

    /// Fences whoever has a transactional id, and aborts what it has left open.
    pub fn fence(&self, id: &str) -> Result<(), Failed> {
        self.done(&format!("fence {}", text(id)))
    }

    /// Reads a topic from its beginning to where it ends now; in the order of offsets within a partition.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<Read>, Failed> {
        let isolation = match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        };
        self.ask(&format!("read {} {isolation}", text(topic)), &[], |mut words| words.read())
    }

    /// What each partition of a topic has, in their order.
    pub fn offsets(&self, topic: &str) -> Result<Vec<Offsets>, Failed> {
        self.ask(&format!("offsets {}", text(topic)), &[], |mut words| {
            let (partition, earliest) = (words.number()?, words.number()?);
            Ok(Offsets { partition, earliest, last_stable: words.number()?, high_watermark: words.number()? })
        })
    }

    /// Whether a transaction holds back readers of a topic: one that is open, or of whose end not every partition has
    /// been told.
    pub fn has_open(&self, topic: &str) -> Result<bool, Failed> {
        Ok(self.offsets(topic)?.iter().any(|o| o.last_stable < o.high_watermark))
    }

    /// Commits offsets of a group that has no members: pairs of partition and offset.
    pub fn commit_offsets(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Failed> {
        let offsets: String = offsets.iter().map(|(partition, offset)| format!(" {partition} {offset}")).collect();
        self.done(&format!("commit {} {}{offsets}", text(group), text(topic)))
    }

    /// What a group has committed: topic, partition, offset; sorted.
    pub fn group_offsets(&self, group: &str) -> Result<Vec<(String, i32, i64)>, Failed> {
        let mut offsets = self.ask(&format!("group {}", text(group)), &[], |mut words| {
            Ok((words.text()?, words.number()?, words.number()?))
        })?;
        offsets.sort();
        Ok(offsets)
    }

    /// All transactions that the coordinator knows.
    pub fn transactions(&self) -> Result<Vec<Transaction>, Failed> {
        self.ask("transactions", &[], |mut words| {
            Ok(Transaction { id: words.text()?, state: words.word()?.to_owned(), producer_id: words.number()? })
        })
    }

    /// Allows a user operations (as `read`, `describe`) on one resource of a kind (`topic`, `group`,
    /// `transactional_id`, `cluster`), and waits until the broker knows.
    pub fn allow(&self, user: &str, kind: &str, name: &str, operations: &[&str]) -> Result<(), Failed> {
        self.done(&format!("allow {} {kind} {} {}", text(user), text(name), operations.join(" ")))
    }

    /// Makes a user who comes in with SCRAM-SHA-512.
    pub fn create_scram_user(&self, name: &str, password: &str) -> Result<(), Failed> {
        self.done(&format!("scram {} {}", text(name), text(password)))
    }

    /// The node that leads a partition, from 1.
    pub fn leader_of(&self, topic: &str, partition: i32) -> Result<usize, Failed> {
        self.number(&format!("leader {} {partition}", text(topic)))
    }

    /// The node that coordinates the transactions of an id, from 1.
    pub fn coordinator_of(&self, id: &str) -> Result<usize, Failed> {
        self.number(&format!("coordinator {}", text(id)))
    }

    /// The partition to which the Java client sends a key.
    pub fn partition_of(&self, key: &[u8], partitions: i32) -> Result<i32, Failed> {
        self.number(&format!("partition {} {partitions}", bytes(Some(key))))
    }

    fn number<T: std::str::FromStr + Copy>(&self, request: &str) -> Result<T, Failed> {
        let answer = self.ask(request, &[], |mut words| words.number())?;
        answer.first().copied().ok_or_else(|| "the judge says nothing".into())
    }

    fn complaints(&self) -> String {
        let end = self.complaints.metadata().map_or(0, |file| file.len());
        let mut said = vec![0; COMPLAINTS];
        let count = self.complaints.read_at(&mut said, end.saturating_sub(COMPLAINTS as u64)).unwrap_or_default();
        String::from_utf8_lossy(&said[..count]).into_owned()
    }

    fn done(&self, request: &str) -> Result<(), Failed> {
        self.ask(request, &[], |_| Ok(())).map(drop)
    }

    fn write(&self, request: &str, records: &[Record]) -> Result<Vec<Placed>, Failed> {
        self.ask(request, records, |mut words| Ok(Placed { partition: words.number()?, offset: words.number()? }))
    }

    fn ask<T>(
        &self,
        request: &str,
        records: &[Record],
        mut understand: impl FnMut(Words<'_>) -> Result<T, Failed>,
    ) -> Result<Vec<T>, Failed> {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let (to, from) = &mut *pipe;
        let gone = |e: std::io::Error| format!("the judge is gone ({e}) and said last:\n{}", self.complaints());
        writeln!(to, "{request}").map_err(gone)?;
        for each in records {
            to.write_all(record(each).as_bytes()).map_err(gone)?;
        }
        to.flush().map_err(gone)?;
        let (mut answers, mut line) = (Vec::new(), String::new());
        let mut strange = None;
        loop {
            line.clear();
            if from.read_line(&mut line).map_err(gone)? == 0 {
                return Err(gone(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let line = line.trim_end_matches('\n');
            if let Some(data) = line.strip_prefix('+') {
                // Read on in any case: what is left would be taken for the next reply.
                match understand(Words::of(data)) {
                    Ok(answer) => answers.push(answer),
                    Err(why) => strange = strange.or(Some(why)),
                }
            } else if line == "ok" {
                return strange.map_or(Ok(answers), Err);
            } else {
                let (asked, why) = (request.split(' ').next(), line.strip_prefix("error "));
                return Err(format!("the judge's {}: {}", asked.unwrap_or_default(), why.unwrap_or(line)));
            }
        }
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Commit => "commit",
        End::Abort => "abort",
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
