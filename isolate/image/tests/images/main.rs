//! What is made of images, as their files show.

mod builder;
mod compression;
mod forms;
mod oddities;
