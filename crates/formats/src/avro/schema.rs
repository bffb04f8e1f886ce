//! The schema in a file's header, as it is given to the library.
//!
//! A `uuid` is read as the text that it is, and not as 16 bytes; and a type that is named where another column defines it
//! is put there, since that column may not be read.

use std::collections::BTreeMap;

use ruslo_core::error::{Error, Result};
use serde_json::Value;

/// The most parts that a schema has once names are replaced by what they name.
const PARTS_MAX: usize = 100_000;

/// What can be read of a schema given as JSON, as JSON.
///
/// # Errors
/// `Data`, if it is no schema of records.
pub(super) fn readable(json: &str) -> Result<String> {
    let mut schema: Value = serde_json::from_str(json).map_err(|error| bad_schema(&error))?;
    if !matches!(schema.get("type").and_then(Value::as_str), Some("record" | "error")) {
        return Err(Error::data("the avro file does not hold records, whose fields would be columns"));
    }
    let mut types = Types { known: BTreeMap::new(), parts: 0 };
    types.visit(&mut schema, "")?;
    Ok(schema.to_string())
}

/// The error of a schema that cannot be read.
#[cold]
pub(super) fn bad_schema(error: &dyn std::fmt::Display) -> Error {
    let text = error.to_string();
    Error::data(format!("the avro file's schema cannot be read ({})", super::container::cause(&text)))
}

/// The types that have a name.
struct Types {
    known: BTreeMap<String, Value>,
    parts: usize,
}

impl Types {
    /// Makes one type readable; `namespace` is that of what it stands in.
    fn visit(&mut self, schema: &mut Value, namespace: &str) -> Result<()> {
        self.parts = self.parts.saturating_add(1);
        if self.parts > PARTS_MAX {
            return Err(bad_schema(&"it is too large"));
        }
        match schema {
            Value::String(name) => {
                if let Some(known) = self.find(name, namespace) {
                    *schema = known.clone();
                    self.parts = self.parts.saturating_add(parts(schema));
                }
            }
            Value::Array(types) => types.iter_mut().try_for_each(|part| self.visit(part, namespace))?,
            Value::Object(_) => self.visit_object(schema, namespace)?,
            _ => {}
        }
        Ok(())
    }

    fn visit_object(&mut self, schema: &mut Value, namespace: &str) -> Result<()> {
        let name = full_name(schema, namespace);
        let inner = name.as_deref().and_then(|name| name.rsplit_once('.')).map_or("", |(space, _)| space).to_owned();
        let inner = if name.is_some() { inner.as_str() } else { namespace };
        if schema.get("logicalType").and_then(Value::as_str) == Some("uuid")
            && schema.get("type").and_then(Value::as_str) == Some("string")
        {
            *schema = Value::from("string");
            return Ok(());
        }
        for key in ["type", "items", "values"] {
            if let Some(part) = schema.get_mut(key) {
                self.visit(part, inner)?;
            }
        }
        if schema.get("items").is_some_and(|items| !takes_bytes(items)) {
            return Err(bad_schema(&"it has an array whose elements take no bytes, which may have any number of them"));
        }
        for field in schema.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(part) = field.get_mut("type") {
                self.visit(part, inner)?;
            }
        }
        if let Some(name) = name {
            self.known.insert(name, schema.clone());
        }
        Ok(())
    }

    fn find(&self, name: &str, namespace: &str) -> Option<&Value> {
        let inside = (!namespace.is_empty() && !name.contains('.')).then(|| format!("{namespace}.{name}"));
        inside.and_then(|name| self.known.get(&name)).or_else(|| self.known.get(name))
    }
}

/// The name of a type with its namespace, if it is one that has a name.
fn full_name(schema: &Value, namespace: &str) -> Option<String> {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    if !matches!(text("type"), Some("record" | "error" | "enum" | "fixed")) {
        return None;
    }
    let name = text("name")?;
    match text("namespace").unwrap_or(namespace) {
        _ if name.contains('.') => Some(name.to_owned()),
        "" => Some(name.to_owned()),
        namespace => Some(format!("{namespace}.{name}")),
    }
}

