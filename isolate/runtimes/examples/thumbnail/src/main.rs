//! An example function: a PNG or JPEG comes in, a thumbnail of the same format goes out.
//!
//! This file knows invocations and no pictures; [`thumbnail`] the other way round.

mod thumbnail;

use std::fmt;

use thumbnail::PictureError;
use vilya_runtime::{EncodeError, Request, Response, TooLarge};

fn main() {
    vilya_runtime::run(handler);
}

fn handler(request: &Request<'_>, response: &mut Response<'_>) -> Result<(), ThumbnailError> {
    let thumbnail = thumbnail::thumbnail(request.payload())?;
    response.set_content_type(thumbnail.content_type)?;
    response.write(&thumbnail.bytes)?;
    Ok(())
}

/// Why an invocation has no thumbnail to show.
#[derive(Debug)]
enum ThumbnailError {
    Picture(PictureError),
    ContentType(EncodeError),
    Response(TooLarge),
}

impl fmt::Display for ThumbnailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThumbnailError::Picture(error) => error.fmt(f),
            ThumbnailError::ContentType(error) => error.fmt(f),
            ThumbnailError::Response(error) => error.fmt(f),
        }
    }
}

impl From<PictureError> for ThumbnailError {
    fn from(error: PictureError) -> ThumbnailError {
        ThumbnailError::Picture(error)
    }
}

impl From<EncodeError> for ThumbnailError {
    fn from(error: EncodeError) -> ThumbnailError {
        ThumbnailError::ContentType(error)
    }
}

impl From<TooLarge> for ThumbnailError {
    fn from(error: TooLarge) -> ThumbnailError {
        ThumbnailError::Response(error)
    }
}
