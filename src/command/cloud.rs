//! `cloud link`, `cloud unlink`, `cloud status`: the link of this instance to Voxeltron Cloud. Flows in: the endpoint, once.
//! Flows out: the code for a person to type, then the link. Touches the network and the link's file.

use chrono::{DateTime, Utc};

use super::Done;
use crate::app::App;
use crate::cli::{CloudCommand, LinkArgs, UnlinkArgs};
use crate::error::{Context, Error, Kind, Result};
use crate::format::time::rfc3339;
use crate::target::cloud::link::{self, Link, LinkFile};
use crate::target::cloud::oauth::{self, Device};
use crate::target::cloud::{NAME, Settings};
use crate::target::http::{Client, endpoint, host};
use crate::target::trouble::{Trouble, without};

/// What messages begin with.
const WHAT: &str = "Voxeltron Cloud";

/// Does one of them.
///
/// # Errors
/// Why it could not be done.
pub fn run(app: &App, command: &CloudCommand) -> Result<Done> {
    match command {
        CloudCommand::Link(args) => begin(app, args),
        CloudCommand::Unlink(args) => end(app, args),
        CloudCommand::Status => status(app),
    }
}

/// Where to link to: what the command line says, else the configuration.
fn place(app: &App, args: &LinkArgs) -> Result<String> {
    let configured = || app.config.targets.values().find_map(|target| target.endpoint.clone());
    let Some(given) = args.endpoint.clone().or_else(configured) else {
        return Err(Error::new(Kind::Usage, "no endpoint is given, and no domain is built in")
            .hint("say who keeps the backups: voxeltron-backup cloud link --endpoint https://cloud.example.com"));
    };
    endpoint(&given).ok_or_else(|| {
        Error::new(Kind::Usage, "the endpoint is not an address").hint("write it like https://cloud.example.com")
    })
}

fn tell(trouble: &Trouble, place: &str, doing: &str) -> Error {
    if let Trouble::Told(error) = trouble {
        return error.clone();
    }
    let reason = trouble.reason(place, WHAT, &|text| without(text, &[]));
    let mend = match trouble {
        Trouble::Line(..) => trouble.line_hint(&format!("[backup.targets.{NAME}] or at `cloud link`")),
        _ => Some(format!("look whether {place} is the endpoint of a {WHAT}")),
    };
    let error = Error::new(Kind::Target, format!("can't {doing}: {reason}"));
    mend.into_iter().fold(error, Error::hint)
}

fn client(app: &App, args: Option<&LinkArgs>, link: Option<&Link>) -> Result<Client> {
    let mut settings = Settings::new(NAME, "");
    let configured = || app.config.targets.values().find_map(|target| target.ca_file.clone());
    settings.ca_file = args.and_then(|args| args.ca_file.clone()).or_else(configured);
    settings.client(link.and_then(|link| link.ca_file.as_ref()), &app.cx.world)
}

fn begin(app: &App, args: &LinkArgs) -> Result<Done> {
    let (report, file) = (&app.cx.report, LinkFile::new(&app.cx.data_dir));
    // With --force even one that can't be understood is replaced.
    let before = if args.force { file.read().unwrap_or_default() } else { file.read()? };
    if let Some((before, _)) = before.as_ref().filter(|_| !args.force) {
        let hint = "end that link first: voxeltron-backup cloud unlink; or replace it: --force";
        return Err(
            Error::new(Kind::Usage, format!("this instance is linked to {} already", before.endpoint)).hint(hint)
        );
    }
    let place = match (&args.endpoint, &before) {
        (None, Some((before, _))) => before.endpoint.clone(),
        _ => place(app, args)?,
    };
    if place.starts_with("http://") && !matches!(host(&place), "127.0.0.1" | "localhost" | "[::1]") {
        report.warn(&format!("{place} has no TLS: whoever listens on the way gets the tokens"));
    }
    let before = before.map(|(link, _)| link);
    // Another server's authority is not trusted with this one.
    let same = before.as_ref().filter(|before| before.endpoint == place);
    let client = client(app, Some(args), same)?;
    let failed = |trouble: Trouble| tell(&trouble, &place, &format!("link to {place}"));
    let places = oauth::discover(&client, &place).map_err(failed)?;
    let device = oauth::begin(&client, &places).map_err(failed)?;
    show(app, &device)?;
    let tokens = oauth::wait(&client, &places, &device).map_err(failed)?;
    let mut link = Link::new(&place, &places.token_endpoint, app.cx.world.clock.now(), tokens);
    link.revocation_endpoint = places.revocation_endpoint;
    // Later runs begin in other folders.
    let given = args.ca_file.as_deref().map(std::path::absolute).transpose().doing(Kind::Usage, "--ca-file")?;
    link.ca_file = given.or_else(|| same.and_then(|before| before.ca_file.clone()));
    keep(&file, &link)?;
    // From here on the link stands; its account's name is for people.
    let named = Settings::new(NAME, "").open(file.clone(), link.clone(), &app.cx.world)?.account();
    match named {
        Ok(account) => {
            link.account = Some(account.account);
            let now = file.read()?.map_or(link.tokens.clone(), |(now, _)| now.tokens);
            link.tokens = now;
            keep(&file, &link)?;
        }
        Err(failure) => report.warn(&failure.error.message),
    }
    if let Some(before) = before {
        revoke(app, &before).unwrap_or_else(|error| report.warn(&format!("the link before: {}", error.message)));
    }
    let whose = link.account.as_ref().map_or_else(String::new, |account| format!(", account {account}"));
    report.note(&format!("linked to {}{whose}; a job sends its backups there by target = \"{NAME}\"", link.endpoint));
    document(&link)
}

