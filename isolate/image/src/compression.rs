//! A layer's tar out of its bytes.
//!
//! Owns: which compression it is, and what a decompressor may make of it. Invariant: the kind is told by the first bytes, never by what
//! the image says; more than the bound is an error, whatever the frames promise, and a window takes 128 MiB at most. Does not know: tars.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What a decompressor may make of nothing, before the ratio counts.
const FREE_BYTES: u64 = 16 << 20;

/// Most bytes that a layer of so many may become.
pub(crate) fn bound(compressed_bytes: u64, ratio: u64) -> u64 {
    compressed_bytes.saturating_mul(ratio).saturating_add(FREE_BYTES)
}

/// The tar of a layer, compressed with gzip, with zstd or not at all.
pub(crate) fn decompressed<'a>(layer: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut layer = BufReader::with_capacity(64 << 10, layer);
    // The first read may bring less than it could, never nothing of what there is.
    let mut magic = [0; 4];
    layer.read_exact(&mut magic)?;
    let whole = BufReader::new(io::Cursor::new(magic).chain(layer));
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        // A frame, or one to be skipped, which builders put into or before a layer that can be read in parts.
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Zstd::new(whole)),
        _ => Box::new(whole),
    })
}

/// Every frame of a stream, one after the other.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        Zstd { source, decoder: FrameDecoder::new(), in_frame: false }
    }

    /// Begins the next frame; whether there is one.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            self.in_frame = self.in_frame || self.begin()?;
            if !self.in_frame {
                return Ok(0);
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if self.decoder.is_finished() {
                self.in_frame = false;
            } else {
                let block = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, block).map_err(io::Error::other)?;
            }
        }
        Ok(0)
    }
}
