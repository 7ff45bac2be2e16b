//! How deep a record is, before it is read.
//!
//! The library reads a record by calling itself for what is in it, and knows no end: a schema that refers to itself and
//! a few hundred bytes of a hostile or broken writer end the process, and again after each restart, since an overflow
//! of the stack is no error that a policy for undecodable records could see. So the bytes are walked over first, with
//! the same steps as the library's and nothing kept, down to [`LEVELS_MAX`]. Only records of schemas that can be as
//! deep are: those that refer to themselves, and those that name types in a very long row. That is found out once.
//!
//! The hard case is to be never less deep than the library. It takes what is missing at the end for null and goes on;
//! where a record's first field is the record itself it would go on for ever. Here bytes that end early are an error.
use apache_avro::{
    AvroResult, Schema,
    schema::{InnerDecimalSchema, Name, ResolvedSchema, UuidSchema},
    types::Value,
};
use std::collections::HashMap;

/// Levels of a record: each record, array, map, union, reference and plain value in another is one, so that a link of
/// a list is three. The engine's threads have 2 MB of stack, of which the library takes some 36 kB a level where
/// nothing is optimised (a list of 20 links ended the process), and a tenth of that otherwise.
const LEVELS_MAX: usize = if cfg!(debug_assertions) { 40 } else { 192 };
/// And where another schema is resolved to: the library then looks at all that is in a union twice, so that each level
/// of unions doubles the time.
const RESOLVED_LEVELS_MAX: usize = 40;
/// Items of an array or map: the library takes no more, by the memory for them.
const ITEMS_MAX: usize = apache_avro::util::DEFAULT_MAX_ALLOCATION_BYTES / size_of::<Value>();

/// Measures the records of one schema.
pub(super) struct Depth {
    schema: Schema,
    names: HashMap<Name, Schema>,
}

impl Depth {
    /// Nothing for a schema whose records cannot be too deep.
    pub fn of(schema: &Schema) -> AvroResult<Option<Self>> {
        let resolved = ResolvedSchema::new(schema)?;
        let names = resolved.get_names();
        if levels(schema, names, None, RESOLVED_LEVELS_MAX, &mut HashMap::new()).is_some() {
            return Ok(None);
        }
        let names = names.iter().map(|(name, schema)| (name.clone(), (*schema).clone())).collect();
        Ok(Some(Self { schema: schema.clone(), names }))
    }

    /// # Errors
    /// That a record is too deep, or is none.
    pub fn check(&self, mut record: &[u8], is_resolved: bool) -> Result<(), String> {
        let levels = if is_resolved { RESOLVED_LEVELS_MAX } else { LEVELS_MAX };
        self.pass(&self.schema, None, &mut record, levels)
    }

    /// Passes over a value; `left` levels are allowed.
    fn pass(&self, schema: &Schema, space: Option<&str>, bytes: &mut &[u8], left: usize) -> Result<(), String> {
        let left = left.checked_sub(1).ok_or("it is deeper than any record that is read")?;
        match schema {
            Schema::Null => Ok(()),
            Schema::Boolean => skip(bytes, 1),
            Schema::Int
            | Schema::Long
            | Schema::Enum(_)
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => long(bytes).map(drop),
            Schema::Float => skip(bytes, size_of::<f32>()),
            Schema::Double => skip(bytes, size_of::<f64>()),
            Schema::Bytes | Schema::String | Schema::BigDecimal => text(bytes),
            Schema::Uuid(UuidSchema::Bytes | UuidSchema::String) => text(bytes),
            Schema::Fixed(of) | Schema::Duration(of) | Schema::Uuid(UuidSchema::Fixed(of)) => skip(bytes, of.size),
            Schema::Decimal(of) => match &of.inner {
                InnerDecimalSchema::Bytes => text(bytes),
                InnerDecimalSchema::Fixed(of) => skip(bytes, of.size),
            },
            Schema::Array(of) => blocks(bytes, |bytes| self.pass(&of.items, space, bytes, left)),
            Schema::Map(of) => blocks(bytes, |bytes| {
                text(bytes)?;
                self.pass(&of.types, space, bytes, left)
            }),
            Schema::Union(of) => {
                let which = long(bytes)?;
                let chosen = usize::try_from(which).ok().and_then(|which| of.variants().get(which));
                self.pass(chosen.ok_or_else(|| format!("a union has no variant {which}"))?, space, bytes, left)
            }
            Schema::Record(of) => {
                let name = of.name.fully_qualified_name(space);
                of.fields.iter().try_for_each(|field| self.pass(&field.schema, name.namespace(), bytes, left))
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(space);
                let named = self.names.get(&name).ok_or_else(|| format!("{name} is not in it"))?;
                self.pass(named, name.namespace(), bytes, left)
            }
        }
    }
}

