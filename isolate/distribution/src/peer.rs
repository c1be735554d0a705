//! A registry on loopback that does as it is told, for tests: the pulling half of the distribution API, and faults on demand.
//!
//! Owns: images made of given layers, challenges, and what was asked. Invariant: it binds loopback only and ends with its [`Registry`].
//! Does not know: the client.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::Digest;

/// What it asks for before it answers.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// Nothing.
    #[default]
    Open,
    /// `user:password` in every request.
    Basic(String),
    /// A token, which it gives to anyone.
    AnonymousToken,
    /// A token, which it gives for `user:password`.
    Token(String),
    /// A token, which it gives for this one.
    Identity(String),
    /// A token, to be had at another address.
    Elsewhere(String),
}

/// How it misbehaves.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers with this status.
    Status(u16),
    /// Says the right length, sends that many bytes and closes.
    Cut(usize),
    /// Says this length instead of the right one.
    Length(u64),
    /// Sends these bytes, with their length.
    Instead(Vec<u8>),
    /// Sends these bytes and closes without a word of the length.
    Unsaid(Vec<u8>),
    /// Sends bytes until nobody takes them.
    Endless,
    /// Sends the head and a byte, then nothing until it is released.
    Stall,
    /// Redirects there.
    Redirect(String),
    /// Takes its tokens for too old before it answers.
    Expire,
}

/// A request that it got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// The header of that name.
    pub authorization: Option<String>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    /// By `repository/version`.
    manifests: HashMap<String, Vec<u8>>,
    guard: Guard,
    /// What a target contains, what happens then, and how often yet.
    faults: Vec<(String, Fault, usize)>,
    seen: Vec<Seen>,
    /// How many tokens have expired.
    expired: u32,
    /// Whether stalled answers are to go on, or all to end.
    released: bool,
    stopped: bool,
}

struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn token(&self) -> String {
        format!("token-{}-of-the-peer", self.expired)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics in here")
    }
}

/// A registry that ends when dropped.
pub struct Registry {
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Registry {
    /// Starts one that holds nothing.
    ///
    /// # Panics
    /// If loopback cannot be listened on.
    #[must_use]
    pub fn start() -> Registry {
        Registry::start_with(None)
    }

    /// Starts one that speaks TLS, with a certificate and its key in DER.
    ///
    /// # Panics
    /// If it cannot, or they do not belong together.
    #[must_use]
    pub fn start_tls(certificate: &[u8], key: &[u8]) -> Registry {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let key = PrivateKeyDer::try_from(key.to_vec()).expect("a key");
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("usual versions").with_no_client_auth().with_single_cert(chain, key);
        Registry::start_with(Some(Arc::new(config.expect("a certificate and its key"))))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared { address, state: Mutex::default(), changed: Condvar::new() });
        let serving = Arc::clone(&shared);
        let listening = thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if serving.state().stopped {
                    return;
                }
                let (serving, tls) = (Arc::clone(&serving), tls.clone());
                thread::spawn(move || {
                    // A client that leaves is one of the things that tests do.
                    let _ = match tls {
                        None => serving.serve(connection),
                        Some(tls) => serving.serve_tls(tls, connection),
                    };
                });
            }
        });
        Registry { shared, listening: Some(listening) }
    }

    /// Host and port, as a reference has them.
    #[must_use]
    pub fn host(&self) -> String {
        self.shared.address.to_string()
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.shared.address.port()
    }

    /// Takes a blob.
    pub fn blob(&self, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.shared.state().blobs.insert(digest.to_string(), bytes.to_owned());
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest.to_string(), "size": bytes.len() })
    }

    /// Takes a manifest or an index under a tag and under its digest; its descriptor.
    pub fn manifest(&self, repository: &str, tag: &str, manifest: &Value) -> Value {
        let text = manifest.to_string().into_bytes();
        let digest = Digest::of(&text);
        let size = text.len();
        let mut state = self.shared.state();
        state.manifests.insert(format!("{repository}/{digest}"), text.clone());
        state.manifests.insert(format!("{repository}/{tag}"), text);
        json!({ "digest": digest.to_string(), "size": size })
    }

    /// Takes an image of these layers, plain tars, under a tag; the descriptor of its manifest.
    pub fn image(&self, repository: &str, tag: &str, layers: &[Vec<u8>], environment: &[&str]) -> Value {
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(layer)).collect();
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        let config = json!({ "rootfs": rootfs, "config": { "Env": environment } });
        let config = self.blob(config.to_string().as_bytes());
        self.manifest(repository, tag, &json!({ "schemaVersion": 2, "config": config, "layers": layers }))
    }

    /// What it asks for from here on.
    pub fn guard(&self, guard: Guard) {
        self.shared.state().guard = guard;
    }

    /// Misbehaves the next `times` that a target contains `part`.
    pub fn fault(&self, part: &str, fault: Fault, times: usize) {
        self.shared.state().faults.push((part.to_owned(), fault, times));
    }

    /// Lets stalled answers go on.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }

    /// Waits until a target that contains `part` was asked for so many times.
    pub fn await_requests(&self, part: &str, times: usize) {
        let mut state = self.shared.state();
        while state.seen.iter().filter(|seen| seen.line.contains(part)).count() < times {
            state = self.shared.changed.wait(state).expect("no test panics in here");
        }
    }

    /// What it was asked since this was last called.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.state().seen)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_all();
        // Wakes the one that accepts.
        let _ = TcpStream::connect(self.shared.address);
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

/// Every name is loopback's.
#[derive(Debug)]
pub(crate) struct Local;

