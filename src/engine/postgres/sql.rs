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

/// The schema and the table that such a name stands for.
pub fn split_key(key: &str) -> Option<(String, String)> {
    let (schema, rest) = split_part(key)?;
    let (table, rest) = split_part(rest.strip_prefix('.')?)?;
    rest.is_empty().then_some((schema, table))
}

fn split_part(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let (part, rest) = text.split_at(text.find(['.', '"']).unwrap_or(text.len()));
        return Some((part.to_owned(), rest)).filter(|(part, _)| !part.is_empty());
    };
    let mut part = String::new();
    loop {
        let (before, after) = rest.split_once('"')?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                part.push('"');
                rest = more;
            }
            None => return Some((part, after)),
        }
    }
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
        for (schema, table) in
            [("public", "a b"), ("a.b", "c"), ("a", "b.c"), ("\"", "\"\"."), ("ü", "\\"), ("a\"b", "c\"")]
        {
            let key = table_key(schema, table);
            assert_eq!(split_key(&key), Some((schema.to_owned(), table.to_owned())), "{key}");
        }
        for key in ["", "a", "a.", ".a", "a.b.c", "\"a.b", "\"a\"b.c", "a.\"b\"c"] {
            assert_eq!(split_key(key), None, "{key}");
        }
    }
}
