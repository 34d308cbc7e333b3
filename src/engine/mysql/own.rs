//! Where a view's or a routine's text names the schema that it is of. Flows in: the text as a server prints it, and the
//! schema's name. Flows out: the places. Touches nothing.
//!
//! The same bytes, `` `shop`. ``, may be a schema, or a table or an alias of that name, and the place alone tells which. What
//! the servers print: MySQL names its own schema before functions alone, where their caller had. MariaDB does so too, and before
//! sequences; but as soon as one table is of another schema it names every table's, in columns as well (`` `shop`.`t`.`id` ``),
//! but not that of an alias, of a derived table or of a WITH (`` `shop`.`id` ``). Where a definer is not there, it names the
//! schema in columns and not in FROM. So a column of two names begins with no schema, and one of three does.
//!
//! The text of a routine is its author's, but for its head: there MySQL names each library that it uses with its schema.

use super::sql::{Word, words};

/// What takes a sequence, and no column, between its parentheses.
const OF_SEQUENCES: [&str; 3] = ["NEXTVAL", "LASTVAL", "SETVAL"];

/// What is going on between two parentheses, or outside of all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Values; a FROM is that of EXTRACT or TRIM, and no table follows.
    Values,
    /// A query before its FROM.
    Query,
    /// Tables, or what follows them in a query.
    Tables,
}

/// The places of `schema` with its dot, from where to where, in order.
pub fn places(text: &[u8], schema: &str) -> Vec<(usize, usize)> {
    let words = words(text, usize::MAX);
    let mut places = Vec::new();
    let (mut levels, mut within) = (Vec::new(), Within::Values);
    // Whether a table may begin at this word.
    let mut table = false;
    for (at, word) in words.iter().enumerate() {
        let here = std::mem::take(&mut table);
        if word.quoted {
            places.extend(place(&words, at, schema, here));
        } else if word.text == b"(" {
            let sequence = at.checked_sub(1).and_then(|before| words.get(before));
            let sequence = sequence.is_some_and(|word| OF_SEQUENCES.iter().any(|name| word.is(name)));
            levels.push(within);
            within = if here { Within::Tables } else { Within::Values };
            table = here || sequence;
        } else if word.text == b")" {
            within = levels.pop().unwrap_or(Within::Values);
        } else if word.is("SELECT") {
            within = Within::Query;
        } else if word.is("FROM") && within == Within::Query {
            within = Within::Tables;
            table = true;
        } else if word.is("JOIN") || word.is("STRAIGHT_JOIN") {
            // Before its tables a query may be told so, too.
            table = within == Within::Tables;
        } else if word.is("VIEW") {
            table = true;
        }
    }
    places
}

/// The places of `schema` with its dot among the libraries that a routine uses, in order.
pub fn libraries(text: &[u8], schema: &str) -> Vec<(usize, usize)> {
    let words = words(text, usize::MAX);
    let is = |at: usize, sign: &str| words.get(at).is_some_and(|word| word.is(sign));
    // So the server prints it; before it stand names, types and single words alone.
    let using = |at: &usize| is(*at, "LANGUAGE") && is(at + 2, "USING") && is(at + 3, "(");
    let Some(from) = (0..words.len()).find(using).map(|at| at + 4) else { return Vec::new() };
    let list = words.iter().enumerate().skip(from).take_while(|(_, word)| !word.is(")"));
    let own = list.filter_map(|(at, word)| {
        let begins = word.text == schema.as_bytes() && (is(at - 1, "(") || is(at - 1, ",")) && is(at + 1, ".");
        words.get(at + 2).filter(|_| begins).map(|name| (word.start, name.start))
    });
    own.collect()
}

