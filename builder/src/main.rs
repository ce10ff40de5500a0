//! The `builder` service.

fn main() {}
