//! The images of MongoDB, and of what speaks its protocol. Touches nothing.

use crate::engine::image::{Image, Inside, Password, Port, encode};

/// MongoDB in a container.
pub const IMAGE: Image = Image {
    names: &[
        "mongo",
        "mongodb",
        "mongodb-community-server",
        "mongodb-enterprise-server",
        "percona-server-mongodb",
        "ferretdb",
        "ferretdb-eval",
    ],
    marks: &["MONGO_MAJOR", "MONGO_INITDB_ROOT_USERNAME"],
    port: Port { options: &["--port"], variables: &["MONGODB_PORT_NUMBER"], default: 27017 },
    credentials: |inside| {
        let password = password(inside);
        let names = ["MONGO_INITDB_ROOT_USERNAME", "MONGODB_INITDB_ROOT_USERNAME", "MONGODB_ROOT_USER"];
        let user = password.as_ref().map(|_| inside.text(&names).unwrap_or("root").to_owned());
        Ok((user, password))
    },
    path: |inside, name| {
        let database = encode(inside.text(&["MONGO_INITDB_DATABASE", "MONGODB_DATABASE"]).unwrap_or(name));
        // The images make their user there.
        if password(inside).is_some() { format!("{database}?authSource=admin") } else { database }
    },
};

fn password(inside: &Inside<'_>) -> Option<Password> {
    inside.secret(&["MONGO_INITDB_ROOT_PASSWORD", "MONGODB_ROOT_PASSWORD"])
}
