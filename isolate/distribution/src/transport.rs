//! Requests to registries, one at a time.
//!
//! Owns: TLS, redirects, time limits and bounded bodies. Invariant: nothing is sent in the clear except to a registry that this is allowed
//! for, no header of authorization goes to another origin than the one it was given for, and no more of an answer is read than was asked
//! for. Does not know: the distribution API.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, Resolver};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body};

use crate::error::PullError;

const REDIRECTS_MAX: usize = 5;
const CONNECT: Duration = Duration::from_secs(10);
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// How and with whom to speak.
#[derive(Debug)]
pub(crate) struct Transport {
    agent: Agent,
    /// Registries that may be spoken to in the clear, besides those on this machine.
    plain_http: Vec<String>,
    stopped: AtomicBool,
}

/// One question.
pub(crate) struct Question<'a> {
    pub(crate) url: &'a str,
    pub(crate) accept: &'a str,
    /// Value of the header of that name, for the origin of `url` alone.
    pub(crate) authorization: Option<&'a str>,
    pub(crate) by: Instant,
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// Who gave it, after redirects.
    pub(crate) host: String,
    /// Whether it came from the origin that was asked.
    pub(crate) is_own: bool,
}

impl Transport {
    /// `silence` is how long the other side may send nothing.
    pub(crate) fn new(plain_http: Vec<String>, silence: Duration) -> Transport {
        Transport::resolving(plain_http, silence, DefaultResolver::default())
    }