/// This word and the dot behind it, if it is the schema's name and stands before something of a schema's.
fn place(words: &[Word], at: usize, schema: &str, table: bool) -> Option<(usize, usize)> {
    let is = |at: usize, sign: &[u8]| words.get(at).is_some_and(|word| !word.quoted && word.text == sign);
    let word = words.get(at).filter(|word| word.text == schema.as_bytes())?;
    let after_dot = at.checked_sub(1).is_some_and(|before| is(before, b"."));
    let name = words.get(at + 2).filter(|name| !after_dot && is(at + 1, b".") && (name.quoted || table))?;
    // A dot: the table of a column. A parenthesis: a function.
    (table || is(at + 3, b".") || is(at + 3, b"(")).then_some((word.start, name.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text with `^` for the schema, where it is one.
    fn marked(text: &str, schema: &str) -> String {
        let mut text = text.as_bytes().to_vec();
        for (from, to) in places(&text, schema).into_iter().rev() {
            text.splice(from..to, *b"^");
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_table_and_an_alias_of_the_schemas_name_are_no_schema() {
        // As the servers print them.
        for text in [
            "select `orders`.`id` AS `id`,`s`.`x` AS `x` from (`s` join `orders` on(`orders`.`shop_id` = `s`.`id`))",
            "select `s`.`id` AS `id` from `s` where exists(select 1 from `orders` where `orders`.`id` = `s`.`id` limit 1)",
            "select `other`.`s`.`x` AS `x` from `other`.`s`",
            "select `s`.`q` AS `q` from (select `orders`.`id` AS `q` from `orders`) `s`",
            "with recursive s(`n`) as (select 1 AS `n` union all select `s`.`n` + 1 AS `s.n + 1` from `s`)select `s`.`n` AS `n` from `s`",
            "select extract(day from `s`.`d`) AS `e`,trim(both `s`.`c` from `s`.`id`) AS `u` from (`s` join `t`)",
            "select straight_join distinct `s`.`id` AS `id` from (`t` `s` straight_join `u` on(`u`.`id` = `s`.`id`))",
            "select `jt`.`a` AS `a` from (`s` join json_table(`s`.`j`, '$' columns (`a` int path '$.a')) `jt`)",
            "select '`s`.`t`.\\'`s`.`f`(' AS `s.``s`,\"`s`.`t`.\" AS `'` from `s` `S` where `S`.`id` in (select `s`.`s` from `s`) order by `s`.`x`,`s`.`id`",
            "select sum(`s`.`id`) over ( partition by `s`.`x` order by `s`.`id`) AS `s` from `s` group by `s`.`id`,`s`.`x` for update",
        ] {
            assert_eq!(marked(text, "s"), text);
        }
    }

    #[test]
    fn the_schema_is_found_before_all_that_is_its_own() {
        for text in [
            "CREATE ALGORITHM=UNDEFINED */\n/*!50013 DEFINER=`s`@`s` SQL SECURITY DEFINER */\n/*!50001 VIEW ^`v` AS select 1 AS `1` */",
            "select ^`t`.`a``s`.`x`, 's' AS `s` from ^`t` `x` -- `s`.`t`.`x`",
            "select ^`f`(`s`.`id`) AS `a`,^`s`(1) AS `c` from `s`",
            "select nextval(^`sq`) AS `n`,lastval(^`s`) AS `l`,`s`.`x` AS `x` from `other`.`t` `s`",
            "select `s`.`x` AS `x`,^`orders`.`id` AS `id` from (`other`.`t` `s` join ^`orders` on(^`orders`.`id` = `s`.`id`))",
            "select `s`.`q` AS `q` from ((select ^`orders`.`id` AS `q` from ^`orders`) `s` join `other`.`t` on(`other`.`t`.`id` = `s`.`q`))",
            "select ^`s`.`id` AS `id` from (^`orders` left join (^`s` left join `other`.`s` on(`other`.`s`.`id` = ^`s`.`id`)) on(^`s`.`id` = ^`orders`.`id`))",
            "select ^`s`.`id` AS `id`,(select max(`s`.`id`) from `orders` `s`) AS `m` from (`s` join `orders` `o`)",
            "select straight_join distinct ^`s`.`id` AS `id` from (^`s` straight_join ^`t` on(`other`.`t`.`id` = ^`s`.`id`))",
            "select ^`s`.`id` AS `id` from ^`s` union select `other`.`s`.`x` AS `x` from ^`orders` `s` join `other`.`s`",
        ] {
            assert_eq!(marked(&text.replace('^', "`s`."), "s"), text);
        }
        assert_eq!(marked("select `a``b`.`c`.`d` AS `b`.`c`, 'x", "a`b"), "select ^`c`.`d` AS `b`.`c`, 'x");
    }
}
