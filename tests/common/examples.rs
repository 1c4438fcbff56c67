//! The C examples, built against the library of this build.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Builds all of them into `folder`, with the library beside them.
pub fn build_examples(folder: &Path) {
    fs::create_dir_all(folder).expect("folder");
    let built = std::env::current_exe().expect("own path").with_file_name("librserpool.so");
    for name in ["librserpool.so", "librserpool.so.0"] {
        let link = folder.join(name);
        // A program that has just been started may be looking for it.
        if fs::read_link(&link).ok().as_ref() != Some(&built) {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&built, &link).expect("link");
        }
    }
    let make = Command::new("make")
        .arg("-C")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("c-examples"))
        .arg(format!("LIBDIR={}", folder.display()))
        .arg(format!("OUT={}", folder.display()))
        // Before LD_LIBRARY_PATH: Cargo's may have what `make` left, perhaps of an older build.
        .env("LDFLAGS", "-Wl,--disable-new-dtags")
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .output()
        .expect("make");
    assert!(make.status.success(), "{}", String::from_utf8_lossy(&make.stderr));
}
