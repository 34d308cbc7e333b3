//! The images of PostgreSQL: the official one, Bitnami's, and those with extensions. Touches nothing.

use crate::engine::image::{Image, Port, encode};

/// PostgreSQL in a container.
pub const IMAGE: Image = Image {
    names: &[
        "postgres",
        "postgresql",
        "postgresql-repmgr",
        "postgis",
        "timescaledb",
        "timescaledb-ha",
        "timescaledb-postgis",
        "pgvector",
        "pgvecto-rs",
        "alloydbomni",
        "percona-distribution-postgresql",
    ],
    marks: &["PG_MAJOR", "POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"],
    port: Port { options: &["-p", "--port", "port"], variables: &["PGPORT", "POSTGRESQL_PORT_NUMBER"], default: 5432 },
    credentials: |inside| {
        let user = inside.text(&["POSTGRES_USER", "POSTGRESQL_USERNAME", "POSTGRESQL_USER"]).unwrap_or("postgres");
        Ok((Some(user.to_owned()), inside.secret(&["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"])))
    },
    // The image makes a database of the user's name.
    path: |inside, name| encode(inside.text(&["POSTGRES_DB", "POSTGRESQL_DATABASE", "POSTGRES_USER"]).unwrap_or(name)),
};
