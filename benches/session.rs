//! Sessions through the C API beside the same two programs on bare TCP sockets, in turns: message round
//! trips and throughput of one session, then many sessions on one and on two threads, with the calls on
//! futexes that they make. `cargo bench --bench session`; RSP_BENCH_SECONDS sets the length of a run.
//!
//! The programs are the same source ([`Side`]): one send call and one receive call per message. On bare
//! TCP a receive call waits for as many bytes as the message is known to have.
#![allow(clippy::disallowed_methods)]

#[path = "pool/bare.rs"]
mod bare;
mod pool;

use bare::Bare;
use pool::{Pooled, Side, WaitSet};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::RawFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Waits for many sessions at once.
trait Poller: Copy + Send + 'static {
    fn new() -> Self;
    fn add(self, sd: RawFd);
    fn wait(self, ready: &mut Vec<RawFd>);
}

/// An epoll instance of the program's.
#[derive(Clone, Copy)]
struct Epoll(RawFd);

impl Poller for Epoll {
    fn new() -> Epoll {
        // SAFETY: no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        assert!(epoll >= 0);
        Epoll(epoll)
    }

    fn add(self, sd: RawFd) {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: sd as u64 };
        // SAFETY: our event.
        assert_eq!(unsafe { libc::epoll_ctl(self.0, libc::EPOLL_CTL_ADD, sd, &raw mut event) }, 0);
    }

    fn wait(self, ready: &mut Vec<RawFd>) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
        // SAFETY: our events.
        let count = unsafe { libc::epoll_wait(self.0, events.as_mut_ptr(), 64, -1) };
        ready.extend(events[..usize::try_from(count).unwrap_or(0)].iter().map(|event| event.u64 as RawFd));
    }
}

/// What the library has for it.
impl Poller for WaitSet {
    fn new() -> WaitSet {
        WaitSet::new()
    }

    fn add(self, sd: RawFd) {
        WaitSet::add(self, sd);
    }
    fn wait(self, ready: &mut Vec<RawFd>) {
        WaitSet::wait(self, ready);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |at: usize| arguments.get(at).map_or("", String::as_str);
    match argument(1) {
        "--serve-bare" => serve::<Bare, Epoll>(argument(2)),
        "--serve-pooled" => serve::<Pooled, Epoll>(argument(2)),
        "--serve-set" => serve::<Pooled, WaitSet>(argument(2)),
        "--crowd-bare" => crowd::<Bare>(&arguments[2..]),
        "--crowd-pooled" => crowd::<Pooled>(&arguments[2..]),
        _ => compare(),
    }
}

// ----- the server ----------------------------------------------------------------------------------

/// How much of a run's time goes before it.
const WARMING: f64 = 0.1;

/// What a session is for, told by its first message.
#[derive(Clone, Copy)]
struct Task {
    /// Bytes of a message.
    size: u32,
    /// Messages until there is an answer of the same size (1), or of [`DONE`] bytes.
    batch: u32,
}

const DONE: usize = 8;

impl Task {
    const LENGTH: usize = 8;

