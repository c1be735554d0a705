//! Images from registries. Empty: only what it is built on is here.
