//! Only a build script: see there.
