//! What a restore calls its schemas and tables. Flows in: the schema's name and a random number. Flows out: names that
//! tell whose a leftover is. Touches nothing.

/// How many characters of a schema's name stand in those of its scratch.
const STEM_CHARS: usize = 44;

/// The names of one restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The schema that is restored.
    pub target: String,
    /// Where the dump is loaded.
    pub scratch: String,
    /// Where the replaced tables go.
    pub old: String,
    /// What tells this restore from others.
    pub hex: String,
}

impl Names {
    /// For a restore of `target`.
    pub fn new(target: &str, hex: &str) -> Self {
        let stem: String = target.chars().take(STEM_CHARS).collect();
        Self {
            target: target.to_owned(),
            scratch: format!("{stem}__restoring_{hex}"),
            old: format!("{stem}__old_{hex}"),
            hex: hex.to_owned(),
        }
    }

    /// The names of a restore of `target` whose scratch is called `name`, if it is.
    pub fn of_scratch(target: &str, name: &str) -> Option<Self> {
        let (_, hex) = name.rsplit_once("__restoring_")?;
        let names = Self::new(target, hex);
        (names.scratch == name && hex.len() == 8 && hex.chars().all(|c| c.is_ascii_hexdigit())).then_some(names)
    }

    /// What the mark says first.
    pub fn claim(&self) -> String {
        format!("voxeltron-backup: left by a restore of {} since ", self.target)
    }

    /// The table that says whose the scratch is.
    pub fn mark(&self) -> String {
        format!("__vx_mark_{}", self.hex)
    }

    /// The table that says what is to be done.
    pub fn record(&self) -> String {
        format!("__vx_swap_{}", self.hex)
    }

    /// What that is called until it is whole, and again when there is nothing more to be done.
    pub fn draft(&self) -> String {
        format!("__vx_tmp_{}", self.hex)
    }

    /// What a live table is called on its way out.
    pub fn out(&self, at: usize) -> String {
        format!("__vxo_{}_{at}", self.hex)
    }

    /// What a new table is called until all are there.
    pub fn new_name(&self, at: usize) -> String {
        format!("__vxn_{}_{at}", self.hex)
    }

    /// What a table is called that others have made under the name of a new one, once it is out of the way.
    pub fn aside(&self, at: usize) -> String {
        format!("{}{at}", self.stranger())
    }

    fn stranger(&self) -> String {
        format!("__vxs_{}_", self.hex)
    }

    /// Whether a table of the schema itself is on its way in or out, by its name.
    pub fn is_passing(table: &str) -> bool {
        let rest = ["__vxo_", "__vxn_"].iter().find_map(|start| table.strip_prefix(start));
        rest.and_then(|rest| rest.split_once('_')).is_some_and(|(hex, at)| {
            hex.len() == 8
                && hex.chars().all(|c| c.is_ascii_hexdigit())
                && !at.is_empty()
                && at.chars().all(|c| c.is_ascii_digit())
        })
    }

    /// Whether a table of the scratch is none of the loaded ones.
    pub fn is_ours(&self, table: &str) -> bool {
        table == self.mark() || table == self.record() || table == self.draft() || table.starts_with(&self.stranger())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let names = Names::new(&"ü".repeat(64), "0123abcd");
        assert_eq!(names.scratch.chars().count(), 64);
        let names = Names::new("shop", "0123abcd");
        assert_eq!(Names::of_scratch("shop", "shop__restoring_0123abcd"), Some(names));
        assert!(Names::is_passing(&Names::new("shop", "0123abcd").out(12)) && Names::is_passing("__vxn_0123abcd_0"));
        for other in
            ["__vxo_0123abcd_", "__vxo_0123abc_1", "__vxp_0123abcd_1", "x__vxo_0123abcd_1", "__vxo_0123abcd_1x"]
        {
            assert!(!Names::is_passing(other), "{other}");
        }
        for other in ["shop__restoring_0123abc", "shop__restoring_0123abcx", "shop2__restoring_0123abcd", "shop"] {
            assert_eq!(Names::of_scratch("shop", other), None, "{other}");
        }
    }
}
