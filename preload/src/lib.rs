//! `librserpool-preload.so`: what a program that knows nothing of pools asks libc for, answered for pools.
//!
//! Names below a suffix become placeholder addresses, and a `connect` to one of them goes to an element that the
//! pool's policy chooses ([`guest`]). What a program listens on can be an element ([`serve`]). Hooked is the least that does it
//! ([`hooks`]). Everything else stays libc's: no descriptor is kept, none is made for the program, and no call of a program
//! that uses no pool costs more than a look at an address or a flag.
//!
//! | file | what |
//! |---|---|
//! | `hooks` | the functions that stand before libc's |
//! | `look_up` | names, for getaddrinfo and its relatives |
//! | `connect` | a connect to a placeholder |
//! | `serve`, `signals` | a server: who registers what it listens on, and that SIGTERM is told there |
//! | `guest` | the pools that this process follows, and its connections |
//! | `names` | which names are pools', and the placeholder addresses they get |
//! | `socket`, `frame` | the program's sockets; what every hook does before and after |
//! | `real` | libc's functions |
#![allow(clippy::disallowed_methods)]

mod connect;
mod frame;
mod guest;
mod hooks;
mod look_up;
mod names;
mod real;
mod serve;
mod signals;
mod socket;
