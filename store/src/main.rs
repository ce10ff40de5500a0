//! The `store` service.

fn main() {}
