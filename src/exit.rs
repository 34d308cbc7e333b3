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
    pub const ALL: [(Self, &'static str); 14] = [
        (Self::Done, "done"),
        (Self::Other, "another failure, or several that differ"),
        (Self::Usage, "the command line is wrong"),
        (
            Self::Partial,
            "partly done: one target or job of several failed, pruning failed after a good backup, a restore lacks a view, or a job is overdue",
        ),
        (Self::Config, "the configuration is wrong"),
        (Self::Locked, "another run holds the lock"),
        (Self::Authentication, "a backup does not authenticate: wrong key, tampered with, or cut"),
        (Self::Tool, "a dump or restore tool failed"),
        (Self::Target, "a target failed"),
        (Self::NoBackup, "there is no such backup"),
        (Self::Hook, "a hook failed"),
        (Self::Signal(1), "stopped by SIGHUP"),
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

    /// The end of a run of several parts.
    pub fn merge(parts: impl IntoIterator<Item = Result<(), Kind>>) -> Self {
        merge(parts).err().map_or(Self::Done, Self::from)
    }
}

/// What several parts come to: all done, all failed alike (that kind), all failed but differently ([`Kind::Other`]), or
/// some of each ([`Kind::Partial`]). A signal outranks them all.
///
/// # Errors
/// The kind of the whole failure.
pub fn merge(parts: impl IntoIterator<Item = Result<(), Kind>>) -> Result<(), Kind> {
    let (mut done, mut failed): (bool, Option<Kind>) = (false, None);
    for part in parts {
        match part {
            Ok(()) => done = true,
            Err(kind @ Kind::Stopped(_)) => return Err(kind),
            Err(kind) => {
                failed = Some(match failed {
                    None => kind,
                    Some(before) if before == kind => kind,
                    Some(Kind::Partial) => Kind::Partial,
                    Some(_) if kind == Kind::Partial => Kind::Partial,
                    Some(_) => Kind::Other,
                });
            }
        }
    }
    match failed {
        None => Ok(()),
        Some(_) if done => Err(Kind::Partial),
        Some(kind) => Err(kind),
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

/// What failures come to where what went well does not count: alike, that kind; else [`Kind::Other`].
///
/// # Errors
/// The kind, if there is a failure at all.
pub fn merge_failures(kinds: impl IntoIterator<Item = Kind>) -> Result<(), Kind> {
    merge(kinds.into_iter().map(Err))
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