/// Whether a value of the type takes any bytes: `null` takes none.
fn takes_bytes(schema: &Value) -> bool {
    match schema.get("type").unwrap_or(schema) {
        Value::String(name) if name == "null" => false,
        Value::String(name) if name == "fixed" => schema.get("size").and_then(Value::as_u64) != Some(0),
        Value::String(name) if name == "record" || name == "error" => {
            let mut fields = schema.get("fields").and_then(Value::as_array).into_iter().flatten();
            fields.any(|field| field.get("type").is_none_or(takes_bytes))
        }
        Value::Object(_) => schema.get("type").is_none_or(takes_bytes),
        _ => true,
    }
}

/// How many values there are in a value.
fn parts(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(parts).fold(1, usize::saturating_add),
        Value::Object(values) => values.values().map(parts).fold(1, usize::saturating_add),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(schema: &Value) -> Value {
        serde_json::from_str(&readable(&schema.to_string()).unwrap()).unwrap()
    }

    #[test]
    fn a_named_type_is_put_where_it_is_named_and_a_uuid_is_text() {
        let point = json!({"type": "record", "name": "Point", "fields": [{"name": "x", "type": "int"}]});
        let of = |b: Value, c: Value, u: Value| {
            json!({"type": "record", "name": "r", "namespace": "n", "fields": [
                {"name": "a", "type": point}, {"name": "b", "type": b}, {"name": "c", "type": c}, {"name": "u", "type": u}]})
        };
        let named = of(json!("Point"), json!(["null", "n.Point"]), json!({"type": "string", "logicalType": "uuid"}));
        assert_eq!(read(&named), of(point.clone(), json!(["null", point]), json!("string")));
    }

    #[test]
    fn names_that_double_at_every_step_are_refused() {
        let mut fields = vec![json!({"name": "f0", "type": {"type": "record", "name": "T0", "fields": []}})];
        for n in 1..40 {
            let twice = [("x", n - 1), ("y", n - 1)].map(|(name, t)| json!({"name": name, "type": format!("T{t}")}));
            let record = json!({"type": "record", "name": format!("T{n}"), "fields": twice});
            fields.push(json!({"name": format!("f{n}"), "type": record}));
        }
        let schema = json!({"type": "record", "name": "r", "fields": fields}).to_string();
        assert_eq!(
            readable(&schema).unwrap_err().to_string(),
            "the avro file's schema cannot be read (it is too large)"
        );
    }

    #[test]
    fn arrays_of_nothing_are_refused_since_a_few_bytes_may_hold_billions() {
        let empty = json!({"type": "record", "name": "e", "fields": [{"name": "x", "type": "null"}]});
        for items in [json!("null"), json!({"type": "null"}), empty, json!({"type": "fixed", "name": "f", "size": 0})] {
            let array = json!({"type": "array", "items": items});
            let schema = json!({"type": "record", "name": "r", "fields": [{"name": "a", "type": array}]}).to_string();
            let error = readable(&schema).unwrap_err().to_string();
            assert!(error.contains("an array whose elements take no bytes"), "{error}");
        }
        let array = json!({"type": "array", "items": ["null", "int"]});
        let schema = json!({"type": "record", "name": "r", "fields": [{"name": "a", "type": array}]});
        assert_eq!(read(&schema), schema);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for schema in ["\"string\"", "{\"type\": \"array\", \"items\": \"int\"}", "[\"null\", \"int\"]"] {
            assert!(readable(schema).unwrap_err().to_string().contains("does not hold records"));
        }
        assert!(
            readable("{\"type\": ").unwrap_err().to_string().starts_with("the avro file's schema cannot be read (")
        );
    }
}
