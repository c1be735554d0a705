//! Credentials of registries, as `docker login` keeps them.
//!
//! Owns: reading `config.json` and choosing an entry. Invariant: an entry is for exactly the registry that it names; a configuration that
//! is not there holds none, one that cannot be read is an error. Does not know: how credentials are used.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::PullError;
use crate::helper::{self, Wait};
use crate::reference::Reference;

const FILE_BYTES_MAX: u64 = 1 << 20;
/// The user name by which helpers say that the secret is a token.
const TOKEN_USER: &str = "<token>";

/// What is shown to a registry, or to who gives tokens for it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credential {
    Password {
        user: String,
        password: String,
    },
    /// Exchanged for an access token.
    Identity(String),
}

impl Credential {
    pub(crate) fn of(user: String, secret: String) -> Credential {
        if user == TOKEN_USER { Credential::Identity(secret) } else { Credential::Password { user, password: secret } }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The credentials for a reference's registry, if there are any. `directory` holds the Docker configuration.
pub(crate) fn find(directory: &Path, reference: &Reference, wait: Wait<'_>) -> Result<Option<Credential>, PullError> {
    let path = directory.join("config.json");
    let Some(configuration) = read(&path)? else { return Ok(None) };
    let key = reference.credential_key();
    if let Some(name) =
        configuration.cred_helpers.get(key).or_else(|| configuration.cred_helpers.get(reference.registry()))
    {
        return helper::ask(name, key, wait);
    }
    let wanted = host_of(key);
    // The exact name first: two entries of one host are told apart by what `docker login` writes.
    let entry = configuration
        .auths
        .get(key)
        .or_else(|| configuration.auths.iter().find(|(name, _)| host_of(name) == wanted).map(|(_, entry)| entry));
    let found = entry.map(credential).transpose().map_err(|why| {
        PullError::Credentials(format!("{}: the entry of {key} {why}: run `docker login {key}` again", path.display()))
    })?;
    match (found.flatten(), &configuration.creds_store) {
        (Some(credential), _) => Ok(Some(credential)),
        (None, Some(name)) if !name.is_empty() => helper::ask(name, key, wait),
        (None, _) => Ok(None),
    }
}

fn read(path: &PathBuf) -> Result<Option<Configuration>, PullError> {
    let failed = |why: &dyn fmt::Display| PullError::Credentials(format!("cannot read {}: {why}", path.display()));
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => return Err(failed(&"it is larger than 1 MiB")),
        Ok(_) => {}
    }
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    // What is wrong is told by its place: the text holds secrets.
    let place = |error: serde_json::Error| format!("it is not JSON as docker writes it, line {}", error.line());
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(&place(error)))
}

/// `https://host/v1/` and `host` are the same registry.
fn host_of(name: &str) -> &str {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    name.split('/').next().unwrap_or_default()
}

/// An entry without anything in it says that a helper has it.
fn credential(entry: &Entry) -> Result<Option<Credential>, &'static str> {
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credential::Identity(entry.identitytoken.clone())));
    }
    if entry.auth.is_empty() {
        let (user, password) = (entry.username.clone(), entry.password.clone());
        return Ok((!user.is_empty()).then_some(Credential::Password { user, password }));
    }
    let decoded = STANDARD.decode(&entry.auth).map_err(|_| "has an `auth` that is not base64")?;
    let text = String::from_utf8(decoded).map_err(|_| "has an `auth` that is not text")?;
    let (user, password) = text.split_once(':').ok_or("has an `auth` without a colon")?;
    // Some versions of docker pad with NUL.
    let (user, password) = (user.to_owned(), password.trim_end_matches('\0').to_owned());
    Ok(Some(Credential::Password { user, password }))
}

#[cfg(test)]
mod tests;
