//! What is made of images, as their files show.

mod builder;
mod compression;
mod entries;
mod forms;
mod oddities;
