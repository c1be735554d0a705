//! The example functions of `isolate/runtimes/examples`, carried inside the program so that the demo needs no source
//! tree: their files, an input, and what a right answer to it looks like.
//!
//! What is expected is worked out here from the input, not copied from what a function once said.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;

/// A file of a function's folder.
macro_rules! file {
    ($function:literal, $file:literal) => {
        ($file, include_str!(concat!("../../../../isolate/runtimes/examples/", $function, "/", $file)))
    };
}

/// Bytes that stand beside a function's files.
macro_rules! input {
    ($function:literal, $file:literal) => {
        include_bytes!(concat!("../../../../isolate/runtimes/examples/", $function, "/", $file))
    };
}

/// Says what is wrong with an answer.
type Check = Box<dyn Fn(&[u8]) -> Result<(), String> + Sync>;

pub(super) struct Example {
    pub(super) name: &'static str,
    pub(super) runtime: &'static str,
    pub(super) files: &'static [(&'static str, &'static str)],
    /// For a compiled function, where its executable goes.
    pub(super) executable: Option<&'static str>,
    pub(super) content_type: &'static str,
    pub(super) payload: &'static [u8],
    pub(super) check: Check,
}

/// The examples, in the order in which they are shown.
pub(super) fn all(with_compiled: bool) -> Vec<Example> {
    let mut examples = vec![hello(), upper(), word_count(), nap()];
    if with_compiled {
        examples.push(thumbnail());
    }
    examples
}

fn hello() -> Example {
    let payload = input!("hello", "event.json");
    Example {
        name: "hello",
        runtime: "python",
        files: &[file!("hello", "function.toml"), file!("hello", "main.py")],
        executable: None,
        content_type: "application/json",
        payload,
        check: Box::new(|answer| {
            let event: Value = parse(payload)?;
            let expected = format!("Hello, {}!", event["name"].as_str().unwrap_or("world"));
            let said: Value = parse(answer)?;
            must(said["message"] == expected, || format!("{said} does not say {expected:?}"))
        }),
    }
}

fn upper() -> Example {
    let payload = input!("upper", "body.txt");
    Example {
        name: "upper",
        runtime: "python",
        files: &[file!("upper", "function.toml"), file!("upper", "main.py")],
        executable: None,
        content_type: "text/plain",
        payload,
        check: Box::new(|answer| {
            must(answer == payload.to_ascii_uppercase(), || "not the input in upper case".to_owned())
        }),
    }
}

fn word_count() -> Example {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Counts {
        lines: usize,
        words: usize,
        distinct: usize,
        characters: usize,
    }
    let payload = input!("word-count", "prose.txt");
    let text = String::from_utf8_lossy(payload);
    let words = words_of(&text);
    let expected = Counts {
        lines: text.matches('\n').count(),
        words: words.len(),
        distinct: words.iter().collect::<HashSet<_>>().len(),
        characters: text.chars().count(),
    };
    Example {
        name: "word-count",
        runtime: "python",
        files: &[file!("word-count", "function.toml"), file!("word-count", "main.py")],
        executable: None,
        content_type: "text/plain; charset=utf-8",
        payload,
        check: Box::new(move |answer| {
            let counted: Counts = parse(answer)?;
            must(counted == expected, || format!("{counted:?} instead of {expected:?}"))
        }),
    }
}

