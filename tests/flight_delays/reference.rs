//! What must come out: the same figures from a plain loop over the lines of the file.
//!
//! The hard case is lateness. It is a function of the data alone: after every 100 rows the watermark becomes
//! the newest event time less 2 h and 1 ms, and a row whose hour the watermark has passed is late.
use std::{collections::BTreeMap, fs, path::PathBuf};

const HOUR_MS: i64 = 3_600_000;
pub const DELAYS_HEADER: &str = "origin,window_start,flights,cancelled,mean_delay,max_delay";

/// The input that the program has by default.
pub fn input() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("examples/data/flights-2013-01.csv")
}

/// Lines of the output, sorted.
#[derive(Debug, PartialEq)]
pub struct Expected {
    pub header: String,
    pub delays: Vec<String>,
    pub late: Vec<String>,
}

#[derive(Default)]
struct Hour {
    flights: u32,
    delays: Vec<i32>,
}

/// Of the bundled file.
pub fn expected() -> Expected {
    of(&fs::read_to_string(input()).unwrap())
}

pub fn of(text: &str) -> Expected {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = |name: &str| header.split(',').position(|c| c == name).unwrap();
    let (origin, hour, minute) = (column("origin"), column("time_hour"), column("minute"));
    let dep_delay = column("dep_delay");

    // By the text of the hour: it is where its window begins.
    let mut hours = BTreeMap::<(&str, &str), Hour>::new();
    let (mut late, mut watermark, mut newest) = (Vec::new(), i64::MIN, i64::MIN);
    for (n, line) in lines.enumerate() {
        let row: Vec<&str> = line.split(',').collect();
        let at = ms(row[hour]) + row[minute].parse::<i64>().unwrap() * 60_000;
        let start = at - at % HOUR_MS;
        assert_eq!(start, ms(row[hour]), "a window begins at the full hour");
        if start + HOUR_MS - 1 <= watermark {
            late.push(line.to_owned());
        } else {
            let window = hours.entry((row[hour], row[origin])).or_default();
            window.flights += 1;
            window.delays.extend((row[dep_delay] != "NA").then(|| row[dep_delay].parse::<i32>().unwrap()));
        }
        newest = newest.max(at);
        if (n + 1) % 100 == 0 {
            watermark = newest - 2 * HOUR_MS - 1;
        }
    }
    let row = |((start, origin), hour): (&(&str, &str), &Hour)| {
        let (left, sum) = (hour.delays.len(), hour.delays.iter().sum::<i32>());
        let mean = if left == 0 { String::new() } else { format!("{:.2}", f64::from(sum) / left as f64) };
        let max = hour.delays.iter().max().map(ToString::to_string).unwrap_or_default();
        format!("{origin},{start},{},{},{mean},{max}", hour.flights, hour.flights as usize - left)
    };
    let mut delays: Vec<String> = hours.iter().map(row).collect();
    delays.sort();
    late.sort();
    Expected { header: header.to_owned(), delays, late }
}

/// `2013-01-01T10:00:00Z` in milliseconds since 1970.
fn ms(time: &str) -> i64 {
    let number = |range: std::ops::Range<usize>| time.get(range).unwrap().parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let leap = |y: i64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
    let years: i64 = (1970..year).map(|y| 365 + i64::from(leap(y))).sum();
    let february = 28 + i64::from(leap(year));
    let months: i64 = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30][..month as usize - 1].iter().sum();
    let seconds = ((years + months + day - 1) * 24 + number(11..13)) * 3600 + number(14..16) * 60 + number(17..19);
    seconds * 1000
}

#[test]
fn the_reference_says_what_can_be_seen_by_hand() {
    assert_eq!((ms("1970-01-01T00:00:00Z"), ms("2013-01-01T10:00:00Z")), (0, 1_357_034_400_000));
    let row = |hour: u32, minute: u32, delay: &str| format!("A,2013-03-01T{hour:02}:00:00Z,{minute},{delay}\n");
    let mut text = String::from("origin,time_hour,minute,dep_delay\n");
    text += &row(5, 0, "NA");
    text += &row(5, 59, "-3");
    text += &row(5, 30, "4");
    // The hundredth row moves the watermark to 05:59:59.998: just not enough for the window from 5 to 6.
    text += &row(6, 0, "1").repeat(96);
    text += &row(7, 59, "0");
    text += &row(5, 1, "10");
    assert_eq!(
        of(&text).delays,
        [
            "A,2013-03-01T05:00:00Z,4,1,3.67,10",
            "A,2013-03-01T06:00:00Z,96,0,1.00,1",
            "A,2013-03-01T07:00:00Z,1,0,0.00,0"
        ]
    );
    // The two-hundredth takes it past the end.
    text += &row(8, 0, "NA").repeat(99);
    text += &row(5, 2, "99");
    let expected = of(&text);
    assert_eq!(expected.late, ["A,2013-03-01T05:00:00Z,2,99"]);
    assert!(expected.delays.contains(&"A,2013-03-01T08:00:00Z,99,99,,".to_owned()), "{expected:?}");
}
