//! The engine of a container. Flows in: its image's name, its variables. Flows out: an engine's name. Touches nothing.

use super::Container;

/// What a database's image is called, registry, owner and tag left out.
const IMAGES: &[(&str, &str)] = &[
    ("postgres", "postgres"),
    ("postgresql", "postgres"),
    ("postgresql-repmgr", "postgres"),
    ("postgis", "postgres"),
    ("timescaledb", "postgres"),
    ("timescaledb-ha", "postgres"),
    ("timescaledb-postgis", "postgres"),
    ("pgvector", "postgres"),
    ("pgvecto-rs", "postgres"),
    ("alloydbomni", "postgres"),
    ("percona-distribution-postgresql", "postgres"),
    ("mysql", "mysql"),
    ("mysql-server", "mysql"),
    ("community-server", "mysql"),
    ("mariadb", "mysql"),
    ("mariadb-galera", "mysql"),
    ("percona", "mysql"),
    ("percona-server", "mysql"),
    ("redis", "redis"),
    ("redis-stack", "redis"),
    ("redis-stack-server", "redis"),
    ("valkey", "redis"),
    ("valkey-bundle", "redis"),
    ("mongo", "mongodb"),
    ("mongodb", "mongodb"),
    ("mongodb-community-server", "mongodb"),
    ("mongodb-enterprise-server", "mongodb"),
    ("percona-server-mongodb", "mongodb"),
    ("ferretdb", "mongodb"),
    ("ferretdb-eval", "mongodb"),
];

/// Variables that the servers' own images set, and what is made from these has inherited.
const VARIABLES: &[(&str, &str)] = &[
    ("PG_MAJOR", "postgres"),
    ("MYSQL_MAJOR", "mysql"),
    ("MARIADB_VERSION", "mysql"),
    ("REDIS_VERSION", "redis"),
    ("VALKEY_VERSION", "redis"),
    ("MONGO_MAJOR", "mongodb"),
    ("POSTGRES_PASSWORD", "postgres"),
    ("POSTGRES_PASSWORD_FILE", "postgres"),
    ("MARIADB_ROOT_PASSWORD", "mysql"),
    ("MYSQL_ROOT_PASSWORD", "mysql"),
    ("MONGO_INITDB_ROOT_USERNAME", "mongodb"),
];

/// The last part of an image's name: for `docker.io/bitnami/postgresql:17@sha256:…`, `postgresql`.
fn short(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

/// The engine that a container runs; by its variables where its image's name says nothing, if they agree.
pub fn engine(container: &Container) -> Option<&'static str> {
    let name = short(&container.config.image).to_ascii_lowercase();
    if let Some((_, engine)) = IMAGES.iter().find(|(image, _)| *image == name) {
        return Some(engine);
    }
    let engines: Vec<&str> =
        VARIABLES.iter().filter(|(var, _)| container.var(var).is_some()).map(|(_, engine)| *engine).collect();
    match engines.as_slice() {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => Some(first),
        _ => None,
    }
}
