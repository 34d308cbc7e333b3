//! An S3 target's keys in the configuration, and the secrets behind them. Flows in: a table. Flows out: a target that is
//! ready. Touches the CA file and the secrets' sources; where nothing else gives keys, the target asks the host's own role.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use s3::creds::Credentials;
use s3::{Bucket, Region};

use super::auth::{Auth, Identity, Pass, Role};
use super::wire::Wire;
use super::{S3, Store};
use crate::config::table::Table;
use crate::engine::Cx;
use crate::error::{Error, Kind, Result};
use crate::report::Report;
use crate::secret::{Secret, Source};
use crate::target::Opener;
use crate::target::http::{Client, Patience, certificates, endpoint, host, named};
use crate::target::retry::Policy;
use crate::world::World;

/// Where a bucket is if nothing says so.
const REGION: &str = "us-east-1";
/// The size of the first parts if nothing says so, in MiB.
const PART_MIB: u32 = 8;
/// Where an instance's metadata server is if nothing says so.
const METADATA: &str = "http://169.254.169.254";
/// Where a container's agent may be asked without TLS: ECS, EKS.
const AGENTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
/// The variables that AWS's own tools read their credentials from.
const VARS: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN"];

/// All that a target needs to know, but for its keys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The target's name in the configuration.
    pub name: String,
    /// Scheme, host, port, perhaps a path; no slash at its end.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// What is put before every key: empty, or with a slash at its end.
    pub prefix: String,
    /// Whether the bucket stands in the path or in the host's name.
    pub path_style: bool,
    /// The storage class of what is stored, if not the bucket's own.
    pub storage_class: Option<String>,
    /// What the store is to encrypt it with, and how long it is to keep it.
    pub protection: Protection,
    /// The size of the first parts, in MiB.
    pub part_mib: u32,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a request is tried.
    pub policy: Policy,
    /// How long to wait for the store.
    pub patience: Patience,
}

/// What a store is asked to do for what it keeps, beyond keeping it.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// `AES256`, `aws:kms`, `aws:kms:dsse`: encryption by the store, with a key of its own.
    pub encryption: Option<String>,
    /// Which of its keys.
    pub kms_key: Option<String>,
    /// Until when nobody may remove it.
    pub lock: Option<Lock>,
}

/// An object lock.
#[derive(Clone, Debug)]
pub struct Lock {
    /// `GOVERNANCE`, which some may lift, or `COMPLIANCE`, which nobody may.
    pub mode: String,
    /// How long, in days from the moment it is stored.
    pub days: u32,
}

/// What requests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Names the key.
    pub access: Secret,
    /// The key.
    pub secret: Secret,
    /// Comes with keys that end.
    pub token: Option<Secret>,
}

impl Keys {
    /// Each of its secrets.
    pub fn all(&self) -> impl Iterator<Item = &Secret> {
        [&self.access, &self.secret].into_iter().chain(&self.token)
    }
}

