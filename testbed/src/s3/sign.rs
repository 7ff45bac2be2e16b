//! Signature version 4, without which a server of S3 answers nothing: a hash of the request in a canonical form, under a
//! key that is the day's. The hard case is the query, whose parameters must be in order and escaped just so; callers
//! escape them, and here they are sorted.
use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    ACCESS_KEY, REGION, SECRET_KEY,
    hash::{hex, hmac, sha256},
};

/// The headers that a request is to have in addition.
pub(super) fn headers(method: &str, host: &str, path: &str, body: &[u8]) -> [(&'static str, String); 3] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    signed(method, host, path, body, now)
}

fn signed(method: &str, host: &str, path: &str, body: &[u8], now: u64) -> [(&'static str, String); 3] {
    let (date, hash) = (date(now), hex(&sha256(body)));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut query: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
    query.sort();
    let names = "host;x-amz-content-sha256;x-amz-date";
    let request = format!(
        "{method}\n{path}\n{}\nhost:{host}\nx-amz-content-sha256:{hash}\nx-amz-date:{date}\n\n{names}\n{hash}",
        query.join("&")
    );
    let day = &date[..8];
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex(&sha256(request.as_bytes())));
    let first = format!("AWS4{SECRET_KEY}").into_bytes();
    let key = [day, REGION, "s3", "aws4_request"].iter().fold(first, |key, part| hmac(&key, part.as_bytes()).to_vec());
    let signature = hex(&hmac(&key, text.as_bytes()));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}");
    [("x-amz-content-sha256", hash), ("x-amz-date", date), ("authorization", authorization)]
}

fn pair(text: &str) -> String {
    if text.contains('=') { text.to_owned() } else { format!("{text}=") }
}

/// As `20260102T030405Z`. The calendar is counted in years from March, so that the odd day comes last.
fn date(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_767_225_599, "20251231T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn the_order_of_a_query_is_no_part_of_its_signature() {
        let of = |path| signed("GET", "127.0.0.1:1", path, b"", 7);
        assert_eq!(of("/b?list-type=2&prefix=a"), of("/b?prefix=a&list-type=2"));
        assert_eq!(of("/b?uploads"), of("/b?uploads="));
        assert_ne!(of("/b?prefix=a"), of("/b?prefix=b"));
    }
}
