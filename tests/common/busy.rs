//! What a test may expect of a machine that does other things as well.

/// How many times as long as on a machine of our own anything takes: runnable threads per processor, lately or now.
/// A promise of "within a second" is one on a machine of our own.
pub fn busy() -> u32 {
    let load = std::fs::read_to_string("/proc/loadavg").expect("/proc");
    let mut words = load.split([' ', '/']);
    let lately: f64 = words.next().and_then(|load| load.parse().ok()).expect("a number");
    let now: f64 = words.nth(2).and_then(|count| count.parse().ok()).expect("a number");
    let processors = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    (lately.max(now) / processors).clamp(1.0, 20.0) as u32
}