    /// As [`Transport::new`], with names looked up by `resolver`.
    pub(crate) fn resolving(plain_http: Vec<String>, silence: Duration, resolver: impl Resolver) -> Transport {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
        let config = Agent::config_builder()
            .tls_config(tls.unversioned_rustls_crypto_provider(provider).build())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(HEADERS_BYTES_MAX)
            .user_agent(concat!("vilya/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(silence))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        Transport { agent, plain_http, stopped: AtomicBool::new(false) }
    }

    /// Ends every exchange under way, and every later one.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.agent.clone().shutdown();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// `http` for registries that may be spoken to so, else `https`.
    pub(crate) fn scheme(&self, host: &str) -> &'static str {
        if is_local(host) || self.plain_http.iter().any(|listed| listed == host) { "http" } else { "https" }
    }

    /// Asks, and follows redirects.
    pub(crate) fn get(&self, question: &Question<'_>) -> Result<Answer, PullError> {
        let first = Origin::of(question.url)?;
        let mut url = question.url.to_owned();
        for _ in 0..=REDIRECTS_MAX {
            let origin = Origin::of(&url)?;
            let is_own = origin == first;
            let mut request = self.agent.get(&url).header("accept", question.accept);
            if let Some(authorization) = question.authorization.filter(|_| is_own) {
                request = request.header("authorization", authorization);
            }
            let left = self.left(&origin.host, question.by)?;
            let mut request = request.config().timeout_global(Some(left));
            if origin.scheme == "http" {
                // What stays on this machine or network needs no proxy.
                request = request.proxy(None);
            }
            let response = request.build().call().map_err(|error| self.failed(&origin.host, error, question.by))?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { response, host: origin.host, is_own });
            }
            url = self.next(&origin, &url, &response)?;
        }
        Err(PullError::Redirect { host: first.host, to: url, why: "it is the sixth in a row" })
    }

    /// Posts a form, to an origin that was checked.
    pub(crate) fn post(&self, url: &str, form: &[(&str, &str)], by: Instant) -> Result<Answer, PullError> {
        let origin = Origin::of(url)?;
        let left = self.left(&origin.host, by)?;
        let request = self.agent.post(url).config().timeout_global(Some(left)).build();
        let sent = request.send_form(form.iter().copied());
        let response = sent.map_err(|error| self.failed(&origin.host, error, by))?;
        Ok(Answer { response, host: origin.host, is_own: true })
    }

    /// Whether secrets may be sent there.
    pub(crate) fn is_safe(&self, url: &str) -> bool {
        Origin::of(url).is_ok_and(|origin| origin.scheme == "https" || self.scheme(&origin.authority()) == "http")
    }

    fn next(&self, origin: &Origin, url: &str, response: &Response<Body>) -> Result<String, PullError> {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let refused = |why| PullError::Redirect { host: origin.host.clone(), to: crate::error::shown(location), why };
        let to = match location {
            "" => return Err(refused("it does not say where")),
            there if there.starts_with("//") => return Err(refused("it leaves the scheme out")),
            path if path.starts_with('/') => format!("{}://{}{path}", origin.scheme, origin.authority()),
            there if there.contains("://") => there.to_owned(),
            // Registries send absolute ones; this is the base of a relative one without resolving dots.
            relative => format!("{}/{relative}", url.rsplit_once('/').map_or(url, |(base, _)| base)),
        };
        let target = Origin::of(&to).map_err(|_| refused("it is not a plain http or https address"))?;
        if target.scheme == "http" && origin.scheme == "https" {
            return Err(refused("it leaves TLS"));
        }
        if !self.is_safe(&to) {
            return Err(refused("it is in the clear: add the host to images.insecure_registries if that is meant"));
        }
        Ok(to)
    }

    /// Time left, unless there is none.
    fn left(&self, host: &str, by: Instant) -> Result<Duration, PullError> {
        if self.is_stopped() {
            return Err(PullError::Stopped);
        }
        let left = by.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(too_long(host)) } else { Ok(left) }
    }

    /// What became of an exchange that was not ended in order.
    pub(crate) fn failed(&self, host: &str, error: ureq::Error, by: Instant) -> PullError {
        let host = host.to_owned();
        if self.is_stopped() {
            return PullError::Stopped;
        }
        if let Some(error) = tls_error(&error) {
            return untrusted(host, error);
        }
        match error {
            ureq::Error::Timeout(ureq::Timeout::Global) => too_long(&host),
            ureq::Error::Timeout(_) if Instant::now() >= by => too_long(&host),
            ureq::Error::Timeout(what) => {
                let doing =
                    if matches!(what, ureq::Timeout::Resolve | ureq::Timeout::Connect) { "connect" } else { "answer" };
                PullError::Unreachable {
                    host,
                    reason: format!("it did not {doing} in time"),
                    advice: "try again later",
                }
            }
            ureq::Error::HostNotFound => {
                PullError::Unreachable { host, reason: "there is no such host".to_owned(), advice: "check the name" }
            }
            error => {
                let advice = "check that it listens there, and that this host may reach it";
                PullError::Unreachable { host, reason: error.to_string(), advice }
            }
        }
    }

    /// The same of an error that came out of a body.
    pub(crate) fn broken(&self, host: &str, error: io::Error, by: Instant) -> PullError {
        self.failed(host, ureq::Error::from(error), by)
    }

    /// Reads a body that must be short.
    pub(crate) fn short(&self, answer: Answer, most: u64, by: Instant) -> Result<Vec<u8>, PullError> {
        let host = answer.host;
        let mut bytes = Vec::new();
        // What it says of its length is not relied on.
        let mut body = answer.response.into_body().into_reader().take(most + 1);
        body.read_to_end(&mut bytes).map_err(|error| self.broken(&host, error, by))?;
        if bytes.len() as u64 <= most {
            return Ok(bytes);
        }
        let message =
            format!("{host} answered with more than {most} bytes where few belong: check that it is a registry");
        Err(PullError::TooLarge(message))
    }
}

/// The error of TLS that an error is about.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    }
}

fn untrusted(host: String, error: &rustls::Error) -> PullError {
    let advice = "if it is the right one, add its certificate authority to this host's (SSL_CERT_FILE), or list a registry without \
                  TLS in images.insecure_registries";
    PullError::Unreachable { host, reason: format!("TLS failed ({error})"), advice }
}

