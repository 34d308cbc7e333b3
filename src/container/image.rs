//! The engine of a container. Flows in: its image's name, its variables. Flows out: an engine. Touches nothing.

use super::Container;
use crate::engine::{EngineKind, REGISTRY};

/// The last part of an image's name: for `docker.io/bitnami/postgresql:17@sha256:…`, `postgresql`.
fn short(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

/// The engine that a container runs; by its variables where its image's name says nothing, if they agree.
pub fn engine(container: &Container) -> Option<&'static EngineKind> {
    let name = short(&container.config.image).to_ascii_lowercase();
    let of = |kind: &&EngineKind, fits: &dyn Fn(&str) -> bool, named: bool| {
        kind.image.is_some_and(|image| if named { image.names } else { image.marks }.iter().any(|text| fits(text)))
    };
    if let Some(kind) = REGISTRY.iter().find(|kind| of(kind, &|known| known == name, true)) {
        return Some(kind);
    }
    let inside = container.inside();
    let mut marked = REGISTRY.iter().filter(|kind| of(kind, &|mark| inside.var(mark).is_some(), false));
    marked.next().filter(|_| marked.next().is_none())
}
