//! A Google Cloud Storage target's keys in the configuration, and the credentials behind them. Flows in: a table. Flows
//! out: a target that is ready. Touches the CA file and the credentials' file.

use std::path::PathBuf;
use std::sync::Arc;

use super::auth::{Account, Auth, Identity};
use super::wire::Wire;
use super::{Gcs, Store};
use crate::config::table::Table;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::secret::Source;
use crate::target::Opener;
use crate::target::http::{Client, Patience, certificates, endpoint, host, named};
use crate::target::retry::Policy;
use crate::world::World;

/// Where Google's own store is.
const ENDPOINT: &str = "https://storage.googleapis.com";
/// How much of an upload is in memory if nothing says so, in MiB.
const PART_MIB: u32 = 8;
/// The variable that Google's own tools read the file's name from.
const CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The variable that names another metadata server, as Google's own tools have it.
const METADATA: &str = "GCE_METADATA_HOST";

/// All that a target needs to know, but for its credentials.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The target's name in the configuration.
    pub name: String,
    /// Scheme, host, port, perhaps a path; no slash at its end.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What is put before every key: empty, or with a slash at its end.
    pub prefix: String,
    /// The storage class of what is stored, if not the bucket's own.
    pub storage_class: Option<String>,
    /// How much of an upload is in memory and sent at once, in MiB.
    pub part_mib: u32,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a request is tried.
    pub policy: Policy,
    /// How long to wait for the store.
    pub patience: Patience,
}

impl Settings {
    /// A target of that name, everything else as it is by default.
    pub fn new(name: &str, endpoint: &str, bucket: &str, prefix: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            storage_class: None,
            part_mib: PART_MIB,
            ca_file: None,
            policy: Policy::default(),
            patience: Patience::default(),
        }
    }

    /// The target.
    ///
    /// # Errors
    /// [`Kind::Config`] when the CA file can't be read.
    pub fn open(&self, identity: Identity, world: &World) -> Result<Gcs> {
        let roots = self.ca_file.as_deref().map(|path| certificates(path, &self.name)).transpose()?.unwrap_or_default();
        let client = Client::new(roots, world.clone(), self.policy, self.patience);
        let auth = Auth::new(&self.name, identity);
        Ok(Gcs(Arc::new(Store {
            name: self.name.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            wire: Wire::new(&self.endpoint, &self.bucket, client, auth),
            chunk: usize::try_from(self.part_mib).unwrap_or(1) * 1024 * 1024,
            storage_class: self.storage_class.clone(),
        })))
    }
}

impl Identity {
    /// The service account of a credentials file; `what` names it in errors.
    ///
    /// # Errors
    /// [`Kind::Config`] when it is no such file.
    pub fn account(text: &crate::secret::Secret, what: &str) -> Result<Self> {
        Ok(Self::Account(Arc::new(Account::read(text, what)?)))
    }
}

/// Reads the table.
pub(super) fn read(table: &mut Table<'_>, prefix: &str) -> Opener {
    let bucket = table.required_string("bucket").unwrap_or_default();
    if !bucket.is_empty() && !named(&bucket, "-._") {
        table.problem("bucket", "can't be a bucket's name", "letters, digits, -, _ and . are allowed");
    }
    let given = table.string("endpoint");
    let place = given.as_deref().map_or_else(|| Some(ENDPOINT.to_owned()), endpoint);
    if place.is_none() {
        let mend = "write it like https://storage.example.com or http://10.0.0.5:4443";
        table.problem("endpoint", "is not an address", mend);
    }
    let mut settings = Settings::new(table.name(), &place.unwrap_or_default(), &bucket, prefix);
    settings.storage_class = table.string("storage_class");
    if settings.storage_class.as_ref().is_some_and(|class| !named(class, "-_")) {
        table.problem("storage_class", "can't be a storage class", "write it like NEARLINE");
    }
    settings.part_mib = table.integer("part_size", 1..=1024).unwrap_or(settings.part_mib);
    settings.ca_file = table.path("ca_file");
    let file = table.path("credentials_file");
    let anonymous = table.boolean("anonymous").unwrap_or(false);
    if anonymous && file.is_some() {
        table.problem("anonymous", "stands beside `credentials_file`", "take one of them away");
    }
    if file.is_none() {
        table.hide(&[CREDENTIALS]);
    }
    Arc::new(move |cx| {
        let identity = if anonymous { Identity::Anonymous } else { identity(&settings, file.as_ref(), cx)? };
        Ok(Box::new(settings.open(identity, &cx.world)?))
    })
}

fn identity(settings: &Settings, file: Option<&PathBuf>, cx: &Cx) -> Result<Identity> {
    let vars = &cx.world.vars;
    let table = format!("[backup.targets.{}]", settings.name);
    let (path, what) = match (file, vars.get(CREDENTIALS)) {
        (Some(path), _) => (path.clone(), format!("credentials_file of {table}")),
        (None, Some(path)) => (PathBuf::from(path), CREDENTIALS.to_owned()),
        (None, None) => return nameless(settings, vars.get(METADATA)),
    };
    let text = Source::File(path.clone()).fetch(&what, cx);
    let text = text.map_err(|error| error.hint("put the JSON key of the service account there, with mode 0600"))?;
    Identity::account(&text, &format!("{what}: {}", path.display()))
}

/// The host's own account: asked for only where there can be one, since elsewhere the question alone takes long.
fn nameless(settings: &Settings, metadata: Option<&str>) -> Result<Identity> {
    let host = host(&settings.endpoint);
    let is_google = host == "googleapis.com" || host.ends_with(".googleapis.com");
    match metadata {
        Some(server) => Ok(Identity::Host(server.to_owned())),
        None if is_google => Ok(Identity::Host("metadata.google.internal".to_owned())),
        None => Err(Error::new(
            Kind::Config,
            format!("target {}: there are no credentials for {}", settings.name, settings.endpoint),
        )
        .hint(format!(
            "set `credentials_file` in [backup.targets.{}], or {CREDENTIALS} in the environment; for an emulator that asks \
            for no token, set anonymous = true",
            settings.name
        ))),
    }
}