    fn encode(self) -> [u8; Task::LENGTH] {
        let mut bytes = [0; Task::LENGTH];
        bytes[..4].copy_from_slice(&self.size.to_be_bytes());
        bytes[4..].copy_from_slice(&self.batch.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Task {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Task { size: word(0), batch: word(4) }
    }
}

/// Serves until it is killed: `threads` 0: one thread per session, else that many with epoll.
fn serve<S: Side + 'static, P: Poller>(threads: &str) {
    let threads: usize = threads.parse().expect("a number");
    let (listener, place) = S::listen();
    let workers: Vec<_> = (0..threads).map(|_| start_worker::<S, P>()).collect();
    println!("{place}");
    for number in 0.. {
        let sd = S::accept(&listener);
        match workers.get(number % workers.len().max(1)) {
            Some(take) => take(sd),
            None => drop(std::thread::spawn(move || serve_one::<S>(sd))),
        }
    }
}

fn serve_one<S: Side>(sd: RawFd) {
    let mut buffer = vec![0; 65536];
    if S::receive(sd, &mut buffer[..Task::LENGTH]) == Task::LENGTH {
        let task = Task::decode(&buffer);
        let size = task.size as usize;
        let mut count = 0;
        while S::receive(sd, &mut buffer[..size]) == size {
            count += 1;
            if count == task.batch {
                count = 0;
                S::send(sd, &buffer[..if task.batch == 1 { size } else { DONE }]);
            }
        }
    }
    S::close(sd);
}

/// Starts a thread that serves round trips of many sessions; takes the sessions.
fn start_worker<S: Side, P: Poller>() -> impl Fn(RawFd) {
    let poller = P::new();
    std::thread::spawn(move || work::<S>(poller));
    move |sd| poller.add(sd)
}

fn work<S: Side>(poller: impl Poller) {
    let mut buffer = vec![0; 65536];
    let mut sizes = std::collections::HashMap::<RawFd, usize>::new();
    let mut ready = Vec::with_capacity(64);
    loop {
        ready.clear();
        poller.wait(&mut ready);
        for &sd in &ready {
            let known = sizes.get(&sd).copied();
            let size = known.unwrap_or(Task::LENGTH);
            if S::receive(sd, &mut buffer[..size]) != size {
                sizes.remove(&sd);
                S::close(sd);
            } else if known.is_some() {
                S::send(sd, &buffer[..size]);
            } else {
                sizes.insert(sd, Task::decode(&buffer).size as usize);
            }
        }
    }
}

/// A server process that ends with us.
struct Server {
    child: Child,
    place: String,
}

impl Server {
    fn start(kind: &str, threads: usize) -> Server {
        let mut child = Command::new(std::env::current_exe().expect("own path"))
            .args([format!("--serve-{kind}"), threads.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut place = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut place).expect("a line");
        Server { child, place: place.trim().into() }
    }

    /// Its processor time so far.
    fn cpu_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("Linux");
        // Behind the name: state, then numbers of which the 11th and 12th are ticks.
        let mut numbers = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || numbers.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
        // SAFETY: no pointers.
        let second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
        Duration::from_millis((ticks() + ticks()) * 1000 / second)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ----- the clients ---------------------------------------------------------------------------------

fn open<S: Side>(place: &str, task: Task) -> RawFd {
    let sd = S::connect(place);
    S::send(sd, &task.encode());
    sd
}

/// Round trips per second.
fn round_trips<S: Side>(place: &str, size: usize, time: Duration) -> f64 {
    let sd = open::<S>(place, Task { size: size as u32, batch: 1 });
    let (data, mut buffer) = (vec![7; size], vec![0; 65536]);
    let mut turn = || {
        S::send(sd, &data);
        assert_eq!(S::receive(sd, &mut buffer[..size]), size);
    };
    (0..100).for_each(|_| turn());
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < time {
        (0..16).for_each(|_| turn());
        count += 16;
    }
    let rate = f64::from(count) / begin.elapsed().as_secs_f64();
    S::close(sd);
    rate
}

/// Megabytes per second in one direction.
fn stream<S: Side>(place: &str, size: usize, time: Duration) -> f64 {
    let batch = ((4 << 20) / size).min(16384);
    let sd = open::<S>(place, Task { size: size as u32, batch: batch as u32 });
    let (data, mut done) = (vec![7; size], [0; DONE]);
    let mut turn = || {
        (0..batch).for_each(|_| S::send(sd, &data));
        assert_eq!(S::receive(sd, &mut done), DONE);
    };
    turn();
    let (begin, mut bytes) = (Instant::now(), 0);
    while begin.elapsed() < time {
        turn();
        bytes += batch * size;
    }
    let rate = bytes as f64 / 1e6 / begin.elapsed().as_secs_f64();
    S::close(sd);
    rate
}

/// A process with many sessions: PLACE SESSIONS THREADS SECONDS. Each thread has its share of the sessions:
/// a message to each of them, then an answer from each. Prints round trips per second and the
/// process's own CPU time per round trip in microseconds.
fn crowd<S: Side>(arguments: &[String]) {
    let [place, sessions, threads, seconds] = arguments else { panic!("four arguments") };
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let (sessions, threads) = (number(sessions), number(threads));
    let time = Duration::from_secs_f64(seconds.parse().expect("seconds"));
    const SIZE: usize = 64;
    let task = Task { size: SIZE as u32, batch: 1 };
    let sds: Vec<RawFd> = (0..sessions).map(|_| open::<S>(place, task)).collect();
    let run = |time: Duration| -> usize {
        let one = |sds: &[RawFd]| {
            let (data, mut buffer) = ([7; SIZE], [0; SIZE]);
            let (begin, mut count) = (Instant::now(), 0);
            while begin.elapsed() < time {
                // Not more at a time than fits into everybody's hands.
                for sds in sds.chunks(64) {
                    sds.iter().for_each(|&sd| S::send(sd, &data));
                    sds.iter().for_each(|&sd| assert_eq!(S::receive(sd, &mut buffer), SIZE));
                    count += sds.len();
                }
            }
            count
        };
        std::thread::scope(|scope| {
            let share = sessions.div_ceil(threads);
            let all: Vec<_> = sds.chunks(share).map(|sds| scope.spawn(move || one(sds))).collect();
            all.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        })
    };
    run(time.mul_f64(WARMING));
    println!("warm");
    std::io::stdout().flush().expect("stdout");
    let (begin, cpu) = (Instant::now(), cpu_time());
    let count = run(time) as f64;
    let (elapsed, cpu) = (begin.elapsed(), cpu_time() - cpu);
    println!("{} {}", count / elapsed.as_secs_f64(), cpu.as_secs_f64() * 1e6 / count);
    std::io::stdout().flush().expect("stdout");
    std::process::exit(0);
}

fn cpu_time() -> Duration {
    // SAFETY: all zeros is a value of rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our structure.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Runs [`crowd`] in a process of its own.
fn crowd_of(kind: &str, server: &Server, sessions: usize, threads: usize, seconds: f64) -> (f64, f64) {
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args([format!("--crowd-{kind}"), server.place.clone()])
        .args([sessions.to_string(), threads.to_string(), seconds.to_string()])
        .output()
        .expect("the client runs");
    numbers(&output)
}

fn numbers(output: &std::process::Output) -> (f64, f64) {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let mut words = line.split(' ').map_while(|word| word.parse().ok());
    match (words.next(), words.next()) {
        (Some(rate), Some(cpu)) => (rate, cpu),
        _ => panic!("the client said {text:?}, {:?}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Calls on futexes of a [`crowd`] once it is warm, per thousand round trips; `None` without strace.
fn futexes(kind: &str, server: &Server, sessions: usize, threads: usize) -> Option<f64> {
    let log = std::env::temp_dir().join(format!("rserpool-bench-{}", std::process::id()));
    let output = Command::new("strace")
        .args(["-f", "-e", "trace=futex,write", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().expect("own path"))
        .args([format!("--crowd-{kind}"), server.place.clone()])
        .args([sessions.to_string(), threads.to_string(), "1".into()])
        .output()
        .ok()?;
    let trace = std::fs::read_to_string(&log).unwrap_or_default();
    let _ = std::fs::remove_file(&log);
    if !output.status.success() {
        return None;
    }
    let (rate, _) = numbers(&output);
    let measured = trace.split("\"warm").nth(1)?;
    Some(measured.matches("futex(").count() as f64 / rate * 1000.0)
}

// ----- the comparison ------------------------------------------------------------------------------

fn compare() {
    let seconds: f64 =
        std::env::var("RSP_BENCH_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let time = Duration::from_secs_f64(seconds);
    let _registrar = pool::start_registrar(&[]);
    let (pooled, bare) = (Server::start("pooled", 0), Server::start("bare", 0));
    println!("one session through the C API, and the same programs on bare TCP sockets; {seconds} s each");
    println!(
        "median and best of {ROUNDS}           ours         bare  ratio   best: ours         bare  ratio"
    );
    for size in SIZES {
        let found = in_turns(
            || round_trips::<Pooled>(&pooled.place, size, time),
            || round_trips::<Bare>(&bare.place, size, time),
        );
        println!("{size:>6} B round trips/s {}", row(found, 0));
    }
    for size in SIZES {
        let found = in_turns(
            || stream::<Pooled>(&pooled.place, size, time),
            || stream::<Bare>(&bare.place, size, time),
        );
        println!("{size:>6} B MB/s          {}", row(found, 1));
    }
    drop((pooled, bare));
    crowds(seconds);
}

const ROUNDS: usize = 8;
const SIZES: [usize; 6] = [64, 512, 1024, 4096, 16384, 65536];

/// In turns: median and best of ours and of the bare ones. Who sleeps and who is woken falls out in one of a few ways
/// for a whole turn, so the best alone says little.
fn in_turns(ours: impl Fn() -> f64, bare: impl Fn() -> f64) -> [(f64, f64); 2] {
    let (mut all, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        all.push(ours());
        reference.push(bare());
    }
    [all, reference].map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        ((rates[ROUNDS / 2 - 1] + rates[ROUNDS / 2]) / 2.0, rates[ROUNDS - 1])
    })
}

fn row([(ours, ours_best), (bare, bare_best)]: [(f64, f64); 2], digits: usize) -> String {
    format!(
        "{ours:>12.digits$} {bare:>12.digits$} {:>6.2} {ours_best:>12.digits$} {bare_best:>12.digits$} {:>6.2}",
        ours / bare,
        ours_best / bare_best
    )
}

fn crowds(seconds: f64) {
    println!();
    println!(
        "many sessions, messages of 64 bytes; the server has two threads, each of which waits for its sessions by"
    );
    println!(
        "epoll(7): ours in the program's own instance (epoll), and in a wait set of the library's (set)"
    );
    println!(
        "sessions threads  by     ours/s   bare/s  ratio  CPU us: ours  bare  ratio  futex calls per 1000: ours  bare"
    );
    let bare = Server::start("bare", 2);
    let ours = [("epoll", Server::start("pooled", 2)), ("set", Server::start("set", 2))];
    for sessions in [2, 200, 2000] {
        for threads in [1, 2] {
            let mut best = [(0.0, 0.0); 3];
            for _ in 0..2 {
                let kinds = [("pooled", &ours[0].1), ("pooled", &ours[1].1), ("bare", &bare)];
                for (found, (kind, server)) in best.iter_mut().zip(kinds) {
                    let before = server.cpu_time();
                    let (rate, cpu) = crowd_of(kind, server, sessions, threads, seconds);
                    // Of both ends, for each round trip.
                    let count = rate * seconds * (1.0 + WARMING);
                    let cpu = cpu + (server.cpu_time() - before).as_secs_f64() * 1e6 / count;
                    if rate > found.0 {
                        *found = (rate, cpu);
                    }
                }
            }
            let reference = best[2];
            let calls = |kind, server| {
                let calls = futexes(kind, server, sessions, threads);
                calls.map_or("no strace".into(), |calls| format!("{calls:.2}"))
            };
            let bare_calls = calls("bare", &bare);
            for ((by, server), found) in ours.iter().zip(best) {
                println!(
                    "{sessions:>8} {threads:>7}  {by:<5} {:>7.0} {:>8.0} {:>6.2} {:>13.2} {:>5.2} {:>6.2} {:>27} {bare_calls:>5}",
                    found.0,
                    reference.0,
                    found.0 / reference.0,
                    found.1,
                    reference.1,
                    found.1 / reference.1,
                    calls("pooled", server),
                );
            }
        }
    }
}
