//! Schedules: when a job is due, what is remembered of its past, and who may run it now. [`cron`], [`due`] and
//! [`state`] and [`lease`] decide and touch nothing; [`state_file`], [`lock`] and [`tick`] keep files in the data folder,
//! [`shared`] keeps records in a bucket, and [`store`] is the one or the other.

pub mod cron;
pub mod due;
mod fields;
pub mod files;
pub mod lease;
pub mod lock;
pub mod shared;
pub mod state;
pub mod state_file;
pub mod store;
pub mod tick;
