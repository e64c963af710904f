//! JSON schemas of what we write, made of the types that are written: `docs/schemas/`.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};

/// The schema (JSON Schema 2020-12) of a type as it is written, as text. Its title is `title`.
///
/// Fields that are not in it may be added by a later version; readers ignore what they do not know.
pub fn schema_of<T: JsonSchema>(title: &str) -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    RecursiveTransform(without_links).transform(&mut schema);
    // A schema is plain JSON.
    serde_json::to_string_pretty(schema.as_value()).unwrap_or_default() + "\n"
}

/// Links to other items are of use in Rust alone.
fn without_links(schema: &mut Schema) {
    let Some(text) = schema.get_mut("description") else { return };
    if let Some(plain) =
        text.as_str().map(|text| text.replace("[`", "`").replace("`]", "`").replace('\n', " "))
    {
        *text = plain.into();
    }
}
