//! Exit codes. Flows in: the kinds of what failed. Flows out: one code, by one total map and one merge rule. Pure.
//! The manual page's table is generated from [`Exit::ALL`].

use crate::error::Kind;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done,
    /// Another failure, or several that differ.
    Other,
    /// The command line is wrong.
    Usage,
    /// Some of it was done.
    Partial,
    /// The configuration is wrong.
    Config,
    /// Another run holds the lock.
    Locked,
    /// A backup does not authenticate.
    Authentication,
    /// A dump or restore tool failed.
    Tool,
    /// A target failed.
    Target,
    /// No such backup.
    NoBackup,
    /// A hook failed.
    Hook,
    /// Stopped by a signal.
    Signal(i32),
}

impl Exit {
    /// Every way to end, with the line that the manual has for it.
    pub const ALL: [(Self, &'static str); 13] = [
        (Self::Done, "done"),
        (Self::Other, "another failure, or several that differ"),
        (Self::Usage, "the command line is wrong"),
        (
            Self::Partial,
            "partly done: one target or job of several failed, pruning failed after a good backup, or a job is overdue",
        ),
        (Self::Config, "the configuration is wrong"),
        (Self::Locked, "another run holds the lock"),
        (Self::Authentication, "a backup does not authenticate: wrong key, tampered with, or cut"),
        (Self::Tool, "a dump or restore tool failed"),
        (Self::Target, "a target failed"),
        (Self::NoBackup, "there is no such backup"),
        (Self::Hook, "a hook failed"),
        (Self::Signal(2), "stopped by SIGINT"),
        (Self::Signal(15), "stopped by SIGTERM"),
    ];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Other => 1,
            Self::Usage => 2,
            Self::Partial => 3,
            Self::Config => 10,
            Self::Locked => 11,
            Self::Authentication => 12,
            Self::Tool => 13,
            Self::Target => 14,
            Self::NoBackup => 15,
            Self::Hook => 16,
            Self::Signal(number) => 128u8.saturating_add(u8::try_from(number).unwrap_or(127)),
        }
    }

    /// The end of a run of several parts: all done, all failed alike (that code), all failed but differently (1),
    /// or some of each (3). A signal outranks them all.
    pub fn merge(parts: impl IntoIterator<Item = Result<(), Kind>>) -> Self {
        let (mut done, mut failed): (bool, Option<Self>) = (false, None);
        for part in parts {
            match part {
                Ok(()) => done = true,
                Err(kind @ Kind::Stopped(_)) => return kind.into(),
                Err(kind) => {
                    let exit = Self::from(kind);
                    failed = Some(match failed {
                        None => exit,
                        Some(before) if before == exit => exit,
                        Some(Self::Partial) => Self::Partial,
                        Some(_) if exit == Self::Partial => Self::Partial,
                        Some(_) => Self::Other,
                    });
                }
            }
        }
        match failed {
            None => Self::Done,
            Some(_) if done => Self::Partial,
            Some(exit) => exit,
        }
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Other => Self::Other,
            Kind::Usage => Self::Usage,
            Kind::Partial => Self::Partial,
            Kind::Config => Self::Config,
            Kind::Locked => Self::Locked,
            Kind::Authentication => Self::Authentication,
            Kind::Tool => Self::Tool,
            Kind::Target => Self::Target,
            Kind::NoBackup => Self::NoBackup,
            Kind::Hook => Self::Hook,
            Kind::Stopped(number) => Self::Signal(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_follows_the_contract() {
        let merge = |parts: &[Result<(), Kind>]| Exit::merge(parts.iter().copied()).code();
        assert_eq!(merge(&[]), 0);
        assert_eq!(merge(&[Ok(()), Ok(())]), 0);
        assert_eq!(merge(&[Err(Kind::Tool), Err(Kind::Tool)]), 13);
        assert_eq!(merge(&[Err(Kind::Tool), Err(Kind::Target)]), 1);
        assert_eq!(merge(&[Ok(()), Err(Kind::Target)]), 3);
        assert_eq!(merge(&[Err(Kind::Partial), Err(Kind::Tool)]), 3);
        assert_eq!(merge(&[Ok(()), Err(Kind::Tool), Err(Kind::Stopped(15))]), 143);
        assert_eq!(merge(&[Err(Kind::Stopped(2))]), 130);
    }
}
