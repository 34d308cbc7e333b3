//! Schedules: when a job is due, what is remembered of its past, and who may run it now.

pub mod cron;
mod fields;
