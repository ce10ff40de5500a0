//! The `registry` service.

fn main() {}
