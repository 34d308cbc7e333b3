//! The link to Voxeltron Cloud. Flows in: what `cloud link` has got. Flows out: the same, for every run. Touches
//! `cloud.json` in the data folder, which is 0600 since the tokens stand in it, and `cloud.lock`, which one process at a time
//! holds that changes it: a refresh token that two runs use at once might be good for neither.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::format::time::rfc3339;
use crate::schedule::files::{self, Durable};
use crate::secret::{Secret, check_private};

/// The file's name in the data folder.
pub const NAME: &str = "cloud.json";
const LOCK_NAME: &str = "cloud.lock";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;
const VERSION: u32 = 1;

/// Two tokens, and how long the first is good.
#[derive(Clone, Debug, Deserialize)]
pub struct Tokens {
    /// What every request carries.
    #[serde(rename = "access_token", deserialize_with = "secret")]
    pub access: Secret,
    /// What renews it.
    #[serde(rename = "refresh_token", deserialize_with = "secret")]
    pub refresh: Secret,
    /// When the access token ends.
    pub expires: DateTime<Utc>,
    /// When it is to be renewed: somewhat before.
    pub renew: DateTime<Utc>,
}

/// What an instance is linked to.
#[derive(Clone, Debug, Deserialize)]
pub struct Link {
    /// Of the file.
    pub version: u32,
    /// Scheme, host, port, perhaps a path; no slash at its end.
    pub endpoint: String,
    /// Where tokens are renewed.
    pub token_endpoint: String,
    /// Where they are revoked, if the server has such a place.
    pub revocation_endpoint: Option<String>,
    /// The account's name, if the server says one.
    pub account: Option<String>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// When it was linked.
    pub linked: DateTime<Utc>,
    /// The tokens.
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// Takes a text over as a secret.
pub fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

impl Link {
    /// A new link.
    pub fn new(endpoint: &str, token_endpoint: &str, linked: DateTime<Utc>, tokens: Tokens) -> Self {
        Self {
            version: VERSION,
            endpoint: endpoint.to_owned(),
            token_endpoint: token_endpoint.to_owned(),
            revocation_endpoint: None,
            account: None,
            ca_file: None,
            linked,
            tokens,
        }
    }

    fn text(&self) -> Zeroizing<String> {
        let document = json!({
            "version": self.version,
            "endpoint": self.endpoint,
            "token_endpoint": self.token_endpoint,
            "revocation_endpoint": self.revocation_endpoint,
            "account": self.account,
            "ca_file": self.ca_file,
            "linked": rfc3339(self.linked),
            "access_token": self.tokens.access.expose(),
            "refresh_token": self.tokens.refresh.expose(),
            "expires": rfc3339(self.tokens.expires),
            "renew": rfc3339(self.tokens.renew),
        });
        Zeroizing::new(format!("{document:#}\n"))
    }
}

/// Where the link is kept.
#[derive(Clone, Debug)]
pub struct LinkFile {
    folder: PathBuf,
}

impl LinkFile {
    /// In this data folder, which the first link creates.
    pub fn new(data_dir: &Path) -> Self {
        Self { folder: data_dir.to_owned() }
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// The link, if there is one, and a warning when others can read it.
    ///
    /// # Errors
    /// [`Kind::Config`] when it can't be read or understood, or others can write to it.
    pub fn read(&self) -> Result<Option<(Link, Option<String>)>> {
        let path = self.path();
        let wrong = |why: &str| {
            Error::new(Kind::Config, format!("the link {} {why}", path.display()))
                .hint("link anew: voxeltron-backup cloud link --force --endpoint URL")
        };
        let Some(bytes) = files::read(&path, MAX_BYTES)?.map(Zeroizing::new) else { return Ok(None) };
        let warning = check_private(&path, "the link to Voxeltron Cloud")?;
        // The parser's own error could quote what it met.
        let link: Link = serde_json::from_slice(&bytes).map_err(|_| wrong("can't be understood"))?;
        if link.version > VERSION {
            return Err(wrong("was written by a newer voxeltron-backup"));
        }
        Ok(Some((link, warning)))
    }

    /// Keeps other processes from changing it, as long as what it gives lives.
    ///
    /// # Errors
    /// When the lock's file can't be opened or locked.
    pub fn lock(&self) -> Result<File> {
        files::make_folder(&self.folder)?;
        let path = self.folder.join(LOCK_NAME);
        let lock = files::open_lock(&path)?;
        while let Err(error) = lock.lock() {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(files::failed("lock", &path, error));
            }
        }
        Ok(lock)
    }

    /// Puts a link in the place of the one before, whole and 0600. The caller holds the lock.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, link: &Link) -> Result<()> {
        files::replace(&self.folder, NAME, link.text().as_bytes(), Durable::Yes)
    }

    /// Removes it; what is not there is gone already.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self) -> Result<()> {
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(files::failed("remove", &self.path(), error)),
            _ => Ok(()),
        }
    }
}

/// That this instance has no link.
pub fn none(what: &str) -> Error {
    Error::new(Kind::Config, format!("{what}: this instance is not linked to Voxeltron Cloud"))
        .hint("link it: voxeltron-backup cloud link --endpoint URL")
}
