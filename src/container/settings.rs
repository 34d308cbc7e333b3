//! How the server in a container is reached. Flows in: what inspect says of the container. Flows out: an engine, a URL of
//! the server as it is seen from inside, a password or where it is. Touches nothing.
//!
//! Always over TCP: while the images set a database up, its server listens on a socket alone, and half a database must
//! not be taken for one.

use super::{Container, image};
use crate::engine::EngineKind;
pub use crate::engine::image::Password;
use crate::engine::image::encode;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

/// How a database is reached from inside its container.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its engine.
    pub engine: &'static EngineKind,
    /// Without the password.
    pub url: Secret,
    /// Its password.
    pub password: Option<Password>,
}

/// What a container says of the database `name`.
///
/// # Errors
/// [`Kind::Config`] when its image is unknown, or nobody may come in.
pub fn of(container: &Container, name: &str) -> Result<Found> {
    let unknown =
        || Error::new(Kind::Config, format!("which engine the image {} holds is not known", container.config.image));
    let engine = image::engine(container).ok_or_else(unknown)?;
    let (image, scheme) = engine.image.zip(engine.schemes.first()).ok_or_else(unknown)?;
    let inside = container.inside();
    let (user, password) = (image.credentials)(&inside)?;
    let user = user.map(|user| format!("{}@", encode(&user))).unwrap_or_default();
    let (port, path) = (inside.port(&image.port), (image.path)(&inside, name));
    Ok(Found { engine, url: Secret::new(format!("{scheme}://{user}127.0.0.1:{port}/{path}")), password })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `docker inspect` prints it, cut down to what is of use; the environments are those of the real images.
    fn container(image: &str, env: &[&str], args: &[&str]) -> Container {
        let json = serde_json::json!([{
            "Id": "0f", "Name": "/voxeltron-db-x", "Path": "docker-entrypoint.sh", "Args": args,
            "State": {"Status": "running", "Running": true, "Paused": false, "Restarting": false, "Pid": 1},
            "Image": "sha256:2be8", "HostConfig": {"NetworkMode": "bridge"},
            "Config": {"Hostname": "0f", "Image": image, "Env": env, "Cmd": args, "Entrypoint": ["docker-entrypoint.sh"]},
        }]);
        Container::parse(json.to_string().as_bytes()).unwrap()
    }

    fn found(image: &str, env: &[&str], args: &[&str]) -> (String, String) {
        let found = of(&container(image, env, args), "mydb").unwrap();
        let password = match found.password {
            Some(Password::Text(text)) => text.expose().to_owned(),
            Some(Password::File(path)) => format!("file {path}"),
            None => "none".to_owned(),
        };
        (found.url.expose().to_owned(), password)
    }

    #[track_caller]
    fn is(image: &str, env: &[&str], args: &[&str], url: &str, password: &str) {
        assert_eq!(found(image, env, args), (url.to_owned(), password.to_owned()));
    }

    #[test]
    fn the_images_of_postgres() {
        let official =
            ["PATH=/usr/local/bin:/usr/lib/postgresql/17/bin", "PG_MAJOR=17", "PGDATA=/var/lib/postgresql/data"];
        let with = |more: &[&'static str]| [&official[..], more].concat();
        let own = "postgres://postgres@127.0.0.1:5432/mydb";
        for image in [
            "postgres:17",
            "postgres",
            "docker.io/library/postgres@sha256:00",
            "localhost:5000/postgres:17-alpine@sha256:00",
            "postgis/postgis:17-3.5",
            "timescale/timescaledb:latest-pg17",
            "pgvector/pgvector:pg17",
            "supabase/postgres:15.8",
            "sha256:2be8cd03c24c",
            "registry.example/team/our-database:3",
        ] {
            is(image, &with(&["POSTGRES_PASSWORD=a=b c"]), &["postgres"], own, "a=b c");
        }
        let all =
            with(&["POSTGRES_PASSWORD_FILE=/run/secrets/p", "POSTGRES_USER=a:b@c", "POSTGRES_DB=my/db", "PGPORT=5433"]);
        is("postgres", &all, &["postgres"], "postgres://a%3Ab%40c@127.0.0.1:5433/my%2Fdb", "file /run/secrets/p");
        let user = with(&["POSTGRES_USER=app", "POSTGRES_HOST_AUTH_METHOD=trust"]);
        is("postgres", &user, &["postgres", "-c", "port=5434"], "postgres://app@127.0.0.1:5434/app", "none");
        let bitnami = ["POSTGRESQL_USERNAME=app", "POSTGRESQL_PASSWORD=p", "POSTGRESQL_DATABASE=d"];
        is("bitnami/postgresql:17", &bitnami, &["/run.sh"], "postgres://app@127.0.0.1:5432/d", "p");
    }

    #[test]
    fn the_images_of_mysql_and_mariadb() {
        let root = "mysql://root@127.0.0.1:3306/mydb";
        is("mysql:9", &["MYSQL_MAJOR=9", "MYSQL_ROOT_PASSWORD=p"], &["mysqld"], root, "p");
        is("mariadb:11", &["MARIADB_ROOT_PASSWORD_FILE=/f", "MARIADB_USER=u"], &["mariadbd"], root, "file /f");
        is("percona/percona-server:8.4", &["MYSQL_ALLOW_EMPTY_PASSWORD=yes"], &["mysqld"], root, "none");
        let user = ["MARIADB_RANDOM_ROOT_PASSWORD=1", "MARIADB_USER=u", "MARIADB_PASSWORD=p", "MARIADB_DATABASE=d"];
        is("mariadb", &user, &["mariadbd", "--port=3307"], "mysql://u@127.0.0.1:3307/d", "p");
        let error = of(&container("mysql", &["MYSQL_RANDOM_ROOT_PASSWORD=canary"], &["mysqld"]), "mydb").unwrap_err();
        assert!(error.message.contains("neither the password of root nor a user"), "{error:?}");
    }

    #[test]
    fn the_images_of_redis_valkey_and_mongodb() {
        let redis = "redis://127.0.0.1:6379/0";
        is("redis:8", &["REDIS_VERSION=8.0.0"], &["redis-server"], redis, "none");
        is("valkey/valkey:8", &[], &["valkey-server", "--requirepass", "a b"], redis, "a b");
        is("bitnami/redis:7", &["REDIS_PASSWORD=p"], &["/run.sh"], redis, "p");
        let script = ["sh", "-c", "exec redis-server --port 6380 --requirepass \"${SECRET}\" --save 60 1"];
        is("redis/redis-stack-server", &["SECRET=p"], &script, "redis://127.0.0.1:6380/0", "p");
        let mongo = ["MONGO_MAJOR=8.0", "MONGO_INITDB_ROOT_USERNAME=r", "MONGO_INITDB_ROOT_PASSWORD=p"];
        is("mongo:8", &mongo, &["mongod"], "mongodb://r@127.0.0.1:27017/mydb?authSource=admin", "p");
        is("mongo:8", &["MONGO_INITDB_DATABASE=d"], &["mongod"], "mongodb://127.0.0.1:27017/d", "none");
        assert_eq!(of(&container("ghcr.io/ferretdb/ferretdb:2", &[], &[]), "x").unwrap().engine.name, "mongodb");
    }

    #[test]
    fn what_is_unknown_or_ambiguous_is_told_without_a_secret() {
        for env in [&["PASSWORD=canary"][..], &["PG_MAJOR=17", "MYSQL_ROOT_PASSWORD=canary"]] {
            let error = of(&container("registry/app:1", env, &["--requirepass", "canary"]), "mydb").unwrap_err();
            assert_eq!(error.message, "which engine the image registry/app:1 holds is not known");
            assert!(!format!("{error:?}").contains("canary"));
        }
        for json in ["", "[]", "{}", "[{\"Config\":{\"Env\":[\"P=canary\"]}}]"] {
            let error = Container::parse(json.as_bytes()).unwrap_err();
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        }
    }
}