fn keep(file: &LinkFile, link: &Link) -> Result<()> {
    let _lock = file.lock()?;
    file.write(link)
}

/// Shows the code; under `--json` on stderr, since stdout is the document's.
fn show(app: &App, device: &Device) -> Result<()> {
    let mut text = format!("Open   {}\nType   {}", device.verification_uri, device.user_code);
    if let Some(complete) = &device.verification_uri_complete {
        text.push_str(&format!("\nor open {complete}"));
    }
    let minutes = device.expires_in.div_ceil(60);
    text.push_str(&format!("\nWaiting until it is approved there, for {minutes} minutes at most."));
    if app.cx.report.is_json() {
        app.cx.report.note(&text);
        return Ok(());
    }
    app.cx.report.out(&text)
}

fn document(link: &Link) -> Result<Done> {
    let expires = rfc3339(link.tokens.expires);
    Done::well().with("endpoint", &link.endpoint)?.with("account", &link.account)?.with("expires", &expires)
}

fn revoke(app: &App, link: &Link) -> Result<()> {
    let Some(place) = &link.revocation_endpoint else { return Ok(()) };
    let client = client(app, None, Some(link))?;
    let revoked = oauth::revoke(&client, place, &link.tokens.refresh);
    revoked.map_err(|trouble| tell(&trouble, place, &format!("end the link at {}", link.endpoint)))
}

fn end(app: &App, args: &UnlinkArgs) -> Result<Done> {
    let file = LinkFile::new(&app.cx.data_dir);
    let lock = file.lock()?;
    let found = if args.force { file.read().unwrap_or_default() } else { file.read()? };
    if let Some((link, _)) = &found {
        match revoke(app, link) {
            Err(error) if args.force => app.cx.report.warn(&error.message),
            Err(error) => {
                let hint = "--force removes the link here, and leaves it standing there".to_owned();
                return Err(Error { hint: Some(hint), ..error });
            }
            Ok(()) => {}
        }
    }
    file.remove()?;
    drop(lock);
    let endpoint = found.map(|(link, _)| link.endpoint);
    app.cx.report.note(&match &endpoint {
        Some(endpoint) => format!("the link to {endpoint} is ended; the backups there stay"),
        None => "there is no link".to_owned(),
    });
    Done::well().with("endpoint", &endpoint)
}

fn status(app: &App) -> Result<Done> {
    let file = LinkFile::new(&app.cx.data_dir);
    let Some((link, warning)) = file.read()? else { return Err(link::none("cloud status")) };
    warning.iter().for_each(|warning| app.cx.report.warn(warning));
    let mut settings = Settings::new(NAME, "");
    settings.ca_file = app.config.targets.values().find_map(|target| target.ca_file.clone());
    let linked = link.linked;
    let account = settings.open(file.clone(), link.clone(), &app.cx.world)?.account()?;
    // It may have been renewed just now.
    let link = file.read()?.map_or(link, |(now, _)| now);
    let expires: DateTime<Utc> = link.tokens.expires;
    let room = match (account.used_bytes, account.quota_bytes) {
        (Some(used), Some(quota)) => format!("{used} of {quota} bytes"),
        (Some(used), None) => format!("{used} bytes"),
        _ => "not told".to_owned(),
    };
    app.cx.report.out(&format!(
        "endpoint  {}\naccount   {}\nlinked    {}\nused      {room}\ntoken     until {}, renewed by itself",
        link.endpoint,
        account.account,
        rfc3339(linked),
        rfc3339(expires),
    ))?;
    document(&Link { account: Some(account.account), ..link })?
        .with("linked", &rfc3339(linked))?
        .with("quota_bytes", &account.quota_bytes)?
        .with("used_bytes", &account.used_bytes)
}