impl Resolver for Local {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, uri.port_u16().ok_or(ureq::Error::HostNotFound)?)));
        Ok(addresses)
    }
}

/// These names are loopback's, at these ports; others are nobody's.
#[derive(Debug)]
pub(crate) struct Named(pub(crate) HashMap<String, u16>);

impl Resolver for Named {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let port = uri.host().and_then(|host| self.0.get(host)).ok_or(ureq::Error::HostNotFound)?;
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
        Ok(addresses)
    }
}

struct Request {
    line: String,
    target: String,
    authorization: Option<String>,
    body: String,
}

impl Shared {
    fn serve_tls(&self, tls: Arc<ServerConfig>, connection: TcpStream) -> io::Result<()> {
        let session = ServerConnection::new(tls).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, connection);
        self.serve(&mut stream)?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn serve(&self, mut connection: impl Read + Write) -> io::Result<()> {
        let Some(request) = read(&mut connection)? else { return Ok(()) };
        let fault = {
            let mut state = self.state();
            state.seen.push(Seen { line: request.line.clone(), authorization: request.authorization.clone() });
            self.changed.notify_all();
            let due =
                state.faults.iter_mut().find(|(part, _, left)| request.target.contains(part.as_str()) && *left > 0);
            let fault = due.map(|(_, fault, left)| {
                *left -= 1;
                fault.clone()
            });
            state.expired += u32::from(matches!(fault, Some(Fault::Expire)));
            fault
        };
        let (status, headers, body) = self.answer(&request);
        let mut head = |status: u16, more: &str| {
            connection.write_all(format!("HTTP/1.1 {status} -\r\nconnection: close\r\n{more}\r\n").as_bytes())
        };
        let length = |bytes: usize| format!("content-length: {bytes}\r\n{headers}");
        match fault {
            None | Some(Fault::Expire) => {
                head(status, &length(body.len()))?;
                connection.write_all(&body)
            }
            Some(Fault::Status(status)) => head(status, "content-length: 0\r\n"),
            Some(Fault::Cut(bytes)) => {
                head(status, &length(body.len()))?;
                connection.write_all(&body[..bytes])
            }
            Some(Fault::Length(bytes)) => {
                head(status, &format!("content-length: {bytes}\r\n"))?;
                connection.write_all(&body)
            }
            Some(Fault::Instead(bytes)) => {
                head(status, &length(bytes.len()))?;
                connection.write_all(&bytes)
            }
            Some(Fault::Unsaid(bytes)) => {
                head(status, "")?;
                connection.write_all(&bytes)
            }
            Some(Fault::Endless) => {
                head(status, "")?;
                let junk = vec![b' '; 64 << 10];
                while !self.state().stopped {
                    connection.write_all(&junk)?;
                }
                Ok(())
            }
            Some(Fault::Stall) => {
                head(status, &length(body.len()))?;
                connection.write_all(&body[..1])?;
                let mut state = self.state();
                while !state.released && !state.stopped {
                    state = self.changed.wait(state).expect("no test panics in here");
                }
                drop(state);
                connection.write_all(&body[1..])
            }
            Some(Fault::Redirect(to)) => head(307, &format!("content-length: 0\r\nlocation: {to}\r\n")),
        }
    }

    fn answer(&self, request: &Request) -> (u16, String, Vec<u8>) {
        let state = self.state();
        let none = (404, String::new(), Vec::new());
        if request.target.starts_with("/token") {
            return token(&state, request);
        }
        let address = self.address;
        let wanted = match &state.guard {
            Guard::Open => None,
            Guard::Basic(pair) => Some((format!("Basic {}", STANDARD.encode(pair)), "Basic realm=\"peer\"".to_owned())),
            Guard::Elsewhere(realm) => {
                Some((format!("Bearer {}", state.token()), format!("Bearer realm=\"{realm}\",service=\"the peer\"")))
            }
            _ => {
                let challenge = format!("Bearer realm=\"http://{address}/token\",service=\"the peer\"");
                Some((format!("Bearer {}", state.token()), challenge))
            }
        };
        if let Some((wanted, challenge)) = wanted
            && request.authorization.as_ref() != Some(&wanted)
        {
            return (401, format!("www-authenticate: {challenge}\r\n"), Vec::new());
        }
        let Some(path) = request.target.strip_prefix("/v2/") else { return none };
        if let Some((_, digest)) = path.split_once("/blobs/") {
            return state.blobs.get(digest).map_or(none, |blob| (200, String::new(), blob.clone()));
        }
        let Some((repository, version)) = path.split_once("/manifests/") else { return none };
        let Some(text) = state.manifests.get(&format!("{repository}/{version}")) else { return none };
        (200, format!("docker-content-digest: {}\r\n", Digest::of(text)), text.clone())
    }
}

fn token(state: &State, request: &Request) -> (u16, String, Vec<u8>) {
    let is_asked = request.target.contains("scope=repository%3A") && request.target.contains("service=the%20peer");
    let is_given = match &state.guard {
        Guard::AnonymousToken => is_asked && request.authorization.is_none(),
        Guard::Token(pair) => is_asked && request.authorization == Some(format!("Basic {}", STANDARD.encode(pair))),
        Guard::Identity(token) => {
            request.line.starts_with("POST") && request.body.contains(&format!("refresh_token={token}"))
        }
        _ => false,
    };
    let body = json!({ "access_token": state.token(), "expires_in": 300 }).to_string().into_bytes();
    if is_given { (200, String::new(), body) } else { (401, String::new(), Vec::new()) }
}

fn read(connection: &mut impl Read) -> io::Result<Option<Request>> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(Some(Request { line: format!("{method} {target}"), target: target.to_owned(), authorization, body }))
}
