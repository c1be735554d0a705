//! What a process that reads images is asked, and what it answers.
//!
//! Owns: both messages, and doing what a request asks. Invariant: an answer is the word of a process that has read hostile bytes: whoever
//! reads it gets a bounded value with every digest in its form and every message without control characters, or nothing. Does not know: how
//! that process is confined, and who compares its answer with what is there.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::bundle::{self, BundleError, BundleLimits};
use crate::error::ImageError;
use crate::message::{Reader, Writer};
use crate::source::{Source, hexadecimal};
use crate::tree::{Limits, Size, Tree};
use crate::{Description, Image, LAYERS_MAX, Layer, Place};

/// Most variables that are told of.
const VARIABLES_MAX: usize = 256;
/// Most bytes of them.
const VARIABLES_BYTES_MAX: usize = 256 << 10;
/// Longest message of an error.
const MESSAGE_CHARS: usize = 1024;

/// Something to be done with an archive: an image in this folder, or else what is descriptor 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Say what it says of itself.
    Describe {
        /// The folder.
        folder: Option<PathBuf>,
    },
    /// Unpack a layer, for [`crate::merge`].
    Layer {
        /// The folder.
        folder: Option<PathBuf>,
        /// The layer. A digest that is not given is not looked at: somebody else has.
        layer: Layer,
        /// An empty directory.
        tree: PathBuf,
        /// Bounds of the whole image.
        limits: Limits,
        /// What the layers below it have.
        earlier: Size,
    },
    /// Unpack the bundle that is descriptor 0.
    Unpack {
        /// An empty directory.
        tree: PathBuf,
        /// The file that marks the root.
        manifest: String,
        /// Bounds.
        limits: BundleLimits,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What the image says of itself.
    Described(Description),
    /// What a layer has.
    Layer(Size),
    /// How many bytes of files a bundle has.
    Unpacked(u64),
}

/// What is wrong with what was to be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// With an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// With a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Does what a request asks; the bytes of the answer.
#[must_use]
pub fn work(request: &[u8]) -> Vec<u8> {
    let done = match Request::from_bytes(request) {
        Some(request) => request.done(),
        None => Err(ImageError::invalid("it was asked for in a way that is not understood").into()),
    };
    match done {
        Ok(answer) => answer.to_bytes(),
        Err(WorkError::Image(error)) => error_bytes(&error),
        Err(WorkError::Bundle(error)) => bundle_error_bytes(&error),
    }
}

fn source(folder: Option<&Path>) -> Result<Source, ImageError> {
    match folder {
        Some(folder) => Ok(Source::Folder(folder.to_owned())),
        None => Ok(Source::Archive { file: given()?, parts: std::collections::HashMap::new() }),
    }
}

/// Descriptor 0.
fn given() -> Result<File, ImageError> {
    let given = io::stdin().as_fd().try_clone_to_owned();
    given.map(File::from).map_err(|error| ImageError::read("the archive", error))
}

impl Request {
    fn done(self) -> Result<Answer, WorkError> {
        match self {
            Request::Describe { folder } => {
                let image = folder.map_or_else(|| Image::open_archive(given()?), |folder| Image::open(&folder))?;
                Ok(Answer::Described(image.description))
            }
            Request::Layer { folder, layer, tree, limits, earlier } => {
                let source = source(folder.as_deref())?;
                Ok(Answer::Layer(crate::layers::unpack(&source, &layer, Tree::new(&tree, limits, earlier)?)?))
            }
            Request::Unpack { tree, manifest, limits } => {
                let archive = BufReader::with_capacity(256 << 10, given()?);
                Ok(Answer::Unpacked(bundle::unpack(archive, &tree, &manifest, limits)?.bytes))
            }
        }
    }

