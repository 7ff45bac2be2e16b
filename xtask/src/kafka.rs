//! A real Kafka broker for trying jobs on. Nobody who tries something wants to install a server first, nor to find
//! its data later: so it is the one of the tests, on a given port, and it goes with this process. The hard case
//! is the Ctrl-C: it ends this process without a word, and the broker, which notices, removes its own folder.
use tidegate_testbed::kafka::Broker;

use crate::Failed;

const PORT: u16 = 9092;

/// What was asked for.
#[derive(Debug, PartialEq)]
pub struct Asked {
    pub port: u16,
    /// Names, and how many partitions.
    pub topics: Vec<(String, i32)>,
}

pub fn asked(options: &[String]) -> Result<Asked, Failed> {
    let mut asked = Asked { port: PORT, topics: Vec::new() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().ok_or_else(|| format!("{option} needs a value"));
        match option.as_str() {
            "--port" => {
                let value = value()?;
                let port = value.parse().ok().filter(|port| *port > 0);
                asked.port = port.ok_or_else(|| format!("{value:?} is no port"))?;
            }
            "--topic" => {
                let value = value()?;
                let topic = topic(value).ok_or_else(|| format!("{value:?} is not NAME:PARTITIONS, like orders:4"))?;
                asked.topics.push(topic);
            }
            _ => return Err(format!("there is no option {option:?}")),
        }
    }
    Ok(asked)
}

fn topic(text: &str) -> Option<(String, i32)> {
    let (name, partitions) = text.rsplit_once(':')?;
    let partitions = partitions.parse().ok().filter(|partitions| *partitions > 0)?;
    (!name.is_empty()).then(|| (name.to_owned(), partitions))
}

pub fn run(asked: &Asked) -> Result<(), Failed> {
    let broker = Broker::with(|settings| settings.port(asked.port));
    let mut broker = broker.map_err(|why| {
        let hint = if why.contains("is taken") { ": choose another with --port" } else { "" };
        format!("{why}{hint}")
    })?;
    if !asked.topics.is_empty() {
        let judge = broker.judge()?;
        for (name, partitions) in &asked.topics {
            judge.create_topic(name, *partitions, &[])?;
            println!("topic {name}, {partitions} partitions");
        }
    }
    println!("bootstrap servers: {}", broker.bootstrap());
    println!("its log: {}", broker.log().display());
    println!("Ctrl-C ends it, and removes what is in it");
    Err(format!("the broker has ended by itself; the end of its log:\n{}", broker.wait()))
}