fn too_long(host: &str) -> PullError {
    PullError::TooSlow(format!(
        "the image did not come from {host} in time: raise images.pull_timeout, or pull from nearer"
    ))
}

/// Whether a host is this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port.
#[derive(Debug, PartialEq, Eq)]
struct Origin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl Origin {
    fn of(url: &str) -> Result<Origin, PullError> {
        let wrong = || PullError::Invalid(format!("\"{}\" is not an address", crate::error::shown(url)));
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (scheme, usual) = match uri.scheme_str() {
            Some("https") => ("https", 443),
            Some("http") => ("http", 80),
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        Ok(Origin { scheme, host: authority.host().to_ascii_lowercase(), port: authority.port_u16().unwrap_or(usual) })
    }

    /// As a reference has it.
    fn authority(&self) -> String {
        let usual = if self.scheme == "https" { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_listed_registries_are_spoken_to_in_the_clear() {
        let transport = Transport::new(vec!["r.example:5000".to_owned()], CONNECT);
        for host in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000", "[::1]", "r.example:5000"]
        {
            assert_eq!(transport.scheme(host), "http", "{host}");
        }
        for host in ["r.example", "r.example:5001", "localhost.example", "127.0.0.1.example:80", "10.0.0.1", "[::2]:80"]
        {
            assert_eq!(transport.scheme(host), "https", "{host}");
        }
        assert!(transport.is_safe("https://other.example/") && transport.is_safe("http://r.example:5000/x"));
        for url in
            ["http://other.example/", "http://r.example/", "ftp://localhost/", "http://user@localhost/", "localhost"]
        {
            assert!(!transport.is_safe(url), "{url}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_told_from_a_broken_connection() {
        let transport = Transport::new(Vec::new(), CONNECT);
        let by = Instant::now() + CONNECT;
        let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        // As it comes out of a handshake.
        let error = ureq::Error::Io(io::Error::new(io::ErrorKind::InvalidData, certificate));
        let said = transport.failed("r.example", error, by).to_string();
        assert!(said.contains("TLS failed") && said.contains("certificate authority"), "{said}");
        let said =
            transport.failed("r.example", ureq::Error::Io(io::ErrorKind::ConnectionReset.into()), by).to_string();
        assert!(said.contains("check that it listens"), "{said}");
    }

    #[test]
    fn no_redirect_leaves_tls() {
        let transport = Transport::new(vec!["r.example:5000".to_owned()], CONNECT);
        let next = |from: &str, to: &str| {
            let response = Response::builder().header("location", to).body(Body::builder().data("")).unwrap();
            transport.next(&Origin::of(from).unwrap(), from, &response)
        };
        for to in ["http://r.example:5000/x", "http://127.0.0.1/x", "http://s.example/x"] {
            let refused = next("https://s.example/v2/a", to).unwrap_err().to_string();
            assert!(refused.contains("leaves TLS"), "{to}: {refused}");
        }
        assert_eq!(next("http://r.example:5000/v2/a", "http://127.0.0.1/x").unwrap(), "http://127.0.0.1/x");
        assert_eq!(next("https://s.example/v2/a", "https://t.example/x").unwrap(), "https://t.example/x");
        assert_eq!(next("https://s.example/v2/a", "/x?y").unwrap(), "https://s.example/x?y");
        assert_eq!(next("https://s.example/v2/a", "b").unwrap(), "https://s.example/v2/b");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url| Origin::of(url).unwrap();
        assert_eq!(of("https://R.example/a"), of("https://r.example:443/b?c"));
        assert_ne!(of("https://r.example/"), of("http://r.example:443/"));
        assert_ne!(of("https://r.example/"), of("https://r.example:444/"));
        assert_eq!(of("http://[::1]:5000/").authority(), "[::1]:5000");
        assert!(Origin::of("https://user:secret@r.example/").is_err());
    }
}
