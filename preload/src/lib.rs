//! `librserpool-preload.so`: what a program that knows nothing of pools asks libc for, answered for pools.
//!
//! Names below a suffix become placeholder addresses, and a `connect` to one of them goes to an element that the
//! pool's policy chooses ([`guest`]). Hooked is the least that does it ([`hooks`]): look-ups of names, `connect`, and
//! `getsockopt`, which is where event loops learn how a connect ended. Everything else stays libc's: no descriptor
//! is kept, none is made for the program, no call of a program that uses no pool costs more than a look at an address.
//!
//! | file | what |
//! |---|---|
//! | `hooks` | the functions that stand before libc's |
//! | `real` | libc's |
//! | `names` | which names are pools', and the placeholder addresses they get |
//! | `connect` | a connect to a placeholder |
//! | `guest` | the pools that this process follows, and its connections |
#![allow(clippy::disallowed_methods)]

mod connect;
mod guest;
mod hooks;
mod names;
mod real;
