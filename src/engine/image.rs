//! What is known of the images of an engine's servers: their names, their variables, how the server in them is reached.
//! Flows in: a container's variables and its server's command line. Flows out: user, password, port, database. Touches
//! nothing.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::Result;
use crate::secret::Secret;

/// What tells an engine's containers from others', and how the server in one of them is reached.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// What the images are called; registry, owner and tag left out.
    pub names: &'static [&'static str],
    /// Variables that these images set, and what is made from them has inherited.
    pub marks: &'static [&'static str],
    /// Where the server listens, inside.
    pub port: Port,
    /// Who comes in.
    pub credentials: fn(&Inside<'_>) -> Result<Credentials>,
    /// What stands in the URL behind the port's slash, encoded, for the database of that name.
    pub path: fn(&Inside<'_>, &str) -> String,
}

/// A user, if the image knows one, and a password, if one is needed.
pub type Credentials = (Option<String>, Option<Password>);

/// How the port of a server is said.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Options of the server's command line.
    pub options: &'static [&'static str],
    /// The images' variables.
    pub variables: &'static [&'static str],
    /// Where nothing says it.
    pub default: u16,
}

/// A password, or the file in the container that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Itself.
    Text(Secret),
    /// Its file.
    File(String),
}

/// The inside of a container as its image's scripts see it. It holds passwords.
pub struct Inside<'c> {
    env: &'c [String],
    words: Vec<&'c str>,
}

impl fmt::Debug for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inside").finish_non_exhaustive()
    }
}

impl<'c> Inside<'c> {
    /// Of its environment as `NAME=value`, and of the words of the server's command line.
    pub fn new(env: &'c [String], words: Vec<&'c str>) -> Self {
        Self { env, words }
    }

    /// A variable that is set and not empty.
    pub fn var(&self, name: &str) -> Option<&'c str> {
        let vars = self.env.iter().filter_map(|pair| pair.split_once('='));
        vars.filter(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value).next_back()
    }

    /// The first of these variables that is set.
    pub fn text(&self, names: &[&str]) -> Option<&'c str> {
        names.iter().find_map(|name| self.var(name))
    }

    /// The first of these variables, itself or as a file.
    pub fn secret(&self, names: &[&str]) -> Option<Password> {
        names.iter().find_map(|name| {
            let file = || self.var(&format!("{name}_FILE")).map(|path| Password::File(path.to_owned()));
            self.var(name).map(|text| Password::Text(Secret::new(text))).or_else(file)
        })
    }

    /// The value of an option on the server's command line.
    pub fn option(&self, names: &[&str]) -> Option<&'c str> {
        let joined = self.words.iter().find_map(|word| {
            let (name, value) = word.split_once('=')?;
            names.contains(&name).then_some(value)
        });
        let apart = self.words.windows(2).find_map(|pair| match pair {
            [name, value] if names.contains(name) => Some(*value),
            _ => None,
        });
        joined.or(apart)
    }

    /// The port that the server listens on, inside.
    pub fn port(&self, port: &Port) -> u16 {
        let given = self.option(port.options).and_then(|text| text.parse().ok());
        given.or_else(|| self.text(port.variables).and_then(|text| text.parse().ok())).unwrap_or(port.default)
    }
}

/// A part of a URL.
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
