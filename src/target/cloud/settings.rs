//! A cloud target's keys in the configuration, and the link behind them. Flows in: a table, or none: after `cloud link`
//! nothing is missing. Flows out: a target that is ready. Touches the link's file and the CA file.

use std::path::PathBuf;
use std::sync::Arc;

use super::auth::Auth;
use super::link::{self, Link, LinkFile};
use super::wire::Wire;
use super::{Cloud, NAME, Store};
use crate::config::table::Table;
use crate::error::{Error, Kind, Result};
use crate::target::Opener;
use crate::target::http::{Client, Patience, certificates, endpoint};
use crate::target::retry::Policy;
use crate::world::World;

/// How much of an upload is in memory, in MiB.
const PART_MIB: u32 = 8;

/// All that a target needs to know, but for the link.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The target's name in the configuration.
    pub name: String,
    /// Where it has to be linked to, if the configuration says so.
    pub endpoint: Option<String>,
    /// What is put before every key: empty, or with a slash at its end.
    pub prefix: String,
    /// How much of an upload is in memory and sent at once, in MiB.
    pub part_mib: u32,
    /// Certificates to trust besides the system's; else those that the link names.
    pub ca_file: Option<PathBuf>,
    /// How often a request is tried.
    pub policy: Policy,
    /// How long to wait for the server.
    pub patience: Patience,
}

impl Settings {
    /// A target of that name, everything else as it is by default.
    pub fn new(name: &str, prefix: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: None,
            prefix: prefix.to_owned(),
            part_mib: PART_MIB,
            ca_file: None,
            policy: Policy::default(),
            patience: Patience::default(),
        }
    }

    /// A client that trusts whom the settings or the link say.
    ///
    /// # Errors
    /// [`Kind::Config`] when the CA file can't be read.
    pub fn client(&self, linked: Option<&PathBuf>, world: &World) -> Result<Client> {
        let path = self.ca_file.as_ref().or(linked);
        let roots = path.map(|path| certificates(path, &self.name)).transpose()?.unwrap_or_default();
        Ok(Client::new(roots, world.clone(), self.policy, self.patience))
    }

    /// The target by a link that was read from `file`.
    ///
    /// # Errors
    /// [`Kind::Config`] when the instance is linked to another place than the settings say, or the CA file can't be read.
    pub fn open(&self, file: LinkFile, link: Link, world: &World) -> Result<Cloud> {
        let what = format!("target {}", self.name);
        if let Some(wanted) = self.endpoint.as_ref().filter(|wanted| **wanted != link.endpoint) {
            let message = format!("{what}: this instance is linked to {}, and `endpoint` is {wanted}", link.endpoint);
            return Err(Error::new(Kind::Config, message)
                .hint("take the key away, or link anew: voxeltron-backup cloud link --force"));
        }
        let client = self.client(link.ca_file.as_ref(), world)?;
        let endpoint = link.endpoint.clone();
        Ok(Cloud(Arc::new(Store {
            name: self.name.clone(),
            prefix: self.prefix.clone(),
            wire: Wire { endpoint, client, auth: Auth::new(&what, file, link) },
            chunk: usize::try_from(self.part_mib).unwrap_or(1) * 1024 * 1024,
        })))
    }

    /// As what opens it when it is used.
    fn opener(self) -> Opener {
        Arc::new(move |cx| {
            let file = LinkFile::new(&cx.data_dir);
            let Some((link, warning)) = file.read()? else { return Err(link::none(&format!("target {}", self.name))) };
            warning.iter().for_each(|warning| cx.report.warn(warning));
            Ok(Box::new(self.open(file, link, &cx.world)?))
        })
    }
}

/// Reads the table.
pub(super) fn read(table: &mut Table<'_>, prefix: &str) -> Opener {
    let mut settings = Settings::new(table.name(), prefix);
    if let Some(given) = table.string("endpoint") {
        settings.endpoint = endpoint(&given);
        if settings.endpoint.is_none() {
            table.problem("endpoint", "is not an address", "write it like https://cloud.example.com");
        }
    }
    settings.ca_file = table.path("ca_file");
    settings.opener()
}

/// The target of a job that names `cloud` where no table does.
pub fn without_table() -> Opener {
    Settings::new(NAME, "").opener()
}
