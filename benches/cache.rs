//! Resolutions from the cache: nanoseconds each, on one thread and on two, that resolve the same pool or one
//! each; by the Rust API and by `rsp_getaddrinfo`. `cargo bench --bench cache`.
#![allow(clippy::disallowed_methods)]

mod pool;

use rserpool::ffi::{abi::rsp_addrinfo, basic};
use rserpool::runtime::Settings;
use rserpool::socket::Library;
use rserpool::wire::PoolHandle;
use std::time::{Duration, Instant};

const STALE: Duration = Duration::from_secs(3600);
const ROUNDS: u32 = 500_000;

fn main() {
    let _registrar = pool::start_registrar(&[]);
    let pools = ["CachePoolA", "CachePoolB"];
    let _elements: Vec<_> = pools.iter().flat_map(|pool| [pool::listen(pool), pool::listen(pool)]).collect();
    let library = Library::start(Settings::from_env().expect("settings")).expect("the library starts");
    let rust = |pool: &str| {
        let handle = PoolHandle::new(pool.as_bytes()).expect("short");
        let found = library.resolve(&handle, 1, STALE).expect("a registrar");
        assert_eq!(found.len(), 1);
    };
    let c = |pool: &str| {
        let mut first: *mut rsp_addrinfo = std::ptr::null_mut();
        // SAFETY: our bytes, our pointer.
        unsafe {
            let stale = STALE.as_millis() as u32;
            assert_eq!(basic::rsp_getaddrinfo(pool.as_ptr(), pool.len(), &raw mut first, 1, stale), 1);
            basic::rsp_freeaddrinfo(first);
        }
    };
    println!("resolution from the cache, ns each on each thread: best of 5 (contract: 300)");
    println!("                    one thread   two, a pool each   two, the same pool");
    report("Rust API", &rust, pools);
    report("rsp_getaddrinfo", &c, pools);
    library.shutdown();
}

fn report(name: &str, resolve: &(dyn Fn(&str) + Sync), [one, other]: [&str; 2]) {
    let best = |pools: &[&str]| {
        (0..5).map(|_| time(resolve, pools)).min().expect("five").as_nanos() as f64 / f64::from(ROUNDS)
    };
    println!("{name:<16} {:>13.0} {:>18.0} {:>20.0}", best(&[one]), best(&[one, other]), best(&[one, one]));
}

/// How long the slowest of one thread per pool takes.
fn time(resolve: &(dyn Fn(&str) + Sync), pools: &[&str]) -> Duration {
    std::thread::scope(|scope| {
        let threads: Vec<_> = pools
            .iter()
            .map(|pool| {
                scope.spawn(move || {
                    (0..1000).for_each(|_| resolve(pool));
                    let begin = Instant::now();
                    (0..ROUNDS).for_each(|_| resolve(pool));
                    begin.elapsed()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).max().expect("a thread")
    })
}
