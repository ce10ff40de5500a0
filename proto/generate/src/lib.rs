//! Keeps the checked-in code of `orlop-proto` equal to its contracts: see `tests/generated.rs`.
//!
//! It is a crate of its own because it must build while the generated code does not.
