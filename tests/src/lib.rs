//! What the integration suite and the fuzz targets share.
