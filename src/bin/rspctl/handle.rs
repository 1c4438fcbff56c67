//! Pool handles on the command line: as they are printed, so that what one command says another understands.

use rserpool::wire::PoolHandle;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Reads a handle; bytes that are no UTF-8 are taken as they are.
pub fn parse(text: &OsStr) -> Result<PoolHandle, String> {
    PoolHandle::read(text.as_bytes())
}