impl Settings {
    /// A target of that name, everything else as it is by default.
    pub fn new(name: &str, endpoint: &str, bucket: &str, prefix: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            bucket: bucket.to_owned(),
            region: REGION.to_owned(),
            prefix: prefix.to_owned(),
            path_style: !is_aws(endpoint) || bucket.contains('.'),
            storage_class: None,
            protection: Protection::default(),
            part_mib: PART_MIB,
            ca_file: None,
            policy: Policy::default(),
            patience: Patience::default(),
        }
    }

    /// The target.
    ///
    /// # Errors
    /// [`Kind::Config`] when the CA file can't be read, or the bucket's or region's name can't be one.
    pub fn open(&self, keys: &Keys, world: &World) -> Result<S3> {
        self.open_as(Identity::Given(keys.clone()), world)
    }

    /// The target, with keys that may come from a role.
    ///
    /// # Errors
    /// As [`Settings::open`].
    pub fn open_as(&self, identity: Identity, world: &World) -> Result<S3> {
        self.with(identity, world, &Report::default())
    }

    fn unusable(&self, what: &str) -> Error {
        Error::new(Kind::Config, format!("target {}: {what} can't be used", self.name))
    }

    fn with(&self, identity: Identity, world: &World, report: &Report) -> Result<S3> {
        let roots = self.ca_file.as_deref().map(|path| certificates(path, &self.name)).transpose()?.unwrap_or_default();
        let region = Region::Custom { region: self.region.clone(), endpoint: self.endpoint.clone() };
        // Each request gets its keys when it is signed.
        let nobody = Credentials::anonymous().map_err(|_| self.unusable("the keys"))?;
        let mut bucket = Bucket::new(&self.bucket, region, nobody).map_err(|_| self.unusable("bucket and endpoint"))?;
        if self.path_style {
            bucket.set_path_style();
        }
        Ok(S3(Arc::new(Store {
            name: self.name.clone(),
            endpoint: self.endpoint.clone(),
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            wire: Wire::new(
                bucket,
                Client::new(roots, world.clone(), self.policy, self.patience),
                Auth::new(&self.name, identity),
            ),
            part_size: u64::from(self.part_mib) * 1024 * 1024,
            storage_class: self.storage_class.clone(),
            protection: self.protection.clone(),
            conditions: AtomicBool::new(true),
            report: report.clone(),
        })))
    }
}

