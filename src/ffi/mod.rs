//! The C library: `rsp_*` functions, `repr(C)` types, errno.
