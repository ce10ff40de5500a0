//! The `runtime` service.

fn main() {}
