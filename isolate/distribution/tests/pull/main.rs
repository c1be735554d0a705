//! Pulling from a registry on loopback, as it should be and as it should not.

mod access;
mod faults;
mod hub;
mod images;
mod support;
mod tls;
