//! Reads a connection's bytes through the decoder in given pieces and writes down what came out, so that two ways of
//! splitting the same bytes can be compared.
//!
//! Invariant: every promise that [`Decoder::decode`] makes of one call is asserted on the way; a panic is a bug of the
//! decoder.

use super::super::{Decoder, Item, Limits, Method, Reject};

/// One request as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// `Head::method`
    pub method: Option<Method>,
    /// `Head::method_text`
    pub method_text: String,
    /// `Head::path`
    pub path: String,
    /// `Head::query`
    pub query: Option<String>,
    /// `Head::headers`
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// `Head::content_length`
    pub content_length: Option<u64>,
    /// `Head::chunked`
    pub chunked: bool,
    /// `Head::keep_alive`
    pub keep_alive: bool,
    /// `Head::expects_continue`
    pub expects_continue: bool,
    /// The body, its parts joined.
    pub body: Vec<u8>,
    /// Its `End` came.
    pub whole: bool,
}

/// Everything that was read, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The requests whose head was read.
    pub requests: Vec<Read>,
    /// The refusal that ended it.
    pub reject: Option<Reject>,
    /// The decoder was between requests at the end.
    pub ended: bool,
}

/// Reads `wire`. `cuts` are where a read ended, in any order; what is left comes last.
///
/// Holds, on the way, what every call promises: it consumes no more than it was shown, `NeedMore` consumes all, and a
/// reject repeats itself.
pub fn read(wire: &[u8], limits: Limits, cuts: &[usize]) -> Reading {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect();
    ends.push(wire.len());
    ends.sort_unstable();

    let mut decoder = Decoder::new(limits);
    let mut reading = Reading::default();
    let mut at = 0;
    for end in ends {
        loop {
            let shown = &wire[at..end];
            let step = match decoder.decode(shown) {
                Ok(step) => step,
                Err(reject) => {
                    assert_eq!(decoder.decode(shown).err(), Some(reject), "a reject stays");
                    assert_eq!(reject.status, reject.kind.status());
                    reading.reject = Some(reject);
                    return reading;
                }
            };
            assert!(step.consumed <= shown.len());
            let progress = step.consumed > 0 || !matches!(step.item, Item::Head(_) | Item::Body(_));
            assert!(progress, "a head or a part of a body takes bytes");
            match step.item {
                Item::NeedMore => {
                    assert_eq!(step.consumed, shown.len(), "NeedMore takes all");
                    at = end;
                    break;
                }
                Item::Head(head) => reading.requests.push(Read {
                    method: Some(head.method()),
                    method_text: head.method_text().to_owned(),
                    path: head.path().to_owned(),
                    query: head.query().map(str::to_owned),
                    headers: head.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                    content_length: head.content_length(),
                    chunked: head.chunked(),
                    keep_alive: head.keep_alive(),
                    expects_continue: head.expects_continue(),
                    ..Read::default()
                }),
                Item::Body(part) => {
                    assert!(!part.is_empty());
                    let request = reading.requests.last_mut().expect("a body follows its head");
                    request.body.extend_from_slice(part);
                    assert!(request.body.len() as u64 <= limits.body_bytes);
                }
                Item::End => reading.requests.last_mut().expect("an end follows its head").whole = true,
            }
            at += step.consumed;
        }
    }
    reading.ended = decoder.ended();
    reading
}
