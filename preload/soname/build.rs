//! What the linker is told about a shared library, cargo tells it about those that are made of that library as well
//! (its issue 9562), behind what they say themselves, and the last soname counts. Packages come in the order of their names,
//! so this one's word is the last. With `librserpool.so.0` in it, the loader would take the preload library for the
//! one that a program is linked to.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librserpool-preload.so");
}
