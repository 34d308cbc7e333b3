//! The images of Redis and Valkey. Touches nothing.

use crate::engine::image::{Image, Inside, Password, Port};
use crate::secret::Secret;

/// Redis and Valkey in a container.
pub const IMAGE: Image = Image {
    names: &["redis", "redis-stack", "redis-stack-server", "valkey", "valkey-bundle"],
    marks: &["REDIS_VERSION", "VALKEY_VERSION"],
    port: Port { options: &["--port"], variables: &["REDIS_PORT_NUMBER", "VALKEY_PORT_NUMBER"], default: 6379 },
    credentials: |inside| {
        Ok((None, requirepass(inside).or_else(|| inside.secret(&["REDIS_PASSWORD", "VALKEY_PASSWORD"]))))
    },
    path: |_, _| "0".to_owned(),
};

/// The password on the server's command line, which may name a variable.
fn requirepass(inside: &Inside<'_>) -> Option<Password> {
    let value = inside.option(&["--requirepass"])?;
    let value = value.trim_matches(['"', '\'']);
    let name = value.strip_prefix('$').map(|name| name.trim_matches(['{', '}']));
    match name {
        Some(name) => inside.secret(&[name]),
        None => Some(value).filter(|value| !value.is_empty()).map(|value| Password::Text(Secret::new(value))),
    }
}
