//! Exported is what is hooked and nothing of what is linked in, and the library stays where it is loaded: there are
//! threads in it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-Wl,--exclude-libs,ALL", "-Wl,-z,nodelete", "-Wl,-soname,librserpool-preload.so"] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
}
