//! The images of MySQL, MariaDB and Percona Server. Touches nothing.

use crate::engine::image::{Credentials, Image, Inside, Port, encode};
use crate::error::{Error, Kind, Result};

/// MySQL and MariaDB in a container.
pub const IMAGE: Image = Image {
    names: &["mysql", "mysql-server", "community-server", "mariadb", "mariadb-galera", "percona", "percona-server"],
    marks: &["MYSQL_MAJOR", "MARIADB_VERSION", "MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"],
    port: Port {
        options: &["-P", "--port"],
        variables: &["MYSQL_TCP_PORT", "MARIADB_PORT_NUMBER", "MYSQL_PORT_NUMBER"],
        default: 3306,
    },
    credentials,
    path: |inside, name| encode(inside.text(&["MARIADB_DATABASE", "MYSQL_DATABASE"]).unwrap_or(name)),
};

/// Root sees all that a dump needs, so it goes before the user of the application.
fn credentials(inside: &Inside<'_>) -> Result<Credentials> {
    let root = inside.secret(&["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD"]);
    let empty = ["MARIADB_ALLOW_EMPTY_ROOT_PASSWORD", "MYSQL_ALLOW_EMPTY_PASSWORD", "ALLOW_EMPTY_PASSWORD"];
    if root.is_some() || inside.text(&empty).is_some() {
        let user = inside.text(&["MARIADB_ROOT_USER", "MYSQL_ROOT_USER"]).unwrap_or("root");
        return Ok((Some(user.to_owned()), root));
    }
    let user = inside.text(&["MARIADB_USER", "MYSQL_USER"]).map(str::to_owned);
    let password = inside.secret(&["MARIADB_PASSWORD", "MYSQL_PASSWORD"]);
    match (user, password) {
        (Some(user), Some(password)) => Ok((Some(user), Some(password))),
        _ => Err(Error::new(Kind::Config, "its environment names neither the password of root nor a user with one")),
    }
}