fn is_aws(endpoint: &str) -> bool {
    let host = host(endpoint);
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// Reads the table.
pub(super) fn read(table: &mut Table<'_>, prefix: &str) -> Opener {
    let given = table.string("endpoint");
    let bucket = table.required_string("bucket").unwrap_or_default();
    let region = table.string("region").unwrap_or_else(|| REGION.to_owned());
    if !bucket.is_empty() && !named(&bucket, "-._") {
        table.problem("bucket", "can't be a bucket's name", "letters, digits, - and . are allowed");
    }
    if !named(&region, "-_") {
        table.problem("region", "can't be a region", "write it like us-east-1");
    }
    let place = match given.as_deref().map(endpoint) {
        // The global name answers for one region, and sends every other away.
        None => format!("https://s3.{region}.amazonaws.com"),
        Some(Some(place)) if place == "https://s3.amazonaws.com" => format!("https://s3.{region}.amazonaws.com"),
        Some(Some(place)) => place,
        Some(None) => {
            table.problem(
                "endpoint",
                "is not an address",
                "write it like https://s3.example.com or http://10.0.0.5:9000",
            );
            String::new()
        }
    };
    let mut settings = Settings { region, ..Settings::new(table.name(), &place, &bucket, prefix) };
    settings.path_style = table.boolean("path_style").unwrap_or(settings.path_style);
    settings.storage_class = table.string("storage_class");
    if settings.storage_class.as_ref().is_some_and(|class| !named(class, "-_")) {
        table.problem("storage_class", "can't be a storage class", "write it like STANDARD_IA");
    }
    settings.part_mib = table.integer("part_size", 5..=5000).unwrap_or(settings.part_mib);
    settings.protection = protection(table);
    settings.ca_file = table.path("ca_file");
    let (access, secret, token) =
        (table.secret("access_key"), table.secret("secret_key"), table.secret("session_token"));
    for (one, other) in [("access_key", "secret_key"), ("secret_key", "access_key"), ("session_token", "access_key")] {
        let has = |key: &str| match key {
            "access_key" => access.is_some(),
            "secret_key" => secret.is_some(),
            _ => token.is_some(),
        };
        if has(one) && !has(other) {
            table.problem(one, &format!("stands without `{other}`"), &format!("give `{other}`, too, or neither"));
        }
    }
    if access.is_none() && secret.is_none() {
        table.hide(&VARS);
    }
    Arc::new(move |cx| Ok(Box::new(open(&settings, access.as_ref().zip(secret.as_ref()), token.as_ref(), cx)?)))
}

fn protection(table: &mut Table<'_>) -> Protection {
    let one_of = |table: &mut Table<'_>, key: &'static str, words: &[&str]| {
        let word = table.string(key)?;
        if !words.contains(&word.as_str()) {
            table.problem(
                key,
                &format!("is {word:?}, which is none of its words"),
                &format!("use {}", words.join(" or ")),
            );
        }
        Some(word)
    };
    let encryption = one_of(table, "sse", &["AES256", "aws:kms", "aws:kms:dsse"]);
    let kms_key = table.string("sse_kms_key_id");
    if kms_key.is_some() && encryption.as_deref().is_none_or(|encryption| encryption == "AES256") {
        table.problem("sse_kms_key_id", "stands without `sse` that uses it", "add: sse = \"aws:kms\"");
    }
    if kms_key.as_deref().is_some_and(|key| !named(key, "-_:/.")) {
        table.problem("sse_kms_key_id", "can't be a key's name", "give its id, alias or ARN");
    }
    let mode = one_of(table, "object_lock", &["GOVERNANCE", "COMPLIANCE"]);
    let days = table.integer("object_lock_days", 1..=36_500);
    if mode.is_some() != days.is_some() {
        table.wrong(
            "has one of `object_lock` and `object_lock_days`",
            "give both, or neither for the bucket's own rule",
        );
    }
    Protection { encryption, kms_key, lock: mode.zip(days).map(|(mode, days)| Lock { mode, days }) }
}

fn open(settings: &Settings, given: Option<(&Source, &Source)>, token: Option<&Source>, cx: &Cx) -> Result<S3> {
    let what = |key: &str| format!("{key} of [backup.targets.{}]", settings.name);
    let vars = &cx.world.vars;
    let keys = match (given, vars.get(VARS[0]), vars.get(VARS[1])) {
        (Some((access, secret)), ..) => Keys {
            access: access.fetch(&what("access_key"), cx)?,
            secret: secret.fetch(&what("secret_key"), cx)?,
            token: token.map(|token| token.fetch(&what("session_token"), cx)).transpose()?,
        },
        (None, Some(access), Some(secret)) => {
            Keys { access: Secret::new(access), secret: Secret::new(secret), token: vars.get(VARS[2]).map(Secret::new) }
        }
        _ => return settings.with(Identity::Role(role(settings, cx)?), &cx.world, &cx.report),
    };
    settings.with(Identity::Given(keys), &cx.world, &cx.report)
}

/// The role that the container or the host has, by AWS's own variables; it is asked when there is something to sign. That of
/// an instance is taken only where there can be one, since elsewhere the question alone takes long.
fn role(settings: &Settings, cx: &Cx) -> Result<Role> {
    let get = |name: &str| cx.world.vars.get(name);
    let address = |name: &str, text: &str| {
        endpoint(text).ok_or_else(|| no_keys(settings, &format!("{name} in the environment is not an address")))
    };
    let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let metadata = get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let off = get("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if let Some(file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") {
        let why = "AWS_WEB_IDENTITY_TOKEN_FILE stands in the environment without AWS_ROLE_ARN";
        let arn = get("AWS_ROLE_ARN").ok_or_else(|| no_keys(settings, why))?.to_owned();
        let session = get("AWS_ROLE_SESSION_NAME").unwrap_or("voxeltron-backup").to_owned();
        let place = match get("AWS_ENDPOINT_URL_STS") {
            Some(text) => address("AWS_ENDPOINT_URL_STS", text)?,
            None => token_service(settings),
        };
        return Ok(Role::Web { place, arn, session, file: PathBuf::from(file) });
    }
    if let Some(url) = relative.or_else(|| get("AWS_CONTAINER_CREDENTIALS_FULL_URI")) {
        let url = container(url, relative.is_some());
        let url =
            url.ok_or_else(|| no_keys(settings, "AWS_CONTAINER_CREDENTIALS_… is no address that may be asked"))?;
        let file = get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|path| Pass::File(PathBuf::from(path)));
        let text = || get(VARS[3]).map(|text| Pass::Text(Secret::new(text)));
        // The address that is AWS's own wants none.
        return Ok(Role::Container(url, file.or_else(text).filter(|_| relative.is_none())));
    }
    match metadata {
        _ if off => Err(no_keys(settings, "there are no keys for it")),
        Some(place) => Ok(Role::Instance(address("AWS_EC2_METADATA_SERVICE_ENDPOINT", place)?)),
        None if is_aws(&settings.endpoint) => Ok(Role::Instance(METADATA.to_owned())),
        None => Err(no_keys(settings, "there are no keys for it")),
    }
}

