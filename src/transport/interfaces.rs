//! See the module list of `transport`.
