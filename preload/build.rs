//! Exported is what is hooked and nothing of what is linked in, and the library stays where it is loaded: there are
//! threads in it. Its soname is told by soname/build.rs.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-Wl,--exclude-libs,ALL", "-Wl,-z,nodelete"] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
}
