//! SQL text. Flows in: names and values. Flows out: identifiers and literals that mean exactly them, under any setting
//! of `standard_conforming_strings`. Touches nothing.

/// A name as an identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value as a literal.
pub fn literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The name of a table as manifests and messages show it: `schema.table`, with quotes round a part that would be
/// ambiguous without.
pub fn table_key(schema: &str, table: &str) -> String {
    let part = |name: &str| if name.contains(['.', '"']) || name.is_empty() { ident(name) } else { name.to_owned() };
    format!("{}.{}", part(schema), part(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(ident(r#"a "b" \c"#), r#""a ""b"" \c""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }

    #[test]
    fn two_tables_never_share_a_key() {
        assert_eq!(table_key("public", "a b"), "public.a b");
        assert_eq!(table_key("a.b", "c"), r#""a.b".c"#);
        assert_eq!(table_key("a", "b.c"), r#"a."b.c""#);
    }
}
