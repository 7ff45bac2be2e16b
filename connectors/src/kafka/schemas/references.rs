//! Avro schemas that name others: types which other subjects have. What is named is put in the place of its name, so
//! that the schema is whole; the library knows references only within one text.
//!
//! The hard case is the namespace. A name without a dot is of the namespace that it stands in, and so would be
//! a type that is moved: it takes its own along. And only the first name becomes the type, those behind it stay
//! names, as a type may be said but once.
//!
//! Schemas that name each other in a long row would be nested deeper than the stack is: it ends where no parser of
//! JSON would follow.
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Levels of a JSON text at most; a deeper one is refused by whoever parses it, here `serde_json`.
const LEVELS_MAX: usize = 128;

/// The schema, with everything in it that it names of `named`, in any order.
pub(super) fn inline(text: &str, named: &[String]) -> Result<String, String> {
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| e.to_string());
    let mut types = BTreeMap::new();
    for text in named {
        let Value::Object(mut schema) = parse(text)? else { return Err("a reference is no named type".into()) };
        let (name, namespace) = own_name(&schema, "").ok_or("a reference is a type without a name")?;
        schema.insert("namespace".into(), namespace.into());
        types.insert(name, Value::Object(schema));
    }
    let mut schema = parse(text)?;
    put(&mut schema, "", &mut types, LEVELS_MAX);
    Ok(schema.to_string())
}

/// A named type's full name and namespace.
fn own_name(schema: &Map<String, Value>, around: &str) -> Option<(String, String)> {
    let name = schema.get("name")?.as_str()?;
    if let Some((namespace, _)) = name.rsplit_once('.') {
        return Some((name.to_owned(), namespace.to_owned()));
    }
    let namespace = schema.get("namespace").and_then(Value::as_str).unwrap_or(around);
    Some((full(name, namespace), namespace.to_owned()))
}

fn full(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn put(schema: &mut Value, namespace: &str, types: &mut BTreeMap<String, Value>, left: usize) {
    let Some(below) = left.checked_sub(1) else { return };
    match schema {
        Value::String(name) => {
            if let Some(named) = types.remove(&full(name, namespace)).or_else(|| types.remove(name)) {
                *schema = named;
                put(schema, namespace, types, left);
            }
        }
        Value::Array(union) => union.iter_mut().for_each(|of| put(of, namespace, types, below)),
        Value::Object(schema) => {
            let namespace = own_name(schema, namespace).map_or_else(|| namespace.to_owned(), |(_, own)| own);
            for part in ["type", "items", "values"] {
                if let Some(part) = schema.get_mut(part) {
                    put(part, &namespace, types, below);
                }
            }
            for field in schema.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(of) = field.get_mut("type") {
                    put(of, &namespace, types, below);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::Schema;

    #[test]
    fn what_is_named_is_said_once_in_its_own_namespace() {
        let order = r#"{"type": "record", "name": "Order", "namespace": "shop", "fields": [
            {"name": "id", "type": "long"},
            {"name": "by", "type": "crm.User"},
            {"name": "to", "type": ["null", "crm.User"]},
            {"name": "items", "type": {"type": "array", "items": "Item"}}]}"#;
        let user = r#"{"type": "record", "name": "crm.User", "fields": [{"name": "mail", "type": "Mail"}]}"#;
        let mail = r#"{"type": "fixed", "name": "Mail", "namespace": "crm", "size": 4}"#;
        let item = r#"{"type": "enum", "name": "Item", "namespace": "shop", "symbols": ["A"]}"#;
        let named = [item, user, mail].map(str::to_owned);
        let whole = inline(order, &named).unwrap();
        let parsed = Schema::parse_str(&whole).unwrap().canonical_form();
        for once in
            [r#""name":"crm.User","type":"record""#, r#""name":"crm.Mail","type":"fixed""#, r#""name":"shop.Item""#]
        {
            assert_eq!(parsed.matches(once).count(), 1, "{once}: {parsed}");
        }
        assert!(parsed.contains(r#"["null","crm.User"]"#), "{parsed}");
        assert!(inline(order, &["3".into()]).is_err());
    }

    #[test]
    fn a_long_row_of_names_is_no_schema_and_ends_no_process() {
        let named: Vec<String> = (0..10_000)
            .map(|n| {
                format!(r#"{{"type": "record", "name": "T{n}", "fields": [{{"name": "f", "type": "T{}"}}]}}"#, n + 1)
            })
            .collect();
        let whole = inline(r#"{"type": "array", "items": "T0"}"#, &named).unwrap();
        assert!(Schema::parse_str(&whole).is_err());
    }
}
