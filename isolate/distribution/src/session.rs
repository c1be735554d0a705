//! Questions to one repository, with whatever authorisation its registry asks for.
//!
//! Owns: the token flow of the distribution specification, and which answers are worth another try. Invariant: a credential is sent to its
//! registry or to who that registry names for tokens, never in the clear unless the registry itself may be; a token goes to the registry
//! alone. Does not know: what manifests mean.

use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_auth::parser::ChallengeParser;
use serde::Deserialize;

use crate::credentials::Credential;
use crate::error::PullError;
use crate::reference::Reference;
use crate::transport::{Answer, Question, Transport};

/// How often a question is put before it is given up.
pub(crate) const TRIES: u32 = 3;
/// Before the second try; twice as long before the third.
const PAUSE: Duration = Duration::from_millis(200);
const TOKEN_BYTES_MAX: u64 = 64 << 10;
const MESSAGE_BYTES_MAX: u64 = 8 << 10;

/// A repository of a registry, for one pull.
pub(crate) struct Session<'a> {
    pub(crate) transport: &'a Transport,
    pub(crate) reference: &'a Reference,
    pub(crate) by: Instant,
    credential: Option<Credential>,
    /// Where credentials are looked for, for messages.
    configuration: String,
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        transport: &'a Transport,
        reference: &'a Reference,
        credential: Option<Credential>,
        configuration: String,
        by: Instant,
    ) -> Session<'a> {
        Session { transport, reference, by, credential, configuration, authorization: None }
    }

    /// Asks for something of the repository; what it answers with is 200.
    pub(crate) fn get(&mut self, path: &str, accept: &str) -> Result<Answer, PullError> {
        let host = self.reference.host();
        let url = format!("{}://{host}/v2/{}/{path}", self.transport.scheme(host), self.reference.repository());
        let mut is_authorized = false;
        loop {
            let authorization = self.authorization.as_deref();
            let question = Question { url: &url, accept, authorization, by: self.by };
            let answer = self.transport.get(&question)?;
            match answer.response.status().as_u16() {
                200 => return Ok(answer),
                401 if answer.is_own && !is_authorized => {
                    self.authorize(&challenge(&answer))?;
                    is_authorized = true;
                }
                401 | 403 if answer.is_own => return Err(self.unauthorized()),
                404 if answer.is_own => return Err(PullError::NotFound(self.reference.to_string())),
                _ => return Err(self.refused(answer)),
            }
        }
    }

    fn authorize(&mut self, challenge: &Option<Challenge>) -> Result<(), PullError> {
        self.authorization = match (challenge, &self.credential) {
            (Some(Challenge::Basic), Some(Credential::Password { user, password })) => Some(basic(user, password)),
            (Some(Challenge::Basic), _) => return Err(self.unauthorized()),
            (Some(Challenge::Bearer { realm, service }), _) => Some(self.token(realm, service.as_deref())?),
            (None, _) => {
                let message = format!(
                    "{} asks for credentials in a way that is not known: check that it is a registry",
                    self.reference.registry()
                );
                return Err(PullError::Unauthorized(message));
            }
        };
        Ok(())
    }

    fn token(&self, realm: &str, service: Option<&str>) -> Result<String, PullError> {
        if !self.transport.is_safe(realm) {
            return Err(PullError::Unauthorized(format!(
                "{} wants credentials to be sent to \"{}\", which is not https: nothing was sent",
                self.reference.registry(),
                crate::error::shown(realm)
            )));
        }
        let scope = format!("repository:{}:pull", self.reference.repository());
        let mut form = vec![("scope", scope.as_str())];
        form.extend(service.map(|service| ("service", service)));
        let answer = match &self.credential {
            Some(Credential::Identity(token)) => {
                form.extend([("grant_type", "refresh_token"), ("client_id", "vilya"), ("refresh_token", token)]);
                self.transport.post(realm, &form, self.by)?
            }
            other => {
                let authorization = match other {
                    Some(Credential::Password { user, password }) => Some(basic(user, password)),
                    _ => None,
                };
                let query: Vec<String> =
                    form.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
                let mark = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{mark}{}", query.join("&"));
                let authorization = authorization.as_deref();
                let question = Question { url: &url, accept: "application/json", authorization, by: self.by };
                self.transport.get(&question)?
            }
        };
        match answer.response.status().as_u16() {
            200 => {}
            400 | 401 | 403 => return Err(self.unauthorized()),
            _ => return Err(self.refused(answer)),
        }
        let text = self.transport.short(answer, TOKEN_BYTES_MAX, self.by)?;
        let token: Option<Token> = serde_json::from_slice(&text).ok();
        let token = token.and_then(|token| token.token.or(token.access_token)).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let message =
                format!("{} gave no token where one was asked for: try again later", crate::error::shown(realm));
            return Err(PullError::Unauthorized(message));
        }
        Ok(format!("Bearer {token}"))
    }

    fn unauthorized(&self) -> PullError {
        let Session { reference, configuration, .. } = self;
        let registry = reference.registry();
        let login = format!("run `docker login {registry}` as the user that runs the worker");
        PullError::Unauthorized(match self.credential {
            Some(_) => format!(
                "{registry} does not let the credentials of {configuration} read {reference}, or has no such image: check the \
                 name, or {login}"
            ),
            None => format!(
                "{registry} lets nobody read {reference} without credentials, or has no such image, and {configuration} has none \
                 for it: check the name, or {login}"
            ),
        })
    }

    fn refused(&self, answer: Answer) -> PullError {
        let (host, status) = (answer.host.clone(), answer.response.status().as_u16());
        // The status is the error; what it says besides is shown if it can be had.
        let message = self.transport.short(answer, MESSAGE_BYTES_MAX, self.by).unwrap_or_default();
        let advice = match status {
            429 => "it takes no more requests for a while; log in to it, or try again later",
            500.. => "try again later",
            _ => "check that it is a registry",
        };
        PullError::Refused { host, status, message: String::from_utf8_lossy(&message).into_owned(), advice }
    }

    /// Does something up to [`TRIES`] times, while it fails for what may pass.
    pub(crate) fn persist<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Session<'a>) -> Result<T, PullError>,
    ) -> Result<T, PullError> {
        let mut tries = 1;
        loop {
            match attempt(self) {
                Err(error) if tries < TRIES && may_pass(&error) => {
                    tracing::warn!(image = %self.reference, "trying again: {error}");
                    thread::sleep(PAUSE * (1 << (tries - 1)));
                    tries += 1;
                }
                other => return other,
            }
        }
    }
}

