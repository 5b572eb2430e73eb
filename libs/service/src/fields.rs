//! The names of a structure's fields, learnt from its `Deserialize`.

use std::fmt;

use serde::de::{DeserializeOwned, Deserializer, Visitor};

/// The fields that `T` knows; none where it is not a plain structure.
pub(crate) fn field_names<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut found = None;
    // It always ends with the probe's own error: there is nothing to deserialize.
    let _ = T::deserialize(Probe(&mut found));
    found
}

/// Listens to what a type asks for, and gives nothing.
struct Probe<'a>(&'a mut Option<&'static [&'static str]>);

#[derive(Debug)]
struct Nothing;

impl fmt::Display for Nothing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing to deserialize")
    }
}
impl std::error::Error for Nothing {}
impl serde::de::Error for Nothing {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Nothing
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Nothing> {
        Err(Nothing)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Nothing> {
        *self.0 = Some(fields);
        Err(Nothing)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_structure_tells_its_fields_and_nothing_else_does() {
        use plinth_api::log::PopRequest;
        let fields = field_names::<PopRequest>().unwrap();
        assert_eq!(fields, ["epoch", "tag", "store", "version"]);
        assert_eq!(field_names::<plinth_api::Nothing>(), Some(&[][..]));
        assert_eq!(field_names::<serde_json::Value>(), None);
        assert_eq!(field_names::<Vec<String>>(), None);
    }
}
