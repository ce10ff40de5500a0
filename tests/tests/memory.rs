//! The memory of store and registry, in small; the million is `orlop-soak --blobs 1000000`. What is bounded here are peaks of
//! resident memory, which do not depend on how fast the machine is.

use orlop_tests::soak::memory;

#[test]
fn twenty_thousand_small_blobs_fit() {
    let measured = memory::blobs(20_000);
    assert!(measured.fits(), "{measured}");
}

#[test]
fn ten_layers_are_unpacked_at_once_in_bounded_memory() {
    let measured = memory::layers(30);
    assert!(measured.fits(), "{measured}");
}

#[test]
fn eight_images_are_pushed_and_pulled_at_once_in_bounded_memory() {
    let measured = memory::transfers(8, 8);
    assert!(measured.fits(), "{measured}");
}
