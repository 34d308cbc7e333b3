//! Retention. Flows in: a policy, the backups of one job at one target, the clock. Flows out: a verdict with its reason
//! for each. Pure.

/// What stays; a rule that is absent keeps nothing, and with no rule at all everything stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Days.
    pub retention_days: Option<u32>,
    /// The newest so many.
    pub keep_last: Option<u32>,
    /// The newest of each of the last so many days that have one.
    pub keep_daily: Option<u32>,
    /// The same by ISO weeks.
    pub keep_weekly: Option<u32>,
    /// The same by months.
    pub keep_monthly: Option<u32>,
    /// The same by years.
    pub keep_yearly: Option<u32>,
}