fn may_pass(error: &PullError) -> bool {
    match error {
        PullError::Unreachable { .. } => true,
        PullError::Refused { status, .. } => *status == 429 || *status >= 500,
        _ => false,
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A value as it stands in a query.
fn escaped(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    value.bytes().map(escape).collect()
}

/// The first challenge that can be met, tokens before passwords.
fn challenge(answer: &Answer) -> Option<Challenge> {
    let headers = answer.response.headers().get_all("www-authenticate").iter();
    let all: Vec<Challenge> = headers.filter_map(|header| header.to_str().ok()).flat_map(challenges).collect();
    let bearer = all.iter().position(|challenge| *challenge != Challenge::Basic);
    all.into_iter().nth(bearer.unwrap_or(0))
}

fn challenges(header: &str) -> Vec<Challenge> {
    let read = ChallengeParser::new(header).map_while(Result::ok).filter_map(|challenge| {
        let value = |wanted: &str| {
            let found = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.to_unescaped())
        };
        match challenge.scheme.to_ascii_lowercase().as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => value("realm").map(|realm| Challenge::Bearer { realm, service: value("service") }),
            _ => None,
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull""#;
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        assert_eq!(challenges(hub), [bearer("https://auth.docker.io/token", Some("registry.docker.io"))]);
        assert_eq!(
            challenges(r#"Basic realm="r", bearer realm="https://t/""#),
            [Challenge::Basic, bearer("https://t/", None)]
        );
        for nothing in ["", "Digest realm=\"x\"", "Bearer service=\"x\"", "\"", "Negotiate"] {
            assert_eq!(challenges(nothing), [], "{nothing}");
        }
    }

    #[test]
    fn a_query_holds_nothing_that_ends_it() {
        assert_eq!(escaped("repository:a/b:pull&x=é "), "repository%3Aa%2Fb%3Apull%26x%3D%C3%A9%20");
    }
}