/// Runs of letters, joined by single apostrophes, in lower case.
fn words_of(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let joins = "'\u{2019}".contains(letter) && !word.is_empty();
        if letter.is_alphabetic() || (joins && letters.peek().is_some_and(|next| next.is_alphabetic())) {
            word.extend(letter.to_lowercase());
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

fn nap() -> Example {
    let payload = input!("nap", "event.json");
    Example {
        name: "nap",
        runtime: "python",
        files: &[file!("nap", "function.toml"), file!("nap", "main.py")],
        executable: None,
        content_type: "application/json",
        payload,
        check: Box::new(|answer| {
            let event: Value = parse(payload)?;
            let said: Value = parse(answer)?;
            let (asked_ms, slept_ms) = (event["ms"].as_f64(), said["slept_ms"].as_f64());
            must(slept_ms >= asked_ms && slept_ms.is_some(), || format!("slept {slept_ms:?} ms of {asked_ms:?}"))
        }),
    }
}

fn thumbnail() -> Example {
    /// The longer side that the example shrinks a picture to, in pixels.
    const SIDE_PIXELS: u32 = 128;
    let payload = input!("thumbnail", "landscape.png");
    Example {
        name: "thumbnail",
        runtime: "rust",
        files: &[file!("thumbnail", "function.toml")],
        executable: Some(super::thumbnail::PACKAGE),
        content_type: "image/png",
        payload,
        check: Box::new(|answer| {
            let (width, height) = png_size(payload).ok_or("the input is no PNG")?;
            let small = png_size(answer).ok_or("not a whole PNG")?;
            let side = |pixels: u32| (f64::from(pixels * SIDE_PIXELS) / f64::from(width.max(height))).round() as u32;
            let expected = (side(width), side(height));
            must(small == expected, || format!("{small:?} pixels instead of {expected:?}"))
        }),
    }
}

/// Width and height in pixels of what starts and ends as a PNG does (ISO/IEC 15948, sections 5.2, 11.2.1 and 11.2.4).
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let header = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")?;
    let (width, rest) = header.split_first_chunk()?;
    let (height, rest) = rest.split_first_chunk()?;
    let whole = rest.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82");
    whole.then_some((u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|error| format!("not the JSON expected: {error}"))
}

fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

#[cfg(test)]
mod tests {
    use vilya_worker::manifest::{Manifest, Runtime};

    use super::*;

    #[test]
    fn every_example_is_what_its_manifest_says() {
        for example in all(true) {
            let (name, text) = example.files[0];
            assert_eq!(name, "function.toml");
            let manifest = Manifest::parse(text).unwrap();
            assert_eq!((manifest.name.as_str(), manifest.runtime.as_str()), (example.name, example.runtime));
            let executable = (manifest.runtime == Runtime::Rust).then_some(manifest.handler.as_str());
            assert_eq!(example.executable, executable);
            assert!(!example.payload.is_empty());
        }
    }

    #[test]
    fn right_answers_pass_and_wrong_ones_do_not() {
        let check = |example: &Example, answer: &str| (example.check)(answer.as_bytes()).is_ok();
        assert!(check(&hello(), r#"{"message":"Hello, Ada!","requestId":"1"}"#));
        assert!(!check(&hello(), r#"{"message":"Hello, world!"}"#));
        assert!(check(&upper(), &String::from_utf8_lossy(input!("upper", "body.txt")).to_uppercase()));
        assert!(!check(&upper(), ""));
        assert!(check(&nap(), r#"{"slept_ms": 20.1}"#));
        assert!(!check(&nap(), r#"{"slept_ms": 19.9}"#));
        assert!(!check(&nap(), "{}"));
        // As the function's own regular expression counts them.
        assert!(check(&word_count(), r#"{"lines":1536,"words":18846,"distinct":331,"characters":99759}"#));
        assert!(!check(&word_count(), r#"{"lines":0,"words":0,"distinct":0,"characters":0}"#));
    }

    #[test]
    fn a_thumbnail_is_a_whole_png_of_the_right_size() {
        let source = input!("thumbnail", "landscape.png");
        let (width, height) = png_size(source).unwrap();
        assert!(width > 128 || height > 128);
        let picture = |width: u32, height: u32| {
            let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
            bytes.extend_from_slice(&width.to_be_bytes());
            bytes.extend_from_slice(&height.to_be_bytes());
            bytes.extend_from_slice(b"\0\0\0\0IEND\xae\x42\x60\x82");
            bytes
        };
        let longer = width.max(height);
        let (small_width, small_height) = (width * 128 / longer, height * 128 / longer);
        assert_eq!((thumbnail().check)(&picture(small_width, small_height)), Ok(()));
        assert!((thumbnail().check)(&picture(small_width / 2, small_height)).is_err());
        let mut cut = picture(small_width, small_height);
        cut.pop();
        assert!((thumbnail().check)(&cut).is_err());
        assert!((thumbnail().check)(source).is_err());
    }

    #[test]
    fn words_are_letters_and_apostrophes_between_them() {
        assert_eq!(
            words_of("A hand's breadth, the '90s; x2 don\u{2019}t' "),
            ["a", "hand's", "breadth", "the", "s", "x", "don\u{2019}t"]
        );
    }
}