/// How many levels the records of a schema have at most; none for more than `left`, or without end.
fn levels(
    schema: &Schema,
    names: &HashMap<Name, &Schema>,
    space: Option<&str>,
    left: usize,
    known: &mut HashMap<Name, usize>,
) -> Option<usize> {
    let left = left.checked_sub(1)?;
    let below = match schema {
        Schema::Array(of) => levels(&of.items, names, space, left, known)?,
        Schema::Map(of) => levels(&of.types, names, space, left, known)?,
        Schema::Union(of) => {
            of.variants().iter().try_fold(0, |most, of| Some(levels(of, names, space, left, known)?.max(most)))?
        }
        Schema::Record(of) => {
            let name = of.name.fully_qualified_name(space);
            of.fields.iter().try_fold(0, |most, field| {
                Some(levels(&field.schema, names, name.namespace(), left, known)?.max(most))
            })?
        }
        Schema::Ref { name } => {
            let name = name.fully_qualified_name(space);
            if let Some(&levels) = known.get(&*name) {
                (levels <= left).then_some(levels)?
            } else {
                let found = levels(names.get(&*name)?, names, name.namespace(), left, known)?;
                known.insert(name.into_owned(), found);
                found
            }
        }
        _ => 0,
    };
    Some(below + 1)
}

/// The items of an array or map: blocks, each with a count before it, and with its size in bytes where that is negative.
fn blocks(bytes: &mut &[u8], mut item: impl FnMut(&mut &[u8]) -> Result<(), String>) -> Result<(), String> {
    let mut items = 0_usize;
    loop {
        let count = long(bytes)?;
        if count == 0 {
            return Ok(());
        }
        if count < 0 {
            long(bytes)?;
        }
        let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        items = items.saturating_add(count);
        if items > ITEMS_MAX {
            return Err(format!("an array or map has {items} items, more than {ITEMS_MAX}"));
        }
        for _ in 0..count {
            item(bytes)?;
        }
    }
}

/// A text or bytes, with the length before it.
fn text(bytes: &mut &[u8]) -> Result<(), String> {
    let length = long(bytes)?;
    skip(bytes, usize::try_from(length).map_err(|_| format!("a length is {length}"))?)
}

fn skip(bytes: &mut &[u8], length: usize) -> Result<(), String> {
    *bytes = bytes.get(length..).ok_or("it ends early")?;
    Ok(())
}

/// A number: seven bits a byte, the sign last.
fn long(bytes: &mut &[u8]) -> Result<i64, String> {
    let mut number = 0_u64;
    for at in 0..10 {
        let (&byte, rest) = bytes.split_first().ok_or("it ends early")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
        }
    }
    Err("a number has more than ten bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::{GenericSingleObjectReader, from_value};
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct List {
        next: Option<Box<List>>,
    }

    const LIST: &str =
        r#"{"type": "record", "name": "a.List", "fields": [{"name": "next", "type": ["null", "List"]}]}"#;
    /// Links of a list that have as many levels as there may be.
    const LINKS: usize = (LEVELS_MAX - 3) / 3;

    fn depth(schema: &str) -> Option<Depth> {
        Depth::of(&Schema::parse_str(schema).unwrap()).unwrap()
    }

    fn list(links: usize) -> Vec<u8> {
        [vec![2; links], vec![0]].concat()
    }

    #[test]
    fn what_is_as_deep_as_may_be_is_read_on_the_stack_of_a_thread_of_the_engine() {
        depth(LIST).unwrap().check(&list(LINKS), false).unwrap();
        let schema = Schema::parse_str(LIST).unwrap();
        let reader = GenericSingleObjectReader::builder().schema(schema).header(Vec::new()).build().unwrap();
        let read = move || {
            let read = reader.read_value(&mut &list(LINKS)[..]).unwrap();
            let (mut list, mut links) = (from_value::<List>(&read).unwrap(), 0);
            while let Some(next) = list.next {
                (list, links) = (*next, links + 1);
            }
            links
        };
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap();
        assert_eq!(thread.join().unwrap(), LINKS);
    }

    #[test]
    fn what_is_deeper_is_refused_and_a_schema_that_cannot_be_is_not_looked_at() {
        let why = depth(LIST).unwrap().check(&list(1_000_000), false).unwrap_err();
        assert!(why.contains("deeper"), "{why}");
        assert!(depth(LIST).unwrap().check(&list(60), true).is_err(), "it would take for ever");
        assert!(depth(r#"{"type": "array", "items": {"type": "map", "values": "long"}}"#).is_none());
    }

    #[test]
    fn arrays_maps_and_texts_are_passed_over_as_they_are_written() {
        let tree = r#"{"type": "record", "name": "Tree", "fields": [
            {"name": "name", "type": "string"}, {"name": "of", "type": {"type": "array", "items": "Tree"}},
            {"name": "notes", "type": {"type": "map", "values": "double"}}]}"#;
        let depth = depth(tree).unwrap();
        // "a", a block of one tree with its size before it (and that is "b" with nothing), no notes.
        let record = [2, b'a', 1, 8, 2, b'b', 0, 0, 0, 0];
        depth.check(&record, false).unwrap();
        assert!(depth.check(&record[..7], false).unwrap_err().contains("ends early"));
        // An array of more items than memory.
        let hostile = [2, b'a', 0xfe, 0xff, 0xff, 0xff, 0x7f];
        assert!(depth.check(&hostile, false).unwrap_err().contains("items"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = depth(LIST).unwrap().check(&bytes, false);
        }
    }
}
