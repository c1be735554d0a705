//! Sandboxes made ahead for images of functions: a few for each image that was started in lately.
//!
//! Owns: which images have some. Invariant: they are made of the directory that the image's path names when one is taken, not of one that
//! was there before; there are never more images than were asked for, and the one not used for longest goes first. What is an image's lies in
//! their mounts and nowhere else: until they are told what to become, they run our code alone, like all that are made ahead. Does not know:
//! how a sandbox is made.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::mechanism::{StartError, WaitingSandbox};
use crate::pool::{PoolOptions, Recipe};
use crate::prepared::PreparedStarts;
use crate::reach::Reach;
use crate::spec::{Root, Spec};
use crate::zygote::Image;

/// Sandboxes that wait, for each image.
const WAITING: usize = 2;
/// Those that have loaded a zygote's memory, for each image.
const LOADED: usize = 1;

/// Sandboxes that are made ahead for an image, and have loaded something there, at most.
pub const OF_IMAGE: usize = WAITING + LOADED;

/// The images that have sandboxes made ahead.
#[derive(Debug)]
pub(crate) struct ImageStarts {
    options: PoolOptions,
    /// The one used last at the end.
    images: Vec<OfImage>,
}

#[derive(Debug)]
struct OfImage {
    /// Kept open, so that nothing else gets its number.
    directory: File,
    starts: PreparedStarts,
}

impl OfImage {
    /// Whether the path of its image still names what it was made of.
    fn is_current(&self) -> bool {
        let Root::Image(image) = &self.starts.template().root else { return false };
        let named = std::fs::symlink_metadata(&image.directory);
        let identity = |found: &std::fs::Metadata| (found.dev(), found.ino());
        matches!((named, self.directory.metadata()), (Ok(named), Ok(held)) if identity(&named) == identity(&held))
    }
}

impl ImageStarts {
    pub(crate) fn new(options: PoolOptions) -> ImageStarts {
        ImageStarts { options, images: Vec::new() }
    }

    /// Those that serve a spec, if there are any.
    pub(crate) fn serving(&mut self, spec: &Spec) -> Option<&mut PreparedStarts> {
        let place = self.images.iter().position(|of| of.starts.serves(spec))?;
        let of = self.images.remove(place);
        if !of.is_current() || of.starts.fails() {
            return None;
        }
        self.images.push(of);
        self.images.last_mut().map(|of| &mut of.starts)
    }

    /// Begins to make some for the image of a spec, unless there are.
    pub(crate) fn prepare(
        &mut self,
        spec: &Spec,
        recipe: impl FnOnce(&PoolOptions) -> Result<Recipe, StartError>,
    ) -> Result<(), StartError> {
        let Root::Image(image) = &spec.root else { return Ok(()) };
        if self.options.images == 0 || spec.reach != Reach::Nothing || self.serving(spec).is_some() {
            return Ok(());
        }
        let directory = open(&image.directory)
            .map_err(|source| StartError::Prepare { action: "open an image's directory", source })?;
        let PoolOptions { template, image_binds, mount_points, .. } = &self.options;
        let options = PoolOptions {
            template: Spec { root: spec.root.clone(), binds: image_binds.clone(), ..template.clone() },
            mount_points: mount_points.clone(),
            image_binds: Vec::new(),
            size: self.options.size.min(WAITING),
            loaded: self.options.loaded.min(LOADED),
            threads: 1,
            images: 0,
        };
        let starts = PreparedStarts::untried(recipe(&options)?, options)?;
        if !starts.serves(spec) {
            return Ok(());
        }
        if self.images.len() >= self.options.images {
            drop(self.images.remove(0));
        }
        self.images.push(OfImage { directory, starts });
        Ok(())
    }

    /// As of [`PreparedStarts`], of all images.
    pub(crate) fn keep_loaded(&mut self, is_wanted: &mut dyn FnMut(&Arc<Image>) -> bool) -> usize {
        self.images.iter_mut().map(|of| of.starts.keep_loaded(is_wanted)).sum()
    }

    /// Those that wait now, of all images.
    pub(crate) fn waiting(&self) -> Vec<WaitingSandbox> {
        self.images.iter().flat_map(|of| of.starts.waiting()).collect()
    }

    /// Waits until all have as many as may be; whether they do.
    pub(crate) fn wait_until_full(&self, patience: std::time::Duration) -> bool {
        self.images.iter().all(|of| of.starts.wait_until_full(patience))
    }
}

fn open(directory: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH).open(directory)
}
