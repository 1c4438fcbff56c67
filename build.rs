//! The shared library's soname: programs bind to the ABI's number, not to a release.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,librserpool.so.0");
}
