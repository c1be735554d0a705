//! Names of images in registries: `registry.example/name:tag` and `registry.example/name@sha256:…`.
//!
//! Invariant: the parts of a [`Reference`] hold only the characters of the distribution specification's grammar, so that they can stand in
//! a URL as they are. Does not know: credentials, or whether there is such an image.

use std::fmt;

use crate::digest::Digest;

const HUB: &str = "docker.io";
const NAME_BYTES_MAX: usize = 253;
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

/// Which image of which registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Whether a text is meant as a reference and not as a path: it starts with a host's name (a dot, a port, or `localhost`) and its last
    /// part has a tag or a digest.
    #[must_use]
    pub fn is_meant(text: &str) -> bool {
        let Some((host, path)) = text.split_once('/') else { return false };
        let last = path.rsplit('/').next().unwrap_or_default();
        !host.starts_with('.') && (host == "localhost" || host.contains(['.', ':'])) && last.contains([':', '@'])
    }

    /// Reads one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Reference, String> {
        let wrong = |why: &str| format!("\"{}\" is not an image of a registry: {why}", text.escape_debug());
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                let digest = Digest::parse(digest)
                    .ok_or_else(|| wrong("write the digest as sha256: and 64 lower-case hexadecimal digits"))?;
                (name, Some(digest))
            }
        };
        let (host, path) = name.split_once('/').ok_or_else(|| wrong("start it with the registry, as in docker.io/"))?;
        let (repository, tag) = match path.rsplit_once(':') {
            None => (path, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        if tag.is_none() && digest.is_none() {
            return Err(wrong("end it with a tag or a digest, for example :1.0"));
        }
        let registry = host.to_ascii_lowercase();
        if !is_host(&registry) {
            return Err(wrong("the registry is a host's name or address, and a port where it is not the usual one"));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has 1 to 128 letters, digits, '_', '.' and '-', the first a letter, a digit or '_'",
            ));
        }
        if repository.len() > REPOSITORY_BYTES_MAX || !repository.split('/').all(is_component) {
            return Err(wrong("the name has lower-case letters, digits and single separators '.', '_', '-' and '/'"));
        }
        let is_hub = registry == HUB || registry == "index.docker.io";
        let registry = if is_hub { HUB.to_owned() } else { registry };
        let is_official = is_hub && !repository.contains('/');
        let repository = if is_official { format!("library/{repository}") } else { repository.to_owned() };
        Ok(Reference { registry, repository, tag: tag.map(str::to_owned), digest })
    }

    /// The registry as it is written: what an operator lists and what credentials are for.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The digest that pins it, if one does.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image by its digest, whatever becomes of the tag.
    #[must_use]
    pub fn pinned(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.registry, self.repository)
    }

    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// Where the registry listens.
    pub(crate) fn host(&self) -> &str {
        if self.registry == HUB { "registry-1.docker.io" } else { &self.registry }
    }

    /// How the Docker configuration names the registry.
    pub(crate) fn credential_key(&self) -> &str {
        if self.registry == HUB { "https://index.docker.io/v1/" } else { &self.registry }
    }

    /// What a manifest is asked for by.
    pub(crate) fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

/// A name or an address, and perhaps a port.
#[must_use]
pub fn is_host(host: &str) -> bool {
    let (is_named, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            (address.parse::<std::net::Ipv6Addr>().is_ok(), port)
        }
        None => {
            let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            (name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label), port)
        }
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+');
    is_named && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

fn is_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

fn is_tag(tag: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && tag.bytes().all(inner) && !tag.starts_with(['.', '-'])
}

/// Letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().zip(bytes.last()).is_some_and(|(first, last)| is_plain(*first) && is_plain(*last));
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .into_iter()
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_paths() {
        let digest = Digest::of(b"");
        let meant = ["docker.io/python:3.13", "localhost/a:b", "127.0.0.1:5000/a/b:c", "[::1]:5000/a:c"];
        assert!(meant.into_iter().all(Reference::is_meant));
        assert!(Reference::is_meant(&format!("r.example/a@{digest}")));
        for path in
            ["python.tar", "images/python.tar", "images.d/python.tar", "python:3.13", "./a:b", "../a:b", "a/b:c"]
        {
            assert!(!Reference::is_meant(path), "{path}");
        }
    }

    #[test]
    fn the_parts_are_taken_apart() {
        let one = Reference::parse("Registry.example:5000/team/app:1.0").unwrap();
        assert_eq!(
            (one.registry(), one.repository(), one.host()),
            ("registry.example:5000", "team/app", "registry.example:5000")
        );
        assert_eq!((one.version().as_str(), one.digest()), ("1.0", None));
        let digest = Digest::of(b"x");
        let both = Reference::parse(&format!("r.example/app:1.0@{digest}")).unwrap();
        assert_eq!((both.version(), both.digest()), (digest.to_string(), Some(&digest)));
        assert_eq!(both.to_string(), format!("r.example/app:1.0@{digest}"));
        assert_eq!(one.pinned(&digest), format!("registry.example:5000/team/app@{digest}"));
        let v6 = Reference::parse("[::1]:5000/a:b").unwrap();
        assert_eq!(v6.host(), "[::1]:5000");
    }

    #[test]
    fn the_hub_has_names_of_its_own() {
        let python = Reference::parse("docker.io/python:3.13-slim").unwrap();
        assert_eq!(python.to_string(), "docker.io/library/python:3.13-slim");
        assert_eq!((python.host(), python.credential_key()), ("registry-1.docker.io", "https://index.docker.io/v1/"));
        assert_eq!(Reference::parse("index.docker.io/a/b:c").unwrap().to_string(), "docker.io/a/b:c");
    }

    #[test]
    fn what_could_not_stand_in_a_url_is_refused() {
        let refused = [
            "r.example/a",
            "a:b",
            "r.example/:b",
            "r.example/a:",
            "r.example/A:b",
            "r.example/a..b:c",
            "r.example/../x:c",
            "r.example/a//b:c",
            "r.example/a/:c",
            "r.example/a:b?c",
            "r.example/a:b/c",
            "r.example/a#:b",
            "r.example/a:.b",
            "user@r.example/a:b",
            "r.example:0/a:b",
            "r.example:x/a:b",
            "r.example:+1/a:b",
            "-r.example/a:b",
            "[::1/a:b",
            "[x]:1/a:b",
            "[::1]x/a:b",
            "r.example/a@sha512:00",
            "r.example/a@sha256:00",
            "r.exa mple/a:b",
            "r.example/a___b:c",
            "r.example/a-:c",
            "r.example/ä:c",
        ];
        for text in refused {
            let message = Reference::parse(text).unwrap_err();
            assert!(message.contains("is not an image of a registry"), "{text}: {message}");
        }
        assert!(Reference::parse(&format!("r.example/{}:b", "a".repeat(256))).is_err());
        assert!(Reference::parse(&format!("r.example/a:{}", "b".repeat(129))).is_err());
        for text in ["r.example/a__b/c--d.e:F_g", "a.b-c.d:65535/x:y"] {
            assert!(Reference::parse(text).is_ok(), "{text}");
        }
    }
}
