//! Names for the schemas of a document. What generates a client gives every schema a name, and makes
//! up an ugly one where it has none.

use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

/// Moves every schema that bears a title among the components, under that title: there is no other
/// way to name the variant of an enum, or the argument of a generic type. Says how long tuples are in
/// a form that all generators take, which numbers have no sign, and that raw bodies are bytes.
pub(crate) fn name(openapi: OpenApi) -> OpenApi {
    let Ok(mut document) = serde_json::to_value(&openapi) else { return openapi };
    let mut named = Map::new();
    if let Some(paths) = document.get_mut("paths") {
        extract(paths, &mut named);
    }
    if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") {
        for schema in schemas.values_mut() {
            within(schema, &mut named);
        }
        schemas.extend(named);
    }
    match serde_json::from_value(document) {
        Ok(document) => document,
        Err(error) => {
            tracing::error!(%error, "the document has a form that can't be read");
            openapi
        }
    }
}

/// Extracts what is named within a schema, and the schema itself if it is named.
fn extract(value: &mut Value, named: &mut Map<String, Value>) {
    within(value, named);
    let Some(Value::String(title)) = value.get("title") else { return };
    let title = title.clone();
    let reference = json!({ "$ref": format!("#/components/schemas/{title}") });
    let mut schema = std::mem::replace(value, reference);
    if let Value::Object(schema) = &mut schema {
        schema.remove("title");
    }
    named.insert(title, schema);
}

fn within(value: &mut Value, named: &mut Map<String, Value>) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(|value| extract(value, named));
            if let Some(Value::Array(parts)) = map.get("prefixItems").cloned()
                && map.get("items") == Some(&Value::Bool(false))
            {
                let length = Value::from(parts.len());
                map.insert("items".to_owned(), json!({ "anyOf": parts }));
                map.insert("minItems".to_owned(), length.clone());
                map.insert("maxItems".to_owned(), length);
            }
            // Numbers without a sign reach twice as far as the formats that they are given.
            if map.get("minimum") == Some(&json!(0))
                && let Some(Value::String(format)) = map.get_mut("format")
                && matches!(format.as_str(), "int32" | "int64")
            {
                format.insert(0, 'u');
            }
            if let Some(raw) = map.get_mut("application/octet-stream") {
                raw["schema"] = json!({ "type": "string", "format": "binary" });
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|value| extract(value, named)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_become_names_wherever_they_stand() {
        let mut schema = json!({
            "type": "object",
            "properties": {
                "title": { "type": "string" },
                "who": { "oneOf": [{ "title": "Up", "type": "object" }], "title": "Who" },
                "only": { "type": "array", "items": false, "prefixItems": [{}] },
            },
        });
        let mut named = Map::new();
        within(&mut schema, &mut named);
        let properties = &schema["properties"];
        assert_eq!(properties["title"], json!({ "type": "string" }));
        assert_eq!(properties["who"], json!({ "$ref": "#/components/schemas/Who" }));
        assert_eq!(named["Who"], json!({ "oneOf": [{ "$ref": "#/components/schemas/Up" }] }));
        assert_eq!(named["Up"], json!({ "type": "object" }));
        let only = &properties["only"];
        assert_eq!(only["items"], json!({ "anyOf": [{}] }));
        assert_eq!((&only["minItems"], &only["maxItems"]), (&json!(1), &json!(1)));
    }
}
