//! A server that a command line names, for `restore --into NAME --url URL`. Flows in: the URL, and where its password is.
//! Flows out: an engine there, and errors whose mends stand on the command line. Touches the password's file.

use std::path::Path;

use crate::app::{App, Opened};
use crate::engine::url::holds_password;
use crate::engine::{REGISTRY, Settings};
use crate::error::{Error, Kind, Result};
use crate::secret::{Secret, Source};

/// Holds the password, where no file does.
const PASSWORD_VAR: &str = "VOXELTRON_RESTORE_PASSWORD";

/// The engine of the database `name` at another server. What the configuration says of the tools of this host is true for it
/// too; where tools run elsewhere, that is another place.
///
/// # Errors
/// [`Kind::Usage`] when the URL can't be used or holds a password; [`Kind::Config`] when the password can't be fetched.
pub fn engine(app: &App, name: &str, url: &str, password_file: Option<&Path>) -> Result<Opened> {
    let usage = |why: &str| Error::new(Kind::Usage, format!("--url: {why}"));
    if holds_password(url) {
        return Err(usage("it holds a password, and a command line shows in the list of processes").hint(format!(
            "take the password out, and give it by --password-file FILE or in the variable {PASSWORD_VAR}"
        )));
    }
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).unwrap_or_default();
    let kind = REGISTRY.iter().find(|kind| kind.schemes.contains(&scheme.as_str())).ok_or_else(|| {
        let known: Vec<_> =
            REGISTRY.iter().flat_map(|kind| kind.schemes.first()).map(|it| format!("{it}://")).collect();
        usage("it begins with no scheme that is known").hint(format!("begin it with one of: {}", known.join(", ")))
    })?;
    let password = match password_file {
        Some(path) => Some(Source::File(path.to_owned()).fetch("--password-file", &app.cx)?),
        None => app.cx.world.vars.get(PASSWORD_VAR).filter(|text| !text.is_empty()).map(Secret::new),
    };
    let mut settings = Settings { password, elsewhere: true, ..Settings::new(name, Secret::new(url)) };
    if let Some(table) = app.table(name) {
        settings.restore_args.clone_from(&table.restore_args);
        settings.tools_dir = table.tools_dir.clone().filter(|_| table.exec.is_empty());
    }
    let engine = (kind.open)(settings).map_err(|error| said(name, Error { kind: Kind::Usage, ..error }))?;
    Ok(Opened { kind, engine: engine.into() })
}

/// An error of such an engine: what is to be mended stands on the command line, not in the configuration.
pub fn said(name: &str, error: Error) -> Error {
    let mend = |text: String| {
        let mut text = text.replace(&format!("databases.{name}: url: "), "--url: ");
        for (key, option) in [("url", "--url"), ("password", "--password-file")] {
            text = text.replace(&format!("[databases.{name}]: {key}: "), &format!("{option}: "));
            text = text.replace(&format!("[databases.{name}] {key}"), option);
        }
        text
    };
    Error { message: mend(error.message), hint: error.hint.map(mend), ..error }
}
