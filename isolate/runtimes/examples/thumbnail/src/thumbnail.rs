//! A picture's bytes to a small picture's bytes.
//!
//! Invariant: whatever the bytes, the work is bounded by [`DECODED_BYTES_MAX`], checked before anything of that size
//! is allocated; a picture that cannot be read is an error that says so. This module knows no invocations.

use std::fmt;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

/// The longer side of a thumbnail, in pixels. Smaller pictures keep their size.
pub(crate) const SIDE_PIXELS: u32 = 128;
/// The longest side of a picture that is read, in pixels.
const SOURCE_SIDE_PIXELS_MAX: u32 = 16_384;
/// The most bytes a picture may take decoded: 16 million pixels of three bytes.
const DECODED_BYTES_MAX: u64 = 48 << 20;

/// A thumbnail, in the format of the picture it was made of.
pub(crate) struct Thumbnail {
    /// The encoded picture.
    pub(crate) bytes: Vec<u8>,
    /// Its content type.
    pub(crate) content_type: &'static str,
}

/// Why no thumbnail can be made.
#[derive(Debug)]
pub(crate) enum PictureError {
    /// Neither PNG nor JPEG.
    NotAPicture,
    /// Larger than this function reads.
    TooLarge { width: u32, height: u32 },
    /// Says that it is a picture, and is not one all the way.
    Broken(image::ImageError),
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PictureError::NotAPicture => write!(f, "the body is no picture this function reads; send a PNG or a JPEG"),
            PictureError::TooLarge { width, height } => write!(
                f,
                "the picture has {width} x {height} pixels; send one of at most {SOURCE_SIDE_PIXELS_MAX} a side and {} MiB decoded",
                DECODED_BYTES_MAX >> 20
            ),
            PictureError::Broken(error) => write!(f, "the picture cannot be decoded: {error}"),
        }
    }
}

impl std::error::Error for PictureError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PictureError::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// Makes the thumbnail of a PNG or JPEG, upright also where the picture's metadata says it was taken sideways.
pub(crate) fn thumbnail(picture: &[u8]) -> Result<Thumbnail, PictureError> {
    let format = match image::guess_format(picture) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        _ => return Err(PictureError::NotAPicture),
    };
    let (decoded, orientation) = decode(picture, format)?;
    let mut small = match decoded.width().max(decoded.height()) {
        ..=SIDE_PIXELS => decoded,
        _ => decoded.thumbnail(SIDE_PIXELS, SIDE_PIXELS),
    };
    small.apply_orientation(orientation);
    encode(&small, format)
}

fn decode(picture: &[u8], format: ImageFormat) -> Result<(DynamicImage, Orientation), PictureError> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODED_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(picture), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(PictureError::Broken)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > SOURCE_SIDE_PIXELS_MAX || decoder.total_bytes() > DECODED_BYTES_MAX {
        return Err(PictureError::TooLarge { width, height });
    }
    // Broken metadata is no reason to refuse a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(PictureError::Broken)?;
    Ok((decoded, orientation))
}

