//! Real servers for trying jobs on. Nobody who tries something wants to install a server first, nor to find its data
//! later: so they are those of the tests, on a given port, and go with this process. The hard case is the Ctrl-C: it
//! ends this process without a word, and what it has started, which notices, removes its own folder.
use tidegate_testbed::{
    hdfs::{self, Hdfs},
    kafka::Broker,
    redis::{self, Redis},
    s3::{self, S3},
};

use crate::Failed;

/// What was asked for.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub port: u16,
    pub server: Server,
}

#[derive(Debug, PartialEq)]
pub enum Server {
    /// Topics: names, and how many partitions.
    Kafka(Vec<(String, i32)>),
    /// Lines of its configuration.
    Redis(Vec<(String, String)>),
    Hdfs,
    /// Buckets.
    S3(Vec<String>),
}

impl Server {
    /// The one of this name, and its port.
    fn named(name: &str) -> Option<(Self, u16)> {
        Some(match name {
            "kafka" => (Self::Kafka(Vec::new()), 9092),
            "redis" => (Self::Redis(Vec::new()), 6379),
            "hdfs" => (Self::Hdfs, 9000),
            "s3" => (Self::S3(Vec::new()), 7070),
            _ => return None,
        })
    }

    /// Takes one of its own options; false, if it has no such one.
    fn take(&mut self, option: &str, value: &str) -> Result<bool, Failed> {
        match (self, option) {
            (Self::Kafka(topics), "--topic") => {
                topics.push(topic(value).ok_or_else(|| format!("{value:?} is not NAME:PARTITIONS, like orders:4"))?);
            }
            (Self::Redis(lines), "--set") => {
                let line = value.split_once('=').filter(|(name, _)| !name.is_empty());
                let (name, value) = line.ok_or_else(|| format!("{value:?} is not NAME=VALUE, like maxmemory=10mb"))?;
                lines.push((name.to_owned(), value.to_owned()));
            }
            (Self::S3(buckets), "--bucket") => buckets.push(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn topic(text: &str) -> Option<(String, i32)> {
    let (name, partitions) = text.rsplit_once(':')?;
    let partitions = partitions.parse().ok().filter(|partitions| *partitions > 0)?;
    (!name.is_empty()).then(|| (name.to_owned(), partitions))
}

/// Nothing, if there is no such server.
pub fn asked(name: &str, options: &[String]) -> Option<Result<Asked, Failed>> {
    let (server, port) = Server::named(name)?;
    Some(with(Asked { port, server }, options))
}

fn with(mut asked: Asked, options: &[String]) -> Result<Asked, Failed> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let value = options.next();
        if option == "--port" {
            let value = value.ok_or("--port needs a value")?;
            let port = value.parse().ok().filter(|port| *port > 0);
            asked.port = port.ok_or_else(|| format!("{value:?} is no port"))?;
        } else if !asked.server.take(option, value.map_or("", String::as_str))? {
            return Err(format!("there is no option {option:?}"));
        }
    }
    Ok(asked)
}

pub fn run(asked: &Asked) -> Result<(), Failed> {
    let said = match &asked.server {
        Server::Kafka(topics) => kafka(asked.port, topics),
        Server::Redis(lines) => redis(asked.port, lines),
        Server::Hdfs => hdfs(asked.port),
        Server::S3(buckets) => s3(asked.port, buckets),
    };
    let said = said.map_err(|why| {
        let hint = if why.contains("is taken") { ": choose another with --port" } else { "" };
        format!("{why}{hint}")
    })?;
    Err(format!("the server has ended by itself; the end of its log:\n{said}"))
}

fn kafka(port: u16, topics: &[(String, i32)]) -> Result<String, Failed> {
    let mut broker = Broker::with(|settings| settings.port(port))?;
    if !topics.is_empty() {
        let judge = broker.judge()?;
        for (name, partitions) in topics {
            judge.create_topic(name, *partitions, &[])?;
            println!("topic {name}, {partitions} partitions");
        }
    }
    println!("bootstrap servers: {}", broker.bootstrap());
    println!("its log: {}", broker.log().display());
    println!("{END}");
    Ok(broker.wait())
}

fn redis(port: u16, lines: &[(String, String)]) -> Result<String, Failed> {
    let options = redis::Options::default().port(port);
    let options = lines.iter().fold(options, |options, (name, value)| options.set(name, value));
    let mut redis = Redis::start(&options)?;
    println!("address: {}", redis.url());
    println!("look into it: redis-cli -p {port}");
    println!("its log: {}", redis.log().display());
    println!("{END}");
    Ok(redis.wait())
}

fn hdfs(port: u16) -> Result<String, Failed> {
    let mut hdfs = Hdfs::with(&hdfs::Options::default().port(port))?;
    println!("address: {}", hdfs.url());
    println!("look into it: curl '{}'", hdfs.web("/", "op=LISTSTATUS"));
    println!("the logs of its two nodes: {}, {}", hdfs.logs().0.display(), hdfs.logs().1.display());
    println!("{END}");
    Ok(hdfs.wait())
}

fn s3(port: u16, buckets: &[String]) -> Result<String, Failed> {
    let mut s3 = S3::at(Some(port))?;
    for bucket in buckets {
        s3.make_bucket(bucket)?;
    }
    let data = s3.folder().join("data");
    println!(
        "buckets: {}",
        [s3::BUCKET].into_iter().chain(buckets.iter().map(String::as_str)).collect::<Vec<_>>().join(", ")
    );
    println!("for clients that take it from the environment:");
    println!("  export AWS_ENDPOINT={} AWS_ALLOW_HTTP=true AWS_REGION={}", s3.endpoint(), s3::REGION);
    println!("  export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY={}", s3::ACCESS_KEY, s3::SECRET_KEY);
    println!("look into it: ls {}", data.display());
    println!("its log: {}", s3.log().display());
    println!("{END}");
    Ok(s3.wait())
}

const END: &str = "Ctrl-C ends it, and removes what is in it";