/// The Security Token Service: at AWS that of the bucket's region, since the global one does not know every region's tokens.
fn token_service(settings: &Settings) -> String {
    match host(&settings.endpoint) {
        host if host.ends_with(".amazonaws.com.cn") => format!("https://sts.{}.amazonaws.com.cn", settings.region),
        host if host.ends_with(".amazonaws.com") => format!("https://sts.{}.amazonaws.com", settings.region),
        _ => "https://sts.amazonaws.com".to_owned(),
    }
}

/// Where a container's agent is asked: without TLS only on this host, or at AWS's own addresses, since a token goes there.
fn container(url: &str, is_relative: bool) -> Option<String> {
    let fine = |url: &str| url.chars().all(|c| c.is_ascii_graphic()) && !url.contains(['@', '#']);
    if is_relative {
        let is_path = url.starts_with('/') && !url.starts_with("//") && fine(url);
        return is_path.then(|| format!("http://{}{url}", AGENTS[0]));
    }
    let host = host(url);
    let near = || {
        let loops = host.parse().is_ok_and(|address: std::net::Ipv4Addr| address.is_loopback());
        loops || host == "localhost" || host == "[::1]" || AGENTS.contains(&host)
    };
    let may = url.starts_with("https://") || (url.starts_with("http://") && near());
    (may && !host.is_empty() && fine(url)).then(|| url.to_owned())
}

fn no_keys(settings: &Settings, why: &str) -> Error {
    Error::new(Kind::Config, format!("target {}: {why}", settings.name)).hint(mend(&settings.name))
}

/// The mend where there are no keys for the target of that name.
pub(super) fn mend(name: &str) -> String {
    format!(
        "set access_key and secret_key in [backup.targets.{name}], or {} and {} in the environment",
        VARS[0], VARS[1]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_stands_in_the_path_but_at_aws() {
        let style = |endpoint: &str, bucket: &str| Settings::new("s3", endpoint, bucket, "").path_style;
        assert!(style("http://127.0.0.1:9000", "b"));
        assert!(style("https://amazonaws.com.example.org", "b"));
        assert!(!style("https://s3.eu-central-1.amazonaws.com", "b"));
        assert!(style("https://s3.eu-central-1.amazonaws.com", "a.b"), "no certificate fits a dot");
    }

    #[test]
    fn a_containers_token_goes_to_nobody_else() {
        for url in [
            "http://127.0.0.1:9/role",
            "http://localhost/x?id=1",
            "http://[::1]:9/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "https://agent.example.com/x",
        ] {
            assert_eq!(container(url, false).as_deref(), Some(url));
        }
        for url in [
            "http://agent.example.com/x",
            "http://127.0.0.1.example.com/x",
            "http://127.0.0.1@example.com/x",
            "http://169.254.170.24/x",
            "ftp://127.0.0.1/x",
            "https://",
            "/v2/x",
        ] {
            assert_eq!(container(url, false), None, "{url}");
        }
        assert_eq!(container("/v2/x", true).as_deref(), Some("http://169.254.170.2/v2/x"));
        for url in ["//example.com/x", "x", "http://example.com", "/x@y"] {
            assert_eq!(container(url, true), None, "{url}");
        }
    }

    #[test]
    fn web_identities_are_known_in_the_buckets_region() {
        let at = |endpoint: &str| {
            token_service(&Settings { region: "eu-x-1".to_owned(), ..Settings::new("s3", endpoint, "b", "") })
        };
        assert_eq!(at("https://s3.eu-x-1.amazonaws.com"), "https://sts.eu-x-1.amazonaws.com");
        assert_eq!(at("https://s3.eu-x-1.amazonaws.com.cn"), "https://sts.eu-x-1.amazonaws.com.cn");
        assert_eq!(at("https://s3.example.com"), "https://sts.amazonaws.com");
    }
}
