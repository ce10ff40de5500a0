//! The contracts of Orlop's four services, and what every side of them must agree on.
//!
//! - [`types`], [`store`], [`builder`], [`runtime`], [`registry`]: generated from `protos/`.
//! - [`error`]: the one table of error kinds, and how they travel.
//! - [`reference`]: what people type for an image, and its normal form.
//! - [`descriptor`]: between the contract's descriptors and `oci-spec`'s.
//! - [`change`]: the instructions of `commit --change` and `import --change`.
//! - [`dockerignore`]: what a build context leaves out, and the wildcards of COPY.
//!
//! The generated code is checked in, so that building needs no `protoc`; `generate/tests/generated.rs`
//! compares it with the contracts and rewrites it when `ORLOP_REGENERATE=1` is set.

pub mod change;
pub mod descriptor;
pub mod dockerignore;
pub mod error;
pub mod reference;

/// Declares the modules of generated code.
macro_rules! generated {
    ($($(#[$doc:meta])* $name:ident => $file:literal;)*) => {$(
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::nursery,
            clippy::allow_attributes_without_reason,
            reason = "generated code"
        )]
        pub mod $name {
            include!(concat!("gen/", $file, ".rs"));
        }
    )*};
}

generated! {
    /// `orlop.types.v1`: vocabulary shared by the contracts.
    types => "orlop.types.v1";
    /// `orlop.store.v1`.
    store => "orlop.store.v1";
    /// `orlop.builder.v1`.
    builder => "orlop.builder.v1";
    /// `orlop.runtime.v1`.
    runtime => "orlop.runtime.v1";
    /// `orlop.registry.v1`.
    registry => "orlop.registry.v1";
}

/// All contracts as an encoded `FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptors.bin");
