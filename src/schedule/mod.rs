//! Schedules: when a job is due, what is remembered of its past, and who may run it now. [`cron`], [`due`] and
//! [`state`] decide and touch nothing; [`state_file`], [`lock`] and [`tick`] keep files in the data folder.

pub mod cron;
pub mod due;
mod fields;
pub mod files;
pub mod lock;
pub mod state;
pub mod state_file;
pub mod tick;
