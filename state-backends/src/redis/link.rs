//! Asking Redis until it answers.
//!
//! Every request is one that may be made twice: a read, or a step that knows its number. So when the line is cut, or no
//! answer comes, it is not necessary to know what has become of the request; it is made again on a new connection, with
//! growing pauses, until `state.redis.give-up-after` is over.
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use std::time::Duration;
use tokio::{sync::Mutex, time::timeout};

use tidegate_checkpoint::error::{Error, Result};
use tidegate_core::{
    env::{Instant, now, sleep},
    settings::RedisSettings,
};

use super::{
    connect::{Connection, Place, failed, may_pass},
    script::{Script, strings},
};

/// A server that is not there when the job starts is no outage to be sat out.
const THERE_WITHIN: Duration = Duration::from_secs(8);
/// Requests that are under way together.
const AT_ONCE: usize = 32;
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Link {
    place: Place,
    give_up_after: Duration,
    line: Mutex<Line>,
}

#[derive(Default)]
struct Line {
    /// So that of all who find it broken only the first one replaces it.
    number: u64,
    connection: Option<Connection>,
    /// The last try, for all who have waited for its outcome.
    failed: Option<(Instant, RedisError)>,
}

impl Link {
    /// Connects.
    pub async fn open(settings: &RedisSettings) -> Result<Self> {
        let place = Place::new(settings)?;
        let give_up_after = settings.give_up_after;
        let link = Self { place, give_up_after, line: Mutex::default() };
        let there_within = THERE_WITHIN.min(give_up_after);
        let ping = redis::cmd("PING");
        match timeout(THERE_WITHIN + PAUSE_MAX, link.until(now() + there_within, &ping)).await {
            Ok(answer) => answer.map(|_| link),
            Err(_) => Err(link.failed(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
        }
    }

    pub fn place(&self) -> &str {
        &self.place.shown
    }

    pub async fn ask(&self, command: &Cmd) -> Result<Value> {
        self.until(now() + self.give_up_after, command).await
    }

    /// Asks every master of a cluster, once; `None`: they do not say.
    pub async fn ask_all(&self, command: Cmd) -> Result<Option<Value>> {
        let (_, mut connection) = self.connected().await.map_err(|e| self.failed(e))?;
        match connection.ask_all(command).await {
            Err(e) if may_pass(&e) => Err(self.failed(e)),
            answer => Ok(answer.ok()),
        }
    }

    /// Runs a script. The server knows it by its hash, unless it is new to it.
    pub async fn run(
        &self,
        script: &Script,
        keys: &[String],
        fill: impl Fn(&mut Cmd) -> &mut Cmd,
    ) -> Result<Vec<String>> {
        let command = |name: &str, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys);
            fill(&mut command);
            command
        };
        let until = now() + self.give_up_after;
        let answer = match self.try_until(until, &command("EVALSHA", &script.hash)).await {
            Err(e) if is_new(&e) => self.until(until, &command("EVAL", script.code)).await?,
            answer => answer.map_err(|e| self.failed(e))?,
        };
        strings(answer)
    }

    async fn until(&self, until: Instant, command: &Cmd) -> Result<Value> {
        self.try_until(until, command).await.map_err(|e| self.failed(e))
    }

    fn failed(&self, error: RedisError) -> Error {
        failed(self.place(), error)
    }

    async fn try_until(&self, until: Instant, command: &Cmd) -> Result<Value, RedisError> {
        let mut pause = PAUSE;
        loop {
            let answer = match self.connected().await {
                Ok((number, mut connection)) => {
                    let answer = connection.ask(command).await;
                    if answer.as_ref().is_err_and(may_pass) {
                        self.broken(number).await;
                    }
                    answer
                }
                Err(e) => Err(e),
            };
            match answer {
                Err(e) if may_pass(&e) && now() + pause < until => {}
                answer => return answer,
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn connected(&self) -> Result<(u64, Connection), RedisError> {
        let asked = now();
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok((line.number, connection.clone()));
        }
        if let Some((_, e)) = line.failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(e.clone());
        }
        match self.place.connect().await {
            Ok(connection) => {
                *line = Line { number: line.number + 1, connection: Some(connection.clone()), failed: None };
                Ok((line.number, connection))
            }
            Err(e) => {
                line.failed = Some((now(), e.clone()));
                Err(e)
            }
        }
    }

    async fn broken(&self, number: u64) {
        let mut line = self.line.lock().await;
        if line.number == number {
            line.connection = None;
        }
    }
}

/// Does it all, several at a time; the results in their order.
pub(super) async fn at_once<T>(work: Vec<BoxFuture<'_, Result<T>>>) -> Result<Vec<T>> {
    stream::iter(work).buffered(AT_ONCE).try_collect().await
}

fn is_new(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
