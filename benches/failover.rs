//! How long a user goes without an answer when the element in use is killed (SIGKILL, 100 times) or frozen
//! (SIGSTOP, 20 times): three elements, one user that sends the next message as soon as it has the
//! answer. `cargo bench --bench failover [-- KILLS STOPS]`. Everything by the C API.
#![allow(clippy::disallowed_methods)]

mod pool;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// The registrar asks each element this often whether it is there ..
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_millis(500);
/// .. and waits this long for the answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_millis(500);

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    match arguments.get(1).map(String::as_str) {
        Some("--serve") => serve(&arguments[2]),
        _ => measure(&arguments[1..]),
    }
}

/// An element that sends everything back.
fn serve(pool: &str) {
    let listener = pool::listen(pool);
    println!("{}", pool::element(listener));
    loop {
        let sd = pool::accept(listener);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Some((length, _)) = pool::receive(sd, &mut buffer) {
                pool::send(sd, &buffer[..length]);
            }
            pool::close(sd);
        });
    }
}

/// Element processes by their identifiers.
#[derive(Default)]
struct Elements(BTreeMap<u32, Child>);

impl Elements {
    /// One more; it is registered.
    fn start(&mut self, pool: &str) {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args(["--serve", pool])
            .stdout(Stdio::piped())
            .spawn()
            .expect("an element starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        self.0.insert(line.trim().parse().expect("an identifier"), child);
    }

    fn signal(&self, element: u32, signal: i32) {
        let child = &self.0[&element];
        // SAFETY: a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    fn end(&mut self, element: u32) {
        if let Some(mut child) = self.0.remove(&element) {
            // Frozen ones die as well.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Elements {
    fn drop(&mut self) {
        for element in self.0.keys().copied().collect::<Vec<_>>() {
            self.end(element);
        }
    }
}

/// What the user's thread tells: who answers, and since when (nanoseconds after `begin`).
struct User {
    begin: Instant,
    element: AtomicU64,
    since: AtomicU64,
    done: AtomicBool,
}

impl User {
    fn new() -> User {
        let zero = || AtomicU64::new(0);
        User { begin: Instant::now(), element: zero(), since: zero(), done: AtomicBool::new(false) }
    }

    fn run(&self, pool: &str) {
        let sd = pool::connect(pool);
        let (data, mut buffer) = ([7; 64], [0; 64]);
        while !self.done.load(SeqCst) {
            let answer = if pool::send(sd, &data) { pool::receive(sd, &mut buffer) } else { None };
            match answer {
                Some((_, element)) if element == self.element() => {}
                Some((_, element)) => {
                    self.since.store(self.begin.elapsed().as_nanos() as u64, SeqCst);
                    self.element.store(element.into(), SeqCst);
                }
                None => pool::fail_over(sd),
            }
        }
        pool::close(sd);
    }

    fn element(&self) -> u32 {
        self.element.load(SeqCst) as u32
    }

    /// How long after `struck` somebody else than `victim` answered.
    fn answered_by_another(&self, victim: u32, struck: Duration) -> Duration {
        let end = Instant::now() + Duration::from_secs(60);
        while self.element() == victim {
            assert!(Instant::now() < end, "nobody takes over");
            std::thread::sleep(Duration::from_micros(200));
        }
        Duration::from_nanos(self.since.load(SeqCst)).saturating_sub(struck)
    }
}

fn measure(arguments: &[String]) {
    let number =
        |at: usize, default| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (kills, stops) = (number(0, 100), number(1, 20));
    let _registrar = pool::start_registrar(&[
        &format!("--endpointkeepalivetransmissioninterval={}", KEEP_ALIVE_INTERVAL.as_millis()),
        &format!("--endpointkeepalivetimeoutinterval={}", KEEP_ALIVE_TIMEOUT.as_millis()),
    ]);
    let pool = format!("FailoverPool{}", std::process::id());
    let mut elements = Elements::default();
    (0..3).for_each(|_| elements.start(&pool));
    let user = Arc::new(User::new());
    let thread = std::thread::spawn({
        let (user, pool) = (user.clone(), pool.clone());
        move || user.run(&pool)
    });
    while user.element() == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut strike = |signal, times: usize| -> Vec<Duration> {
        let one = |_| {
            // At a moment that has nothing to do with anybody's timers.
            std::thread::sleep(Duration::from_micros(fastrand::u64(20_000..120_000)));
            let victim = user.element();
            let struck = user.begin.elapsed();
            elements.signal(victim, signal);
            let gap = user.answered_by_another(victim, struck);
            elements.end(victim);
            elements.start(&pool);
            gap
        };
        (0..times).map(one).collect()
    };
    println!("three elements, one user; from the signal to the next answer, from another element");
    report("SIGKILL", strike(libc::SIGKILL, kills), "contract: 5 ms");
    let bound = KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT + Duration::from_millis(50);
    let contract = format!(
        "contract: {} ms (asked every {} ms, {} ms to answer, and 50)",
        bound.as_millis(),
        KEEP_ALIVE_INTERVAL.as_millis(),
        KEEP_ALIVE_TIMEOUT.as_millis()
    );
    report("SIGSTOP", strike(libc::SIGSTOP, stops), &contract);
    user.done.store(true, SeqCst);
    thread.join().expect("the user does not panic");
}

fn report(signal: &str, mut gaps: Vec<Duration>, contract: &str) {
    gaps.sort_unstable();
    let at = |share: f64| {
        let index = ((gaps.len() as f64 * share) as usize).min(gaps.len().saturating_sub(1));
        gaps.get(index).map_or(0.0, |gap| gap.as_secs_f64() * 1e3)
    };
    println!(
        "{signal} x {:<4} best {:.2} ms, median {:.2} ms, 90 % {:.2} ms, worst {:.2} ms; {contract}",
        gaps.len(),
        at(0.0),
        at(0.5),
        at(0.9),
        at(1.0)
    );
}