fn encode(small: &DynamicImage, format: ImageFormat) -> Result<Thumbnail, PictureError> {
    // Eight bits a channel is all a thumbnail needs; JPEG has no transparency to keep.
    let small = match format {
        ImageFormat::Png if small.color().has_alpha() => DynamicImage::ImageRgba8(small.to_rgba8()),
        _ => DynamicImage::ImageRgb8(small.to_rgb8()),
    };
    let mut bytes = Vec::new();
    small.write_to(&mut Cursor::new(&mut bytes), format).map_err(PictureError::Broken)?;
    Ok(Thumbnail { bytes, content_type: format.to_mime_type() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage, Rgba, RgbaImage};

    const LANDSCAPE: &[u8] = include_bytes!("../landscape.png");

    fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        picture.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn painted(width: u32, height: u32) -> DynamicImage {
        let paint = |x: u32, y: u32| Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, 90]);
        DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, paint))
    }

    /// A PNG that declares `width` x `height` pixels and holds almost none.
    fn declared_png(width: u32, height: u32) -> Vec<u8> {
        let mut png = encoded(&painted(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        png
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)))
        })
    }

    #[test]
    fn the_landscape_becomes_a_small_landscape() {
        let thumbnail = thumbnail(LANDSCAPE).unwrap();
        assert_eq!(thumbnail.content_type, "image/png");
        let small = image::load_from_memory_with_format(&thumbnail.bytes, ImageFormat::Png).unwrap().to_rgb8();
        assert_eq!(small.dimensions(), (128, 80));
        // Blue above, the sun where it was painted, the lake darker than the sky at the horizon.
        let [red, _, blue] = small.get_pixel(40, 0).0;
        assert!(blue > red + 40);
        assert!(small.get_pixel(87, 26).0.iter().all(|channel| *channel > 200));
        assert!(small.get_pixel(64, 78).0[0] < small.get_pixel(80, 35).0[0]);
    }

    #[test]
    fn a_jpeg_stays_a_jpeg_and_keeps_its_shape() {
        let jpeg = encoded(&painted(300, 600), ImageFormat::Jpeg);
        let thumbnail = thumbnail(&jpeg).unwrap();
        assert_eq!(thumbnail.content_type, "image/jpeg");
        let small = image::load_from_memory_with_format(&thumbnail.bytes, ImageFormat::Jpeg).unwrap();
        assert_eq!((small.width(), small.height()), (64, 128));
    }

    #[test]
    fn a_sideways_jpeg_is_set_upright() {
        let jpeg = encoded(&painted(300, 600), ImageFormat::Jpeg);
        // An EXIF segment whose one entry says "rotate a quarter turn" (orientation 6), after the start marker.
        let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = (exif.len() as u16 + 2).to_be_bytes();
        let turned = [&jpeg[..2], &[0xFF, 0xE1], &length, exif, &jpeg[2..]].concat();
        let small = image::load_from_memory(&thumbnail(&turned).unwrap().bytes).unwrap();
        assert_eq!((small.width(), small.height()), (128, 64));
    }

    #[test]
    fn small_pictures_keep_their_size_and_transparency() {
        let clear = RgbaImage::from_pixel(20, 10, Rgba([200, 100, 50, 0]));
        let thumbnail = thumbnail(&encoded(&DynamicImage::ImageRgba8(clear), ImageFormat::Png)).unwrap();
        let small = image::load_from_memory(&thumbnail.bytes).unwrap();
        assert_eq!((small.width(), small.height()), (20, 10));
        assert_eq!(small.to_rgba8().get_pixel(3, 3).0[3], 0);
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for body in [&b""[..], b"GIF89a", b"hello", b"\x89PNG", &[0; 100]] {
            assert!(matches!(thumbnail(body), Err(PictureError::NotAPicture)), "{body:?}");
        }
    }

    #[test]
    fn a_decompression_bomb_is_refused_before_it_is_unpacked() {
        for (width, height) in [(60_000, 60_000), (u32::MAX >> 1, 1), (8_000, 8_000), (16_385, 1)] {
            let error = thumbnail(&declared_png(width, height)).err().unwrap();
            assert!(!matches!(error, PictureError::NotAPicture), "{error}");
        }
        let error = thumbnail(&declared_png(8_000, 8_000)).err().unwrap();
        assert!(error.to_string().contains("8000 x 8000"), "{error}");
    }

    #[test]
    fn every_truncation_and_many_corruptions_end_cleanly() {
        let png = encoded(&painted(40, 30), ImageFormat::Png);
        let jpeg = encoded(&painted(40, 30), ImageFormat::Jpeg);
        for picture in [&png, &jpeg] {
            for end in 0..picture.len() {
                // A JPEG cut in its scan may still decode; what matters is that it ends.
                let _ = thumbnail(&picture[..end]);
            }
            for at in 0..picture.len() {
                let mut corrupt = picture.clone();
                corrupt[at] ^= 0x55;
                let _ = thumbnail(&corrupt);
            }
        }
        assert!(thumbnail(&png[..png.len() / 2]).is_err());
    }
}