    /// For [`work`]. Paths that are not UTF-8 are not of ours.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let of = |path: &Path| path.to_string_lossy().into_owned();
        let folder_of = |folder: &Option<PathBuf>| folder.as_deref().map(of).unwrap_or_default();
        match self {
            Request::Describe { folder } => Writer::kind(0).text(&folder_of(folder)).0,
            Request::Layer { folder, layer, tree, limits, earlier } => {
                let writer = write_layer(Writer::kind(1).text(&folder_of(folder)).text(&of(tree)), layer);
                let bounds = [limits.entries, limits.bytes, limits.depth as u64, limits.ratio];
                bounds.into_iter().chain([earlier.entries, earlier.bytes]).fold(writer, Writer::number).0
            }
            Request::Unpack { tree, manifest, limits } => {
                let writer = Writer::kind(2).text(&of(tree)).text(manifest);
                writer.number(limits.entries.into()).number(limits.unpacked_bytes).0
            }
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Request> {
        let mut reader = Reader(bytes);
        let kind = reader.kind()?;
        if kind == 2 {
            let (tree, manifest) = (PathBuf::from(reader.text()?), reader.text()?.to_owned());
            let entries = u32::try_from(reader.number()?).ok()?;
            let limits = BundleLimits { entries, unpacked_bytes: reader.number()? };
            return reader.end().map(|()| Request::Unpack { tree, manifest, limits });
        }
        let folder = Some(reader.text()?).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        if kind == 0 {
            return reader.end().map(|()| Request::Describe { folder });
        }
        let tree = PathBuf::from(reader.text()?);
        let layer = read_layer(&mut reader)?;
        let [entries, bytes, depth, ratio] = [reader.number()?, reader.number()?, reader.number()?, reader.number()?];
        let limits = Limits { entries, bytes, depth: usize::try_from(depth).ok()?, ratio };
        let earlier = Size { entries: reader.number()?, bytes: reader.number()? };
        reader.end().map(|()| Request::Layer { folder, layer, tree, limits, earlier })
    }
}

impl Answer {
    /// As [`work`] gives it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Answer::Described(description) => {
                let mut left = VARIABLES_BYTES_MAX;
                let variables = description.environment.iter().take(VARIABLES_MAX).take_while(|(name, value)| {
                    let rest = left.checked_sub(name.len() + value.len());
                    rest.inspect(|rest| left = *rest).is_some()
                });
                let variables: Vec<_> = variables.cloned().collect();
                let writer = Writer::kind(0).each(&description.layers, write_layer);
                writer.each(&variables, |writer, (name, value)| writer.text(name).text(value)).0
            }
            Answer::Layer(size) => Writer::kind(1).number(size.entries).number(size.bytes).0,
            Answer::Unpacked(bytes) => Writer::kind(3).number(*bytes).0,
        }
    }

    /// What a process answered that ran [`work`], or something else.
    ///
    /// # Errors
    /// What it says is wrong with the image. `None` when it says nothing that can be understood.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Result<Answer, WorkError>> {
        let mut reader = Reader(bytes);
        let answer = match reader.kind()? {
            0 => {
                let layers = reader.each(LAYERS_MAX, read_layer)?;
                let environment = reader
                    .each(VARIABLES_MAX, |reader| Some((reader.text()?.to_owned(), reader.text()?.to_owned())))?;
                Ok(Answer::Described(Description { layers, environment }))
            }
            1 => Ok(Answer::Layer(Size { entries: reader.number()?, bytes: reader.number()? })),
            2 => Err(read_error(&mut reader)?.into()),
            3 => Ok(Answer::Unpacked(reader.number()?)),
            4 => Err(read_bundle_error(&mut reader)?.into()),
            _ => return None,
        };
        reader.end().map(|()| answer)
    }
}

fn write_layer(writer: Writer, layer: &Layer) -> Writer {
    let (offset, bytes, blob) = match &layer.place {
        Place::Range { offset, bytes } => (*offset, *bytes, ""),
        Place::Blob(digits) => (0, 0, digits.as_str()),
    };
    let writer = writer.number(offset).number(bytes).text(blob);
    writer.text(layer.digest.as_deref().unwrap_or_default()).text(&layer.diff_id)
}

fn read_layer(reader: &mut Reader<'_>) -> Option<Layer> {
    let digits = |text: &str| hexadecimal(&format!("sha256:{text}")).ok().map(str::to_owned);
    let (offset, bytes) = (reader.number()?, reader.number()?);
    let place = match reader.text()? {
        "" => Place::Range { offset, bytes },
        blob => Place::Blob(digits(blob)?),
    };
    let digest = match reader.text()? {
        "" => None,
        digest => Some(digits(digest)?),
    };
    Some(Layer { place, digest, diff_id: digits(reader.text()?)? })
}

