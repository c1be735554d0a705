//! The image that a manifest names: a file or folder of the bundle, or one of a registry.
//!
//! Invariant: a text that was taken is a path inside the bundle or a reference that parses. It does not know what is there.

use vilya_distribution::Reference;

use super::{FILE_NAME, Manifest, check_inner_path};
use crate::config::Reader;

pub(super) fn read(reader: &mut Reader) -> Option<String> {
    if !reader.has("image") {
        return None;
    }
    let image = reader.text("image")?;
    match check(&image) {
        Ok(()) => Some(image),
        Err(message) => {
            reader.problem("image", message);
            None
        }
    }
}

fn check(image: &str) -> Result<(), String> {
    if Reference::is_meant(image) {
        return Reference::parse(image).map(drop);
    }
    check_inner_path(image, "the image")?;
    if image == FILE_NAME {
        return Err(format!("{FILE_NAME} is no image: name the archive beside it"));
    }
    Ok(())
}

impl Manifest {
    /// The image of a registry that it names, if it names one.
    pub fn image_reference(&self) -> Option<Reference> {
        let image = self.image.as_deref().filter(|image| Reference::is_meant(image))?;
        // Refused before it came here, unless a record was written by hand.
        Reference::parse(image).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(image: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!("name = \"a\"\nruntime = \"python\"\nimage = \"{image}\"\n"))
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_image_is_a_path_of_the_bundle() {
        let manifest = parse("images/python.tar").unwrap();
        assert_eq!((manifest.image.as_deref(), manifest.image_reference()), (Some("images/python.tar"), None));
        for path in ["../python.tar", "/python.tar", "", FILE_NAME] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn or_one_of_a_registry() {
        let manifest = parse("docker.io/python:3.13-slim").unwrap();
        let reference = manifest.image_reference().map(|reference| reference.to_string());
        assert_eq!(reference.as_deref(), Some("docker.io/library/python:3.13-slim"));
        let message = parse("registry.example/Name:1").unwrap_err();
        assert!(message.starts_with("function.toml:3: image: ") && message.contains("lower-case"), "{message}");
        assert!(parse("registry.example/name@sha256:12").unwrap_err().contains("64 lower-case"));
    }
}
