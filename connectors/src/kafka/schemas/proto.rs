//! Which messages the text of a Protobuf schema has, and where: all that a codec must know of it, since the type
//! knows the fields. So this is no parser; it looks for `message Name {` and keeps count.
//!
//! The hard case is what only looks like one: in comments and strings, a field that is called `message`, braces of
//! enums, services and options. A `group` of proto2 is a message. The entries of a map field are messages to
//! `protoc`, but not in the text, and are not counted, as Confluent's Java does not. Nothing here calls itself, and a
//! message deeper than any that could be read is passed over: its place and name grow with the depth, so that a text of
//! nothing but opened messages would take its length squared in memory.

/// Messages in messages that a record may have, by `prost`; `protoc` takes fewer.
const NESTED_MAX: usize = 100;

/// The full name of every message, with its place: the index of the outermost one in the file, and so on.
pub(super) fn messages(text: &str) -> Vec<(Vec<u32>, String)> {
    let (mut found, mut package) = (Vec::new(), String::new());
    // What is open: a message with its place, name and the count of those in it, or something else.
    let mut open: Vec<Option<(Vec<u32>, String, u32)>> = Vec::new();
    let mut outermost = 0;
    // A message whose brace is to come.
    let mut coming = None;
    let tokens = tokens(text);
    for (at, token) in tokens.iter().enumerate() {
        let next = |n: usize| tokens.get(at + n).copied().unwrap_or_default();
        match *token {
            "package" if open.is_empty() && at.checked_sub(1).is_none_or(|before| tokens[before] != "=") => {
                next(1).clone_into(&mut package);
            }
            "message" if next(2) == "{" => coming = Some(next(1)),
            "group" if next(2) == "=" => coming = Some(next(1)),
            "{" => {
                let message = coming.take().filter(|_| open.len() < NESTED_MAX).map(|name| {
                    let around = open.iter_mut().rev().find_map(Option::as_mut);
                    let (mut place, prefix, count) = match around {
                        Some((place, name, count)) => (place.clone(), name.as_str(), count),
                        None => (Vec::new(), package.as_str(), &mut outermost),
                    };
                    place.push(*count);
                    *count += 1;
                    let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
                    found.push((place.clone(), name.clone()));
                    (place, name, 0)
                });
                open.push(message);
            }
            "}" => drop(open.pop()),
            _ => {}
        }
    }
    found
}

/// Names and numbers with their dots, and single signs; without comments and strings.
fn tokens(text: &str) -> Vec<&str> {
    let (mut tokens, mut rest) = (Vec::new(), text);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' | '\'' => string(rest, first),
            c if is_word(c) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(&rest[..length]);
                length
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(&rest[..c.len_utf8()]);
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// The length of the string that a text begins with.
fn string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = r#"
        syntax = "proto3"; // message No {
        /* message No { } */
        package shop.v1;
        import "google/protobuf/timestamp.proto";
        option java_package = "message No { \" }";
        message Order {
            option (x) = { message: "{" };
            enum State { OPEN = 0; }
            message Item { string message = 1; message Tax { int32 group = 1; } }
            oneof kind { string a = 1; int64 b = 2; }
            map<string, int32> counts = 3;
            message Note { }
        }
        enum Color { RED = 0; }
        service Shop { rpc Get (Order) returns (Payment) { option (y) = "}"; } }
        message Payment { repeated group Part = 1 { optional int32 a = 1; } }
    "#;

    #[test]
    fn messages_are_found_where_they_are_and_nowhere_else() {
        let found: Vec<String> = messages(SHOP).into_iter().map(|(place, name)| format!("{place:?} {name}")).collect();
        assert_eq!(
            found,
            [
                "[0] shop.v1.Order",
                "[0, 0] shop.v1.Order.Item",
                "[0, 0, 0] shop.v1.Order.Item.Tax",
                "[0, 1] shop.v1.Order.Note",
                "[1] shop.v1.Payment",
                "[1, 0] shop.v1.Payment.Part",
            ]
        );
        assert_eq!(messages("message A{}message B{}"), [(vec![0], "A".into()), (vec![1], "B".into())]);
    }

    #[test]
    fn any_text_is_looked_through() {
        for text in ["", "{", "}", "message", "message A {", "\"", "/*", "message é { }}}", "'\\", "package"] {
            let _ = messages(text);
        }
        assert_eq!(messages(&"message A {".repeat(100_000)).len(), NESTED_MAX);
    }
}