fn error_bytes(error: &ImageError) -> Vec<u8> {
    let writer = Writer::kind(2);
    match error {
        ImageError::Unknown => writer.number(0),
        ImageError::Invalid(why) => writer.number(1).text(why),
        ImageError::Digest { what, found, wanted } => writer.number(2).text(what).text(found).text(wanted),
        ImageError::Refused { entry, reason } => writer.number(3).text(entry).text(reason),
        ImageError::TooLarge(why) => writer.number(4).text(why),
        ImageError::Read { what, source } => {
            writer.number(5).text(what).number(number_of(source)).text(&source.to_string())
        }
        ImageError::Disk { path, source } => {
            writer.number(6).text(&path.to_string_lossy()).number(number_of(source)).text(&source.to_string())
        }
    }
    .0
}

/// A message without control characters, cut where it is too long.
fn text(reader: &mut Reader<'_>) -> Option<String> {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    Some(reader.text()?.chars().take(MESSAGE_CHARS).map(plain).collect())
}

fn system(reader: &mut Reader<'_>) -> Option<io::Error> {
    let (number, said) = (reader.number()?, text(reader)?);
    match i32::try_from(number).ok()? {
        0 => Some(io::Error::other(said)),
        number => Some(io::Error::from_raw_os_error(number)),
    }
}

fn number_of(error: &io::Error) -> u64 {
    error.raw_os_error().unwrap_or(0).unsigned_abs().into()
}

fn read_error(reader: &mut Reader<'_>) -> Option<ImageError> {
    Some(match reader.number()? {
        0 => ImageError::Unknown,
        1 => ImageError::Invalid(text(reader)?),
        2 => ImageError::Digest { what: text(reader)?, found: text(reader)?, wanted: text(reader)? },
        3 => ImageError::Refused { entry: text(reader)?, reason: text(reader)?.into() },
        4 => ImageError::TooLarge(text(reader)?),
        5 => ImageError::Read { what: text(reader)?, source: system(reader)? },
        6 => ImageError::Disk { path: text(reader)?.into(), source: system(reader)? },
        _ => return None,
    })
}

fn bundle_error_bytes(error: &BundleError) -> Vec<u8> {
    let writer = Writer::kind(4);
    match error {
        BundleError::UnknownFormat => writer.number(0),
        BundleError::Damaged { entry, reason } => writer.number(1).text(entry).text(reason),
        BundleError::Refused { entry, reason } => writer.number(2).text(entry).text(reason),
        BundleError::TooLarge { limit_bytes } => writer.number(3).number(*limit_bytes),
        BundleError::TooManyEntries { limit } => writer.number(4).number((*limit).into()),
        BundleError::NoManifest { name } => writer.number(5).text(name),
        BundleError::Disk { path, source } => {
            writer.number(6).text(&path.to_string_lossy()).number(number_of(source)).text(&source.to_string())
        }
    }
    .0
}

fn read_bundle_error(reader: &mut Reader<'_>) -> Option<BundleError> {
    Some(match reader.number()? {
        0 => BundleError::UnknownFormat,
        1 => BundleError::Damaged { entry: text(reader)?, reason: text(reader)? },
        2 => BundleError::Refused { entry: text(reader)?, reason: text(reader)?.into() },
        3 => BundleError::TooLarge { limit_bytes: reader.number()? },
        4 => BundleError::TooManyEntries { limit: u32::try_from(reader.number()?).ok()? },
        5 => BundleError::NoManifest { name: text(reader)? },
        6 => BundleError::Disk { path: text(reader)?.into(), source: system(reader)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{Answer, Request, WorkError, bundle_error_bytes, error_bytes};
    use crate::bundle::{BundleError, BundleLimits};
    use crate::{Description, ImageError, Layer, Limits, Place, Size};

    fn layers() -> Vec<Layer> {
        let range = Place::Range { offset: 1, bytes: 2 };
        let one = Layer { place: range, digest: None, diff_id: "a".repeat(64) };
        vec![one, Layer { place: Place::Blob("b".repeat(64)), digest: Some("b".repeat(64)), diff_id: "c".repeat(64) }]
    }

    #[test]
    fn what_was_written_is_read_and_no_part_of_it_is() {
        let layer = |layer: Layer| Request::Layer {
            folder: Some("/folder".into()),
            layer,
            tree: "/tree".into(),
            limits: Limits::default(),
            earlier: Size { entries: 3, bytes: 4 },
        };
        let [first, second] = layers().try_into().expect("two");
        let unpack = Request::Unpack { tree: "/t".into(), manifest: "m".into(), limits: BundleLimits::default() };
        for request in [Request::Describe { folder: None }, layer(first), layer(second), unpack] {
            let bytes = request.to_bytes();
            assert_eq!(Request::from_bytes(&bytes).as_ref(), Some(&request));
            assert!((0..bytes.len()).all(|cut| Request::from_bytes(&bytes[..cut]).is_none()));
        }
        let description = Description { layers: layers(), environment: vec![("A".into(), "b=c".into())] };
        for answer in
            [Answer::Described(description), Answer::Layer(Size { entries: 7, bytes: 9 }), Answer::Unpacked(8)]
        {
            let bytes = answer.to_bytes();
            assert_eq!(Answer::from_bytes(&bytes).and_then(Result::ok), Some(answer));
            assert!((0..bytes.len()).all(|cut| Answer::from_bytes(&bytes[..cut]).is_none()));
            assert!(Answer::from_bytes(&[bytes, vec![0]].concat()).is_none(), "nothing comes behind it");
        }
    }

    #[test]
    fn what_a_liar_writes_is_bounded_and_printable() {
        let error = ImageError::invalid(format!("\u{1b}[2J{}", "x".repeat(5000)));
        let read = Answer::from_bytes(&error_bytes(&error)).expect("it is in its form").expect_err("an error");
        let said = read.to_string();
        assert!(said.len() < 2000 && !said.contains('\u{1b}'), "{said}");
        let mut upwards = layers();
        upwards[1].place = Place::Blob("../../etc/shadow".into());
        let described = Answer::Described(Description { layers: upwards, environment: Vec::new() });
        assert!(Answer::from_bytes(&described.to_bytes()).is_none(), "a blob is digits");
        let many = Answer::Described(Description {
            layers: layers().into_iter().cycle().take(130).collect(),
            environment: Vec::new(),
        });
        assert!(Answer::from_bytes(&many.to_bytes()).is_none(), "130 layers");
    }

    #[test]
    fn errors_are_what_they_were() {
        let full = || std::io::Error::from_raw_os_error(28);
        for error in [
            ImageError::Unknown,
            ImageError::invalid("i"),
            ImageError::Digest { what: "w".into(), found: "f".into(), wanted: "x".into() },
            ImageError::refused(b"\x01e", "r"),
            ImageError::TooLarge("t".into()),
            ImageError::read("p", std::io::Error::other("o")),
            ImageError::Disk { path: "/d".into(), source: full() },
        ] {
            let read = Answer::from_bytes(&error_bytes(&error)).expect("its form").expect_err("an error");
            assert_eq!(read.to_string(), error.to_string());
            let WorkError::Image(read) = read else { panic!("another kind: {read}") };
            assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&error));
            if let ImageError::Disk { source, .. } = read {
                assert_eq!(source.raw_os_error(), full().raw_os_error(), "a full disk is told to be one");
            }
        }
        for error in [
            BundleError::UnknownFormat,
            BundleError::Damaged { entry: "e".into(), reason: "r".into() },
            BundleError::Refused { entry: "e".into(), reason: "r".into() },
            BundleError::TooLarge { limit_bytes: 5 << 20 },
            BundleError::TooManyEntries { limit: 5 },
            BundleError::NoManifest { name: "n".into() },
            BundleError::Disk { path: "/d".into(), source: full() },
        ] {
            let read = Answer::from_bytes(&bundle_error_bytes(&error)).expect("its form").expect_err("an error");
            assert_eq!(read.to_string(), error.to_string());
            let WorkError::Bundle(read) = read else { panic!("another kind: {read}") };
            assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&error));
        }
    }
}
